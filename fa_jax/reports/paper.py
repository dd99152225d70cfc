"""The table for a paper: one row per condition; of each metric, the mean and its spread over seeds."""

import math
from collections.abc import Callable, Mapping, Sequence

from fa_jax.checks import BadOption, choose, nearest
from fa_jax.records.columns import Column
from fa_jax.records.conditions import Condition
from fa_jax.records.statistics import DIVERGED, Summary
from fa_jax.reports.contrasts import columns_of, differing_options
from fa_jax.reports.decimals import half_of, summary_of, unit_of
from fa_jax.reports.flags import marked, meanings
from fa_jax.reports.labels import rule_label
from fa_jax.reports.notes import first
from fa_jax.reports.numbers import decimals_of, fixed, power_of
from fa_jax.reports.paired import not_different
from fa_jax.reports.selection import REMEDY, chosen, several_settings, validation_of
from fa_jax.reports.tables import Table

SPREADS = {
    "interval": "half of the 95 % interval of the mean by Student's t",
    "sd": "the standard deviation over seeds",
}
"""What may follow a mean."""
UNDECIDED = "the paired t-test over seeds tells no condition from the best (5 %, Holm)"
DIGITS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
COUNTS: dict[str, Callable[[Condition], str]] = {
    "n": lambda condition: str(len(condition.run.seeds) - len(condition.run.diverged)),
    "diverged": lambda condition: str(len(condition.run.diverged)),
    "params": lambda condition: _of_cost(condition, "effective_params", ",.0f"),
    "feedback_weights": lambda condition: _of_cost(condition, "feedback_weights", ",.0f"),
    "train_seconds": lambda condition: _of_cost(condition, "train_seconds", ".1f"),
    "steps/s": lambda condition: _of_cost(condition, "seed_steps_per_second", ",.0f"),
}
"""Columns that are neither metrics nor options."""


def paper_table(
    conditions: Sequence[Condition],
    names: Sequence[str],
    columns: Sequence[str] | None = None,
    spread: str = "interval",
    decimals: Mapping[str, int] | None = None,
) -> Table:
    """Returns one row per condition.

    The numbers of a column have the same decimals: those that show two digits of its typical spread. Of a score, the
    best mean on each task is bold, with every one that does not differ from it by the paired t-test over common seeds
    at the 5 % level after Holm's correction. Nothing is bold where a condition has fewer than two seeds to compare, or
    where no condition of the task differs from the best, or where a test score would choose among settings of one rule:
    the validation score chooses them.

    Args:
      conditions: the runs to compare.
      names: their labels.
      columns: metrics such as `test_error`, options such as `optimizer.learning_rate`, groups such as `architecture`,
        or `COUNTS`; None: the main metrics, and the number of seeds.
      spread: `interval` or `sd`.
      decimals: of units, as of `unit_decimals`.

    Raises:
      BadOption: if there is no such column or spread.
    """
    choose("spread", spread, SPREADS)
    metrics, settings = columns_of(conditions), _settings(conditions)
    shown = _checked(conditions, columns)
    headings, cells, bold, notes = ["run"], [list(names)], set(), []
    for number, name in enumerate(shown, start=1):
        if name in metrics:
            heading, texts = _metric_column(conditions, name, metrics[name], spread, decimals)
            best, explained = _best(conditions, names, name, metrics[name])
            bold |= {(i, number) for i in best}
            notes += explained
        elif name in COUNTS:
            heading, texts = name, [COUNTS[name](condition) for condition in conditions]
        else:
            heading, texts = name.rpartition(".")[2], [of_run.get(name, "-") for of_run in settings]
        headings.append(heading)
        cells.append(texts)
    caption = _caption(conditions, [metrics[name] for name in shown if name in metrics], spread)
    caption += [
        "bold: the best mean, and each that the paired t-test over seeds does not tell from it (5 %, Holm)"
    ] * bool(bold)
    caption += meanings((condition.run, name) for name in shown if name in metrics for condition in conditions)
    rows = [list(row) for row in zip(*cells, strict=True)]
    return Table(headings, rows, "\n".join([*caption, *dict.fromkeys(notes)]), frozenset(bold))


