"""The arguments that a person typed, parsed: overrides of the config, flags, and options of the command itself."""

from collections.abc import Sequence
from typing import NamedTuple

from fa_jax.checks import BadOption, choose
from fa_jax.cli.groups import CONFIG_DIR, check_config_dir

PROCESSES = ("processes", "process", "coordinator")
"""Options with which several processes are started that train one run together."""
OPTIONS = ("resume", "force", "trust", *PROCESSES)
"""Options of the command itself, which are not part of the config."""
MULTIRUN = ("--multirun", "-m")
SHOW_CONFIG = ("--cfg", "-c")
HYDRA_FLAGS = ("--info", "-i", "--hydra-help", "--shell-completion", "-sc")
"""Flags that Hydra handles itself, and that train nothing."""
DRY_RUN = "--dry-run"
FLAGS = (*MULTIRUN, *CONFIG_DIR, *SHOW_CONFIG, DRY_RUN, *HYDRA_FLAGS)


class Arguments(NamedTuple):
    """Parsed arguments."""

    overrides: list[str]
    options: dict[str, str]
    """The `OPTIONS` that were given."""
    multirun: bool = False
    config_dir: str | None = None
    """A folder of further configs."""
    show_config: bool = False
    """Whether the config is printed and nothing is trained."""
    for_hydra: bool = False
    """Whether a flag is one of `HYDRA_FLAGS`."""
    dry_run: bool = False
    """Whether it is said what would be trained, and nothing is trained."""
    from_python: bool = False
    """Whether they were not typed but are those of a call, as of `fa_jax.train`."""

    @property
    def trusted(self) -> list[str]:
        """The packages that `trust=` names."""
        return [package for package in self.options.get("trust", "").strip("[]").split(",") if package]

    @property
    def own_words(self) -> list[str]:
        """What was typed to use configs and packages of the user's own; a resumption needs it again."""
        trusted = [f"trust={self.options['trust']}"] if "trust" in self.options else []
        return [*([] if self.config_dir is None else ["--config-dir", self.config_dir]), *trusted]

    def value_of(self, option: str) -> str | None:
        """Returns the value that was typed for an option of the config."""
        values = (override.partition("=")[2] for override in self.overrides if override.startswith(f"{option}="))
        return next(values, None)


def parse(words: Sequence[str]) -> Arguments:
    """Returns the parsed arguments.

    Raises:
      BadOption: if a flag is unknown, or its value is wrong.
    """
    overrides, options, multirun, show_config, for_hydra, config_dir = [], {}, False, False, False, None
    dry_run = False
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            if name in OPTIONS and equals:
                options[name] = value
            elif equals or word.startswith("~") or not for_hydra:
                overrides.append(word)
            continue
        choose("a flag", name, dict.fromkeys(FLAGS))
        if name in CONFIG_DIR:
            config_dir = value if equals else next(remaining, "")
        elif name in SHOW_CONFIG:
            show_config = True
            kind = value if equals else next(remaining, "")
            if kind != "job":
                raise BadOption(f"must be job; got {kind!r}", name)
        elif name in MULTIRUN:
            multirun = True
        elif name == DRY_RUN:
            dry_run = True
        else:
            for_hydra = True
    check_config_dir(config_dir)
    if options.get("force", "true") != "true":
        raise BadOption(f"must be true, or left out; got {options['force']!r}", "force")
    return Arguments(overrides, options, multirun, config_dir, show_config, for_hydra, dry_run)
