"""Runs in Python: their numbers, tables and figures, and what their networks compute."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from matplotlib.figure import Figure

from fa_jax.api.run import Run
from fa_jax.checks import BadOption
from fa_jax.records.reader import KEYS
from fa_jax.records.reader import Run as Record
from fa_jax.reports import comparison
from fa_jax.reports.contrast_table import contrast_table
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.controls import margin_table
from fa_jax.reports.figures import angles_figure, curves_figure
from fa_jax.reports.labels import labels, matching
from fa_jax.reports.layers import layer_table
from fa_jax.reports.options import figure_options
from fa_jax.reports.paper import paper_table
from fa_jax.reports.rates import Rates, rates_tables
from fa_jax.reports.rates_figure import rates_figure
from fa_jax.reports.tables import Table, score_table

if TYPE_CHECKING:
    import pandas as pd


class Runs(Sequence[Run]):
    """Runs to be compared: a sequence, whose tables and figures are those of the command line."""

    def __init__(self, runs: Sequence[Run]):
        self._runs = list(runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @overload
    def __getitem__(self, index: int | str) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> "Runs": ...
    def __getitem__(self, index: int | str | slice) -> "Run | Runs":
        """Returns a run, by its number or its name, or some of them.

        A name is a label, as tables show it, a rule, or what was typed: `"FA learning_rate=0.1"`, `"fa"`, or
        `"rule=fa optimizer.learning_rate=0.1"`.

        Raises:
          BadOption: if a name is that of no run, or of several.
        """
        if isinstance(index, slice):
            return Runs(self._runs[index])
        if not isinstance(index, str):
            return self._runs[index]
        matches = matching(index, self.records, self.labels)
        if len(matches) != 1:
            several = f"; {len(matches)} runs are {index!r}" if matches else f"; got {index!r}"
            named = [self.labels[i] for i in matches] or self.labels
            raise BadOption(f"the name of a run must be one of {', '.join(named)}{several}")
        return self._runs[matches[0]]

    def __repr__(self) -> str:
        return f"<Runs: {', '.join(self.labels)}>"

    @property
    def records(self) -> list[Record]:
        """What is recorded of each."""
        return [run.record for run in self._runs]

    @property
    def labels(self) -> list[str]:
        """A label for each, of what distinguishes it from the others."""
        return labels(self.records)

    def frame(self) -> "pd.DataFrame":
        """Returns all recorded metrics as a pandas data frame: one row for each run, seed and evaluation.

        Columns: `run` (the label), `task`, `architecture`, `rule`, the keys `seed`, `step`, `examples`, `epoch`, and
        the metrics, such as `test_error`.

        Raises:
          BadOption: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise BadOption("frame() needs pandas; pip install 'fa-jax[notebook]' or pandas") from None

        frames = []
        for name, record in zip(self.labels, self.records, strict=True):
            frame = pd.DataFrame(record.metrics)
            for key in set(KEYS) & set(frame.columns) - {"epoch"}:
                frame[key] = frame[key].astype(int)
            for column in ("rule", "architecture", "task"):
                frame.insert(0, column, record.choices[column])
            frame.insert(0, "run", name)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def comparison(
        self, metric: str | None = None, *, against: str | None = None, contrasts: str | None = None
    ) -> comparison.Comparison:
        """Returns conditions and contrasts as numbers; arguments as for `summary` and `contrasts`."""
        return comparison.compare(self.records, metric=metric, against=against, contrasts=contrasts)

    def summary(self, metric: str | None = None) -> Table:
        """Returns one row for each condition: mean, intervals, median and n at the last evaluation.

        Args:
          metric: a column, such as `test_loss`; None: the one that each task is judged by.
        """
        compared = self.comparison(metric)
        return score_table(compared.conditions, compared.names, metric, decimals=compared.decimals())

    def contrasts(
        self,
        metric: str | None = None,
        *,
        against: str | None = None,
        pairs: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> Table:
        """Returns the differences between rules in pairs over seeds, with intervals and tests.

        Args:
          metric: as for `summary`.
          against: the rule that the others are contrasted with; None: `bp`, or the first of two rules without it.
          pairs: contrasts such as `dfa:bp,dfa:fa` instead.
          columns: of `difference`, `interval`, `d`, `p_t`, `holm_t`, `p_wilcoxon`, `holm_wilcoxon`, `n` and `needed`;
            None: all.

        Raises:
          BadOption: if there is nothing to contrast, or no such column; the message says why.
        """
        compared = self.comparison(metric, against=against, contrasts=pairs)
        if not compared.contrasts:
            reasons = [note.removeprefix("no contrasts: ") for note in compared.notes]
            raise BadOption(f"there are no contrasts: {'; '.join(reasons) or 'there is one condition'}")
        described = columns_of(compared.conditions)
        table = contrast_table(compared.contrasts, compared.names, described, columns, compared.decimals())
        return table._replace(caption="\n".join([table.caption, *compared.notes]))

    def above_frozen(self, metric: str | None = None) -> Table:
        """Returns how much better each rule is than its control, a network whose hidden layers do not learn.

        Controls are runs of `frozen_blocks` and of `shallow`, and runs of the rule itself with `frozen` params.

        Args:
          metric: as for `summary`.

        Raises:
          BadOption: if no rule has a control; the message says how to train it, or in what more than the rule differs.
        """
        compared = self.comparison(metric)
        if not compared.margins:
            reasons = compared.control_notes or ["there is no finished rule, or the metric has no better values"]
            raise BadOption(f"there is nothing above a control: {'; '.join(reasons)}")
        described = columns_of(compared.conditions)
        table = margin_table(compared.margins, compared.names, described, compared.decimals())
        return table._replace(caption="\n".join([table.caption, *compared.control_notes]))

    def table(
        self, columns: Sequence[str] | None = None, *, metric: str | None = None, spread: str = "interval"
    ) -> Table:
        """Returns the table for a paper: mean and spread of each condition; `.latex()` and `.markdown()` give its text.

        Args:
          columns: metrics such as `test_error`, options such as `optimizer.learning_rate`, `n`, `params` and others;
            None: `metric` and `n`.
          metric: as for `summary`.
          spread: what follows ±: half of the 95 % `interval`, or the `sd` over seeds.

        Raises:
          BadOption: if there is no such column.
        """
        compared = self.comparison(metric)
        chosen = columns if columns is not None or metric is None else [metric, "n"]
        return paper_table(compared.conditions, compared.names, chosen, spread, compared.decimals(spread))

    def layers(self) -> Table:
        """Returns what is measured of each hidden layer at the last evaluation.

        These are the angle of its signal to backprop's, beside that of random signals, the norm of backprop's signal,
        and the scale of the hidden state with its growth. What should not be trusted is marked, and the caption says
        why.

        Raises:
          BadOption: if nothing is measured of hidden layers.
        """
        compared = self.comparison()
        table = layer_table(compared.conditions, compared.names)
        if not table.rows:
            raise BadOption("nothing is measured of hidden layers in these runs; probe=100 does")
        return table

    def rates(self, metric: str | None = None) -> list[Table]:
        """Returns the tables of a sweep of one number, such as the learning rate.

        The first has the metric by rule and value. The second has each rule's value with the best validation score, if
        there are validation examples.

        Raises:
          BadOption: if no rule differs in a number.
        """
        compared = self.comparison(metric)
        decimals = compared.decimals()
        swept = _swept(compared)
        return [table for rates in swept for table in rates_tables(compared.conditions, rates, decimals=decimals)]

    def plot(
        self,
        metric: str | None = None,
        *,
        title: str | None = None,
        size: tuple[float, float] | None = None,
        font_size: float | None = None,
        axis: str | None = None,
        notes: bool = True,
    ) -> Figure:
        """Returns the learning curves: the mean over seeds, with its 95 % interval or fewer than five single seeds.

        Of more than eight conditions, each rule has a panel.

        Args:
          metric: as for `summary`.
          title: of the figure.
          size: width and height in inches.
          font_size: in points.
          axis: `examples` or `epochs`.
          notes: whether lines, bands and marks are explained below the panels.

        Raises:
          BadOption: if nothing is evaluated, or an option is wrong.
        """
        compared = self.comparison(metric)
        options = figure_options(title, size, font_size, axis, notes=notes)
        return curves_figure([c.run for c in compared.conditions], metric, options, compared.names)

    def plot_angles(
        self,
        layers: Sequence[int] | None = None,
        *,
        title: str | None = None,
        size: tuple[float, float] | None = None,
        font_size: float | None = None,
        axis: str | None = None,
        notes: bool = True,
    ) -> Figure:
        """Returns the angles of the learning signals to backprop's, with a panel for each hidden layer.

        Args:
          layers: counted from 0 at the input; None: the first and the last.
          title, size, font_size, axis, notes: as for `plot`.

        Raises:
          BadOption: if none is recorded, or an option is wrong.
        """
        compared = self.comparison()
        options = figure_options(title, size, font_size, axis, layers, notes)
        return angles_figure([c.run for c in compared.conditions], options, compared.names)

    def plot_rates(
        self,
        metric: str | None = None,
        *,
        title: str | None = None,
        size: tuple[float, float] | None = None,
        font_size: float | None = None,
        notes: bool = True,
    ) -> Figure:
        """Returns the metric at the end of training against the number that a sweep varies; arguments as for `plot`.

        Raises:
          BadOption: if no rule differs in a number, or an option is wrong.
        """
        compared = self.comparison(metric)
        return rates_figure(compared.conditions, _swept(compared), figure_options(title, size, font_size, notes=notes))


def _swept(compared: comparison.Comparison) -> list[Rates]:
    if not compared.rates:
        raise BadOption("no conditions of one rule differ in a number alone, such as optimizer.learning_rate")
    return compared.rates
