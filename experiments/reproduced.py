"""A published result, and what was measured of it: the form that the page of all results has of every experiment."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fa_jax.records.reader import Run
from fa_jax.records.statistics import summarise

YES, REMEMBERED, OWN_BOUND, COVERED = "published value met", "remembered value met", "own bound only", "covered"
PARTLY, NO, SHORTENED, NOT_MEASURED = "partly", "no", "shortened", "not measured"
MEANING = {
    YES: "the published value and the one measured here are both within what was accepted",
    REMEMBERED: "the same, but the published value is remembered: this confirms a recollection, not a paper",
    OWN_BOUND: "the measured value is within what was accepted, but that is a bound of our own: nothing is published, "
    "or the published value lies outside it. It says nothing about agreement with the paper",
    COVERED: "no bound was set beforehand: the published value lies between the lowest and the highest end of our "
    "intervals (± 1 % of one seed) with other teachers than the published one. Wide intervals cover more",
    PARTLY: "the mean is within what was accepted, but of fewer seeds than the bound is for, or for one kind of "
    "inference only; or it is outside, and its 95 % interval reaches in",
    NO: "none of these",
    SHORTENED: "it was measured, but for fewer epochs or on a smaller network, so that it cannot be compared: its own "
    "length was cut for the hours that it takes on the machine at hand, in the column *left to run*",
    NOT_MEASURED: "it was not run, for the same reason",
}
"""What a verdict says."""
TEST_EXAMPLES = 10_000
"""The test examples of MNIST and CIFAR."""


class Result(NamedTuple):
    """A published result, and what was measured of it."""

    what: str
    published: str
    provenance: str
    """How the published value is known: read, digitised from a figure, second-hand, remembered, and so on."""
    accepted: str
    """The bound that was set before the measurement; empty: none."""
    verdict: str
    """One of `MEANING`."""
    row: str
    """The row of `experiments.queue` that trains it; empty: none."""
    measured: str = ""
    seeds: str = ""
    interval: str = ""
    """The 95 % interval of the mean; empty: one seed, or not recorded."""
    cost: str = ""
    """Hours and machine."""
    run: str = ""
    """The row in which it was measured, which several results may share; empty: `row`."""


class Measured(NamedTuple):
    """A mean over seeds."""

    value: float
    sd: float | None
    """Over seeds; None: unknown."""
    seeds: int
    resolution: float = 0.0
    """Half of the last digit that is recorded."""


class Claim(NamedTuple):
    """A recorded number, and how to measure it in a new run."""

    what: str
    recorded: Measured
    new: Callable[[Sequence[Run]], Measured | None]
    """Returns the number of these runs; None if they have not come so far."""
    spread: float | None = None
    """The least standard deviation over seeds that is assumed if it is measured with few; None: none is assumed."""


def percent_claim(what: str, metric: str, epoch: float, recorded: Measured, *, accuracy: bool = False) -> Claim:
    """Returns the claim of an error or an accuracy in % of the 10 000 test examples of one run after an epoch."""

    def new(runs: Sequence[Run]) -> Measured | None:
        errors = runs[0].at_epoch(metric, epoch)
        return None if errors is None or not len(errors) else mean_of(100 - errors if accuracy else errors)

    return Claim(what, recorded, new, (recorded.value * (100 - recorded.value) / TEST_EXAMPLES) ** 0.5)


def mean_of(values: np.ndarray) -> Measured:
    """Returns the mean of one number per seed."""
    return Measured(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None, len(values))


def from_interval(value: float, low: float, high: float, seeds: int, resolution: float = 0.0) -> Measured:
    """Returns a mean of which the 95 % interval by Student's t is known."""
    return Measured(value, (high - low) / 2 * seeds**0.5 / float(stats.t.ppf(0.975, seeds - 1)), seeds, resolution)


def judge(
    value: float, accepted: tuple[float, float], interval: tuple[float, float] | None, seeds: int, least: int = 1
) -> str:
    """Returns the verdict of a measured mean by what was accepted alone; see `yes`.

    Args:
      value: the mean.
      accepted: the bound.
      interval: of the mean; None: unknown.
      seeds: of the mean.
      least: the number of seeds that the bound is for.
    """
    low, high = accepted
    if low <= value <= high:
        return YES if seeds >= least else PARTLY
    return PARTLY if interval is not None and interval[0] <= high and low <= interval[1] else NO


def yes(provenance: str, *, published_within: bool) -> str:
    """Returns the verdict of a mean that is within what was accepted.

    Args:
      provenance: how the published value is known.
      published_within: whether there is one, and it is within, too.
    """
    if not published_within:
        return OWN_BOUND
    return REMEMBERED if provenance.startswith("remembered") else YES


def interval_of(mean: float, sd: str, seeds: int) -> tuple[float, float] | None:
    """Returns the 95 % interval of a mean by Student's t; None if the deviation was not recorded."""
    if not sd or seeds < 2:
        return None
    # Any numbers of this mean and deviation have the same interval: two apart, and the others at the mean.
    apart = float(sd) * ((seeds - 1) / 2) ** 0.5
    summary = summarise([mean - apart, mean + apart, *[mean] * (seeds - 2)])
    return summary.low, summary.high


def in_words(interval: tuple[float, float] | None, form: str = ".2f") -> str:
    """Returns an interval as text."""
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def cost(seconds: float | str, provenance: str) -> str:
    """Returns the hours and the machine of a measurement.

    Args:
      seconds: that it took; empty: not recorded.
      provenance: as `experiments.common.provenance` writes it.
    """
    machine = provenance.split(", ")[1].partition(" (")[0] if ", " in provenance else ""
    machine += ", 2 cores" if ", 2 cores" in provenance else ""
    return f"{float(seconds) / 3600:.2f} h, {machine}" if seconds else machine
