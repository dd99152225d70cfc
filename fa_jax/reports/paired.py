"""Tests in pairs over the seeds that two conditions share."""

import math
from collections.abc import Sequence

import numpy as np

from fa_jax.records.conditions import Condition
from fa_jax.records.statistics import SMALLEST, Summary, summarise

LEVEL = 0.05
POWER = 0.8
MAX_SEEDS = 100_000
"""The largest number of seeds that is considered for `POWER`."""


def paired(conditions: Sequence[Condition], i: int, j: int, metric: str) -> tuple[np.ndarray, Summary, bool]:
    """Returns the differences of two conditions over their common seeds, and whether rounding alone may explain them.

    For a logarithmic metric, differences are of the logarithms.
    """
    left, right = (conditions[k].run.at_end(metric) for k in (i, j))
    pairs = np.array([(left[seed], right[seed]) for seed in left if seed in right]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(1)]
    resolution = _resolution(pairs)
    if conditions[j].run.columns[metric].logarithmic:
        positive = np.maximum(pairs, SMALLEST)
        pairs, resolution = np.log(positive), resolution / positive.max(1)
    differences = pairs[:, 0] - pairs[:, 1]
    summary = summarise(differences.tolist())
    return differences, summary, summary.n < 2 or bool(np.all(np.abs(differences - summary.mean) <= resolution))


def t_test(differences: np.ndarray) -> float:
    """Returns the two-sided p-value of the t-test that the mean of differences, of which not all are equal, is 0."""
    from scipy.special import stdtr

    n = len(differences)
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def wilcoxon_tests(samples: Sequence[np.ndarray]) -> list[float]:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test of each sample of differences.

    Those of one size are tested together, which is faster; ties and zeros decide how SciPy computes p, so that samples
    without them are apart.
    """
    from scipy.stats import wilcoxon

    alike: dict[tuple[int, bool], list[int]] = {}
    for i, differences in enumerate(samples):
        sizes = np.abs(differences)
        alike.setdefault((len(sizes), bool(sizes.all()) and len(set(sizes.tolist())) == len(sizes)), []).append(i)
    p_values = [math.nan] * len(samples)
    for indices in alike.values():
        of_size = np.asarray(wilcoxon(np.stack([samples[i] for i in indices]), axis=1)[1])
        for i, p in zip(indices, of_size.tolist(), strict=True):
            p_values[i] = p
    return p_values


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values after Holm's correction; one that is NaN stays so, and counts in the family."""
    p_values = np.array([1.0 if math.isnan(p) else p for p in values])
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(values), 0, -1)), 1)
    return [p if math.isnan(p) else c for p, c in zip(values, corrected.tolist(), strict=True)]


def seeds_needed(effects: Sequence[float]) -> list[int | None]:
    """Returns the fewest pairs with which a paired t-test of each effect has a power of 80 % at the 5 % level.

    None if they exceed `MAX_SEEDS`, or the effect is NaN. An effect is Cohen's d of the pairs, of either sign.
    """
    if not effects:
        return []
    from scipy.special import stdtrit
    from scipy.stats import nct

    sizes = np.abs(np.asarray(effects, float))
    known = np.isfinite(sizes) & (sizes > 0)

    def enough(n: np.ndarray) -> np.ndarray:
        critical, noncentral = stdtrit(n - 1, 1 - LEVEL / 2), sizes[known] * np.sqrt(n)
        with np.errstate(all="ignore"):
            power = nct.sf(critical, n - 1, noncentral) + nct.cdf(-critical, n - 1, noncentral)
        # Where the noncentral t distribution is beyond numerical reach, the power is 1.
        return ~(power < POWER)

    low, high = np.ones(known.sum()), np.full(known.sum(), MAX_SEEDS + 1.0)
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        sufficient = enough(middle) & (middle > low)  # where the search has ended, the middle is its lower end
        low, high = np.where(sufficient, low, middle), np.where(sufficient, middle, high)
    result: list[int | None] = [None] * len(sizes)
    for i, n in zip(np.flatnonzero(known), high.astype(int).tolist(), strict=True):
        result[i] = n if n <= MAX_SEEDS else None
    return result


def not_different(conditions: Sequence[Condition], best: int, others: Sequence[int], metric: str) -> set[int] | None:
    """Returns which conditions do not differ from the best one by the paired t-test at the 5 % level, after Holm.

    Args:
      conditions: of which the next two are indices.
      best: the condition with the best mean.
      others: those to compare with it.
      metric: a column that all have.

    Returns:
      Some of `others`; None if one of them has fewer than two seeds in common with the best, so that nothing is known.
    """
    p_values = []
    for i in others:
        differences, _, equal = paired(conditions, i, best, metric)
        if len(differences) < 2:
            return None
        # A difference that is the same for all seeds is certain.
        p_values.append(float(abs(differences.mean()) < SMALLEST) if equal else t_test(differences))
    return {i for i, p in zip(others, holm(p_values), strict=True) if p >= LEVEL}


def _resolution(pairs: np.ndarray) -> np.ndarray:
    """Returns the distance of neighbouring float32 numbers, in which metrics are computed, for each of `[n, 2]`."""
    largest = np.abs(pairs).max(1).astype(np.float32)
    return np.spacing(np.minimum(largest, np.finfo(np.float32).max)).astype(float)
