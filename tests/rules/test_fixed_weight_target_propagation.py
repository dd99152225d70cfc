"""Fixed-weight target propagation: updates in numpy, normalised targets, digits of small differences, control by V."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.rules.fixed_weight_target_propagation import (
    fixed_weight_target_propagation,
    normalised,
    normalised_difference,
)
from tests.conftest import (
    MLP,
    RANDOM_WEIGHTS,
    assert_trees_close,
    compiled,
    filled,
    layerwise,
    random_batch,
    to_float64,
)
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value


@functools.cache
def make(hidden=(4, 3), **options):
    layers = {"hidden": list(hidden), "activation": "tanh", "dropout": 0.0}
    network = mlp((5,), 2, **{**MLP, **RANDOM_WEIGHTS, **layers})
    merged: dict[str, Any] = {"step_size": 0.3, "normalised_readout": True, **options}
    rule = fixed_weight_target_propagation(network, LOSS, init_feedback=layerwise(density=1.0), **merged)
    state = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(1))))
    return compiled(rule), *state, random_batch((5,), 2, size=6, dtype=np.float64)


def n(a):
    return (a - a.mean(0)) / (a.std(0, ddof=1) + 1e-12)


def run(network, params, feedback, batch, with_norm):
    """Activations and targets of all layers."""
    weights, biases = reference.weights_and_biases(network, params)
    h = [np.asarray(batch.inputs)]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h.append(n(np.tanh(h[-1] @ w + b)))
    logits = h[-1] @ weights[-1] + biases[-1]
    h.append(n(logits) if with_norm else logits)
    probabilities = np.exp(h[-1]) / np.exp(h[-1]).sum(1, keepdims=True)
    targets = [h[-1] - 0.3 * (probabilities - np.asarray(batch.targets))]
    v = reference.unstack(network.kernel_shapes, feedback)
    for i in range(len(v), 0, -1):
        g = [n(np.tanh(y @ v[i - 1].T)) for y in (targets[0], h[i + 1])]
        targets.insert(0, n(h[i] + g[0] - g[1]))
    return weights, biases, h, targets


@pytest.mark.parametrize(
    ("hidden", "with_norm"), [((4, 3), True), ((4, 3), False), ((3,) * 9, True)], ids=["readout", "plain", "scanned"]
)
def test_every_layer_approaches_its_target_through_the_normalization(hidden, with_norm):
    """Central differences of the local losses, with targets and inputs held."""
    rule, params, feedback, batch = make(hidden, normalised_readout=with_norm)
    network = rule.extras.network
    weights, biases, h, targets = run(network, params, feedback, batch, with_norm)
    updates, update_biases = reference.weights_and_biases(network, rule.updates(params, feedback, batch))

    def loss(i, w, b):
        a = h[i] @ w + b
        if i < len(weights) - 1:
            a = n(np.tanh(a))
        elif with_norm:
            a = n(a)
        return np.sum((a - targets[i]) ** 2) / len(a)

    for i in (0, 1, len(weights) - 1):
        for index in [(0, 0), (1, 1), (2, 0)]:
            step = np.zeros(weights[i].shape)
            step[index] = 1e-5
            slope = (loss(i, weights[i] + step, biases[i]) - loss(i, weights[i] - step, biases[i])) / 2e-5
            np.testing.assert_allclose(updates[i][index], slope, rtol=1e-6, atol=1e-9)
        slope = (loss(i, weights[i], biases[i] + 1e-5) - loss(i, weights[i], biases[i] - 1e-5)) / 2e-5
        np.testing.assert_allclose(update_biases[i].sum(), slope, rtol=1e-6, atol=1e-9)
    signals = reference.unstack(network.hidden_shapes, rule.extras.signals(params, feedback, batch))
    for signal, activation, target in zip(signals, h[1:-1], targets[:-1], strict=True):
        np.testing.assert_allclose(signal, 2 / 6 * (activation - target), rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(target.std(0, ddof=1), 1, rtol=1e-10)
    np.testing.assert_allclose(rule.predict(params, batch.inputs), h[-1], rtol=1e-9, atol=1e-12)


def test_without_error_targets_are_the_activations():
    rule, params, feedback, batch = make()
    batch = batch._replace(targets=jax.nn.softmax(rule.predict(params, batch.inputs)))
    assert max(np.abs(update).max() for update in jax.tree.leaves(rule.updates(params, feedback, batch))) < 1e-14


def test_the_size_of_the_inverses_is_of_little_consequence():
    rule, params, feedback, batch = make()
    signals = [
        rule.extras.signals(params, jax.tree.map(lambda v, s=size: s * v, feedback), batch) for size in (1e-3, 1e-4)
    ]
    assert_trees_close(*signals, rtol=1e-3, atol=1e-5)


def test_a_small_difference_keeps_its_digits():
    random = np.random.default_rng(0)
    a, u = np.float32(random.normal(size=(50, 3))), np.float32(1e-6 * random.normal(size=(50, 3)))
    exact = n(np.float64(a) + u) - n(np.float64(a))
    np.testing.assert_allclose(normalised_difference(jnp.asarray(a), jnp.asarray(u)), exact, rtol=1e-4, atol=1e-11)
    large = jnp.asarray(random.normal(size=(50, 3)))
    difference = normalised(a + large) - normalised(jnp.asarray(a, jnp.float64))
    np.testing.assert_allclose(normalised_difference(jnp.asarray(a, jnp.float64), large), difference, atol=1e-12)
    assert not np.any(normalised(jnp.ones((4, 2))))


def test_a_wrong_option_is_refused():
    with pytest.raises(BadOption, match="step_size must be a finite number above 0; got 0"):
        make(step_size=0)
    with pytest.raises(BadOption, match="normalised_readout must be true or false; got None"):
        make(normalised_readout=None)
