"""Sweeps of one number, such as the learning rate: the metric by value, and the value of each rule.

A value is chosen by the mean of the validation score at the last evaluation, among values with which no seed diverged.
Test scores choose nothing: without validation examples, no value is called the best.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fa_jax.records.conditions import Condition
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.decimals import summary_of
from fa_jax.reports.labels import Described, describe, setting_text
from fa_jax.reports.looks import Look, looks, number
from fa_jax.reports.paper import mean_and_spread, spread_text
from fa_jax.reports.selection import REMEDY, chosen, validation_mean, validation_of
from fa_jax.reports.tables import Table

WIDEST = 10
"""The most values that stand side by side in a table; of more, each has a row."""
UNCHOSEN = f"no value is called the best, since test scores would choose it; {REMEDY}"


class Line(NamedTuple):
    """The conditions of a rule that differ in the swept number alone."""

    name: str
    rule: str
    setting: tuple[tuple[str, str], ...]
    """The other options that distinguish it from lines of its rule."""
    conditions: dict[float, int]
    """The index of the condition at each value, in order."""
    chosen: float | None
    """The value with the best validation score, the lowest if several have it; None if there is none."""
    tied: tuple[float, ...]
    """The other values with that validation score."""


class Rates(NamedTuple):
    """A sweep of one number on one task."""

    task: str
    option: str
    """The swept number, such as `optimizer.learning_rate`."""
    values: list[float]
    lines: list[Line]
    metric: str
    """The column that is shown."""
    validation: str | None
    """The column that values were chosen by."""
    left_out: list[int]
    """The conditions of the task that are in no line."""

    @property
    def short(self) -> str:
        """The name of the number without its group."""
        return self.option.rpartition(".")[2]


def find_rates(conditions: Sequence[Condition], metric: str | None = None) -> list[Rates]:
    """Returns the sweep on each task, if there is one: the number in which most conditions of one rule differ.

    Args:
      conditions: any.
      metric: the column to show; None: the main metric of the task.
    """
    described = describe([condition.run for condition in conditions])
    result = []
    for task in dict.fromkeys(description.task for description in described):
        indices = [i for i, description in enumerate(described) if description.task == task]
        measured = [conditions[i].run for i in indices if conditions[i].run.metrics]
        shown = metric or (measured[0].main_metric if measured else "")
        counts = Counter(key for i in indices for key, value in described[i].setting if not math.isnan(number(value)))
        if not counts or not any(shown in run.metrics for run in measured):
            continue
        option = counts.most_common(1)[0][0]
        lines: dict[tuple[str, str, tuple], dict[float, int]] = {}
        of_rule = Counter(described[i].rule for i in indices)
        left_out = []
        for i in indices:
            run, description = conditions[i].run, described[i]
            value = number(run.options.get(option, ""))
            others = tuple(part for part in description.setting if part[0] != option)
            alone = of_rule[description.rule] == 1
            if math.isnan(value) or (len(others) == len(description.setting) and not alone):
                left_out.append(i)
            else:
                lines.setdefault((description.rule, run.choices["rule"], others), {})[value] = i
        values = sorted({value for line in lines.values() for value in line})
        if len(values) < 2:
            continue
        name = next(run for run in measured if run.main_metric).main_metric
        judged = shown if shown.startswith("test_") else name
        validation = validation_of(judged)
        validated = [run for run in measured if validation in run.metrics]
        used = validation if len(validated) == len(measured) else None
        result.append(
            Rates(
                task,
                option,
                values,
                [_line(conditions, *key, dict(sorted(line.items())), used) for key, line in lines.items()],
                shown,
                used,
                left_out,
            )
        )
    return result


def _line(
    conditions: Sequence[Condition],
    label: str,
    rule: str,
    others: tuple[tuple[str, str], ...],
    line: dict[float, int],
    validation: str | None,
) -> Line:
    best = chosen(conditions, list(line.values()), validation) if validation else []
    values = [value for value, i in line.items() if i in best]
    name = " ".join(filter(None, (label, setting_text(others))))
    return Line(name, rule, others, line, values[0] if values else None, tuple(values[1:]))


def rates_tables(
    conditions: Sequence[Condition], rates: Rates, spread: str = "interval", decimals: Mapping[str, int] | None = None
) -> list[Table]:
    """Returns the table of the metric by rule and value, and one of the chosen values, if they were chosen.

    Args:
      conditions: of which the sweep has indices.
      rates: the sweep.
      spread: what follows the mean with a chosen value, `interval` or `sd`.
      decimals: of units, as of `unit_decimals`.
    """
    column = columns_of(conditions)[rates.metric]
    summaries = {
        i: summary_of(conditions[i], rates.metric, column) for line in rates.lines for i in line.conditions.values()
    }
    texts, unit = mean_and_spread(list(summaries.values()), column, "interval", decimals)
    shown = dict(zip(summaries, (text.partition(" ±")[0].partition(" ×/÷")[0] for text in texts), strict=True))

    def cell(line: Line, value: float) -> str:
        if value not in line.conditions:
            return ""
        i = line.conditions[value]
        run, text = conditions[i].run, shown[i]
        diverged = len(run.diverged)
        if diverged and text == "-":
            return "diverged"
        return f"{text} ({diverged} diverged)" if diverged else text if run.is_finished else f"{text} (unfinished)"

    heads = [f"{value:.4g}" for value in rates.values]
    grid = [[cell(line, value) for value in rates.values] for line in rates.lines]
    bold = {(i, rates.values.index(line.chosen)) for i, line in enumerate(rates.lines) if line.chosen is not None}
    if len(heads) <= WIDEST:
        headings = ["run", *heads]
        rows = [[line.name, *row] for line, row in zip(rates.lines, grid, strict=True)]
        bold = {(i, j + 1) for i, j in bold}
    else:
        headings = [rates.short, *(line.name for line in rates.lines)]
        rows = [[head, *column_of] for head, *column_of in zip(heads, *grid, strict=True)]
        bold = {(j, i + 1) for i, j in bold}
    caption = f"{column.qualified(column.label, unit)} on {rates.task}: mean over seeds, by {rates.option}"
    validation = rates.validation and columns_of(conditions)[rates.validation].label
    bold_text = f"bold: the value with the best {validation}" if validation else UNCHOSEN
    tables = [Table(headings, rows, f"{caption}\n{bold_text}", frozenset(bold))]
    return [*tables, *([_chosen_table(conditions, rates, spread, decimals)] if rates.validation else [])]


def rates_rows(conditions: Sequence[Condition], rates: Sequence[Rates]) -> list[dict[str, Any]]:
    """Returns a row for each condition of the sweeps."""
    rows = []
    for sweep in rates:
        column = columns_of(conditions)[sweep.metric]
        for line in sweep.lines:
            for value, i in line.conditions.items():
                run = conditions[i].run
                row = {
                    "task": sweep.task,
                    "run": line.name,
                    "option": sweep.option,
                    "value": value,
                    "metric": sweep.metric,
                }
                summary = summary_of(conditions[i], sweep.metric, column)
                row |= summary._asdict() | {"diverged": len(run.diverged)}
                row["validation_metric"] = sweep.validation or ""
                row["validation_mean"] = validation_mean(conditions[i], sweep.validation) if sweep.validation else ""
                rows.append({**row, "chosen": int(value == line.chosen) if sweep.validation else ""})
    return rows


def line_looks(conditions: Sequence[Condition], rates: Rates) -> list[Look]:
    """Returns how each line looks: in the colour that its rule has in all figures of these conditions."""
    runs = [conditions[next(iter(line.conditions.values()))].run for line in rates.lines]
    described = [Described(line.rule, rates.task, line.setting) for line in rates.lines]
    return looks(runs, described, among=[condition.run for condition in conditions])


def rates_notes(rates: Sequence[Rates], names: Sequence[str]) -> list[str]:
    """Returns notes on conditions that are in no sweep."""
    return [
        f"not in the table by {sweep.option}, since they differ in other options: "
        + ", ".join(names[i] for i in sweep.left_out)
        for sweep in rates
        if sweep.left_out
    ]


def _chosen_table(
    conditions: Sequence[Condition], rates: Rates, spread: str, decimals: Mapping[str, int] | None
) -> Table:
    columns = columns_of(conditions)
    column, validation = columns[rates.metric], columns[str(rates.validation)]
    lines = [line for line in rates.lines if line.chosen is not None]
    best = [conditions[line.conditions[line.chosen]] for line in lines if line.chosen is not None]
    shown, unit = mean_and_spread(
        [summary_of(condition, rates.metric, column) for condition in best], column, spread, decimals
    )
    by, by_unit = mean_and_spread(
        [summary_of(condition, str(rates.validation), validation) for condition in best], validation, "sd", decimals
    )
    rows = [
        [line.name, f"{line.chosen:.4g}", by_text.partition(" ")[0], text, str(len(condition.run.at_end(rates.metric)))]
        for line, condition, text, by_text in zip(lines, best, shown, by, strict=True)
    ]
    edges = [
        line.name
        for line in lines
        if len(line.conditions) > 1 and {line.chosen, *line.tied} & {min(line.conditions), max(line.conditions)}
    ]
    ties = [
        f"{line.name}: {line.chosen:.4g} is tied with {', '.join(f'{value:.4g}' for value in line.tied)}"
        for line in lines
        if line.tied
    ]
    missing = [line.name for line in rates.lines if line.chosen is None]
    headings = ["run", rates.short, validation.qualified(validation.label, by_unit)]
    headings += [column.qualified(column.label, unit), "n"]
    best_by = f"with the {rates.short} of the best {validation.label}"
    caption = [f"{column.label} on {rates.task}: {best_by}; {spread_text(column, spread)}"]
    caption += [f"the lowest of values that are tied on validation: {'; '.join(ties)}"] * bool(ties)
    caption += [f"at the edge of its values, so that a better one may lie outside: {', '.join(edges)}"] * bool(edges)
    caption += [f"without a choice, since seeds diverged or nothing is finished: {', '.join(missing)}"] * bool(missing)
    return Table(headings, rows, "\n".join(caption))