def paper_rows(
    conditions: Sequence[Condition], names: Sequence[str], columns: Sequence[str]
) -> list[dict[str, float | int | str]]:
    """Returns the numbers of chosen columns, as for `paper_table`, one row per condition; of a metric, its summary."""
    metrics, rows = columns_of(conditions), []
    for condition, name, settings in zip(conditions, names, _settings(conditions), strict=True):
        row: dict[str, float | int | str] = {"run": name}
        for column in _checked(conditions, columns):
            if column in metrics:
                summary = summary_of(condition, column, metrics[column])
                row |= {f"{column}_{part}": value for part, value in summary._asdict().items()}
            else:
                row[column] = COUNTS[column](condition) if column in COUNTS else settings.get(column, "")
        rows.append(row)
    return rows


def mean_and_spread(
    summaries: Sequence[Summary], column: Column, spread: str, decimals: Mapping[str, int] | None = None
) -> tuple[list[str], str]:
    """Returns the mean and the spread of each summary as text, with the same decimals, and the unit of all.

    The decimals are those of the unit, if they are given. Without a finite value, the text is `-`. Means of a
    logarithmic metric are geometric, and `×/÷` a factor.
    """
    halves = [half_of(summary, column, spread) for summary in summaries]
    means = [summary.mean for summary in summaries]
    if column.logarithmic:
        return [_geometric(mean, factor) for mean, factor in zip(means, halves, strict=True)], column.unit
    power = power_of(means)
    means, halves = ([value / 10.0**power for value in values] for values in (means, halves))
    needed = decimals_of(means, halves)
    shown = needed if power else (decimals or {}).get(unit_of(column), needed)
    texts = []
    for mean, half in zip(means, halves, strict=True):
        text = "-" if math.isnan(mean) else fixed(mean, shown)
        texts.append(text if math.isnan(half) else f"{text} ± {fixed(half, shown)}")
    scale = f"10{str(power).translate(DIGITS)}" if power else ""
    return texts, " ".join(filter(None, (scale, column.unit)))


def spread_text(column: Column, spread: str) -> str:
    """Returns the name of the mean and the spread that `mean_and_spread` shows."""
    if not column.logarithmic:
        return f"mean ± {SPREADS[spread]}"
    factor = "of the 95 % interval" if spread == "interval" else "of one standard deviation of the logarithm"
    return f"geometric mean ×/÷ the factor {factor}"


def _metric_column(
    conditions: Sequence[Condition], name: str, column: Column, spread: str, decimals: Mapping[str, int] | None
) -> tuple[str, list[str]]:
    summaries = [summary_of(condition, name, column) for condition in conditions]
    texts, unit = mean_and_spread(summaries, column, spread, decimals)
    for i, condition in enumerate(conditions):
        run = condition.run
        if texts[i] == "-" and name in run.metrics and len(run.diverged) == len(run.seeds):
            texts[i] = "diverged"
        texts[i] = marked(texts[i], run, name)
    return column.qualified(column.label, unit), texts


def _settings(conditions: Sequence[Condition]) -> list[dict[str, str]]:
    """Returns the choices and the options of each condition."""
    return [
        {group: str(choice) for group, choice in condition.run.choices.items() if choice is not None}
        | condition.run.options
        for condition in conditions
    ]


def _checked(conditions: Sequence[Condition], columns: Sequence[str] | None) -> list[str]:
    """Returns the chosen columns, once each."""
    if columns is None:
        return [*dict.fromkeys(c.run.main_metric for c in conditions if c.run.metrics), "n"]
    metrics = columns_of(conditions)
    valid = list(dict.fromkeys((*metrics, *COUNTS, *(key for of_run in _settings(conditions) for key in of_run))))
    for name in columns:
        if name not in valid:
            raise BadOption(
                f"must be of metrics such as {', '.join(list(metrics)[:3])}, of options such as "
                f"optimizer.learning_rate, or of {', '.join(COUNTS)}; got {name!r}{nearest(name, valid)}",
                "columns",
            )
    return list(dict.fromkeys(columns))


