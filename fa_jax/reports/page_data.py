"""The data of the figures of the report: what its script draws."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fa_jax.records.conditions import Condition
from fa_jax.records.reader import Run
from fa_jax.records.statistics import band, summarise
from fa_jax.reports.comparison import Comparison
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.decimals import summary_of
from fa_jax.reports.flags import flagged
from fa_jax.reports.labels import rule_label
from fa_jax.reports.looks import Look, is_wide, looks, over_logarithm
from fa_jax.reports.options import FigureOptions
from fa_jax.reports.rates import Rates, line_looks
from fa_jax.reports.selection import several_settings, validation_of

SHOWN = 8
"""The number of conditions that the figures show at first, if there are more than `SHOW_ALL`."""
SHOW_ALL = 16
MANY_NUMBERS = 300_000
"""Above this many numbers in all runs, bands and single seeds are kept for test scores alone."""
FEWEST = 5
"""The fewest seeds with a band; of fewer, each is drawn."""


def page_data(comparison: Comparison, options: FigureOptions) -> dict[str, Any]:
    """Returns the data of the figures."""
    runs = [condition.run for condition in comparison.conditions]
    sparse = is_sparse(comparison.conditions)
    columns = columns_of(comparison.conditions)
    shown = [name for name, column in columns.items() if column.plotted]
    main = comparison.metric or next((run.main_metric for run in runs if run.metrics), "")
    layers: dict[str, set[int]] = {}
    for column in columns.values():
        if column.unit == "degrees" and column.layer is not None:
            layers.setdefault(column.metric, set()).add(column.layer)
    judged = judged_by(comparison.conditions, main)
    return {
        "main": main,
        "metrics": [name for name in shown if columns[name].metric not in layers],
        "axes": {name: columns[name].axis for name in shown},
        "bounds": {name: columns[name].bounds for name in shown},
        "logarithmic": [name for name, column in columns.items() if column.logarithmic],
        "log_x": over_logarithm(runs, "examples" if options.axis == "examples" else "epoch"),
        "axis": options.axis,
        "angles": {metric: sorted(numbers) for metric, numbers in layers.items()},
        "layer": options.layers[0] if options.layers else None,
        "first": _first(runs, judged),
        "conditions": [
            {"name": name, "rule": rule_label(run), **_style(look), **_curves(run, shown, sparse=sparse)}
            for run, name, look in zip(runs, comparison.names, looks(runs), strict=True)
        ],
        "rates": [_rates(comparison.conditions, rates) for rates in comparison.rates],
    }


def is_sparse(conditions: Sequence[Condition]) -> bool:
    """Returns whether there are so many numbers that not all are kept."""
    return sum(len(c) for condition in conditions for c in condition.run.metrics.values()) > MANY_NUMBERS


def judged_by(conditions: Sequence[Condition], metric: str) -> str | None:
    """Returns the column that decides which of many conditions are shown at first: of validation, if all have it.

    None: no column, since the test score would choose among settings of one rule.
    """
    validation = validation_of(metric)
    if all(validation in condition.run.metrics for condition in conditions):
        return validation
    return None if several_settings(conditions) else metric


def _style(look: Look) -> dict[str, str]:
    return {"colour": look.colour, "dash": look.dash, "symbol": look.marker[1]}


def _curves(run: Run, names: Sequence[str], *, sparse: bool) -> dict[str, Any]:
    """Returns the curves of a condition by column: mean, band, and single seeds; if `sparse`, not of every column."""
    metrics = {}
    examples, epochs = np.zeros(0), np.zeros(0)
    for name in names:
        if name not in run.metrics:
            continue
        examples, values = run.curves(name)
        epochs, _ = run.curves(name, "epoch")
        if not values.size or not np.isfinite(values).any():
            continue
        column = run.columns[name]
        mean, low, high = band(values, logarithmic=column.logarithmic)
        metrics[name] = {"mean": _rounded(mean)}
        if (marks := flagged(run, name).any(0)).any():
            metrics[name]["marked"] = np.flatnonzero(marks).tolist()
        if column.random is not None:
            metrics[name]["random"] = list(column.random)
        if len(values) > 1 and (not sparse or column.split == "test"):
            metrics[name]["seeds"] = _rounded(values)
            if len(values) >= FEWEST:
                metrics[name] |= {"low": _rounded(low), "high": _rounded(high)}
    return {
        "examples": examples.astype(int).tolist(),
        "epochs": _rounded(epochs),
        "seeds": list(run.at_end("test_loss")) if run.metrics else [],
        "metrics": metrics,
    }


def _rates(conditions: Sequence[Condition], rates: Rates) -> dict[str, Any]:
    """Returns the points of a sweep."""
    column = columns_of(conditions)[rates.metric]
    lines = []
    for line, look in zip(rates.lines, line_looks(conditions, rates), strict=True):
        summaries = {value: summary_of(conditions[i], rates.metric, column) for value, i in line.conditions.items()}
        known = {value: summary for value, summary in summaries.items() if math.isfinite(summary.mean)}
        has_band = all(summary.n >= FEWEST for summary in known.values())
        lines.append(
            {
                "name": line.name,
                **_style(look),
                "x": list(known),
                "mean": _rounded(np.array([summary.mean for summary in known.values()])),
                "low": _rounded(np.array([summary.low for summary in known.values()])) if has_band else [],
                "high": _rounded(np.array([summary.high for summary in known.values()])) if has_band else [],
                "chosen": list(known).index(line.chosen) if line.chosen is not None else None,
            }
        )
    return {
        "title": f"{rates.task}: {rates.short}",
        "axis": rates.option,
        "metric": rates.metric,
        "validation": rates.validation,
        "log_x": is_wide(rates.values),
        "lines": lines,
    }


def _first(runs: Sequence[Run], metric: str | None) -> list[int]:
    """Returns the conditions shown at first: all, or of many those with the best last mean, or some of each rule."""
    if len(runs) <= SHOW_ALL:
        return list(range(len(runs)))
    if metric is None:
        rules = [run.choices["rule"] for run in runs]
        return sorted(sorted(range(len(runs)), key=lambda i: rules[:i].count(rules[i]))[:SHOWN])

    def cost(i: int) -> float:
        run = runs[i]
        mean = summarise([*run.at_end(metric).values()] if metric in run.metrics else []).mean
        sign = -1 if metric in run.columns and run.columns[metric].better == "higher" else 1
        return sign * mean if math.isfinite(mean) else math.inf

    return sorted(sorted(range(len(runs)), key=cost)[:SHOWN])


def _rounded(values: np.ndarray) -> list[Any]:
    """Returns numbers, in lists of the array's shape, rounded to five digits; those that are not finite are None."""
    with np.errstate(all="ignore"):
        digits = 4 - np.floor(np.log10(np.abs(values)))
        digits = np.where(np.isfinite(digits), digits, 0)
        # Only with whole powers of ten is the result the nearest number to five digits.
        up, down = 10.0 ** np.maximum(digits, 0), 10.0 ** np.maximum(-digits, 0)
        rounded = np.round(values * up / down) / up * down
    if np.isfinite(values).all():
        return rounded.tolist()
    rounded = rounded.astype(object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()
