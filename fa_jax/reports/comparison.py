"""The comparison of runs and sweeps: tables, contrasts and figures.

comparison.csv                one row per condition: choices, scores, all metrics, cost, the options that differ
contrasts.csv                 one row per contrast
controls.csv                  one row per rule and control: how far the rule is above it
comparison.md, comparison.tex the tables for a page or a paper
comparison.png, .pdf          the learning curves and the angles
rates.csv, .png, .pdf         of a sweep of one number: the metric at each value
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fa_jax.checks import BadOption, nearest
from fa_jax.records.conditions import Condition, conditions
from fa_jax.records.files import write_text
from fa_jax.records.reader import Run
from fa_jax.reports import notes
from fa_jax.reports.contrast_table import PAPER, contrast_table
from fa_jax.reports.contrasts import Contrast, columns_of, compute_contrasts, declared, planned
from fa_jax.reports.controls import Margin, control_notes, margin_table, margins
from fa_jax.reports.decimals import unit_decimals
from fa_jax.reports.export import score_rows, write_contrasts, write_csv, write_margins
from fa_jax.reports.flags import flag_notes
from fa_jax.reports.labels import labels
from fa_jax.reports.options import IMAGES, FigureOptions
from fa_jax.reports.paper import paper_rows, paper_table
from fa_jax.reports.rates import Rates, find_rates, rates_notes, rates_rows, rates_tables
from fa_jax.reports.tables import Score, Table, score_table, scores, terminal
from fa_jax.user.text import say

REFERENCE = "bp"
"""The rule that all others are contrasted with by default."""
PRINTED = 100
"""The most rows of a table that are printed."""
DEFAULT = FigureOptions()
ALL = ("png", "pdf", "csv", "markdown", "latex")
"""The formats that are written by default."""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Conditions with their labels and contrasts."""

    conditions: list[Condition]
    names: list[str]
    metric: str | None
    """A column; None: the main metric of each condition."""
    contrasts: list[Contrast]
    notes: list[str]
    """What was done with runs that have no row, no curve or no contrast of their own."""
    margins: list[Margin]
    """How far conditions are above their controls."""
    control_notes: list[str]
    """Which conditions have no control, and why."""

    @functools.cached_property
    def scores(self) -> list[Score]:
        """The score of each condition."""
        return scores(self.conditions, self.metric)

    @functools.cached_property
    def rates(self) -> list[Rates]:
        """The sweeps of one number, one per task."""
        return find_rates(self.conditions, self.metric)

    def decimals(self, spread: str = "interval") -> dict[str, int]:
        """Returns the decimals of each unit in all tables; `spread` as for `paper_table`."""
        metrics = [self.metric or condition.run.main_metric for condition in self.conditions]
        metrics += [name for rates in self.rates for name in (rates.metric, rates.validation) if name]
        contrasts = [(row.metric, row.difference, row.high - row.difference) for row in self.contrasts]
        above = [(row.metric, row.margin, row.high - row.margin) for row in self.margins]
        return unit_decimals(self.conditions, metrics, [contrasts, above], spread)

    def tables(self, spread: str = "interval", contrast_columns: Sequence[str] | None = None) -> list[Table]:
        """Returns the tables that follow the scores: those of sweeps, of contrasts, and of what is above a control.

        Args:
          spread: as for `paper_table`.
          contrast_columns: as for `contrast_table`.
        """
        columns, decimals = columns_of(self.conditions), self.decimals(spread)
        shown = [table for rates in self.rates for table in rates_tables(self.conditions, rates, spread, decimals)]
        if self.contrasts:
            shown.append(contrast_table(self.contrasts, self.names, columns, contrast_columns, decimals))
        if self.margins:
            shown.append(margin_table(self.margins, self.names, columns, decimals))
        return shown


def compare(
    runs: Sequence[Run], *, metric: str | None = None, against: str | None = None, contrasts: str | None = None
) -> Comparison:
    """Returns the comparison of runs.

    Args:
      runs: at least one.
      metric: a column; None: the main metric of each condition.
      against: the rule, or the label of the condition, that the others are contrasted with; None: bp, if it is there,
        or the first of two rules.
      contrasts: contrasts such as `dfa:bp,dfa:fa` instead.

    Raises:
      BadOption: if there is no such metric, rule or condition.
    """
    compared = conditions(runs)
    names = labels([condition.run for condition in compared])
    columns = list(columns_of(compared))
    if metric is not None and metric not in columns:
        raise BadOption(f"must be one of {', '.join(columns)}; got {metric!r}{nearest(metric, columns)}", "metric")
    rules = [condition.run.choices["rule"] for condition in compared]
    lines = notes.run_notes(compared, names, metric)
    if contrasts is not None:
        pairs = declared(contrasts, compared, names)
        lines += notes.unasked_notes(names, pairs)
    else:
        # Of two rules, the first one is the reference.
        reference = against or (REFERENCE if REFERENCE in rules or len(set(rules)) != 2 else rules[0])
        if reference in rules or against is not None:
            pairs = planned(compared, names, reference)
            lines += notes.reference_notes(compared, names, pairs, reference)
        else:
            pairs = []
            if len(compared) > 1:
                lines.append(f"no contrasts: {REFERENCE} is not among the rules; against= names another reference")
    computed = compute_contrasts(compared, [(i, j, metric or compared[j].run.main_metric) for i, j in pairs])
    tested = [(contrast.condition, contrast.against) for contrast in computed]
    lines += [*notes.test_notes(compared, names, pairs, tested), *notes.equal_notes(compared, names)]
    lines += notes.code_notes(compared)
    lines += flag_notes(compared, names)
    above = margins(compared, names, metric)
    return Comparison(compared, names, metric, computed, lines, above, control_notes(compared, names, above))


