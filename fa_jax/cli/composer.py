"""Hydra composes a config once for all runs of a command that differ in the values of options alone."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence

import hydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fa_jax.checks import BadOption
from fa_jax.cli.errors import first_line, unknown_option
from fa_jax.cli.given import OBJECT, OBJECTS
from fa_jax.cli.groups import LISTED, config_folders
from fa_jax.cli.overrides import parse_overrides, quoted

KEPT = 8
"""How many configs are kept to copy."""


class Composer:
    """Composes configs within `hydra_context.initialized`, from files that it takes to stay as they are.

    A config whose overrides have other values of options than those of an earlier one is a copy of that with these
    values, as Hydra sets them after all files are merged. That takes a tenth of the time. Choices of groups, options of
    Hydra, and values that refer to others are composed.
    """

    def __init__(self, config_dir: str | None):
        """Composes from a folder of configs besides fa_jax's own; None: there is none."""
        self.config_dir = config_dir
        self.originals: list[_Original] = []

    def compose(self, overrides: list[str], others: Sequence[Sequence[str]] = ()) -> DictConfig:
        """Returns a config with Hydra's node, which the caller may change.

        Args:
          overrides: of one run.
          others: overrides of other runs, which may have an option that this one does not.

        Raises:
          BadOption: if there is no such option or choice.
        """
        copies = (original.with_values_of(overrides) for original in self.originals)
        if (copy := next((copy for copy in copies if copy is not None), None)) is not None:
            return copy
        original = _Original(overrides, self._compose(overrides, others))
        self.originals = [original, *self.originals[: KEPT - 1]]
        return original.config.copy()

    def _compose(self, overrides: list[str], others: Sequence[Sequence[str]]) -> DictConfig:
        folders = config_folders(self.config_dir)
        folders += [OBJECTS] if any(override.endswith(f"={OBJECT}") for override in overrides) else []
        if folders:
            overrides = _with_search_path(overrides, [f"file://{folder}" for folder in folders])
        try:
            return hydra.compose("config", overrides, return_hydra_config=True)
        except ConfigCompositionException as problem:
            raise unknown_option(problem, overrides, others) or problem from None
        except ValueError as problem:  # Hydra's answer to rule=null, for one
            raise BadOption(f"{' '.join(overrides)}: {first_line(problem)}") from None
        except RecursionError:
            raise BadOption(
                f"{' '.join(overrides)}: a config has lists or mappings too deep within each other"
            ) from None


@dataclasses.dataclass(frozen=True)
class _Original:
    """A composed config, of which others are copies."""

    overrides: list[str]
    config: DictConfig

    def with_values_of(self, overrides: list[str]) -> DictConfig | None:
        """Returns a copy with the values of other overrides; None: they differ in more than values of options."""
        if overrides == self.overrides:
            return self.config.copy()
        if len(overrides) != len(self.overrides) or not self.has_fixed_names:
            return None
        differing = [pair for pair in zip(self.overrides, overrides, strict=True) if pair[0] != pair[1]]
        if not all(_key(old) == _key(new) and self.is_option(_key(new), overrides) for old, new in differing):
            return None
        new_values = [parse_overrides(pair) for pair in differing]
        if not all(map(_is_plain, itertools.chain(*new_values))):
            return None
        copy = self.config.copy()
        try:
            for _, override in new_values:
                OmegaConf.update(copy, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return None  # Hydra says what is wrong
        return copy

    @functools.cached_property
    def has_fixed_names(self) -> bool:
        """Whether no folder depends on how overrides are written, as on `hydra.job.override_dirname`.

        Of Hydra's node, runs need their folders alone.
        """
        folders = (OmegaConf.to_container(self.config.hydra[kind], resolve=False) for kind in ("run", "sweep"))
        return not any("overrid" in str(of_kind) for of_kind in folders)

    def is_option(self, key: str, overrides: Sequence[str]) -> bool:
        """Returns whether a key is an option, and no other override has it, a part of it, or what it is a part of."""
        is_group = key in (*LISTED, *self.config.hydra.runtime.choices) or re.search("[+~/@]|^hydra", key)
        names = [f"{_key(override).lstrip('+~')}." for override in overrides]
        related = [name for name in names if name.startswith(f"{key}.") or f"{key}.".startswith(name)]
        return not is_group and len(related) == 1


def _key(override: str) -> str:
    return override.partition("=")[0]


def _is_plain(override: Override) -> bool:
    """Returns whether an override has one value, which is no mapping and refers to nothing."""
    if override.is_sweep_override() or "$" in str(override.input_line):
        return False
    return override.type == OverrideType.CHANGE and not isinstance(override.value(), dict)


def _with_search_path(overrides: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Returns overrides in which `hydra.searchpath` has further paths, before those that it has."""
    named = [override for override in overrides if override.startswith("hydra.searchpath=")]
    typed = [override.value() for override in parse_overrides(named)]
    if not all(isinstance(value, list) for value in typed):
        return list(overrides)  # Hydra says what is wrong
    searched = [*paths, *(path for value in typed if isinstance(value, list) for path in value)]
    others = [override for override in overrides if override not in named]
    return [*others, f"hydra.searchpath=[{','.join(quoted(str(path)) for path in searched)}]"]
