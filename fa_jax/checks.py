"""Checks of arguments: a wrong value raises a `BadOption` of one line with its name, the value and the valid ones."""

import difflib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDERS = (
    "folder",
    "output",
    "out",
    "dir",
    "directory",
    "outdir",
    "out_dir",
    "output_dir",
    "save_dir",
)
"""What the folder that results go to is called, here and elsewhere."""


class BadOption(ValueError):
    """A mistake in an argument.

    Attributes:
      problem: the message without the option, such as `must be above 0; got -1`.
      option: the argument, such as `scale`, or an environment variable, such as `$HOME`; None if the problem concerns
        several.
      complete: whether the option is named as it is typed, group included.
    """

    def __init__(self, problem: str, option: str | None = None, *, complete: bool = False):
        super().__init__(f"{option} {problem}" if option else problem)
        self.problem, self.option, self.complete = problem, option, complete or (option or "").startswith("$")

    def within(self, group: str, choice: str | None = None) -> "BadOption":
        """Returns the same mistake as seen from outside: `scale` within `feedback` is `feedback.scale`.

        Args:
          group: that the argument belongs to, such as `rule`.
          choice: the option of that group, such as `ifa`; names the culprit where no single argument is to blame.
        """
        if self.complete:
            return self
        name = f"{group}.{self.option}" if self.option else f"{group}={choice}" if choice else f"{group}:"
        return BadOption(self.problem, name, complete=True)


def nearest(got: str, valid: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the name in `valid` closest to `got`, or an empty string if none is close.

    Names of the folder that results go to are close to each other.
    """
    names = list(valid)
    close = [name for name in FOLDERS if got in FOLDERS and name in names]
    close = close or difflib.get_close_matches(str(got), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def choose(option: str, got: Any, choices: Mapping[str, Any]) -> Any:
    """Returns `choices[got]`.

    Raises:
      BadOption: if there is no such choice; the message lists the choices and names the nearest.
    """
    if not isinstance(got, str) or got not in choices:
        valid = ", ".join(choices)
        raise BadOption(f"must be one of {valid}; got {got!r}{nearest(str(got), choices)}", option)
    return choices[got]


def integer(option: str, got: Any, *, least: int) -> int:
    """Returns `got` if it is an integer of at least `least`.

    Raises:
      BadOption: if it is anything else (a float, a bool, a string, too small).
    """
    if isinstance(got, bool) or not isinstance(got, int) or got < least:
        raise BadOption(f"must be an integer of at least {least}; got {got!r}", option)
    return got


def number(
    option: str,
    got: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """Returns `got` as a float if it is finite and within the bounds, of which `above` and `below` are exclusive.

    A number that JAX traces is returned as it is: its values were checked before.

    Raises:
      BadOption: if it is anything else (NaN, infinite, a string, out of range).
    """
    if _is_traced(got):
        return got
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
    bounds += [f"at most {most:g}"] * (most < math.inf) + [f"below {below:g}"] * (below < math.inf)
    valid = " ".join(["a finite number", " and ".join(bounds)]).strip()
    finite = isinstance(got, int | float) and not isinstance(got, bool) and math.isfinite(got)
    if not finite or got <= above or got < least or got > most or got >= below:
        raise BadOption(f"must be {valid}; got {got!r}", option)
    return float(got)


def unused(option: str, got: Any, reason: str) -> None:
    """Checks that an option that has no effect is not set.

    Args:
      option: its name.
      got: its value.
      reason: when it has no effect, such as `with contrast=threshold`.

    Raises:
      BadOption: unless `got` is None.
    """
    if got is not None:
        raise BadOption(f"must be null {reason}; got {got!r}", option)


def is_on(value: float) -> bool:
    """Returns whether a number is not 0, where 0 stands for nothing; a traced number is never 0."""
    return _is_traced(value) or value != 0


def _is_traced(value: Any) -> bool:
    core = sys.modules.get("jax.core")  # without JAX, which is slow to import, nothing is traced
    return core is not None and isinstance(value, core.Tracer)


def is_folder(path: Path | str) -> bool:
    """Returns whether there is a folder of this name, of whatever length."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def switch(option: str, got: Any) -> bool:
    """Returns `got` if it is true or false.

    Raises:
      BadOption: if it is anything else.
    """
    if not isinstance(got, bool):
        raise BadOption(f"must be true or false; got {got!r}", option)
    return got


def sequence(option: str, got: Any, example: str) -> list[Any]:
    """Returns `got` as a list if it is a list or a tuple.

    Raises:
      BadOption: if it is anything else; the message shows the example.
    """
    if not isinstance(got, list | tuple):
        raise BadOption(f"must be a list such as {example}; got {got!r}", option)
    return list(got)


def per_layer(option: str, got: Any, layers: int, check: Callable[[str, Any], Any]) -> list[Any]:
    """Returns one checked value for each layer: `got` itself for all, or the entries of a list of that length.

    Raises:
      BadOption: if a list has another length, or `check(option, value)` refuses a value.
    """
    if not isinstance(got, Sequence) or isinstance(got, str):
        return [check(option, got)] * layers
    if len(got) != layers:
        raise BadOption(f"must be one value or a list of {layers}, one per layer; got {len(got)}: {list(got)}", option)
    return [check(option, value) for value in got]