def show(
    comparison: Comparison,
    console: Console,
    columns: Sequence[str] | None = None,
    spread: str = "interval",
    contrast_columns: Sequence[str] | None = None,
) -> None:
    """Prints the tables and the notes.

    Args:
      comparison: to be shown.
      console: to print on.
      columns: of the table of scores, as for `paper_table`; None: mean, intervals, median and others of one metric.
      spread: as for `paper_table`.
      contrast_columns: as for `contrast_table`.
    """
    compared, names = comparison.conditions, comparison.names
    if columns is None:
        first = score_table(compared, names, comparison.metric, comparison.scores, comparison.decimals(spread))
    else:
        first = paper_table(compared, names, columns, spread, comparison.decimals(spread))
    for table in (first, *comparison.tables(spread, contrast_columns)):
        console.print(terminal(_first_rows(table), console.width))
    show_notes(comparison, console)


def show_notes(comparison: Comparison, console: Console) -> None:
    """Prints the notes, and why runs failed."""
    for note in (*comparison.notes, *comparison.control_notes, *rates_notes(comparison.rates, comparison.names)):
        say(console, note)
    for condition in comparison.conditions:
        for run in (*condition.used, *condition.left_out):
            if run.status["status"] == "failed":
                say(console, f"failed: {run.folder}: {run.status['reason']}")


def write(
    comparison: Comparison,
    folder: Path,
    options: FigureOptions = DEFAULT,
    *,
    formats: Sequence[str] = ALL,
    columns: Sequence[str] | None = None,
    spread: str = "interval",
    contrast_columns: Sequence[str] | None = None,
) -> None:
    """Writes the tables and the figures into a folder, which is created; earlier ones are replaced.

    Args:
      comparison: to be written.
      folder: to write to.
      options: of the figures.
      formats: of `options.FORMATS`.
      columns, spread: of the table for a paper, as for `paper_table`.
      contrast_columns: of the contrasts in Markdown and LaTeX, as for `contrast_table`; None: `PAPER`.
    """
    compared, names, metric = comparison.conditions, comparison.names, comparison.metric
    paper = paper_table(
        compared, names, columns or (metric and [metric, "n"]) or None, spread, comparison.decimals(spread)
    )
    folder.mkdir(parents=True, exist_ok=True)
    if "csv" in formats:
        every = columns is None
        rows = score_rows(compared, names, comparison.scores, metric) if every else paper_rows(compared, names, columns)
        write_csv(folder / "comparison.csv", rows)
        write_contrasts(comparison.contrasts, names, folder / "contrasts.csv")
        if comparison.margins:
            write_margins(comparison.margins, names, folder / "controls.csv")
        if comparison.rates:
            write_csv(folder / "rates.csv", rates_rows(compared, comparison.rates))
    with_tables = {"markdown", "latex"} & set(formats)
    tables = [paper, *comparison.tables(spread, contrast_columns or PAPER)] if with_tables else []
    if "markdown" in formats:
        write_text(folder / "comparison.md", "\n".join(table.markdown() for table in tables))
    if "latex" in formats:
        texts = [table.latex(f"comparison{i or ''}") for i, table in enumerate(tables)]
        write_text(folder / "comparison.tex", "\n".join(texts))
    if images := [name for name in formats if name in IMAGES]:
        _write_figures(comparison, folder, options, images)


def _write_figures(comparison: Comparison, folder: Path, options: FigureOptions, formats: Sequence[str]) -> None:
    from fa_jax.reports.figures import comparison_figure, save  # imports matplotlib, which is slow
    from fa_jax.reports.rates_figure import rates_figure

    runs = [condition.run for condition in comparison.conditions]
    path, chosen = folder / "comparison", comparison.metric
    comparison_figure(runs, path, chosen, options, names=comparison.names, formats=formats)
    if comparison.rates:
        figure = rates_figure(comparison.conditions, comparison.rates, options)
        save(figure, folder / "rates", formats, options)


def _first_rows(table: Table) -> Table:
    """Returns a table of no more rows than are printed, which says so."""
    if len(table.rows) <= PRINTED:
        return table
    caption = f"the first {PRINTED} of {len(table.rows)} rows; the files have all\n{table.caption}"
    return table._replace(rows=table.rows[:PRINTED], caption=caption)
