"""The training loop: one compiled program that trains all seeds of a run, step by step, between two evaluations.

`make_program` builds three functions over a group of seeds. `start` draws the states, `advance` takes them through the
steps from one number to another, `measure` evaluates them. The trip count of `advance` is an argument, so however the
evaluation points lie, each function compiles once.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from fa_jax.core import Batch, Loss, PyTree, Rule, Split, Stream, Task, stream
from fa_jax.metrics.alignment import alignment
from fa_jax.network import Network
from fa_jax.tasks.augmentation import attack
from fa_jax.training import distributed as processes

CHUNK = 1000
"""Examples that an evaluation sends through the network at once."""

CACHED = 2**21
"""Bytes of one seed's params up to which a CPU trains the seeds of a device together, if all layers are dense.

Larger ones would push each other out of its caches at every step, and go faster one after the other.
"""


Step = int | np.int32


class State(NamedTuple):
    """One seed's, carried from step to step."""

    params: PyTree
    slots: PyTree
    """The optimizer's."""
    learned: PyTree
    """(feedback, its optimizer's slots) where the rule learns its feedback, else ()."""
    order: jax.Array
    """The examples in the order of the epoch under way, `[examples]`; empty where they are not shuffled."""
    tally: dict[str, jax.Array]
    """Sums over the training batches since the last evaluation, each scored before its update, with its dropout."""


class Data(NamedTuple):
    """The arrays of a task, which enter the compiled program as arguments."""

    train: Split
    test: Split
    validation: Split | None


class Program(NamedTuple):
    """The compiled functions of a run; states, fixed feedback and metrics have the seeds in front."""

    data: Data
    """The task's, a copy on each device: without it, every call of `advance` would send the data anew."""
    over_seeds: jax.sharding.Sharding
    """Of what has the seeds in front."""

    start: Callable[[jax.Array], tuple[State, PyTree]]
    """Seeds `[n]`, int32 -> (states, fixed feedback)."""
    advance: Callable[[State, PyTree, jax.Array, Step, Step, Data], State]
    """(states, fixed feedback, seeds, first step, step after the last, data) -> states; donates the states."""
    measure: Callable[[State, PyTree, jax.Array, Step, Data], tuple[dict[str, jax.Array], State]]
    """(states, fixed feedback, seeds, step, data) -> (metrics, states with an empty tally)."""


class Training(NamedTuple):
    """How a task is trained on and evaluated."""

    batch_size: int
    shuffle: bool
    """Whether every epoch has an order of its own; else the examples come as they are stored. Examples left over when
    the batch size does not divide their number are left out of that epoch."""
    probe: int
    """Test examples on which alignment is measured; 0: it is not."""
    adversarial: float = 0.0
    """How far each input is moved against the network before a step, see `perturbations.attack`."""
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """`(key, images) -> images` before a step, see `perturbations.augmentation`; None: as they are."""
    measures: tuple[Callable, ...] = ()
    """Further `(rule, network, loss, params, feedback, batch) -> {name: scalar}` on the probe."""


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
    """Returns the `Program` that trains `rule` on `task`, seeds spread evenly over `devices`.

    Of these, `batch_devices` together train a seed, and have equal shares of the examples of each step: activations
    then need that much less memory on each, params need as much as ever.

    A seed's randomness is `jax.random.key(seed)` alone, so its numbers depend neither on the other seeds nor on the
    devices but for the rounding of differently batched sums.
    """
    learns = rule.learn is not None
    per_epoch = len(task.train.inputs) // training.batch_size

    def backward(state, fixed):
        return state.learned[0] if learns else fixed

    def start(seed):
        params, feedback = rule.init(jax.random.key(seed))
        learned, fixed = ((feedback, feedback_optimizer.init(feedback)), ()) if learns else ((), feedback)
        order = jnp.arange(len(task.train.inputs) if training.shuffle else 0)
        return State(params, optimizer.init(params), learned, order, _empty_tally(task)), fixed

    def step(state, fixed, batch):
        if training.adversarial:
            batch = attack(network, loss.value, state.params, batch, training.adversarial)
        tally = _count(state.tally, rule, state.params, batch, loss, task)
        updates = rule.updates(state.params, backward(state, fixed), batch)
        learned = state.learned
        if rule.learn is not None:
            feedback, slots = learned
            changes = rule.learn(state.params, feedback, batch, updates)
            changes, slots = feedback_optimizer.update(changes, slots, feedback)
            learned = optax.apply_updates(feedback, changes), slots
        updates, slots = optimizer.update(updates, state.slots, state.params)
        params = optax.apply_updates(network.follow(state.params, batch), updates)
        return State(params, slots, learned, state.order, tally)

    def advance(state, fixed, seed, first, last, data):
        key = jax.random.key(seed)

        def epoch(number, state):
            begin, end = jnp.maximum(first, number * per_epoch), jnp.minimum(last, (number + 1) * per_epoch)
            if training.shuffle:
                # Sorting takes longer than many a step, so it is done once an epoch and not at every evaluation.
                state = state._replace(
                    order=jax.lax.cond(
                        begin == number * per_epoch,
                        lambda: jax.random.permutation(
                            jax.random.fold_in(stream(key, Stream.ORDER), number), len(task.train.inputs)
                        ),
                        lambda: state.order,
                    )
                )
            fetch = _fetcher(data.train, task, training, state.order)

            def body(i, state):
                augmenting = jax.random.fold_in(stream(key, Stream.AUGMENTATION), i)
                inputs, targets = fetch(i - number * per_epoch, augmenting)
                if batch_devices > 1:
                    inputs, targets = jax.lax.with_sharding_constraint((inputs, targets), PartitionSpec("batch"))
                return step(state, fixed, Batch(inputs, targets, jax.random.fold_in(stream(key, Stream.NOISE), i)))

            return jax.lax.fori_loop(begin, end, body, state)

        return jax.lax.fori_loop(first // per_epoch, -(-last // per_epoch), epoch, state)

    def measure(state, fixed, seed, number, data):
        metrics = _averages(state.tally, task)
        for name, split in (("validation", data.validation), ("test", data.test)):
            if split is not None:
                metrics |= _scores(name, functools.partial(rule.predict, state.params), split, loss, task)
        if training.probe:
            probe = jax.tree.map(lambda a: a[: training.probe], data.test)
            key = jax.random.fold_in(stream(jax.random.key(seed), Stream.PROBE), number)
            batch = Batch(task.prepare(probe.inputs), task.encode(probe.targets), key)
            for of in (alignment, *training.measures):
                metrics |= of(rule, network, loss.value, state.params, backward(state, fixed), batch)
            if rule.report is not None:
                metrics |= rule.report(state.params, backward(state, fixed), batch)
        return metrics, state._replace(tally=_empty_tally(task))

    mesh = _mesh(devices, batch_devices)
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    cached = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)) <= CACHED
    # Vmapped over their weights, convolutions become grouped ones, which a CPU is slow at.
    dense = all(len(kernel.shape) == 2 for kernel in network.kernels.values())
    over = functools.partial(_over_seeds, mesh=mesh, together=(cached and dense) or devices[0].platform != "cpu")
    return Program(
        data=processes.placed(
            Data(task.train, task.test, task.validation), jax.sharding.NamedSharding(mesh, PartitionSpec())
        ),
        over_seeds=jax.sharding.NamedSharding(mesh, PartitionSpec("seeds")),
        start=over(start, arguments="s"),
        advance=over(advance, arguments="sss---", donate=(0,)),
        measure=over(measure, arguments="sss--", donate=(0,)),
    )


