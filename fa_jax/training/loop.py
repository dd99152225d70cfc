"""The training loop: three compiled functions that initialise, train and evaluate the states of all seeds.

`init` draws the initial states, `train` trains from one step to another, and `evaluate` computes the metrics. The
number of steps is an argument of `train`, so each function compiles once.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from fa_jax.checks import is_on
from fa_jax.core import Batch, Loss, Measure, PyTree, Rule, Split, Stream, Task, stream
from fa_jax.network import Network
from fa_jax.training import distributed
from fa_jax.training.adversarial import fast_gradient_sign
from fa_jax.training.evaluation import (
    Evaluation,
    MetricSums,
    add_batch,
    probe_metrics,
    split_metrics,
    train_metrics,
    zero_sums,
)
from fa_jax.training.over_seeds import over_seeds

Step = int | np.int32
"""A training step, counted from 0."""
Numbers = Mapping[str, jax.Array]
"""The values of options, such as the learning rate, in which runs that are trained together differ: scalars by dotted
name, which enter the compiled program as arguments. Empty if a run is trained alone."""


class State(NamedTuple):
    """What one seed carries from step to step."""

    numbers: Numbers
    params: PyTree
    optimizer_state: PyTree
    feedback: PyTree
    feedback_optimizer_state: PyTree
    """`()` if the feedback is fixed."""
    order: jax.Array
    """The order of the examples in the current epoch, `[examples]`; empty without shuffling."""
    sums: MetricSums
    """Sums of training metrics since the last evaluation. Every batch is scored as it is trained on, adversarial
    perturbation included, and before its update."""


class Data(NamedTuple):
    """The arrays of a task, which enter the compiled program as arguments."""

    train: Split
    test: Split
    validation: Split | None


class Program(NamedTuple):
    """The compiled functions of a run and its data. States and metrics have a leading axis of seeds.

    `train` and `evaluate` reuse the buffers of the states that they are given, which must not be used afterwards.
    """

    data: Callable[[], Data]
    """Returns the data of the task on each device, where the first call copies them."""
    seed_sharding: NamedSharding
    """Sharding for arrays with a leading axis of seeds."""
    init: Callable[[jax.Array, Numbers], State]
    """`(seeds, numbers) -> states`: int32 `[n]`, and a dict of float32 arrays `[n]`."""
    train: Callable[[State, jax.Array, Step, Step, Data], State]
    """`(states, seeds, first step, step after the last, data) -> states`."""
    evaluate: Callable[[State, jax.Array, Step, Data], tuple[Evaluation, State]]
    """`(states, seeds, step, data) -> (evaluation, states with zero sums)`."""


class TrainingOptions(NamedTuple):
    """The options of training and of evaluation."""

    batch_size: int
    shuffle: bool
    """Whether each epoch shuffles the examples. Those left over by the last batch are skipped in that epoch."""
    probe_size: int
    """The number of test examples in the probe batch, on which measures are computed; 0: none."""
    adversarial: float = 0.0
    """The size of the adversarial perturbation of training inputs, see `adversarial.fast_gradient_sign`; 0: none."""
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """Augmentation `(key, images) -> images`, applied before each step; see `tasks.augmentation`."""
    measures: tuple[Measure, ...] = ()
    """Measures on the probe batch, besides `evaluation.STANDARD` and the rule's own."""


class Learner(NamedTuple):
    """A rule with its network, loss, options and optimizers."""

    rule: Rule
    network: Network
    """The network that predicts: `rule.extras.network` if there is one, else that for which the rule was built."""
    loss: Loss
    training: TrainingOptions
    optimizer: optax.GradientTransformation
    """Updates the params."""
    feedback_optimizer: optax.GradientTransformation
    """Updates the feedback, if the rule learns it."""


