"""Contrasts: whether two conditions differ, in pairs over the seeds that both have.

A seed has the same initial weights and the same examples in the same order under every rule, so differences are taken
seed by seed. Only contrasts that were planned have p-values, and each family of them is corrected for its size.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fa_jax.checks import BadOption, nearest
from fa_jax.records.columns import Column, merged
from fa_jax.records.conditions import Condition, options
from fa_jax.records.statistics import SMALLEST, summarise

OF_THE_RULE = (
    "rule.",
    "feedback.",
    "optimizer.",
    "feedback_optimizer",
    "architecture.init",
    "architecture.bias",
)
"""Options that come with a rule: conditions may differ in them and still be contrasted by default."""
LEVEL = 0.05
POWER = 0.8
MAX_SEEDS = 100_000
"""The largest number of seeds that is considered for `POWER`."""


class Contrast(NamedTuple):
    """One condition against another on a metric; a value that does not exist is NaN."""

    condition: int
    against: int
    """Indices of the two conditions."""
    metric: str
    n: int
    """The number of pairs: seeds that both have and that did not diverge."""
    difference: float
    """Mean of condition - against; for a logarithmic metric, the ratio of geometric means."""
    low: float
    high: float
    """Its 95 % interval by Student's t."""
    effect: float
    """Cohen's d of the pairs: the mean difference over the standard deviation of the differences."""
    p_t: float
    """The two-sided p-value of the paired t-test."""
    p_wilcoxon: float
    """The two-sided p-value of Wilcoxon's signed-rank test; with n pairs at least 2^(1 - n)."""
    holm_t: float
    holm_wilcoxon: float
    """The two p-values after Holm's correction for the number of contrasts."""
    seeds_needed: int | None
    """The number of seeds for a power of 80 % at the 5 % level, two-sided, with an effect of this size; None: more than
    `MAX_SEEDS`, or no effect."""


def planned(conditions: Sequence[Condition], names: Sequence[str], against: str) -> list[tuple[int, int]]:
    """Returns pairs of each condition with the closest one of a rule, or of a label, `against`.

    Both are equal in all options except those that come with a rule; the closest agrees in the most of these too, such
    as the learning rate. A condition with no such partner, or with several equally close ones, has no contrast.

    Raises:
      BadOption: if no condition has that rule or label.
    """
    rules = [condition.run.choices["rule"] for condition in conditions]
    if against not in (*rules, *names):
        valid = list(dict.fromkeys((*rules, *names)))
        raise BadOption(f"must be one of {', '.join(valid)}; got {against!r}{nearest(against, valid)}", "against")
    references = [i for i, rule in enumerate(rules) if against in (rule, names[i])]
    return _closest(conditions, [i for i in range(len(conditions)) if i not in references], references)


def declared(
    text: str, conditions: Sequence[Condition], names: Sequence[str], rules: Sequence[str]
) -> list[tuple[int, int]]:
    """Returns the pairs of a text such as `dfa:bp,dfa:fa`, each side the label or the rule of conditions.

    If a rule has several conditions, each is paired with the closest of the other side, as by `planned`.

    Raises:
      BadOption: if the text cannot be parsed, a side names no condition, or nothing can be paired.
    """
    pairs = []
    for contrast in re.split(r",(?![^\[]*\])", text):  # at commas outside of brackets
        sides = contrast.split(":")
        if len(sides) != 2:
            raise BadOption(f"must be pairs such as dfa:bp,dfa:fa; got {contrast!r}", "contrasts")
        left, right = (_matching(side.strip(), names, rules) for side in sides)
        closest = [(left[0], right[0])] if len(left) == len(right) == 1 else _closest(conditions, left, right)
        if not closest:
            raise BadOption(f"contrasts: {contrast} names conditions of which no two differ in their rule alone")
        pairs += closest
    if any(i == j for i, j in pairs):
        raise BadOption(f"must be of two different conditions; got {text!r}", "contrasts")
    return list(dict.fromkeys(pairs))


def compute_contrasts(conditions: Sequence[Condition], chosen: Sequence[tuple[int, int, str]]) -> list[Contrast]:
    """Returns the contrasts of (condition, against, metric), without those of unfinished conditions.

    Their p-values are corrected together.
    """
    result = [
        _contrast(conditions, i, j, metric)
        for i, j, metric in chosen
        if all(conditions[k].run.is_finished and metric in conditions[k].run.metrics for k in (i, j))
    ]
    for test in ("t", "wilcoxon"):
        corrected = _holm([getattr(contrast, f"p_{test}") for contrast in result])
        result = [contrast._replace(**{f"holm_{test}": p}) for contrast, p in zip(result, corrected, strict=True)]
    return result


