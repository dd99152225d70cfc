"""From parsed arguments to the configs of their runs, by Hydra. Composing imports no JAX; building a job does."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import hydra
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import Arguments
from fa_jax.cli.composer import Composer
from fa_jax.cli.errors import is_choice
from fa_jax.cli.given import Given, draws_feedback, recorded_config
from fa_jax.cli.groups import CONF, GROUPS, LISTED, choices, choices_in
from fa_jax.cli.hydra_context import initialized
from fa_jax.cli.overrides import parse_overrides, product
from fa_jax.cli.rule_options import RunOverrides, without_unused
from fa_jax.cli.trust import Origin, check_config_dir, check_hydra
from fa_jax.cli.tuned import tuned_overrides

if TYPE_CHECKING:
    from fa_jax.training.job import Job

ABSENT = object()
"""Stands for the value of an option that a config does not have."""


@dataclasses.dataclass(frozen=True)
class Composed:
    """The config of one run."""

    config: dict[str, Any]
    """Resolved, as plain containers, with the `choices` of config groups; as a run records it."""
    overrides: list[str]
    folder: Path
    """The folder that the run goes to by default; of a job of a sweep, relative to the sweep's folder."""
    origin: Origin | None
    """Where the config comes from, if the user did not type it."""
    given: Mapping[str, Given]
    """Python objects, by the config group whose choice they replace."""
    left_out: tuple[str, ...] = ()
    """Options that are for other rules of the command, since this one does not have them."""

    @functools.cached_property
    def job(self) -> "Job":
        """The job of the config, built when it is first used.

        Raises:
          BadOption: if a value in the config is wrong.
        """
        from fa_jax.cli.build import build  # imports JAX, which takes a second

        return build(self.config, self.origin, self.given)

    @property
    def choices(self) -> dict[str, str]:
        """The choice of each config group."""
        return self.config["choices"]


class Composition(NamedTuple):
    """The configs of all runs of a command."""

    is_sweep: bool
    runs: list[Composed]
    folder: Path
    """The default folder of the run or the sweep."""
    master: DictConfig
    """The composed config with Hydra's node, for the launcher of a sweep."""

    def build(self) -> None:
        """Builds the jobs of all runs, so that a mistake in any of them is found before one is trained.

        Raises:
          BadOption: if a value in a config is wrong.
        """
        for composed in self.runs:
            _ = composed.job


def compose(
    arguments: Arguments,
    *,
    origin: str | None = None,
    given: Mapping[str, Given] | None = None,
    further_rules: bool = False,
    composer: Composer | None = None,
) -> Composition:
    """Composes the configs that arguments ask for.

    Of several rules, each is trained without those options of rules and of their feedback that it does not have.

    Args:
      arguments: as they were typed.
      origin: where they come from, if not from the command line; then they are not trusted.
      given: Python objects, by the config group whose choice they replace.
      further_rules: whether the same options are for other rules too, whose configs are composed apart.
      composer: that of earlier calls with the same folder of configs; None: a new one.

    Raises:
      BadOption: if there is no such option or choice, or no rule has an option.
    """
    from_folder = _origin(arguments) if origin is None else Origin(origin, tuple(arguments.trusted))
    if arguments.config_dir is not None:
        check_config_dir(_named_config_dir(arguments), arguments.config_dir)
    composer, runs = composer or Composer(arguments.config_dir), []
    with initialized():
        is_sweep, jobs, master = _jobs(arguments, given or {}, composer, further_rules=further_rules)
        if from_folder is not None:
            of_hydra = re.compile(r"\W*hydra\b(?!\.searchpath)")
            typed = [override for override in arguments.overrides if of_hydra.match(override)]
            typed += _own_experiment(arguments)
            pristine = hydra.compose("config", typed, return_hydra_config=True).hydra
            check_hydra(from_folder.name, master.hydra, pristine)
        for number, (overrides, left_out) in enumerate(jobs):
            config = composer.compose(overrides) if is_sweep else master.copy()
            if config.get("tuned") is True:
                config = composer.compose([*tuned_overrides(config.hydra.runtime.choices), *overrides])
            if from_folder is not None:
                check_hydra(from_folder.name, config.hydra, pristine)
            choices = {group: config.hydra.runtime.choices.get(group) for group in (*GROUPS, "experiment")}
            with open_dict(config):
                config.hydra.job.num = number
                folder = Path(config.hydra.sweep.subdir if is_sweep else config.hydra.run.dir)
                del config["hydra"]
            if is_sweep and (folder.is_absolute() or ".." in folder.parts):
                raise BadOption(f"must be a folder inside that of the sweep; got {folder}", "hydra.sweep.subdir")
            plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
            if "choices" in plain:
                raise BadOption("is no option; choices are those of config groups, such as rule=fa", "choices")
            recorded = recorded_config({"choices": choices, **plain}, given or {})
            runs.append(Composed(recorded, overrides, folder, from_folder, given or {}, left_out))
    return Composition(is_sweep, runs, Path(master.hydra.sweep.dir) if is_sweep else runs[0].folder, master)