def _best(
    conditions: Sequence[Condition], names: Sequence[str], name: str, column: Column
) -> tuple[set[int], list[str]]:
    """Returns the conditions with the best mean of a score on each task, and why none is, on all tasks or on some.

    Of several settings of a rule, a test score compares the one that the validation score chooses.
    """
    if column.split is None or column.better == "neither":
        return set(), []
    of_task: dict[str, dict[int, float]] = {}
    for i, condition in enumerate(conditions):
        run = condition.run
        mean = summary_of(condition, name, column).mean
        if not math.isnan(mean) and run.is_finished:
            of_task.setdefault(run.choices["task"], {})[i] = mean
    groups = several_settings(conditions) if column.split == "test" else []
    best_of = [chosen(conditions, group, validation_of(name)) for group in groups]
    not_chosen = {i for group, best in zip(groups, best_of, strict=True) for i in group if i not in best[:1]}
    by_test = {i for group, best in zip(groups, best_of, strict=True) for i in group if not best}
    bold: set[int] = set()
    undecided, unequal, unchosen, is_chosen = [], [], {}, False
    for task, means in of_task.items():
        if rules := dict.fromkeys(rule_label(conditions[i].run) for i in means if i in by_test):
            unchosen[task] = f"{' and '.join(rules)} {'has' if len(rules) == 1 else 'have'} several settings"
            continue
        compared = {i: mean for i, mean in means.items() if i not in not_chosen}
        if len(compared) < 2:
            continue
        best = (min if column.better == "lower" else max)(compared, key=compared.__getitem__)
        equal = not_different(conditions, best, [i for i in compared if i != best], name)
        if equal is None:
            return set(), [f"nothing is bold in {column.label}: not all have two seeds to compare"]
        if len(equal) == len(compared) - 1:
            undecided.append(task)
        else:
            bold |= {best, *equal}
            unequal += _other_settings(conditions, names, [i for i in compared if i != best], best)
            is_chosen |= len(compared) < len(means)
    notes = [f"nothing is bold in {column.label} on {', '.join(undecided)}: {UNDECIDED}"] * bool(undecided)
    for task, reason in unchosen.items():
        notes.append(
            f"nothing is bold in {column.label} on {task}: {reason}, of which test scores would choose; {REMEDY}"
        )
    notes += unequal
    if is_chosen:
        label = columns_of(conditions)[validation_of(name)].label
        notes.append(f"of several settings of a rule, the one of the best {label} can be bold")
    return bold, notes


def _other_settings(conditions: Sequence[Condition], names: Sequence[str], others: list[int], best: int) -> list[str]:
    """Returns a note on the conditions that differ from the best one in more than what comes with a rule."""
    options = {i: differing_options(conditions[i], conditions[best]) for i in others}
    texts = [f"{names[i]} in {first(differing, ' and ')}" for i, differing in options.items() if differing]
    return [f"differ from {names[best]} in more than the rule: {first(texts, '; ')}"] if texts else []


def _caption(conditions: Sequence[Condition], shown: Sequence[Column], spread: str) -> list[str]:
    seeds = sorted({len(c.run.seeds) - len(c.run.diverged) for c in conditions})
    counts = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    means = dict.fromkeys(
        spread_text(column, spread) for column in sorted(shown, key=lambda column: column.logarithmic)
    )
    lines = [f"{mean}, n = {counts} seeds, at the last evaluation" for mean in means]
    if any(condition.run.diverged for condition in conditions):
        lines.append(f"diverged seeds are left out; {DIVERGED}")
    if any(column.layer is not None for column in shown):
        lines.append("layers count from 0 at the input")
    unfinished = sum(not condition.run.is_finished for condition in conditions)
    return [*lines, *([f"{unfinished} of the runs are not finished"] if unfinished else [])]


def _geometric(mean: float, factor: float) -> str:
    if math.isnan(mean):
        return "-"
    mantissa, _, exponent = f"{mean:.2e}".partition("e")
    power = int(exponent)
    text = f"{mantissa}×10{str(power).translate(DIGITS)}" if abs(power) > 2 else f"{mean:.3g}"
    return text if math.isnan(factor) else f"{text} ×/÷ {factor:.2f}"


def _of_cost(condition: Condition, name: str, form: str) -> str:
    value = (condition.run.summary or {}).get("cost", {}).get(name)
    return "-" if value is None else format(value, form)
