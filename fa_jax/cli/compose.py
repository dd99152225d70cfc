"""From the words of the command line to the configs of its runs, each checked before anything is made of it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from fa_jax.checks import BadOption, choose
from fa_jax.cli import help as catalogue
from fa_jax.cli.build import build
from fa_jax.cli.errors import GROUPS, check_tuned, first_line, plain
from fa_jax.cli.trust import check_trusted
from fa_jax.training import distributed as processes


class Words(NamedTuple):
    """What was typed, told apart."""

    overrides: list[str]
    flags: list[str]
    """Those of Hydra, with a dash in front, and what belongs to them."""
    config_dir: str | None
    """Where further configs are, as `--config-dir` says."""
    own: dict[str, str]
    """Options of the command itself, which are none of the config, see `OWN`."""

    @property
    def trusted(self) -> list[str]:
        """The packages that `trust=` adds."""
        return [package for package in self.own.get("trust", "").strip("[]").split(",") if package]

    @property
    def multirun(self) -> bool:
        """Whether a sweep was asked for in so many words."""
        return any(flag in ("--multirun", "-m") for flag in self.flags)


class Composed(NamedTuple):
    """The config of one run."""

    config: dict[str, Any]
    """Resolved, as plain containers, without the `hydra` node."""
    choices: dict[str, str]
    """Config group -> the option chosen."""
    place: Path
    """The folder that the run, or its sweep, goes to."""

    @property
    def recorded(self) -> dict[str, Any]:
        """The config as a run's folder keeps it."""
        return recorded(self.config, self.choices)


def recorded(config: dict[str, Any], choices: Any) -> dict[str, Any]:
    """A config with the choices that are kept of it."""
    return {"choices": {group: choices[group] for group in (*GROUPS, "experiment")}, **config}


OWN = ("resume", "force", "trust", *processes.OPTIONS)
FLAGS = ("--multirun", "-m", "--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--hydra-help")
FLAGS += ("--shell-completion", "-sc")
"""Hydra's flags that are passed on; others would have it take its config from elsewhere, unchecked."""
OF_A_RUN = ("runtime", "overrides", "mode", "job.name", "job.override_dirname", "job.id", "job.num", "job.config_name")
"""What differs in Hydra's own node from run to run."""


def tell_apart(words: Sequence[str]) -> Words:
    """Returns the words told apart."""
    overrides, flags, own, config_dir = [], [], {}, None
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in OWN:
            own[name] = value
        elif name in ("--config-dir", "-cd"):
            config_dir = value if equals else next(rest, "")
            flags += ["--config-dir", config_dir]
        elif word.startswith("-"):
            choose("a flag", word.partition("=")[0], dict.fromkeys((*FLAGS, "--config-dir", "-cd")))
            flags.append(word)
        elif flags and not equals and not word.startswith("~"):
            flags.append(word)  # such as job after --cfg
        else:
            # To Hydra, the name of an option and no switch.
            overrides.append(re.sub(r"^tuned=(true|false)$", r"tuned='\1'", word))
    if config_dir is not None and not Path(config_dir).is_dir():
        raise BadOption(f"--config-dir must be a folder of configs; got {config_dir!r}")
    if own.get("force", "true") != "true":
        raise BadOption(f"force must be true, or left out; got {own['force']!r}")
    return Words(overrides, flags, config_dir, own)


def compose(words: Words, *, elsewhere: str | None = None) -> tuple[bool, list[Composed]]:
    """Returns whether words ask for a sweep, and the config of each run, all of them checked and built once.

    Args:
      words: as they were typed.
      elsewhere: where they come from if they were not typed by whoever runs them, who then need not trust them.

    Raises:
      BadOption: if anything in them is wrong.
    """
    further = [] if words.config_dir is None else [f"hydra.searchpath=['file://{Path(words.config_dir).absolute()}']"]
    found = []
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        sweeping, jobs = _jobs(words.overrides, words.multirun, further)
        for job in jobs:
            config = _compose([*job, *further])
            choices = dict(config.hydra.runtime.choices)
            place = Path(config.hydra.sweep.dir if sweeping else config.hydra.run.dir)
            _check_launcher(config.hydra.launcher)
            if words.config_dir is not None:
                _check_hydra(words, further, config.hydra)
            with open_dict(config):
                del config["hydra"]
            one = Composed(plain(config), choices, place)
            if words.config_dir is not None or elsewhere is not None:
                what = elsewhere or f"the config from --config-dir={words.config_dir}"
                check_trusted(what, one.config, added=words.trusted)
            check_tuned(choices)
            build(one.config)
            found.append(one)
    return sweeping, found


def _check_launcher(launcher: DictConfig) -> None:
    jobs = launcher.get("n_jobs")
    if jobs is not None and (not isinstance(jobs, int) or jobs == 0):
        raise BadOption(f"hydra.launcher.n_jobs must be how many run at once, or -1, one for each core; got {jobs!r}")


def _check_hydra(words: Words, further: list[str], node: DictConfig) -> None:
    """Refuses configs from a folder that change anything of Hydra's own node: it could have any command run."""
    what = f"--config-dir={words.config_dir}"
    if (Path(words.config_dir or "") / "hydra").exists():
        raise BadOption(f"{what}: it has configs of Hydra's own; only the command line may choose those")
    typed = [word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".") for word in words.overrides]
    allowed = (*OF_A_RUN, *(name.removeprefix("hydra.") for name in typed if name.startswith("hydra.")))
    # Much in it is not known before a run begins, hence not resolved.
    usual, here = (_flat(OmegaConf.to_container(one, resolve=False)) for one in (_compose(further).hydra, node))
    for name in usual.keys() | here.keys():
        free = any(name == one or name.startswith(f"{one}.") for one in allowed)
        if not free and usual.get(name) != here.get(name):
            raise BadOption(f"{what}: it sets hydra.{name}, which only the command line may")


def _flat(content: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(content, dict) or not content:
        return {prefix.removesuffix("."): repr(content)}
    return {k: v for key, value in content.items() for k, v in _flat(value, f"{prefix}{key}.").items()}


def _jobs(overrides: list[str], multirun: bool, further: list[str]) -> tuple[bool, list[list[str]]]:
    """Returns whether this is a sweep, and the overrides of each of its jobs."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    for word in overrides:
        try:
            parser.parse_override(word)
        except HydraException as problem:
            reason = first_line(problem)
            raise BadOption(f"{word} cannot be read as an override such as seeds=[3,5,8]: {reason}") from None
    fixed = [word for word in overrides if not parser.parse_override(word).is_sweep_override()]
    if not multirun and len(fixed) == len(overrides):
        settings = _compose([*fixed, *further]).hydra
        if settings.mode != RunMode.MULTIRUN:
            return False, [fixed]
    elif not multirun:
        return False, [overrides]
    settings = _compose([*fixed, *further]).hydra
    swept = [f"{key}={value}" for key, value in (settings.sweeper.params or {}).items()]
    batches = BasicSweeper.split_arguments(parser.parse_overrides([*swept, *overrides]), None)
    return True, [list(job) for batch in batches for job in batch]


def _compose(overrides: list[str]) -> DictConfig:
    try:
        return hydra.compose("config", overrides, return_hydra_config=True)
    except ValueError as problem:  # what Hydra says of rule=null, for one
        raise BadOption(f"{' '.join(overrides)}: {first_line(problem)}") from None
