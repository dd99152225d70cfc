"""Overrides: how they are parsed, their values in a sweep, and the jobs that they make."""

import itertools
import re
from collections.abc import Iterator, Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fa_jax.checks import BadOption
from fa_jax.cli.errors import first_line


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parses overrides, inside of `hydra.initialize`.

    Raises:
      BadOption: if one cannot be parsed.
    """
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    parsed = []
    for word in overrides:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException as problem:
            reason = first_line(problem)
            raise BadOption(f"{word} cannot be read as an override such as seeds=[3,5,8]: {reason}") from None
    return parsed


def product(overrides: Sequence[Override]) -> Iterator[tuple[str, ...]]:
    """Yields the overrides of each job of a sweep, in the order of Hydra's sweeper.

    The last option varies fastest; of several overrides of one option, such as an experiment's and a typed one, the
    last counts.
    """
    values = {
        override.get_key_element(): [f"{override.get_key_element()}={value}" for value in swept_values(override)]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in overrides
    }
    return itertools.product(*values.values())


def swept_values(override: Override) -> list[str]:
    """Returns the values of an override with several.

    Raises:
      BadOption: if there is none, or they cannot be enumerated.
    """
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise BadOption(f"must have values such as a,b,c or range(1,5); got {override.input_line}", key)
    values = list(override.sweep_string_iterator())
    if not values:
        raise BadOption(f"must have at least one value; got {override.input_line}", key)
    return values


def quoted(text: str) -> str:
    r"""Returns text as a quoted value of an override, in which only `\'` and, at the end, `\\` are escapes."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    ending = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{ending * chr(92)}'"
