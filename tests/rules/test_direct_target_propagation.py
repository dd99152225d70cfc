"""Direct target propagation: its feedback in numpy, exact inverses, and its relation to direct feedback alignment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.direct_target_propagation import direct_target_propagation
from tests.conftest import MLP, RANDOM_WEIGHTS, assert_trees_equal, compiled, direct, filled, random_batch, to_float64
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value


@functools.cache
def make(hidden=(4, 3), outputs=2, activation="tanh"):
    layers = {"hidden": list(hidden), "activation": activation, "dropout": 0.0}
    network = mlp((5,), outputs, **{**MLP, **RANDOM_WEIGHTS, **layers})
    rule = direct_target_propagation(network, LOSS, init_feedback=direct(), sigma=0.2)
    state = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(1))))
    return network, compiled(rule), *state, random_batch((5,), outputs, 3, dtype=np.float64)


def noise_of(batch, network):
    zeros = network.hidden_zeros(batch.inputs)
    draws = (
        jax.random.normal(jax.random.fold_in(batch.key, i), z.shape, z.dtype) for i, z in enumerate(zeros.values())
    )
    return reference.unstack(network.hidden_shapes, {n: 0.2 * d for n, d in zip(zeros, draws, strict=True)})


@pytest.mark.parametrize("hidden", [(4, 3), (3,) * 9], ids=["unrolled", "scanned"])
def test_feedback_learns_to_return_the_noise_of_a_layer(hidden):
    network, rule, params, feedback, batch = make(hidden)
    weights, biases = reference.weights_and_biases(network, params)
    preactivations, inputs = reference.forward(weights, biases, np.asarray(batch.inputs), "tanh")
    matrices = reference.unstack(network.hidden_shapes, feedback)
    changes = reference.unstack(network.hidden_shapes, rule.learn(params, feedback, batch, None))
    for i, (xi, q) in enumerate(zip(noise_of(batch, network), matrices, strict=True)):
        noisy, _ = reference.forward(weights[i + 1 :], biases[i + 1 :], inputs[i + 1] + xi, "tanh")
        change = noisy[-1] - preactivations[-1]
        expected = 2 / xi.size / 0.2**2 * change.T @ (change @ q - xi)
        np.testing.assert_allclose(changes[i], expected, rtol=1e-8, atol=1e-12)


def test_the_inverse_of_the_layers_above_has_nothing_to_learn():
    network, rule, params, feedback, batch = make((3, 3), 3, "linear")
    kernels = network.kernels(params)
    last = jnp.linalg.inv(kernels["readout"])
    exact = dict(zip(feedback, (last @ jnp.linalg.inv(kernels["stages_1/linear"]), last), strict=True))
    changes = rule.learn(params, exact, batch, None)
    assert max(np.abs(change).max() for change in changes.values()) < 1e-10
    assert max(np.abs(change).max() for change in rule.learn(params, feedback, batch, None).values()) > 0.1


def test_updates_are_those_of_direct_feedback_alignment():
    network, rule, params, feedback, batch = make()
    updates = compiled(dfa(network, LOSS, init_feedback=direct())).updates(params, feedback, batch)
    assert_trees_equal(rule.updates(params, feedback, batch), updates)


def test_noise_out_of_range_is_refused():
    with pytest.raises(BadOption, match="sigma must be a finite number above 0; got 0"):
        direct_target_propagation(make()[0], LOSS, init_feedback=direct(), sigma=0)
