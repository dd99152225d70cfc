"""The training loop: one compiled program that trains all seeds, step by step, between two evaluations.

`make_program` builds three functions of a group of seeds: `start` draws the initial states, `advance` trains from one
step to another, and `evaluate` computes the metrics. The number of steps is an argument of `advance`, so each function
compiles once.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from fa_jax.core import Batch, Loss, Measure, PyTree, Rule, Split, Stream, Task, stream
from fa_jax.network import Network
from fa_jax.training import distributed
from fa_jax.training.adversarial import fast_gradient_sign
from fa_jax.training.evaluation import MetricSums, add_batch, compute_measures, scores, train_metrics, zero_sums
from fa_jax.training.over_seeds import is_vmapped, over_seeds

Step = int | np.int32


class State(NamedTuple):
    """What one seed carries from step to step."""

    params: PyTree
    optimizer_state: PyTree
    learned: PyTree
    """`(feedback, its optimizer state)` if the rule learns its feedback, else `()`."""
    order: jax.Array
    """The order of the examples in the current epoch, `[examples]`; empty without shuffling."""
    sums: MetricSums
    """Sums of training metrics since the last evaluation; every batch is scored before its update."""


class Data(NamedTuple):
    """The arrays of a task, which enter the compiled program as arguments."""

    train: Split
    test: Split
    validation: Split | None


class Program(NamedTuple):
    """The compiled functions of a run and its data. States, fixed feedback and metrics have a leading axis of seeds."""

    data: Data
    """The data of the task, copied to each device."""
    over_seeds: NamedSharding
    """Sharding for arrays with a leading axis of seeds."""
    start: Callable[[jax.Array], tuple[State, PyTree]]
    """Seeds `[n]`, int32, to `(states, fixed feedback)`."""
    advance: Callable[[State, PyTree, jax.Array, Step, Step, Data], State]
    """`(states, fixed feedback, seeds, first step, step after the last, data) -> states`; donates the states."""
    evaluate: Callable[[State, PyTree, jax.Array, Step, Data], tuple[dict[str, jax.Array], State]]
    """`(states, fixed feedback, seeds, step, data) -> (metrics, states with zero sums)`; donates the states."""


class Training(NamedTuple):
    """The options of training and of evaluation."""

    batch_size: int
    shuffle: bool
    """Whether each epoch shuffles the examples. Those left over by the last batch are skipped in that epoch."""
    probe: int
    """The number of test examples in the probe batch, on which measures are computed; 0: none."""
    adversarial: float = 0.0
    """The size of the adversarial perturbation of training inputs, see `adversarial.fast_gradient_sign`; 0: none."""
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """Augmentation `(key, images) -> images`, applied before each step; see `tasks.augmentation`."""
    measures: tuple[Measure, ...] = ()
    """Measures on the probe batch, besides the alignment to backprop and the rule's own."""


