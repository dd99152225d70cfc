"""Tables of recorded runs, and how the terminal shows them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.text import Text

from fa_jax.records.columns import Column
from fa_jax.records.conditions import Condition
from fa_jax.records.reader import Run
from fa_jax.records.statistics import (
    DIVERGED,
    SMALLEST,
    Summary,
    bootstrap_intervals,
    interquartile_mean,
    summarise,
    summarise_logarithm,
)
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.decimals import of_metrics
from fa_jax.reports.flags import marked, meanings
from fa_jax.reports.numbers import interval_text, number_text
from fa_jax.user.text import printable

WIDTH = 160
OPTIONAL = ("95 % (bootstrap)", "IQM", "p (W)", "Holm", "steps/s")
"""Columns that are left out of a table, from the right, if the terminal is too narrow."""


class Table(NamedTuple):
    """A table of texts; the first column is left-aligned, the others right-aligned."""

    headings: list[str]
    rows: list[list[str]]
    caption: str
    bold: frozenset[tuple[int, int]] = frozenset()
    """The row and the column of each cell in bold."""

    def markdown(self) -> str:
        """Returns the table for a page in Markdown, with its caption below."""
        from fa_jax.reports.export import markdown

        return markdown(self)

    def latex(self, label: str = "comparison") -> str:
        """Returns the table for a paper, a `table` environment with rules of booktabs.

        Args:
          label: of the environment, after `tab:`.
        """
        from fa_jax.reports.latex import latex

        return latex(self, label)

    def __str__(self) -> str:
        caption = "\n".join(map(printable, self.caption.split("\n")))
        return f"{self._tabulated('simple')}\n{caption}"

    def _repr_html_(self) -> str:
        """Returns the table as a notebook shows it."""
        from html import escape

        caption = "<br>".join(map(escape, self.caption.split("\n")))
        return f"{self._tabulated('html')}<p><small>{caption}</small></p>"

    def _tabulated(self, form: str) -> str:
        from tabulate import tabulate

        rows = [list(map(printable, row)) for row in self.rows]
        alignment = ("left", *["right"] * (len(self.headings) - 1))
        return tabulate(rows, list(map(printable, self.headings)), form, disable_numparse=True, colalign=alignment)


class Score(NamedTuple):
    """The value of a metric for a condition at the last evaluation, over its seeds."""

    mean: Summary
    """Geometric for a logarithmic metric."""
    bootstrap: tuple[float, float]
    """The 95 % bootstrap interval of that mean."""
    interquartile_mean: float


def scores(conditions: Sequence[Condition], metric: str | None = None) -> list[Score]:
    """Returns the `Score` of each condition; for a logarithmic metric, of the logarithm, exponentiated.

    Args:
      conditions: to be scored.
      metric: a column; None: the main metric of each.
    """
    summaries, samples, logarithmic = [], [], []
    for condition in conditions:
        run = condition.run
        judged = metric or run.main_metric
        values = list(run.at_end(judged).values()) if judged in run.metrics else []
        is_logarithmic = bool(values) and run.columns[judged].logarithmic
        summaries.append((summarise_logarithm if is_logarithmic else summarise)(values))
        finite = [v for v in values if math.isfinite(v)]
        samples.append([math.log(max(v, SMALLEST)) for v in finite] if is_logarithmic else finite)
        logarithmic.append(is_logarithmic)
    result = []
    for i, (low, high) in enumerate(bootstrap_intervals(samples)):
        original_scale = math.exp if logarithmic[i] else float
        interval = original_scale(low), original_scale(high)
        result.append(Score(summaries[i], interval, original_scale(interquartile_mean(samples[i]))))
    return result


def score_table(
    conditions: Sequence[Condition],
    names: Sequence[str],
    metric: str | None = None,
    computed: Sequence[Score] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> Table:
    """Returns one row per condition: mean, intervals, median, interquartile mean, first angle, speed.

    Args:
      conditions: the runs to compare.
      names: their labels.
      metric: a column; None: the main metric of each condition.
      computed: their scores, if they were computed already.
      decimals: of units, as of `unit_decimals`; of others, and by default, numbers have four digits.
    """
    computed = scores(conditions, metric) if computed is None else computed
    metrics = [metric or condition.run.main_metric for condition in conditions]
    columns = columns_of(conditions)
    judged = [m for m in dict.fromkeys(metrics) if m in columns]
    runs = [condition.run for condition in conditions]
    titles = [
        run.columns[m].qualified(m, run.columns[m].unit) if m in run.columns else m
        for run, m in zip(runs, metrics, strict=True)
    ]
    shown = list(dict.fromkeys(title for title, m in zip(titles, metrics, strict=True) if m in columns))
    several = len(shown) > 1
    states = [state(condition) for condition in conditions]
    show_states = any(reached != "finished" for reached in states)
    headings = ["run", *(["metric"] if several else []), "mean" if several else "".join(shown), "95 % (t)"]
    headings += ["95 % (bootstrap)", "median", "IQM", "n", "angle", "steps/s", *(["status"] if show_states else [])]
    rows, places = [], of_metrics(decimals, columns)
    for run, name, values, title, judged_by, reached in zip(
        runs, names, computed, titles, metrics, states, strict=True
    ):
        angles = run.at_end("signal_angle_0") if "signal_angle_0" in run.metrics else {}
        angle = summarise(list(angles.values())).mean
        shown_to = places.get(judged_by)
        speed = (run.summary or {}).get("cost", {}).get("seed_steps_per_second")
        rows.append(
            [
                name,
                *([title if run.metrics else "-"] if several else []),
                marked(number_text(values.mean.mean, shown_to), run, judged_by),
                interval_text(values.mean.low, values.mean.high, shown_to),
                interval_text(*values.bootstrap, decimals=shown_to),
                number_text(values.mean.median, shown_to),
                number_text(values.interquartile_mean, shown_to),
                str(values.mean.n),
                "-" if math.isnan(angle) else marked(f"{angle:.0f}°", run, "signal_angle_0"),
                "-" if not speed else f"{speed:,.0f}",
                *([reached] if show_states else []),
            ]
        )
    kinds = {m: "geometric mean" if columns[m].logarithmic else "mean" for m in judged}
    means = ", ".join(f"{columns[m].qualified(columns[m].label)}: {kind}" for m, kind in kinds.items())
    caption = (
        f"{means} over n seeds at the last evaluation, diverged seeds left out; 95 % intervals by Student's t "
        "and by the BCa bootstrap, which is too narrow for few seeds\n"
        "IQM: interquartile mean; angle: of the signal of layer 0 to BP's, where layers count from 0 at the input; "
        f"steps/s: summed over seeds{_random_angles(runs)}"
    )
    shown = [*zip(runs, metrics, strict=True), *((run, "signal_angle_0") for run in runs)]
    caption = "\n".join([caption, *meanings(shown)])
    if any(score.mean.n > 1 and math.isnan(score.bootstrap[0]) for score in computed):
        caption += "\n-: all seeds agree, and have no interval"
    if any(condition.run.diverged for condition in conditions):
        caption += f"\n{DIVERGED}"
    return Table(headings, rows, caption)


def wide_console() -> Console:
    """Returns a console; outside of a terminal it has room for every column."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def terminal(table: Table, width: int) -> Group:
    """Returns a table for a terminal of this width, with its caption below."""
    columns = list(range(len(table.headings)))
    headings, *rows = [[printable(cell) for cell in row] for row in (table.headings, *table.rows)]
    widths = [max(len(row[i]) for row in (headings, *rows)) + 2 for i in columns]
    for i in reversed(range(len(headings))):
        if sum(widths[j] for j in columns) > width and headings[i] in OPTIONAL:
            columns.remove(i)
    caption = Text("\n".join(map(printable, table.caption.split("\n"))), style="table.caption")
    shown = rich.table.Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for i in columns:
        justify = "right" if i else "left"
        shown.add_column(Text(headings[i], "table.header"), justify=justify, overflow="fold", no_wrap=i > 0)
    for number, row in enumerate(rows):
        shown.add_row(*(Text(row[i], "bold" if (number, i) in table.bold else "") for i in columns))
    return Group(shown, caption)


def state(condition: Condition) -> str:
    """Returns the status of a condition, with the seeds and runs that its numbers leave out."""
    diverged = len(condition.run.diverged)
    unfinished = [run for run in condition.used if not run.is_finished]
    parts = [unfinished[0].state if unfinished else condition.run.status["status"]]
    parts += [f"{diverged} seeds diverged"] if diverged else []
    states = [run.state for run in condition.left_out]
    parts += [f"{states.count(reason)} {reason} left out" for reason in dict.fromkeys(states)]
    return ", ".join(parts)


def random_text(column: Column) -> str:
    """Returns the expected value of a column for random signals, and the deviation of the mean over examples."""
    return "-" if column.random is None else f"{column.random.value:g} ± {column.random.of_mean:.2g}"


def _random_angles(runs: Sequence[Run]) -> str:
    """Returns the expected angle of the first layer for random signals."""
    columns = [run.columns["signal_angle_0"] for run in runs if "signal_angle_0" in run.columns]
    texts = dict.fromkeys(random_text(column) for column in columns if column.random is not None)
    return f"; of random signals, the angle is {' or '.join(texts)}°" if 0 < len(texts) < 4 else ""