def make_program(
    make_learner: Callable[[Numbers], Learner],
    task: Task,
    devices: list[jax.Device],
    batch_devices: int = 1,
    vmapped: bool = True,
) -> Program:
    """Returns the `Program` that trains a rule on a task, with seeds spread evenly over devices.

    A seed's random numbers come from `jax.random.key(seed)` alone. Its results depend neither on the other seeds nor on
    the devices, up to the rounding of differently batched sums.

    Args:
      make_learner: returns the learner with given values of the numbers, which are traced.
      task: the data and the metrics.
      devices: all of one kind; their number is a multiple of `batch_devices`.
      batch_devices: how many devices train one seed together, each with an equal share of every batch. Activations then
        need less memory on each device; params need the same.
      vmapped: whether the seeds of a device are trained at once; else one after another, which takes less memory.
    """
    num_examples = len(task.train.inputs)

    def init(seed, numbers):
        learner = make_learner(numbers)
        params, feedback = learner.rule.init(jax.random.key(seed))
        return State(
            numbers=numbers,
            params=params,
            optimizer_state=learner.optimizer.init(params),
            feedback=feedback,
            feedback_optimizer_state=() if learner.rule.learn is None else learner.feedback_optimizer.init(feedback),
            order=jnp.arange(num_examples if learner.training.shuffle else 0),
            sums=zero_sums(task),
        )

    def train(state, seed, start_step, end_step, data):
        learner, key = make_learner(state.numbers), jax.random.key(seed)
        training, steps_per_epoch = learner.training, num_examples // learner.training.batch_size

        def shuffled(epoch):
            return jax.random.permutation(jax.random.fold_in(stream(key, Stream.ORDER), epoch), num_examples)

        def train_epoch(epoch, state):
            begin = jnp.maximum(start_step, epoch * steps_per_epoch)
            end = jnp.minimum(end_step, (epoch + 1) * steps_per_epoch)
            if training.shuffle:  # a permutation is slow, so it is drawn once per epoch
                is_new = begin == epoch * steps_per_epoch
                state = state._replace(order=jax.lax.cond(is_new, lambda: shuffled(epoch), lambda: state.order))
            fetch = _fetcher(data.train, task, training, state.order)

            def train_step(i, state):
                augmentation_key = jax.random.fold_in(stream(key, Stream.AUGMENTATION), i)
                inputs, targets = fetch(i - epoch * steps_per_epoch, augmentation_key)
                if batch_devices > 1:
                    inputs, targets = jax.lax.with_sharding_constraint((inputs, targets), PartitionSpec("batch"))
                return _step(
                    learner, task, state, Batch(inputs, targets, jax.random.fold_in(stream(key, Stream.STEP), i))
                )

            return jax.lax.fori_loop(begin, end, train_step, state)

        first_epoch, last_epoch = start_step // steps_per_epoch, (end_step - 1) // steps_per_epoch
        return jax.lax.fori_loop(first_epoch, last_epoch + 1, train_epoch, state)

    def evaluate(state, seed, step_number, data):
        learner = make_learner(state.numbers)
        rule, training = learner.rule, learner.training
        evaluation = train_metrics(state.sums, task)
        for name, split in (("validation", data.validation), ("test", data.test)):
            if split is not None:
                predict = functools.partial(rule.predict, state.params)
                evaluation += split_metrics(name, predict, split, learner.loss, task)
        if training.probe_size:
            probe = jax.tree.map(lambda a: a[: training.probe_size], data.test)
            key = jax.random.fold_in(stream(jax.random.key(seed), Stream.PROBE), step_number)
            batch = Batch(task.prepare(probe.inputs), task.encode(probe.targets), key)
            evaluation += probe_metrics(
                rule, learner.network, learner.loss, training.measures, state.params, state.feedback, batch
            )
        return evaluation, state._replace(sums=zero_sums(task))

    mesh = _mesh(devices, batch_devices)
    data = Data(task.train, task.test, task.validation)
    compile_over_seeds = functools.partial(over_seeds, mesh=mesh, vmapped=vmapped)
    return Program(
        data=functools.cache(lambda: distributed.device_put(data, NamedSharding(mesh, PartitionSpec()))),
        seed_sharding=NamedSharding(mesh, PartitionSpec("seeds")),
        init=compile_over_seeds(init, per_seed=2),
        train=compile_over_seeds(train, per_seed=2, shared=3, donate=(0,)),
        evaluate=compile_over_seeds(evaluate, per_seed=2, shared=2, donate=(0,)),
    )


def _step(learner: Learner, task: Task, state: State, batch: Batch) -> State:
    """Returns the state after one training step."""
    rule, network, loss, training, optimizer, feedback_optimizer = learner
    if is_on(training.adversarial):
        batch = fast_gradient_sign(network, loss.value, state.params, batch, training.adversarial)
    sums = add_batch(state.sums, rule, state.params, batch, loss, task)
    updates = rule.updates(state.params, state.feedback, batch)
    feedback, feedback_optimizer_state = state.feedback, state.feedback_optimizer_state
    if rule.learn is not None:
        feedback_updates = rule.learn(state.params, feedback, batch, updates)
        deltas, feedback_optimizer_state = feedback_optimizer.update(
            feedback_updates, feedback_optimizer_state, feedback
        )
        feedback = optax.apply_updates(feedback, deltas)
    deltas, optimizer_state = optimizer.update(updates, state.optimizer_state, state.params)
    params = optax.apply_updates(network.update_statistics(state.params, batch), deltas)
    return State(state.numbers, params, optimizer_state, feedback, feedback_optimizer_state, state.order, sums)


def _mesh(devices: list[jax.Device], batch_devices: int) -> jax.sharding.Mesh:
    """Returns devices in rows: each row trains different seeds, and the devices in a row share a batch."""
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(
        (len(devices) // batch_devices, batch_devices), ("seeds", "batch"), axis_types, devices=devices
    )


def _fetcher(train: Split, task: Task, training: TrainingOptions, order: jax.Array) -> Callable:
    """Returns `(index of the batch in the epoch, key of its augmentation) -> (inputs, targets)`."""
    size = training.batch_size

    def fetch(i, key):
        if training.shuffle:
            indices = jax.lax.dynamic_slice_in_dim(order, i * size, size)
            examples = jax.tree.map(lambda a: jnp.take(a, indices, axis=0), train)
        else:
            examples = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, i * size, size), train)
        if training.augment is None:
            inputs = task.prepare(examples.inputs)
        else:
            inputs = task.prepare(examples.inputs, functools.partial(training.augment, key))
        return inputs, task.encode(examples.targets)

    return fetch