def make_program(
    rule: Rule,
    network: Network,
    loss: Loss,
    task: Task,
    training: Training,
    optimizer: optax.GradientTransformation,
    feedback_optimizer: optax.GradientTransformation,
    devices: list[jax.Device],
    batch_devices: int = 1,
) -> Program:
    """Returns the `Program` that trains a rule on a task, with seeds spread evenly over devices.

    A seed's random numbers come from `jax.random.key(seed)` alone. Its results depend neither on the other seeds nor on
    the devices, up to the rounding of differently batched sums.

    Args:
      rule, network, loss, task: as in the contract, `core`.
      training: the options of training and of evaluation.
      optimizer: updates the params.
      feedback_optimizer: updates the feedback, if the rule learns it.
      devices: all of one kind; their number is a multiple of `batch_devices`.
      batch_devices: how many devices train one seed together, each with an equal share of every batch. Activations then
        need less memory on each device; params need the same.
    """
    learns_feedback = rule.learn is not None
    examples = len(task.train.inputs)
    steps_per_epoch = examples // training.batch_size

    def feedback_of(state, fixed):
        return state.learned[0] if learns_feedback else fixed

    def start(seed):
        params, feedback = rule.init(jax.random.key(seed))
        learned, fixed = ((feedback, feedback_optimizer.init(feedback)), ()) if learns_feedback else ((), feedback)
        order = jnp.arange(examples if training.shuffle else 0)
        return State(params, optimizer.init(params), learned, order, zero_sums(task)), fixed

    def step(state, fixed, batch):
        if training.adversarial:
            batch = fast_gradient_sign(network, loss.value, state.params, batch, training.adversarial)
        sums = add_batch(state.sums, rule, state.params, batch, loss, task)
        updates = rule.updates(state.params, feedback_of(state, fixed), batch)
        learned = state.learned
        if rule.learn is not None:
            feedback, feedback_state = learned
            changes = rule.learn(state.params, feedback, batch, updates)
            changes, feedback_state = feedback_optimizer.update(changes, feedback_state, feedback)
            learned = optax.apply_updates(feedback, changes), feedback_state
        updates, optimizer_state = optimizer.update(updates, state.optimizer_state, state.params)
        params = optax.apply_updates(network.update_statistics(state.params, batch), updates)
        return State(params, optimizer_state, learned, state.order, sums)

    def advance(state, fixed, seed, start_step, end_step, data):
        key = jax.random.key(seed)

        def shuffled(epoch):
            return jax.random.permutation(jax.random.fold_in(stream(key, Stream.ORDER), epoch), examples)

        def train_epoch(epoch, state):
            begin = jnp.maximum(start_step, epoch * steps_per_epoch)
            end = jnp.minimum(end_step, (epoch + 1) * steps_per_epoch)
            if training.shuffle:  # once per epoch: a permutation takes longer than many training steps
                is_new = begin == epoch * steps_per_epoch
                state = state._replace(order=jax.lax.cond(is_new, lambda: shuffled(epoch), lambda: state.order))
            fetch = _fetcher(data.train, task, training, state.order)

            def train_step(i, state):
                augmentation_key = jax.random.fold_in(stream(key, Stream.AUGMENTATION), i)
                inputs, targets = fetch(i - epoch * steps_per_epoch, augmentation_key)
                if batch_devices > 1:
                    inputs, targets = jax.lax.with_sharding_constraint((inputs, targets), PartitionSpec("batch"))
                return step(state, fixed, Batch(inputs, targets, jax.random.fold_in(stream(key, Stream.NOISE), i)))

            return jax.lax.fori_loop(begin, end, train_step, state)

        return jax.lax.fori_loop(start_step // steps_per_epoch, -(-end_step // steps_per_epoch), train_epoch, state)

    def evaluate(state, fixed, seed, step_number, data):
        metrics = train_metrics(state.sums, task)
        for name, split in (("validation", data.validation), ("test", data.test)):
            if split is not None:
                metrics |= scores(name, functools.partial(rule.predict, state.params), split, loss, task)
        if training.probe:
            probe = jax.tree.map(lambda a: a[: training.probe], data.test)
            key = jax.random.fold_in(stream(jax.random.key(seed), Stream.PROBE), step_number)
            batch = Batch(task.prepare(probe.inputs), task.encode(probe.targets), key)
            compute = compute_measures(rule, network, loss, training.measures)
            metrics |= compute(state.params, feedback_of(state, fixed), batch)
        return metrics, state._replace(sums=zero_sums(task))

    mesh = _mesh(devices, batch_devices)
    compile_over_seeds = functools.partial(over_seeds, mesh=mesh, vmapped=is_vmapped(rule, network, devices[0]))
    return Program(
        data=distributed.device_put(Data(task.train, task.test, task.validation), NamedSharding(mesh, PartitionSpec())),
        over_seeds=NamedSharding(mesh, PartitionSpec("seeds")),
        start=compile_over_seeds(start, in_axes=(0,)),
        advance=compile_over_seeds(advance, in_axes=(0, 0, 0, None, None, None), donate=(0,)),
        evaluate=compile_over_seeds(evaluate, in_axes=(0, 0, 0, None, None), donate=(0,)),
    )


def _mesh(devices: list[jax.Device], batch_devices: int) -> jax.sharding.Mesh:
    """Returns devices in rows: each row trains different seeds, and the devices in a row share a batch."""
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((len(devices) // batch_devices, batch_devices), ("seeds", "batch"), kinds, devices=devices)


def _fetcher(train: Split, task: Task, training: Training, order: jax.Array) -> Callable:
    """Returns `(index of the batch in the epoch, key of its augmentation) -> (inputs, targets)`."""
    size = training.batch_size

    def fetch(i, key):
        if training.shuffle:
            chosen = jax.lax.dynamic_slice_in_dim(order, i * size, size)
            rows = jax.tree.map(lambda a: jnp.take(a, chosen, axis=0), train)
        else:
            rows = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, i * size, size), train)
        augment = () if training.augment is None else (functools.partial(training.augment, key),)
        return task.prepare(rows.inputs, *augment), task.encode(rows.targets)

    return fetch
