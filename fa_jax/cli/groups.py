"""The config groups and their options, read from the YAML files."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of the YAML files: inside an installed package, beside the package in a checkout."""
GROUPS = ("task", "architecture", "rule", "feedback", "loss", "optimizer")
"""The groups whose options a run records."""
LISTED = ("rule", "task", "architecture", "feedback", "loss", "optimizer", "optimizer/schedule", "measure", "logger")
LISTED += ("experiment",)


def choices(group: str) -> dict[str, str]:
    """Returns the options of a config group, each with the first line of its comment."""
    folder = CONF / group
    paths = folder.rglob("*.yaml") if group == "experiment" else folder.glob("*.yaml")
    return {path.relative_to(folder).with_suffix("").as_posix(): _comment(path) for path in sorted(paths)}


def _comment(path: Path) -> str:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    return next((line[1:].strip() for line in lines if not line.startswith("# @package")), "")
