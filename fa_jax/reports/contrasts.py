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
from fa_jax.records.conditions import Condition
from fa_jax.records.statistics import Summary
from fa_jax.reports.labels import matching
from fa_jax.reports.paired import holm, paired, seeds_needed, t_test, wilcoxon_tests

OF_THE_RULE = (
    "rule.",
    "feedback.",
    "optimizer.",
    "feedback_optimizer",
    "architecture.init",
    "architecture.bias",
)
"""Options that come with a rule: conditions may differ in them and still be contrasted by default."""


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
    `paired.MAX_SEEDS`, or no effect."""


def planned(conditions: Sequence[Condition], names: Sequence[str], against: str) -> list[tuple[int, int]]:
    """Returns pairs of each condition with the closest one of a rule, or of a label, `against`.

    Both are equal in all options except those that come with a rule; the closest agrees in the most of these too, such
    as the learning rate. A condition with no such partner, or with several equally close ones, has no contrast.

    Raises:
      BadOption: if it names no condition.
    """
    chosen = references(conditions, names, against)
    if not chosen:
        valid = _valid(conditions, names)
        raise BadOption(f"must be one of {', '.join(valid)}; got {against!r}{nearest(against, valid)}", "against")
    return _closest(conditions, [i for i in range(len(conditions)) if i not in chosen], chosen)


def references(conditions: Sequence[Condition], names: Sequence[str], against: str) -> list[int]:
    """Returns the conditions of a rule, and those that a text names otherwise, as for `labels.matching`."""
    named = matching(against, [condition.run for condition in conditions], names)
    return [i for i, condition in enumerate(conditions) if condition.run.choices["rule"] == against or i in named]


def declared(text: str, conditions: Sequence[Condition], names: Sequence[str]) -> list[tuple[int, int]]:
    """Returns the pairs of a text such as `dfa:bp,dfa:fa`, each side what names conditions for `labels.matching`.

    If a rule has several conditions, each is paired with the closest of the other side, as by `planned`.

    Raises:
      BadOption: if the text cannot be parsed, a side names no condition, or nothing can be paired.
    """
    pairs = []
    for contrast in re.split(r",(?![^\[]*\])", text):  # at commas outside of brackets
        sides = contrast.split(":")
        if len(sides) != 2:
            raise BadOption(f"must be pairs such as dfa:bp,dfa:fa; got {contrast!r}", "contrasts")
        left, right = (_matching(side, conditions, names) for side in sides)
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
    result, tested = [], {}
    for i, j, metric in chosen:
        if all(conditions[k].run.is_finished and metric in conditions[k].run.metrics for k in (i, j)):
            differences, summary, equal = paired(conditions, i, j, metric)
            if not equal:
                tested[len(result)] = differences
            result.append(_contrast(conditions, i, j, metric, summary))
    for k, p_wilcoxon in zip(tested, wilcoxon_tests(list(tested.values())), strict=True):
        differences = tested[k]
        effect = float(differences.mean() / differences.std(ddof=1))
        result[k] = result[k]._replace(effect=effect, p_t=t_test(differences), p_wilcoxon=p_wilcoxon)
    needed = seeds_needed([contrast.effect for contrast in result])
    result = [contrast._replace(seeds_needed=n) for contrast, n in zip(result, needed, strict=True)]
    for test in ("t", "wilcoxon"):
        corrected = holm([getattr(contrast, f"p_{test}") for contrast in result])
        result = [contrast._replace(**{f"holm_{test}": p}) for contrast, p in zip(result, corrected, strict=True)]
    return result


def columns_of(conditions: Sequence[Condition]) -> Mapping[str, Column]:
    """Returns the `merged` columns of all conditions by name."""
    return merged([condition.run.columns for condition in conditions])


def differing_options(condition: Condition, other: Condition) -> list[str]:
    """Returns the options in which two conditions differ, without those that come with a rule."""
    left, right = without_rule(condition), without_rule(other)
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _closest(conditions: Sequence[Condition], left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs each of left with the closest of right, if there is one."""
    described = {i: conditions[i].run.options for i in {*left, *right}}
    comparable: dict[tuple, list[int]] = {}
    for j in right:
        comparable.setdefault(_hashable(conditions[j]), []).append(j)
    keys = list(dict.fromkeys(key for described_options in described.values() for key in described_options))
    numbers: dict[tuple[str, str], int] = {}

    def codes(i: int) -> list[int]:
        """Equal numbers for equal values; an option that is missing agrees with nothing."""
        return [
            numbers.setdefault((key, described[i][key]), len(numbers)) if key in described[i] else -1 - i
            for key in keys
        ]

    encoded = {group: np.array([codes(j) for j in members]) for group, members in comparable.items()}
    pairs = []
    for i in left:
        group = _hashable(conditions[i])
        if group in encoded:
            agreements = (encoded[group] == codes(i)).sum(1)
            if np.count_nonzero(agreements == agreements.max()) == 1:
                pairs.append((i, comparable[group][int(agreements.argmax())]))
    return pairs


def _hashable(condition: Condition) -> tuple:
    return tuple(sorted(without_rule(condition).items()))


def without_rule(condition: Condition) -> dict[str, str]:
    """Returns the options of a condition, without those that come with a rule, and its task."""
    chosen = {key: value for key, value in condition.run.options.items() if not key.startswith(OF_THE_RULE)}
    return chosen | {"task": condition.run.choices["task"]}


def _matching(side: str, conditions: Sequence[Condition], names: Sequence[str]) -> list[int]:
    indices = matching(side, [condition.run for condition in conditions], names)
    if not indices:
        raise BadOption(f"must name two of {', '.join(_valid(conditions, names))}; got {side.strip()!r}", "contrasts")
    return indices


def _valid(conditions: Sequence[Condition], names: Sequence[str]) -> list[str]:
    """Returns the rules and the labels, which name conditions."""
    return list(dict.fromkeys((*(condition.run.choices["rule"] for condition in conditions), *names)))


def _contrast(conditions: Sequence[Condition], i: int, j: int, metric: str, summary: Summary) -> Contrast:
    """Returns a contrast without its tests."""
    original_scale = math.exp if conditions[j].run.columns[metric].logarithmic else float
    return Contrast(
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
