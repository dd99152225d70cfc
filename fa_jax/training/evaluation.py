"""Evaluation inside the compiled program: training metrics, scores of splits, measures on the probe batch."""

from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from fa_jax.core import Batch, Loss, Measure, Metric, PyTree, Rule, Split, Task
from fa_jax.metrics.alignment import ALIGNMENT
from fa_jax.metrics.scale import SCALE
from fa_jax.network import Network

CHUNK = 1000
"""The number of examples in one forward pass of an evaluation."""
STANDARD = (ALIGNMENT, SCALE)
"""The measures of every run with a probe batch."""
MetricSums = dict[str, jax.Array]
"""Sums of training metrics over batches, and the number of `batches`."""


@flax.struct.dataclass
class Evaluation:
    """The metrics of an evaluation, by column, as a compiled program returns them.

    A metric may be missing, such as the angle to a vector of zeros. It is recorded as NaN, but a program that returned
    one would fail with `JAX_DEBUG_NANS`, which looks for the NaN that nobody intended. So it has the value 0 here.
    """

    values: jax.Array
    """`[metrics]`, after axes of seeds. One array, since an XLA program compiles the longer the more results it has."""
    missing: jax.Array
    """Whether each metric is missing, shaped like the values."""
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, metrics: Mapping[str, jax.Array], *, missing: jax.Array | bool = False) -> "Evaluation":
        """Returns an evaluation of scalars of which all or none are missing."""
        return cls(jnp.stack(list(metrics.values())), jnp.full(len(metrics), missing), tuple(metrics))

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Returns the metrics of both."""
        values, missing = (
            jnp.concatenate(parts) for parts in ((self.values, other.values), (self.missing, other.missing))
        )
        return Evaluation(values, missing, (*self.names, *other.names))

    def with_nan(self) -> dict[str, np.ndarray]:
        """Returns the metrics, NaN where they are missing; on the host."""
        values = np.where(self.missing, np.float32(np.nan), self.values)
        return {name: values[..., i] for i, name in enumerate(self.names)}


def score_metrics(task: Task) -> tuple[Metric, ...]:
    """Returns the metrics that every split is scored by: those of the task, and the loss."""
    return (*task.metrics, Metric("loss", "loss"))


def measured_metrics(rule: Rule, measures: tuple[Measure, ...]) -> tuple[Metric, ...]:
    """Returns the metrics of all measures on the probe batch."""
    computed = [*STANDARD, *measures]
    if rule.extras.measure is not None:
        computed.append(rule.extras.measure)
    return tuple(metric for measure in computed for metric in measure.metrics)


def probe_metrics(
    rule: Rule,
    network: Network,
    loss: Loss,
    measures: tuple[Measure, ...],
    params: PyTree,
    feedback: PyTree,
    batch: Batch,
) -> Evaluation:
    """Returns the metrics of all measures on the probe batch; those that are NaN are missing."""
    metrics = {}
    for measure in (*STANDARD, *measures):
        metrics |= measure.compute(rule, network, loss.value, params, feedback, batch)
    if rule.extras.measure is not None:
        metrics |= rule.extras.measure.compute(params, feedback, batch)
    values = jnp.stack(list(metrics.values()))
    missing = jnp.isnan(values)
    return Evaluation(jnp.where(missing, 0, values), missing, tuple(metrics))


def zero_sums(task: Task) -> MetricSums:
    """Returns the sums over no batches."""
    return {name: jnp.zeros(()) for name in ("batches", "loss", *(metric.name for metric in task.metrics))}


def add_batch(sums: MetricSums, rule: Rule, params: PyTree, batch: Batch, loss: Loss, task: Task) -> MetricSums:
    """Returns the sums with the scores of one training batch, dropout included, added."""
    logits = (rule.extras.train_predict or rule.predict)(params, batch.inputs, key=batch.key)
    outputs = loss.output_units(logits)
    scores = {"batches": 1, "loss": loss.value(logits, batch.targets)}
    for metric in task.metrics:
        scores[metric.name] = (metric.batch_score or _score(metric))(outputs, batch.targets)
    return {name: total + scores[name] for name, total in sums.items()}


def train_metrics(sums: MetricSums, task: Task) -> Evaluation:
    """Returns the training metrics since the last evaluation; they are missing if there was no step."""
    nothing = sums["batches"] == 0
    means = {name: total / jnp.where(nothing, 1, sums["batches"]) for name, total in sums.items()}
    metrics = {f"train_{metric.name}": metric.from_batches(means[metric.name]) for metric in task.metrics}
    metrics["train_loss"] = means["loss"]
    return Evaluation.of(metrics, missing=nothing)


def split_metrics(split_name: str, predict: Callable, split: Split, loss: Loss, task: Task) -> Evaluation:
    """Returns loss and metrics over all examples of a split, by `<split_name>_<metric>`.

    `predict` maps network inputs to logits.
    """
    logits = _in_chunks(lambda inputs: predict(task.prepare(inputs)), split.inputs)
    targets = task.encode(split.targets)
    outputs = loss.output_units(logits)
    metrics = {f"{split_name}_{metric.name}": _score(metric)(outputs, targets) for metric in task.metrics}
    return Evaluation.of({f"{split_name}_loss": loss.value(logits, targets), **metrics})


def _score(metric: Metric) -> Callable[[jax.Array, jax.Array], jax.Array]:
    if metric.score is None:
        raise TypeError(f"the metric {metric.name} of a task needs a score")
    return metric.score


def _in_chunks(function: Callable, rows: jax.Array) -> jax.Array:
    """Returns `function(rows)`, computed `CHUNK` rows at a time."""
    in_chunks = len(rows) // CHUNK * CHUNK
    parts = []
    if in_chunks:
        results = jax.lax.map(function, rows[:in_chunks].reshape(-1, CHUNK, *rows.shape[1:]))
        parts.append(results.reshape(-1, *results.shape[2:]))
    if in_chunks < len(rows):
        parts.append(function(rows[in_chunks:]))
    return jnp.concatenate(parts)
