"""Values that a recipe does not print: chosen by a short sweep on validation examples."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.common import summary_of
from experiments.tables.row import Row
from experiments.training import Training
from fa_jax.records.reader import Run

LENGTH = ("seeds=1", "epochs=10", "evaluations=1", "probe=0", "checkpoint=false", "checkpoint_every=null")
"""The argument of every trial, in place of that of the row."""


class Choice(NamedTuple):
    """What a search chose."""

    arguments: tuple[str, ...]
    at_edge: tuple[str, ...]
    """The options whose value is the smallest or the largest that was tried."""


def sweep_of(row: Row) -> Training:
    """Returns the sweep that searches a row's values."""
    given = {argument.partition("=")[0] for argument in (*LENGTH, *row.search)}
    fixed = [argument for argument in row.arguments if argument.partition("=")[0] not in given]
    folder = row.folder.with_name(f"{row.folder.name}_search")
    return Training(folder, (*fixed, *LENGTH, *row.search), is_sweep=True)


def choice(row: Row, runs: Sequence[Run]) -> Choice:
    """Returns the values with the lowest validation error, given the runs of the sweep in order."""
    searched = {name: values.split(",") for name, _, values in (a.partition("=") for a in row.search) if "," in values}
    trials = itertools.product(*searched.values())  # in the order of the sweep
    _, values = min((validation_error(run), trial) for run, trial in zip(runs, trials, strict=True))
    best = dict(zip(searched, values, strict=True))
    edges = [option for option, value in best.items() if is_extreme(value, searched[option])]
    return Choice(tuple(f"{option}={value}" for option, value in best.items()), tuple(edges))


def validation_error(run: Run) -> float:
    """Returns the mean validation error at the end of a run; infinite if a seed diverged."""
    return math.inf if run.diverged else summary_of(run)["final"]["validation_error"]["mean"]


def is_extreme(value: str, values: list[str]) -> bool:
    """Returns whether a value is the smallest or the largest of more than two."""
    return len(values) > 2 and float(value) in (min(map(float, values)), max(map(float, values)))
