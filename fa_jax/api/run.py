"""One run in Python: its numbers, its params, and its learning signals and updates beside backprop's."""

import functools
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_jax.checks import BadOption
from fa_jax.core import Batch, LayerArrays, PyTree, Task
from fa_jax.feedback import require_hidden
from fa_jax.records.reader import Run as Record
from fa_jax.records.reader import read_checkpoint, read_run
from fa_jax.reports.labels import labels
from fa_jax.rules.backward import gradient, hidden_gradient
from fa_jax.training.job import Job


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

    def hiddens(self, x: Any, *, seed: int | None = None) -> LayerArrays:
        """Returns the activations of the hidden layers, without dropout; arguments as for `predict`.

        Returns:
          By the name of each hidden layer, in the order of the forward pass: `[n, *shape]`, or with the seeds in front.
          A scanned stack of layers has one entry, `[layers, n, *shape]`.

        Raises:
          BadOption: if the network marks no hidden layer.
        """
        require_hidden(self.job.network)
        found = self._over_seeds(self._hiddens, seed, self._inputs(x))
        return {name: found[name] for name in self.job.network.hidden_shapes}

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
    def _hiddens(self) -> Callable:
        def hiddens(params, feedback, x):
            del feedback
            return self.job.network.forward(params, self.task.prepare(x))[1]

        return jax.jit(jax.vmap(hiddens, (0, 0, None)))

    @functools.cached_property
    def _signals(self) -> Callable:
        def signals(params, feedback, batch: Batch) -> Compared:
            layers: Any = self.job.rule.extras.signals
            by_rule: LayerArrays = layers(params, feedback, batch)
            return Compared(by_rule, hidden_gradient(self.job.network, self.job.loss.value, params, batch))

        return jax.jit(jax.vmap(signals, (0, 0, None)))

    @functools.cached_property
    def _updates(self) -> Callable:
        def updates(params, feedback, batch: Batch) -> Compared:
            by_rule = self.job.rule.updates(params, feedback, batch)
            return Compared(by_rule, gradient(self.job.network, self.job.loss.value, params, batch))

        return jax.jit(jax.vmap(updates, (0, 0, None)))

    def _over_seeds(self, function: Callable, seed: int | None, argument: Any) -> Any:
        """Returns the result of a function of all seeds, or of one."""
        trees = self.params, self.feedback
        if seed is None:
            return function(*trees, argument)
        if seed not in self.seeds:
            raise BadOption(f"must be one of {self.seeds}; got {seed!r}", "seed", complete=True)
        i = self.seeds.index(seed)
        of_seed = jax.tree.map(lambda a: a[i : i + 1], trees)
        return jax.tree.map(lambda a: a[0], function(*of_seed, argument))

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
