"""What a person typed, checked: a mistake becomes one line with the option, what was got and what is valid."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


class BadOption(ValueError):
    """A mistake in what the user asked for. The command line prints its one line and exits with 2."""


def nearest(got: str, valid: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the name in `valid` closest to `got`, or nothing when none is close."""
    found = difflib.get_close_matches(str(got), list(valid), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def choose(option: str, got: str, choices: Mapping[str, Any]) -> Any:
    """Returns `choices[got]`.

    Raises:
      BadOption: if there is no such choice; the message lists them and names the nearest.
    """
    if not isinstance(got, str) or got not in choices:
        valid = ", ".join(choices)
        raise BadOption(f"{option} must be one of {valid}; got {got!r}{nearest(str(got), choices)}")
    return choices[got]


def integer(option: str, got: Any, *, least: int) -> int:
    """Returns `got` if it is an integer of at least `least`.

    Raises:
      BadOption: if it is anything else (a float, a bool, a string, too small).
    """
    if isinstance(got, bool) or not isinstance(got, int) or got < least:
        raise BadOption(f"{option} must be an integer of at least {least}; got {got!r}")
    return got


def number(
    option: str, got: Any, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> float:
    """Returns `got` as a float if it is finite, greater than `above`, at least `least` and at most `most`.

    Raises:
      BadOption: if it is anything else (NaN, infinite, a string, out of range).
    """
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
    bounds += [f"at most {most:g}"] * (most < math.inf)
    valid = " ".join(["a finite number", " and ".join(bounds)]).strip()
    fine = isinstance(got, int | float) and not isinstance(got, bool) and math.isfinite(got)
    if not fine or got <= above or got < least or got > most:
        raise BadOption(f"{option} must be {valid}; got {got!r}")
    return float(got)


def switch(option: str, got: Any) -> bool:
    """Returns `got` if it is true or false.

    Raises:
      BadOption: if it is anything else.
    """
    if not isinstance(got, bool):
        raise BadOption(f"{option} must be true or false; got {got!r}")
    return got


def per_layer(option: str, got: Any, layers: int, check: Callable[[str, Any], Any]) -> list[Any]:
    """Returns one checked value a layer: `got` itself for each, or the entries of a list of `layers` values.

    Raises:
      BadOption: if a list has another length, or `check(option, value)` refuses a value.
    """
    if not isinstance(got, Sequence) or isinstance(got, str):
        return [check(option, got)] * layers
    if len(got) != layers:
        raise BadOption(f"{option} must be one value or a list of {layers}, one a layer; got {len(got)}: {list(got)}")
    return [check(option, value) for value in got]