def _mesh(devices: list[jax.Device], batch_devices: int) -> jax.sharding.Mesh:
    """Devices in rows, each of which has seeds of its own, and in each row those that share a batch."""
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((len(devices) // batch_devices, batch_devices), ("seeds", "batch"), kinds, devices=devices)


def _over_seeds(
    function: Callable, mesh: jax.sharding.Mesh, together: bool, arguments: str, donate: tuple[int, ...] = ()
) -> Callable:
    """Compiles a function of one seed for many: an argument marked `s` has the seeds in front, `-` is shared.

    The seeds of a device advance `together` (vmapped), or else one after the other.
    """

    def in_turn(*values):
        own = tuple(value for value, mark in zip(values, arguments, strict=True) if mark == "s")

        def one(own):
            of_this_seed = iter(own)
            pairs = zip(values, arguments, strict=True)
            return function(*(next(of_this_seed) if mark == "s" else value for value, mark in pairs))

        return jax.lax.map(one, own)

    vmapped = jax.vmap(function, in_axes=tuple(0 if mark == "s" else None for mark in arguments))
    specs = tuple(PartitionSpec("seeds") if mark == "s" else PartitionSpec() for mark in arguments)
    sharded = jax.shard_map(
        vmapped if together else in_turn,
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec("seeds"),
        axis_names={"seeds"},  # the compiler itself divides the work on a batch
        check_vma=False,  # seeds never talk to each other: the check that replicated results agree has nothing to find
    )
    return jax.jit(sharded, donate_argnums=donate)


def _fetcher(train: Split, task: Task, training: Training, order: jax.Array) -> Callable:
    """Returns `(batch index in the epoch, key of its augmentation) -> (inputs, targets)`."""
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


def _empty_tally(task: Task) -> dict[str, jax.Array]:
    return {name: jnp.zeros(()) for name in ("batches", "loss", *task.running)}


def _count(tally, rule: Rule, params: PyTree, batch: Batch, loss: Loss, task: Task) -> dict[str, jax.Array]:
    logits = (rule.glance or rule.predict)(params, batch.inputs, key=batch.key)
    outputs = loss.outputs(logits)
    scores = {"batches": 1, "loss": loss.value(logits, batch.targets)}
    scores |= {name: metric.of(outputs, batch.targets) for name, metric in task.running.items()}
    return {name: total + scores[name] for name, total in tally.items()}


def _averages(tally, task: Task) -> dict[str, jax.Array]:
    """The training metrics since the last evaluation; NaN when there was no step."""
    means = {name: total / tally["batches"] for name, total in tally.items()}
    return {
        "train_loss": means["loss"],
        **{f"train_{name}": metric.finish(means[name]) for name, metric in task.running.items()},
    }


def _scores(name: str, predict: Callable, split: Split, loss: Loss, task: Task) -> dict[str, jax.Array]:
    logits = _in_chunks(lambda inputs: predict(task.prepare(inputs)), split.inputs)
    targets = task.encode(split.targets)
    outputs = loss.outputs(logits)
    return {
        f"{name}_loss": loss.value(logits, targets),
        **{f"{name}_{metric}": of(outputs, targets) for metric, of in task.metrics.items()},
    }


def _in_chunks(function: Callable, rows: jax.Array) -> jax.Array:
    """`function(rows)`, worked out `CHUNK` rows at a time."""
    whole = len(rows) // CHUNK * CHUNK
    parts = [function(rows[whole:])] if whole < len(rows) else []
    if whole:
        chunks = jax.lax.map(function, rows[:whole].reshape(-1, CHUNK, *rows.shape[1:]))
        parts.insert(0, chunks.reshape(-1, *chunks.shape[2:]))
    return jnp.concatenate(parts)