def _origin(arguments: Arguments) -> Origin | None:
    """Returns the folder of configs that typed arguments name, besides fa_jax's own; None: there is none."""
    searched = arguments.value_of("hydra.searchpath")
    if arguments.config_dir is None and searched is None:
        return None
    name = f"hydra.searchpath={searched}" if arguments.config_dir is None else _named_config_dir(arguments)
    trusted, typed = tuple(arguments.trusted), tuple(arguments.overrides)
    return Origin(f"the config from {name}", trusted, typed, arguments.from_python)


def _named_config_dir(arguments: Arguments) -> str:
    """Returns the argument that names the folder of configs, as it was given."""
    return f"config_dir={arguments.config_dir!r}" if arguments.from_python else f"--config-dir={arguments.config_dir}"


def _own_experiment(arguments: Arguments) -> list[str]:
    """Returns the typed choice of an experiment of fa_jax itself, which may say that it is a sweep, and over what."""
    name = arguments.value_of("experiment")
    return [f"experiment={name}"] if name in choices_in(CONF, "experiment") else []


def _jobs(
    arguments: Arguments, given: Mapping[str, Given], composer: Composer, *, further_rules: bool
) -> tuple[bool, list[RunOverrides], DictConfig]:
    """Returns whether this is a sweep, the overrides of each job, and the config of the whole."""
    parsed = parse_overrides(arguments.overrides)
    _check_groups(parsed)

    def has_option(overrides: Sequence[str], name: str) -> bool:
        is_feedback = name.startswith("feedback")
        if "rule" in given:
            return is_feedback and draws_feedback(given["rule"].make)
        config = composer.compose([override for override in overrides if is_choice(override)])
        if is_feedback:
            return config.hydra.runtime.choices["feedback"] is not None
        return OmegaConf.select(config, name, default=ABSENT) is not ABSENT

    def usable(overrides: Sequence[Override]) -> list[RunOverrides]:
        jobs = [list(job) for job in product(overrides)]
        if not further_rules and not any(
            override.key_or_group == "rule" and override.is_sweep_override() for override in overrides
        ):
            return [RunOverrides(job) for job in jobs]
        return without_unused(jobs, has_option, further=further_rules)

    runs = usable(parsed)
    master = composer.compose(runs[0].kept, [run.kept for run in runs[1:]])
    is_sweep = arguments.multirun or master.hydra.mode == RunMode.MULTIRUN
    swept = [override for override in parsed if override.is_sweep_override()]
    if swept and not is_sweep:
        key = swept[0].get_key_element()
        raise BadOption(f"{key} has several values; --multirun trains with each of them, and [a,b] is a list")
    launcher = master.hydra.runtime.choices["hydra/launcher"]
    if not is_sweep and launcher != "basic":
        raise BadOption("starts the runs of a sweep, so it needs --multirun", f"hydra/launcher={launcher}")
    if not is_sweep:
        return False, [RunOverrides(arguments.overrides)], master
    from_config = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    return True, usable([*parse_overrides(from_config), *parsed]), master


def _check_groups(overrides: Sequence[Override]) -> None:
    """Checks overrides of config groups.

    Raises:
      BadOption: if one removes a group that every run needs, or does not name a choice, such as `rule=null`.
    """
    for override in overrides:
        group = override.key_or_group
        if group not in LISTED or override.is_sweep_override():
            continue
        if override.is_delete():
            if group in GROUPS:
                raise BadOption("may be changed, but not removed", group)
        elif not isinstance(override.value(), str | list):
            valid, got = ", ".join(choices(group)), override.get_value_element_as_str()
            raise BadOption(f"must be one of {valid}; got {got}", group)
