"""Runs in Python: their numbers, tables and figures, and what their networks compute."""

import functools
import io
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fa_jax.checks import BadOption, choose
from fa_jax.core import Batch, LayerArrays, PyTree, Task
from fa_jax.records.reader import KEYS, read_checkpoint, read_run
from fa_jax.records.reader import Run as Record
from fa_jax.reports import comparison
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.figures import STYLE, draw_angles, draw_curves, explain_band
from fa_jax.reports.labels import labels
from fa_jax.reports.tables import Table, contrast_table, score_table
from fa_jax.rules.backward import gradient, hidden_gradient
from fa_jax.training.job import Job

if TYPE_CHECKING:
    import pandas as pd


class Compared(NamedTuple):
    """What a rule computes, and what backprop computes for the same params and examples."""

    rule: PyTree
    backprop: PyTree


class Run:
    """One run: its record, and the networks of its seeds.

    Arrays of all seeds have the seeds in front, in the order of `seeds`.
    """

    def __init__(self, record: Record, make_job: Callable[[], Job], read: Callable[[Job], dict[str, Any]]):
        """Takes the record, and functions that make the job and read the params and the feedback when they are used."""
        self.record = record
        self._make_job, self._read = make_job, read

    @classmethod
    def trained(cls, folder: Path, job: Job) -> "Run":
        """Returns the run that was just trained in a folder, which may be deleted afterwards."""
        record = read_run(folder)
        if not job.checkpoint:
            return cls.recorded(record, lambda: job)
        trees = read_checkpoint(record, _shapes(job))
        return cls(record, lambda: job, lambda _: trees)

    @classmethod
    def recorded(cls, record: Record, make_job: Callable[[], Job]) -> "Run":
        """Returns a run as it is recorded in a folder."""
        return cls(record, make_job, lambda job: read_checkpoint(_saved(record), _shapes(job)))

    def __repr__(self) -> str:
        return f"<Run {labels([self.record])[0]} on {self.record.choices['task']}, seeds {reprlib.repr(self.seeds)}>"

    @property
    def folder(self) -> Path:
        """The folder in which it was recorded."""
        return self.record.folder

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, with the `choices` of config groups."""
        return self.record.config

    @property
    def summary(self) -> Mapping[str, Any] | None:
        """The content of `summary.json`: the last evaluation over seeds, and the cost."""
        return self.record.summary

    @functools.cached_property
    def job(self) -> Job:
        """What was trained: task, network, loss, rule, optimizer."""
        return self._make_job()

    @property
    def task(self) -> Task:
        """The data with their preprocessing."""
        return self.job.task

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the leading axis of arrays."""
        seeds, first = self.config["seeds"], self.config.get("seed", 0)
        return list(seeds) if isinstance(seeds, list) else list(range(first, first + seeds))

    @functools.cached_property
    def _trees(self) -> dict[str, Any]:
        return self._read(self.job)

    @property
    def params(self) -> PyTree:
        """The final params, with the seeds in front."""
        return self._trees["params"]

    @property
    def feedback(self) -> PyTree:
        """The final feedback, with the seeds in front; `()` if the rule has none."""
        return self._trees["feedback"]

    def predict(self, x: Any, *, seed: int | None = None) -> jax.Array:
        """Returns the outputs of the trained network, such as the probabilities of classes.

        Args:
          x: inputs as the task stores them, `[n, ...]`, such as `run.task.test.inputs`.
          seed: one of `seeds`; None: all.

        Returns:
          `[n, outputs]`, or `[seeds, n, outputs]`.
        """
        return self._over_seeds(self._predict, seed, self._inputs(x))

    def signals(self, x: Any, y: Any, *, seed: int | None = None, key: jax.Array | None = None) -> Compared:
        """Returns the learning signals of the hidden layers, substitutes for dL/dh, and backprop's dL/dh.

        Args:
          x: inputs as for `predict`.
          y: targets as the task stores them: classes `[n]`, or numbers `[n, outputs]`.
          seed: one of `seeds`; None: all.
          key: of the randomness of the step, such as dropout; None: `jax.random.key(0)`.

        Returns:
          By the name of each hidden layer, `[n, *shape]`, or with the seeds in front. The `1/n` of the mean loss is
          included.

        Raises:
          BadOption: if the rule has no such signals.
        """
        if self.job.rule.extras.signals is None:
            reason = "has no learning signals of hidden layers, which could be compared with backprop's"
            raise BadOption(reason, f"rule={self.record.choices['rule']}")
        return self._over_seeds(self._signals, seed, self._batch(x, y, key))

    def updates(self, x: Any, y: Any, *, seed: int | None = None, key: jax.Array | None = None) -> Compared:
        """Returns the updates of the params on examples, with the sign of a gradient, and backprop's gradient.

        Arguments as for `signals`.
        """
        return self._over_seeds(self._updates, seed, self._batch(x, y, key))

    @functools.cached_property
    def _predict(self) -> Callable:
        def predict(params, feedback, x):
            del feedback
            return self.job.loss.output_units(self.job.rule.predict(params, self.task.prepare(x)))

        return jax.jit(jax.vmap(predict, (0, 0, None)))

    @functools.cached_property
    def _signals(self) -> Callable:
        def signals(params, feedback, batch: Batch) -> Compared:
            layers: Any = self.job.rule.extras.signals
            own: LayerArrays = layers(params, feedback, batch)
            return Compared(own, hidden_gradient(self.job.network, self.job.loss.value, params, batch))

        return jax.jit(jax.vmap(signals, (0, 0, None)))

    @functools.cached_property
    def _updates(self) -> Callable:
        def updates(params, feedback, batch: Batch) -> Compared:
            own = self.job.rule.updates(params, feedback, batch)
            return Compared(own, gradient(self.job.network, self.job.loss.value, params, batch))

        return jax.jit(jax.vmap(updates, (0, 0, None)))

    def _over_seeds(self, function: Callable, seed: int | None, argument: Any) -> Any:
        """Returns the result of a function of all seeds, or of one."""
        trees = self.params, self.feedback
        if seed is None:
            return function(*trees, argument)
        if seed not in self.seeds:
            raise BadOption(f"must be one of {self.seeds}; got {seed!r}", "seed", complete=True)
        i = self.seeds.index(seed)
        one = jax.tree.map(lambda a: a[i : i + 1], trees)
        return jax.tree.map(lambda a: a[0], function(*one, argument))

    def _inputs(self, x: Any) -> jax.Array:
        stored = self.task.train.inputs
        array = jnp.asarray(x)
        if array.shape[1:] != stored.shape[1:] or array.ndim == 0:
            got = list(array.shape)
            raise BadOption(f"must be inputs [n, {str(list(stored.shape[1:]))[1:]}; got {got}", "x", complete=True)
        if (array.dtype == jnp.uint8) != (stored.dtype == jnp.uint8):
            raise BadOption(
                f"must be of type {stored.dtype}, as the task stores it; got {array.dtype}", "x", complete=True
            )
        return array.astype(stored.dtype)

    def _batch(self, x: Any, y: Any, key: jax.Array | None) -> Batch:
        stored, targets = self.task.train.targets, jnp.asarray(y)
        whole = jnp.issubdtype(targets.dtype, jnp.integer) or not jnp.issubdtype(stored.dtype, jnp.integer)
        inputs = self._inputs(x)
        if targets.shape != (len(inputs), *stored.shape[1:]) or not whole:
            got = f"{list(targets.shape)} {targets.dtype}"
            needed = f"{[len(inputs), *stored.shape[1:]]} {stored.dtype}"
            raise BadOption(f"must be the targets of x, {needed}; got {got}", "y", complete=True)
        key = jax.random.key(0) if key is None else key
        return Batch(self.task.prepare(inputs), self.task.encode(targets.astype(stored.dtype)), key)


def _shapes(job: Job) -> dict[str, PyTree]:
    """Returns the shapes of the saved params and feedback."""
    seeds = jax.ShapeDtypeStruct((sum(map(len, job.groups)),), np.int32)
    params, feedback = jax.eval_shape(jax.vmap(lambda seed: job.rule.init(jax.random.key(seed))), seeds)
    return {"params": params, "feedback": feedback}


def _saved(record: Record) -> Record:
    """Returns a record whose params are saved.

    Raises:
      BadOption: if they are not.
    """
    if not (record.folder / "checkpoint").is_dir():
        reason = "it is not finished" if not record.is_finished else "checkpoint=false"
        raise BadOption(f"{record.folder}: the params of this run are not saved: {reason}")
    return record


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
