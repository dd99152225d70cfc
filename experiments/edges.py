"""Searches of a value that go on where the best one is at the edge of those that were tried."""

import math
from collections.abc import Mapping

from experiments.common import summary_of
from fa_jax.records.reader import Run

FACTOR, FURTHER = 10**0.5, 4
"""The factor from a value at the edge to the next one beyond, and the most values that a search tries beyond its grid:
they reach to a hundred times its largest value, or to a hundredth of its smallest."""


def beyond(errors: Mapping[float, float]) -> float | None:
    """Returns the value to try next: beyond the edge that has the lowest error; None if a value inside has it.

    Args:
      errors: of the values that were tried; infinite for one that diverged. Where all diverge, smaller ones may not. Of
        equal errors, that of the smallest value counts.
    """
    lowest, highest = min(errors), max(errors)
    best = min(sorted(errors), key=errors.__getitem__)
    if lowest < best < highest:
        return None
    return highest * FACTOR if best == highest and math.isfinite(errors[best]) else lowest / FACTOR


def validation_error(run: Run) -> float:
    """Returns the mean validation error in % at the end of a trial; infinite if a seed diverged."""
    return math.inf if run.diverged else summary_of(run)["final"]["validation_error"]["mean"]
