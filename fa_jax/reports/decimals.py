"""How many decimals a unit has in all tables of a document, so that a difference is read beside its scores."""

from collections.abc import Iterable, Mapping, Sequence

from fa_jax.records.columns import Column
from fa_jax.records.conditions import Condition
from fa_jax.records.statistics import Summary, summarise, summarise_logarithm
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.numbers import MOST_DECIMALS, decimals_of, power_of

FURTHER = 2
"""The most decimals that scores have more than two digits of their spread need, for the sake of small differences."""


def unit_of(column: Column) -> str:
    """Returns the unit of a column; of one without, the name of its metric."""
    return column.unit or column.metric


def of_metrics(decimals: Mapping[str, int] | None, columns: Mapping[str, Column]) -> dict[str, int]:
    """Returns the decimals of metrics, of those of units."""
    of_columns = {metric: (decimals or {}).get(unit_of(column)) for metric, column in columns.items()}
    return {metric: number for metric, number in of_columns.items() if number is not None}


def unit_decimals(
    conditions: Sequence[Condition],
    metrics: Iterable[str],
    differences: Sequence[Sequence[tuple[str, float, float]]],
    spread: str = "interval",
) -> dict[str, int]:
    """Returns the decimals of each unit: they show two digits of the typical spread of scores, one of differences.

    Logarithmic metrics, and those that are scaled by a power of ten, have none.

    Args:
      conditions: whose scores are shown.
      metrics: the columns of scores.
      differences: of each table, the metric, the mean and half of the interval of each difference that it has.
      spread: what follows the mean of scores, `interval` or `sd`.
    """
    columns, by_unit = columns_of(conditions), dict[str, int]()
    for metric in dict.fromkeys(metrics):
        if metric not in columns or columns[metric].logarithmic:
            continue
        summaries = [summary_of(condition, metric, columns[metric]) for condition in conditions]
        means = [summary.mean for summary in summaries]
        if power_of(means):
            continue
        needed = decimals_of(means, [half_of(summary, columns[metric], spread) for summary in summaries])
        shown = [needed]
        for of_table in differences:
            of_metric = [(mean, half) for name, mean, half in of_table if name == metric]
            further = decimals_of(*zip(*of_metric, strict=True)) - 1 if of_metric else 0
            shown += [further] if further <= needed + FURTHER and further + 1 < MOST_DECIMALS else []
        unit = unit_of(columns[metric])
        by_unit[unit] = max(by_unit.get(unit, 0), *shown)
    return by_unit


def summary_of(condition: Condition, name: str, column: Column) -> Summary:
    """Returns a metric over the seeds of a condition at the last evaluation."""
    run = condition.run
    values = list(run.at_end(name).values()) if name in run.metrics else []
    return (summarise_logarithm if column.logarithmic else summarise)(values)


def half_of(summary: Summary, column: Column, spread: str) -> float:
    """Returns the spread of a summary: its standard deviation, or half the width of its interval, or its factor."""
    if spread == "sd":
        return summary.sd
    return summary.high / summary.mean if column.logarithmic else summary.high - summary.mean
