"""Keyword arguments that a function of the API does not have, as a `BadOption` that names the nearest."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from fa_jax.checks import BadOption, nearest

P = ParamSpec("P")
R = TypeVar("R")


def check_keywords(name: str, got: Iterable[str], valid: Iterable[str], advice: str = "") -> None:
    """Checks the names of keyword arguments.

    Args:
      name: of the function.
      got: the names that were given.
      valid: all that it has.
      advice: what else to do.

    Raises:
      BadOption: naming the first that it does not have.
    """
    valid = list(valid)
    for keyword in got:
        if keyword not in valid:
            hint = nearest(keyword, valid) or f"; it has {', '.join(valid)}"
            raise BadOption(f"{name} has no argument {keyword!r}{hint}{advice and f'; {advice}'}")


def named_arguments(advice: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator of functions that refuse other keyword arguments than theirs by `check_keywords`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        keywords = [
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind != parameter.VAR_POSITIONAL
        ]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            check_keywords(function.__name__, kwargs, keywords, advice)
            return function(*args, **kwargs)

        return checked

    return decorate
