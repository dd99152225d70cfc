"""Helpers for tests of training: a small task, a small network, and a run of the compiled program."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fa_jax.core import Split, Task
from fa_jax.losses import squared_error
from fa_jax.metrics.scores import nse_metric, power
from fa_jax.networks.mlp import mlp
from fa_jax.rules.fa import fa
from fa_jax.training.loop import Learner, TrainingOptions, make_program
from tests.conftest import MLP, layerwise

LOSS = squared_error(output="linear", derivative="exact")
DENSE = {"distribution": "uniform", "scale": 0.5, "density": 1.0}
FA = functools.partial(fa, init_feedback=layerwise(**DENSE))
BATCH_SIZE = 6
LEARNING_RATE = 0.1


def make_task(examples=40, input_shape=(12,)):
    """A task whose splits have no example in common: as many for testing as for training, and 9 for validation."""

    def draw(count, seed):
        random = np.random.default_rng(seed)
        x = random.integers(0, 255, (count, *input_shape)).astype(np.uint8)
        return Split(jnp.asarray(x), jnp.asarray(random.normal(size=(count, 4)).astype(np.float32)))

    train = draw(examples, 0)
    return Task(
        train=train,
        test=draw(examples, 1),
        validation=draw(9, 2),
        prepare=lambda x, augment=lambda images: images: augment(x.astype(jnp.float32) / 255),
        encode=lambda y: y,
        metrics=(nse_metric(power(train.targets)),),
        input_shape=input_shape,
        outputs=4,
    )


def make_network(**options):
    return mlp((12,), 4, **{**MLP, "hidden": [9], "dropout": 0.0, **options})


class Trained(NamedTuple):
    """The result of `train`, on the host; arrays have a leading axis of seeds."""

    metrics: list[dict[str, np.ndarray]]
    """At each of the steps."""
    params: list[Any]
    """At each of the steps."""
    state: Any
    """After the last step."""


def train(seeds, steps, *, rule=FA, network=None, optimizer=None, devices=1, batch_devices=1, vmapped=True, **training):
    """Trains seeds up to the last of the steps, and evaluates at each of them."""
    network = network or make_network()
    task = make_task(input_shape=network.input_shape)
    optimizer = optimizer or optax.sgd(LEARNING_RATE)
    options = TrainingOptions(**{"batch_size": BATCH_SIZE, "shuffle": True, "probe_size": 8, **training})
    placement = (jax.devices()[:devices], batch_devices)
    rule = rule(network, LOSS.value)
    program = make_program(
        lambda _: Learner(rule, network, LOSS, options, optimizer, optimizer), task, *placement, vmapped=vmapped
    )
    seeds = jnp.asarray(seeds, jnp.int32)
    states = program.init(seeds, {})
    metrics, params, last = [], [], 0
    for step in steps:
        states = program.train(states, seeds, last, step, program.data())
        evaluated, states = program.evaluate(states, seeds, step, program.data())
        metrics.append(jax.device_get(evaluated).with_nan())
        params.append(jax.device_get(states.params))
        last = step
    return Trained(metrics, params, jax.device_get(states))


def of_seed(tree, index=0):
    """The arrays of one seed."""
    return jax.tree.map(lambda a: a[index], tree)
