"""Runs in Python: their numbers, tables and figures, and what their networks compute."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

import matplotlib as mpl
from matplotlib.figure import Figure

from fa_jax.api.run import Run
from fa_jax.checks import BadOption, choose
from fa_jax.records.reader import KEYS
from fa_jax.records.reader import Run as Record
from fa_jax.reports import comparison
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.figures import STYLE, draw_angles, draw_curves, explain_band
from fa_jax.reports.labels import labels
from fa_jax.reports.tables import Table, contrast_table, score_table

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
        """Returns a run by its number or its label, such as `fa`; or some of them."""
        if isinstance(index, str):
            by_label = {name.lower(): run for name, run in zip(self.labels, self._runs, strict=True)}
            rules = [run.record.choices["rule"] for run in self._runs]
            if rules.count(index) == 1:
                return self._runs[rules.index(index)]
            return choose("the label of a run", index.lower(), by_label)
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

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
          ImportError: if pandas is not installed.
        """
        import pandas as pd

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
        return score_table(compared.conditions, compared.names, metric)

    def contrasts(self, metric: str | None = None, *, against: str | None = None, pairs: str | None = None) -> Table:
        """Returns the differences between rules in pairs over seeds, with intervals and tests.

        Args:
          metric: as for `summary`.
          against: the rule that the others are contrasted with; None: `bp`.
          pairs: contrasts such as `dfa:bp,dfa:fa` instead.

        Raises:
          BadOption: if there is nothing to contrast; the message says why.
        """
        compared = self.comparison(metric, against=against, contrasts=pairs)
        if not compared.contrasts:
            raise BadOption(f"there are no contrasts: {compared.note or 'there is one condition'}")
        table = contrast_table(compared.contrasts, compared.names, columns_of(compared.conditions))
        return table._replace(caption="\n".join(filter(None, [table.caption, compared.note])))

    def plot(self, metric: str | None = None) -> Figure:
        """Returns the learning curves: the mean over seeds with its 95 % interval over training examples."""
        compared = self.comparison(metric)
        records = [condition.run for condition in compared.conditions if condition.run.metrics]
        names = [name for name, one in zip(compared.names, compared.conditions, strict=True) if one.run.metrics]
        if not records:
            raise BadOption("nothing is evaluated in these runs")
        metric = metric or records[0].main_metric
        with mpl.rc_context(STYLE):
            figure = Drawing(figsize=(5.5, 4), layout="constrained")
            axes = figure.subplots()
            draw_curves(axes, records, metric, names)
            axes.legend(fontsize=7)
            explain_band(axes, logarithmic=axes.get_yscale() == "log", diverged=any(r.diverged for r in records))
        return figure

    def plot_angles(self) -> Figure:
        """Returns the angles of the learning signals to backprop's, one line style per hidden layer.

        Raises:
          BadOption: if none is recorded.
        """
        records = [condition.run for condition in self.comparison().conditions if condition.run.metrics]
        columns = [column for record in records for column in record.columns.values()]
        layers = sorted({c.layer for c in columns if c.metric == "signal_angle" and c.layer is not None})
        if not layers:
            raise BadOption("no angles of learning signals are recorded in these runs; probe=100 measures them")
        with mpl.rc_context(STYLE):
            figure = Drawing(figsize=(5.5, 4), layout="constrained")
            axes = figure.subplots()
            draw_angles(axes, records, layers)
            explain_band(axes, logarithmic=False)
        return figure


class Drawing(Figure):
    """A figure that a notebook shows, also if nothing has imported pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
