"""The config groups and their options, read from the YAML files."""

from collections.abc import Sequence
from pathlib import Path

from fa_jax.checks import BadOption, is_folder
from fa_jax.cli.plugins import plugins
from fa_jax.user.text import printable

_PACKAGE = Path(__file__).parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of the YAML files: inside an installed package, beside the package in a checkout."""
GROUPS = ("task", "architecture", "rule", "feedback", "loss", "optimizer")
"""The groups whose options a run records."""
LISTED = ("rule", "task", "architecture", "feedback", "loss", "optimizer", "optimizer/schedule", "measure", "logger")
LISTED += ("experiment",)
CONFIG_DIR = ("--config-dir", "-cd")
"""The flag of every verb that names a folder of further configs."""


def config_folders(config_dir: str | None = None) -> list[Path]:
    """Returns the folders in which configs are looked for after fa_jax's own: of plug-ins, and one that was named.

    Raises:
      BadOption: if a plug-in's configs cannot be read.
    """
    named = [] if config_dir is None else [Path(config_dir).absolute()]
    return [*(plugin.folder for plugin in plugins(CONF)), *named]


def choices(group: str, config_dir: str | None = None) -> dict[str, str]:
    """Returns the options of a config group, each with the first line of its comment.

    Args:
      group: its name.
      config_dir: a folder of further configs, which are listed after those of fa_jax and of plug-ins.
    """
    comments = {}
    for folder in (CONF, *config_folders(config_dir)):
        names = choices_in(folder, group)
        comments |= {name: _comment(path) for name, path in names.items() if name not in comments}
    return comments


def choices_in(folder: Path, group: str) -> dict[str, Path]:
    """Returns the options that a folder of configs has of a group, each with its file."""
    of_group = folder / group
    paths = of_group.rglob("*.yaml") if group == "experiment" else of_group.glob("*.yaml")
    return {path.relative_to(of_group).with_suffix("").as_posix(): path for path in sorted(paths)}


def _comment(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = (line for line in text.splitlines() if line.startswith("#"))
    return printable(next((line[1:].strip() for line in lines if not line.startswith("# @package")), ""))


def take_config_dir(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the folder of configs that arguments name, and the other arguments."""
    config_dir, others, remaining = None, [], iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if name in CONFIG_DIR:
            config_dir = value if equals else next(remaining, "")
        else:
            others.append(word)
    return config_dir, others


def check_config_dir(config_dir: str | None) -> None:
    """Raises `BadOption` if a folder of configs is named that is none."""
    if config_dir is not None and not is_folder(config_dir):
        raise BadOption(f"must be a folder of configs; got {config_dir!r}", "--config-dir")
