"""Whether two conditions differ: planned contrasts, in pairs over the seeds that both have.

A seed has the same initial weights and the same examples in the same order under every rule, so a difference is taken
seed by seed. Only contrasts that were declared get a p, and each family of them is corrected for its number.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fa_jax.options import BadOption, nearest
from fa_jax.records.conditions import ENDED, Condition, options
from fa_jax.records.statistics import SMALLEST, is_logarithmic, summarise

LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 100_000
"""Up to which the number of seeds for `POWER` is sought."""


class Contrast(NamedTuple):
    """One condition against another on a metric; NaN is what does not exist."""

    condition: int
    against: int
    """Both as their number among the conditions."""
    metric: str
    n: int
    """Pairs: seeds that both have, neither diverged."""
    difference: float
    """Mean of condition - against; for a metric that ranges over decades, the ratio of their geometric means."""
    low: float
    high: float
    """Its 95 % interval by Student's t."""
    effect: float
    """Cohen's d of the pairs: the mean difference over the standard deviation of the differences."""
    p_t: float
    """Two-sided, by the paired t-test."""
    p_wilcoxon: float
    """Two-sided, by Wilcoxon's signed-rank test; with n pairs it is at least 2^(1 - n)."""
    holm_t: float
    holm_wilcoxon: float
    """Both corrected by Holm for all contrasts made together."""
    seeds_needed: int | None
    """For a power of 80 % at the 5 % level, two-sided, were the effect as large as found; None: none would do."""


def planned(conditions: Sequence[Condition], names: Sequence[str], against: str) -> list[tuple[int, int]]:
    """Returns each condition with the one of the rule, or of the name, `against` on its task that it is closest to.

    The closest agrees with it in the most options besides the rule's own, such as the learning rate. Where several are
    equally close, the condition is left without a contrast.

    Raises:
      BadOption: if nothing is of that name.
    """
    rules = [one.run.choices["rule"] for one in conditions]
    if against not in (*rules, *names):
        there = list(dict.fromkeys((*rules, *names)))
        raise BadOption(f"against must be one of {', '.join(there)}; got {against!r}{nearest(against, there)}")
    described = [options(one.run.config) for one in conditions]
    references = [i for i, rule in enumerate(rules) if against in (rule, names[i])]
    pairs = []
    for i, condition in enumerate(conditions):
        if i in references:
            continue
        kin = [j for j in references if conditions[j].run.choices["task"] == condition.run.choices["task"]]
        agreeing = [
            sum(described[j].get(key) == value for key, value in described[i].items() if not key.startswith("rule."))
            for j in kin
        ]
        if kin and agreeing.count(max(agreeing)) == 1:
            pairs.append((i, kin[agreeing.index(max(agreeing))]))
    return pairs


def declared(text: str, names: Sequence[str], rules: Sequence[str]) -> list[tuple[int, int]]:
    """Returns the contrasts that a text such as `dfa:bp,dfa:fa` asks for, each side a condition's name or rule.

    Raises:
      BadOption: if it cannot be read, or a side is the name of none or of several conditions.
    """
    pairs = []
    for contrast in text.strip("[]").split(","):
        sides = contrast.split(":")
        if len(sides) != 2:
            raise BadOption(f"contrasts must be pairs such as dfa:bp,dfa:fa; got {contrast!r}")
        pairs.append((_number(sides[0].strip(), names, rules), _number(sides[1].strip(), names, rules)))
    return pairs


def contrasts(conditions: Sequence[Condition], wanted: Sequence[tuple[int, int, str]]) -> list[Contrast]:
    """Returns the contrasts of (condition, against, metric), but for those of a condition that did not come to its end.

    Their p are corrected together.
    """
    found = [
        _contrast(conditions, i, j, metric)
        for i, j, metric in wanted
        if all(conditions[k].run.status["status"] in ENDED and metric in conditions[k].run.metrics for k in (i, j))
    ]
    for test in ("t", "wilcoxon"):
        corrected = _holm([getattr(one, f"p_{test}") for one in found])
        found = [one._replace(**{f"holm_{test}": p}) for one, p in zip(found, corrected, strict=True)]
    return found


def _number(side: str, names: Sequence[str], rules: Sequence[str]) -> int:
    matching = [i for i, name in enumerate(names) if name == side] or [i for i, r in enumerate(rules) if r == side]
    if len(matching) != 1:
        there = ", ".join(dict.fromkeys(names))
        many = "that is several of them" if matching else "that is none of them"
        raise BadOption(f"contrasts must name two of {there}; got {side!r}, and {many}")
    return matching[0]


def _contrast(conditions: Sequence[Condition], i: int, j: int, metric: str) -> Contrast:
    from scipy import stats

    ours, theirs = (conditions[k].run.at_end(metric) for k in (i, j))
    pairs = np.array([(ours[seed], theirs[seed]) for seed in ours if seed in theirs]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(1)]
    ratio = is_logarithmic(metric)
    if ratio:
        pairs = np.log(np.maximum(pairs, SMALLEST))
    differences = pairs[:, 0] - pairs[:, 1]
    over = summarise(differences.tolist())
    # Rounding alone may spread differences that are equal.
    alike = not over.sd > 1e-12 * np.abs(pairs).max(initial=0)
    back = math.exp if ratio else float
    found = Contrast(
        condition=i,
        against=j,
        metric=metric,
        n=over.n,
        difference=back(over.mean),
        low=back(over.low),
        high=back(over.high),
        effect=math.nan,
        p_t=math.nan,
        p_wilcoxon=math.nan,
        holm_t=math.nan,
        holm_wilcoxon=math.nan,
        seeds_needed=None,
    )
    if alike:
        return found
    effect = over.mean / over.sd
    p_t, p_wilcoxon = (np.asarray(test)[1] for test in (stats.ttest_1samp(differences, 0), stats.wilcoxon(differences)))
    return found._replace(
        effect=effect, p_t=float(p_t), p_wilcoxon=float(p_wilcoxon), seeds_needed=seeds_needed(effect)
    )


def _holm(values: Sequence[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    there = [p for p in values if not math.isnan(p)]
    if not there:
        return list(values)
    corrected = iter(np.asarray(multipletests(there, method="holm")[1]).tolist())
    return [p if math.isnan(p) else next(corrected) for p in values]


def seeds_needed(effect: float) -> int | None:
    """Returns the fewest pairs with which a paired t-test of an effect has a power of 80 % at the 5 % level.

    None where it is above `MOST_SEEDS`. An effect is Cohen's d of the pairs, of either sign.
    """
    from statsmodels.stats.power import TTestPower

    def enough(n: int) -> bool:
        # Where the noncentral t is too far out to be worked out, the power is 1.
        return not TTestPower().power(abs(effect), n, LEVEL) < POWER

    low, high = 1, 2
    while not enough(high):
        if high > MOST_SEEDS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= MOST_SEEDS else None
