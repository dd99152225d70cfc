"""Which of several settings of a rule is shown as its best: the validation score chooses, and test scores never do."""

import math
from collections.abc import Sequence

from fa_jax.records.conditions import Condition
from fa_jax.reports.decimals import summary_of
from fa_jax.reports.labels import describe
from fa_jax.reports.looks import number

FLOAT32 = 2.0**-23
"""The relative distance of neighbouring float32 numbers."""
REMEDY = "task.validation=200 holds examples out for that"


def several_settings(conditions: Sequence[Condition]) -> list[list[int]]:
    """Returns the conditions of each rule on each task, in the order of their settings, if there are several.

    A network of which a part is frozen is a control, and no setting of the rule.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, condition in enumerate(conditions):
        choices = condition.run.choices
        key = (str(choices["task"]), str(choices["rule"]), str(condition.run.config.get("frozen")))
        groups.setdefault(key, []).append(i)
    described = describe([condition.run for condition in conditions])
    order = {i: [(number(value), value) for _, value in description.setting] for i, description in enumerate(described)}
    return [sorted(group, key=order.__getitem__) for group in groups.values() if len(group) > 1]


def validation_of(metric: str) -> str:
    """Returns the column of a score on validation examples, of that on test examples."""
    return f"validation_{metric.removeprefix('test_')}"


def chosen(conditions: Sequence[Condition], indices: Sequence[int], validation: str) -> list[int]:
    """Returns the conditions with the best mean of a validation score, of those in which no seed diverged.

    Scores are computed in float32, so that means that differ by less than it resolves are tied.

    Args:
      conditions: of which the next are indices.
      indices: to choose from; of tied ones, the first comes first.
      validation: the column.
    """
    scored = {}
    for i in indices:
        run = conditions[i].run
        mean = validation_mean(conditions[i], validation)
        if run.is_finished and not run.diverged and math.isfinite(mean):
            scored[i] = mean if run.columns[validation].better != "higher" else -mean
    best = min(scored.values(), default=math.nan)
    return [i for i, mean in scored.items() if math.isclose(mean, best, rel_tol=FLOAT32)]


def validation_mean(condition: Condition, validation: str) -> float:
    """Returns the mean of a validation score over seeds at the last evaluation; NaN if it is not recorded."""
    column = condition.run.columns.get(validation)
    return summary_of(condition, validation, column).mean if column is not None else math.nan