def columns_of(conditions: Sequence[Condition]) -> Mapping[str, Column]:
    """Returns the `merged` columns of all conditions by name."""
    return merged([condition.run.columns for condition in conditions])


def differing_options(condition: Condition, other: Condition) -> list[str]:
    """Returns the options in which two conditions differ, without those that come with a rule."""
    left, right = _without_rule(condition), _without_rule(other)
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _closest(conditions: Sequence[Condition], left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs each of left with the closest of right, if there is one."""
    described = [options(condition.run.config) for condition in conditions]
    without_rule = [_without_rule(condition) for condition in conditions]
    pairs = []
    for i in left:
        comparable = [j for j in right if without_rule[j] == without_rule[i]]
        agreements = [sum(described[j].get(key) == value for key, value in described[i].items()) for j in comparable]
        if comparable and agreements.count(max(agreements)) == 1:
            pairs.append((i, comparable[agreements.index(max(agreements))]))
    return pairs


def _without_rule(condition: Condition) -> dict[str, str]:
    chosen = {key: value for key, value in options(condition.run.config).items() if not key.startswith(OF_THE_RULE)}
    return chosen | {"task": condition.run.choices["task"]}


def _matching(side: str, names: Sequence[str], rules: Sequence[str]) -> list[int]:
    matching = [i for i, name in enumerate(names) if name == side] or [i for i, r in enumerate(rules) if r == side]
    if not matching:
        valid = ", ".join(dict.fromkeys((*rules, *names)))
        raise BadOption(f"must name two of {valid}; got {side!r}", "contrasts")
    return matching


def _contrast(conditions: Sequence[Condition], i: int, j: int, metric: str) -> Contrast:
    from scipy import stats

    left, right = (conditions[k].run.at_end(metric) for k in (i, j))
    pairs = np.array([(left[seed], right[seed]) for seed in left if seed in right]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(1)]
    logarithmic = conditions[j].run.columns[metric].logarithmic
    resolution = _resolution(pairs)
    if logarithmic:
        positive = np.maximum(pairs, SMALLEST)
        pairs, resolution = np.log(positive), resolution / positive.max(1)
    differences = pairs[:, 0] - pairs[:, 1]
    summary = summarise(differences.tolist())
    # Rounding alone may separate equal results.
    equal = summary.n < 2 or bool(np.all(np.abs(differences - summary.mean) <= resolution))
    original_scale = math.exp if logarithmic else float
    result = Contrast(
        condition=i,
        against=j,
        metric=metric,
        n=summary.n,
        difference=original_scale(summary.mean),
        low=original_scale(summary.low),
        high=original_scale(summary.high),
        effect=math.nan,
        p_t=math.nan,
        p_wilcoxon=math.nan,
        holm_t=math.nan,
        holm_wilcoxon=math.nan,
        seeds_needed=None,
    )
    if equal:
        return result
    effect = summary.mean / summary.sd
    p_t, p_wilcoxon = (np.asarray(test)[1] for test in (stats.ttest_1samp(differences, 0), stats.wilcoxon(differences)))
    return result._replace(
        effect=effect, p_t=float(p_t), p_wilcoxon=float(p_wilcoxon), seeds_needed=seeds_needed(effect)
    )


def _resolution(pairs: np.ndarray) -> np.ndarray:
    """Returns the distance of neighbouring float32 numbers, in which metrics are computed, for each of `[n, 2]`."""
    largest = np.abs(pairs).max(1).astype(np.float32)
    return np.spacing(np.minimum(largest, np.finfo(np.float32).max)).astype(float)


def _holm(values: Sequence[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    if not values:
        return []
    # A contrast without a test still counts in the family.
    corrected = np.asarray(multipletests([1.0 if math.isnan(p) else p for p in values], method="holm")[1])
    return [p if math.isnan(p) else c for p, c in zip(values, corrected.tolist(), strict=True)]


def seeds_needed(effect: float) -> int | None:
    """Returns the fewest pairs with which a paired t-test of an effect has a power of 80 % at the 5 % level.

    None if it exceeds `MAX_SEEDS`. The effect is Cohen's d of the pairs, of either sign.
    """
    from statsmodels.stats.power import TTestPower

    def enough(n: int) -> bool:
        # Where the noncentral t distribution is beyond numerical reach, the power is 1.
        return not TTestPower().power(abs(effect), n, LEVEL) < POWER

    low, high = 1, 2
    while not enough(high):
        if high > MAX_SEEDS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= MAX_SEEDS else None
