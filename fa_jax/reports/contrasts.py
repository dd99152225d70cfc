"""Whether two conditions differ: planned contrasts, in pairs over the seeds that both have.

A seed has the same initial weights and the same examples in the same order under every rule, so a difference is taken
seed by seed. Only contrasts that were declared get a p, and each family of them is corrected for its number.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fa_jax.checks import BadOption, nearest
from fa_jax.records.conditions import ENDED, Condition, options
from fa_jax.records.statistics import SMALLEST, is_logarithmic, summarise

OF_THE_RULE = ("rule.", "optimizer.", "feedback_optimizer", "architecture.init", "architecture.bias")
"""Options in which conditions may differ and still be contrasted unasked: what a rule brings with it."""
ROUNDING = 1e-6
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
    """For a power of 80 % at the 5 % level, two-sided, were the effect as large as found; None: more than
    `MOST_SEEDS`, or no effect."""


def planned(conditions: Sequence[Condition], names: Sequence[str], against: str) -> list[tuple[int, int]]:
    """Returns each condition with the one of the rule, or of the name, `against` that it is closest to.

    They are equal in all options but those that a rule brings with it; the closest agrees in the most of these too,
    such as the learning rate. Where there is none, or several are equally close, there is no contrast.

    Raises:
      BadOption: if nothing is of that name.
    """
    rules = [one.run.choices["rule"] for one in conditions]
    if against not in (*rules, *names):
        there = list(dict.fromkeys((*rules, *names)))
        raise BadOption(f"against must be one of {', '.join(there)}; got {against!r}{nearest(against, there)}")
    references = [i for i, rule in enumerate(rules) if against in (rule, names[i])]
    return _closest(conditions, [i for i in range(len(conditions)) if i not in references], references)


def declared(
    text: str, conditions: Sequence[Condition], names: Sequence[str], rules: Sequence[str]
) -> list[tuple[int, int]]:
    """Returns the contrasts that a text such as `dfa:bp,dfa:fa` asks for, each side a condition's name or rule.

    Of a rule with several conditions, each is paired with the closest of the other side, as by `planned`.

    Raises:
      BadOption: if it cannot be read, or a side is the name of none, or nothing can be paired.
    """
    pairs = []
    for contrast in re.split(r",(?![^\[]*\])", text):  # at commas outside of brackets
        sides = contrast.split(":")
        if len(sides) != 2:
            raise BadOption(f"contrasts must be pairs such as dfa:bp,dfa:fa; got {contrast!r}")
        ours, theirs = (_numbers(side.strip(), names, rules) for side in sides)
        found = [(ours[0], theirs[0])] if len(ours) == len(theirs) == 1 else _closest(conditions, ours, theirs)
        if not found:
            raise BadOption(f"contrasts: {contrast} names conditions of which no two differ in their rule alone")
        pairs += found
    if any(i == j for i, j in pairs):
        raise BadOption(f"contrasts must be of two different conditions; got {text!r}")
    return list(dict.fromkeys(pairs))


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


def _closest(conditions: Sequence[Condition], ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    """Each of ours with the one of theirs that is closest to it, if there is one."""
    described = [options(one.run.config) for one in conditions]
    own = [_apart_from_the_rule(one) for one in conditions]
    pairs = []
    for i in ours:
        kin = [j for j in theirs if own[j] == own[i]]
        agreeing = [sum(described[j].get(key) == value for key, value in described[i].items()) for j in kin]
        if kin and agreeing.count(max(agreeing)) == 1:
            pairs.append((i, kin[agreeing.index(max(agreeing))]))
    return pairs


def unlike(one: Condition, other: Condition) -> list[str]:
    """Returns the options in which two conditions differ, but for what a rule brings with it."""
    ours, theirs = _apart_from_the_rule(one), _apart_from_the_rule(other)
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def _apart_from_the_rule(condition: Condition) -> dict[str, str]:
    chosen = {key: value for key, value in options(condition.run.config).items() if not key.startswith(OF_THE_RULE)}
    return chosen | {"task": condition.run.choices["task"]}


def _numbers(side: str, names: Sequence[str], rules: Sequence[str]) -> list[int]:
    matching = [i for i, name in enumerate(names) if name == side] or [i for i, r in enumerate(rules) if r == side]
    if not matching:
        there = ", ".join(dict.fromkeys((*rules, *names)))
        raise BadOption(f"contrasts must name two of {there}; got {side!r}")
    return matching


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
    # Rounding alone may tell apart what is equal, in single precision.
    alike = not over.sd > ROUNDING * np.abs(pairs).max(initial=0)
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

    if not values:
        return []
    # One that there is no test for counts among the contrasts all the same.
    corrected = np.asarray(multipletests([1.0 if math.isnan(p) else p for p in values], method="holm")[1])
    return [p if math.isnan(p) else c for p, c in zip(values, corrected.tolist(), strict=True)]


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
