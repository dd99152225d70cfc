"""Values that a recipe does not print: chosen by short sweeps on validation examples."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property

from experiments.edges import FURTHER, beyond, validation_error
from experiments.tables.row import Row
from experiments.training import Training

LENGTH = ("seeds=1", "epochs=10", "evaluations=1", "probe=0", "checkpoint=false", "checkpoint_every=null")
"""The argument of every trial, in place of that of the row."""
Values = tuple[str, ...]
"""The values of a trial, in the order of the options."""


@dataclasses.dataclass(frozen=True)
class Trials:
    """The trials of a search."""

    options: tuple[str, ...]
    errors: dict[Values, float]
    """The validation error in % of every trial; infinite if it diverged."""

    @cached_property
    def best(self) -> Values:
        """The values with the lowest error; of equal ones, the lowest values."""
        return min(self.errors, key=lambda values: (self.errors[values], tuple(map(float, values))))

    @property
    def chosen(self) -> tuple[str, ...]:
        """The arguments of `fa-jax` with the best values."""
        return self.arguments(self.best)

    @property
    def tried(self) -> tuple[str, ...]:
        """The options, each with all values that were tried, in order."""
        every = (dict.fromkeys(values) for values in zip(*self.errors, strict=True))
        return self.arguments([",".join(values) for values in every])

    @property
    def beyond(self) -> dict[str, Values]:
        """The options whose best value is at the edge of more than two, each with the trial beyond it."""
        trials = {}
        for i, option in enumerate(self.options):
            others = self.best[:i], self.best[i + 1 :]
            along = {float(v[i]): error for v, error in self.errors.items() if (v[:i], v[i + 1 :]) == others}
            value = beyond(along)
            if len(along) > 2 and value is not None:
                trials[option] = (*others[0], f"{value:.4g}", *others[1])
        return trials

    def arguments(self, values: Sequence[str]) -> tuple[str, ...]:
        """Returns the arguments of `fa-jax` with some values of the options."""
        return tuple(f"{option}={value}" for option, value in zip(self.options, values, strict=True))


def sweeps(row: Row) -> Iterator[Training]:
    """Yields the sweeps of a search, each when those before it are done.

    The first one is over the grid. Each of the others has one trial, beyond an edge that has the best value.
    """
    done = [_sweep(row, row.search, "search")]
    yield done[0]
    fixed = [argument for argument in row.search if "," not in argument]
    for _ in range(FURTHER):
        so_far = trials(row, done)
        if not so_far.beyond:
            return
        option, values = next(iter(so_far.beyond.items()))
        name = f"{option.rpartition('.')[2]}_{values[so_far.options.index(option)]}"
        done.append(_sweep(row, (*fixed, *so_far.arguments(values)), f"search_{name}"))
        yield done[-1]


def trials(row: Row, done: Sequence[Training]) -> Trials:
    """Returns the trials of a row, given its sweeps."""
    options = tuple(option for option, _, values in (a.partition("=") for a in row.search) if "," in values)
    errors: dict[Values, float] = {}
    for sweep in done:
        given = {option: values for option, _, values in (a.partition("=") for a in sweep.arguments)}
        tried = itertools.product(*(given[option].split(",") for option in options))  # in the order of the runs
        errors |= {values: validation_error(run) for values, run in zip(tried, sweep.runs(), strict=True)}
    return Trials(options, errors)


def _sweep(row: Row, search: Sequence[str], name: str) -> Training:
    """Returns a sweep over values of a row, given as arguments, and the end of the name of its folder."""
    given = {argument.partition("=")[0] for argument in (*LENGTH, *search)}
    fixed = [argument for argument in row.arguments if argument.partition("=")[0] not in given]
    return Training(row.folder.with_name(f"{row.folder.name}_{name}"), (*fixed, *LENGTH, *search), is_sweep=True)
