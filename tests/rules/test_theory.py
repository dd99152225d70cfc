"""Theorems and known results about rules in linear networks, in float64.

Lillicrap et al. (arXiv 1411.0247, 2014) prove those about feedback alignment. That direct feedback alignment from zero
weights aligns weights and gradients is argued by Nøkland (NeurIPS 2016) and Refinetti et al. (ICML 2021).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.core import Batch
from fa_jax.losses import squared_error
from fa_jax.networks.mlp import mlp
from fa_jax.rules.backward import gradient
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from tests.conftest import MLP, direct, layerwise, to_float64

pytestmark = pytest.mark.usefixtures("float64")

LOSS = squared_error(output="linear", derivative="exact").value


def linear_network(inputs, *hidden, outputs, init_scale=0.01):
    options = {"activation": "linear", "biases": False, "init": "uniform", "init_scale": init_scale}
    return mlp((inputs,), outputs, hidden=list(hidden), dropout=0.0, **{**MLP, **options})


@functools.partial(jax.jit, static_argnums=(0, 5))
def train(network, w0, w, b, batch, steps, rate):
    """Gradient descent by feedback alignment; weights have the paper's axes, outputs first."""
    rule = fa(network, LOSS, init_feedback=layerwise())

    def step(_, weights):
        w0, w = weights
        params = {"stages_0": {"linear": {"kernel": w0.T}}, "readout": {"kernel": w.T}}
        updates = rule.updates(params, {"readout": b}, batch)
        return w0 - rate * updates["stages_0"]["linear"]["kernel"].T, w - rate * updates["readout"]["kernel"].T

    return jax.lax.fori_loop(0, steps, step, (w0, w))


def test_scalar_network_from_zero_converges_to_the_cube_root_of_two():
    network, ones, zeros = linear_network(1, 1, outputs=1), jnp.ones((1, 1)), jnp.zeros((1, 1))
    batch = Batch(ones, ones, jax.random.key(0))
    w0, w = train(network, zeros, zeros, ones, batch, 20000, 1e-3)
    assert abs(float(w0[0, 0]) - 2 ** (1 / 3)) < 2e-3
    assert abs(float(w[0, 0]) - 2 ** (-1 / 3)) < 2e-3


def mean_field(rate, time):
    """Returns the relative drift of B W + W^T B^T - W0 W0^T and the relative error, for white inputs."""
    random = np.random.default_rng(0)
    target = jnp.asarray(random.uniform(-1, 1, (10, 30)))
    w0, w = (jnp.asarray(random.uniform(-0.01, 0.01, shape)) for shape in ((20, 30), (10, 20)))
    b = jnp.asarray(random.uniform(-0.5, 0.5, (20, 10)))
    x = np.sqrt(30) * jnp.eye(30)  # the mean of x x^T is the identity
    batch = Batch(x, x @ target.T, jax.random.key(0))
    final_w0, final_w = train(linear_network(30, 20, outputs=10), w0, w, b, batch, round(time / rate), rate)

    def quantity(w0, w):
        return b @ w + (b @ w).T - w0 @ w0.T

    drift = jnp.linalg.norm(quantity(final_w0, final_w) - quantity(w0, w)) / jnp.linalg.norm(final_w0 @ final_w0.T)
    return float(drift), float(jnp.linalg.norm(target - final_w @ final_w0) / jnp.linalg.norm(target))


def test_conserved_quantity_drifts_in_proportion_to_the_step():
    fine_drift, error = mean_field(1e-3, 60)
    coarse_drift, _ = mean_field(1e-2, 60)
    assert fine_drift < 5e-3
    assert 8 < coarse_drift / fine_drift < 12
    assert error < 1e-6


def test_signal_on_one_pair_from_zero_weights_is_that_of_pseudobackprop():
    random = np.random.default_rng(1)
    x, y = jnp.asarray(random.normal(size=(1, 30))), jnp.asarray(random.normal(size=(1, 10)))
    b = jnp.asarray(random.uniform(-0.5, 0.5, (20, 10)))
    batch = Batch(x, y, jax.random.key(0))
    network, w0, w = linear_network(30, 20, outputs=10), jnp.zeros((20, 30)), jnp.zeros((10, 20))
    for steps in (3, 10, 30):
        final_w0, final_w = train(network, w0, w, b, batch, steps, 1e-3)
        error = (y - x @ final_w0.T @ final_w.T)[0]
        signals = np.asarray(b @ error), np.linalg.pinv(np.asarray(final_w)) @ np.asarray(error)
        signal, pseudobackprop_signal = (s / np.linalg.norm(s) for s in signals)
        assert np.degrees(2 * np.arcsin(np.linalg.norm(signal - pseudobackprop_signal) / 2)) < 0.01


def cosine(a, b):
    return jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b)


@functools.cache
def deep_linear(seed):
    """Trains a network 20-30-25-15-4 by DFA from zero weights, on 200 examples of a linear teacher.

    Returns, by step: the loss, the weights with the paper's axes (outputs first), and the cosines of the hidden layers'
    updates with their gradients; and the feedback with the paper's axes, `[width, outputs]`.
    """
    network = linear_network(20, 30, 25, 15, outputs=4, init_scale=0.0)
    init_feedback = direct(distribution="uniform", scale=[30**-0.5, 25**-0.5, 15**-0.5], density=1.0)
    rule = dfa(network, LOSS, init_feedback=init_feedback)
    random = np.random.default_rng(seed)
    x, teacher = random.normal(size=(200, 20)), random.normal(size=(20, 4)) / np.sqrt(20)
    batch = Batch(jnp.asarray(x), jnp.asarray(x @ teacher), jax.random.key(0))
    params, feedback = to_float64(rule.init(jax.random.key(seed)))

    @jax.jit
    def step(params):
        updates = rule.updates(params, feedback, batch)
        kernel_updates = network.kernels(updates)
        gradients = network.kernels(gradient(network, LOSS, params, batch))
        cosines = [cosine(kernel_updates[name], gradients[name]) for name in list(gradients)[:-1]]
        loss = LOSS(network.apply(params, batch.inputs), batch.targets)
        return jax.tree.map(lambda p, u: p - 0.05 * u, params, updates), loss, cosines

    history = {}
    for number in range(401):
        weights = [np.asarray(w).T for w in network.kernels(params).values()]
        params, loss, cosines = step(params)
        history[number] = float(loss), weights, [float(c) for c in cosines]
    return history, [np.asarray(b).T for b in feedback.values()]


def test_deep_dfa_from_zero_learns_within_the_span_of_its_feedback():
    history, feedback = deep_linear(0)
    for step in (1, 2, 10, 50, 400):
        _, weights, _ = history[step]
        nonzero = min(step, len(weights))
        assert [np.linalg.matrix_rank(w, tol=1e-9 * np.abs(w).max()) for w in weights[:nonzero]] == [4] * nonzero
        for w, feedback_below in zip(weights[1:nonzero], feedback, strict=False):
            span, _ = np.linalg.qr(feedback_below)
            assert np.linalg.norm(w - w @ span @ span.T) <= 1e-12 * np.linalg.norm(w)
    assert history[0][0] == history[1][0]
    assert history[200][0] < 3e-3 * history[0][0]
    assert history[400][0] < 1e-4 * history[0][0]


def test_deep_dfa_from_zero_aligns_updates_with_gradients_and_weights_with_feedback():
    early, late = [], []
    for seed in range(3):
        history, feedback = deep_linear(seed)
        defined = [c for step in range(2, 401) for c in history[step][2] if not np.isnan(c)]
        assert len(defined) > 1000
        assert min(defined) > 0
        assert min(history[400][2]) > 0.75
        pairs = list(zip((*feedback[1:], np.eye(4)), feedback, strict=True))  # the readout receives the error itself
        for step, cosines in ((50, early), (400, late)):
            cosines.append([cosine(w, up @ down.T) for w, (up, down) in zip(history[step][1][1:], pairs, strict=True)])
    # An independent computation gave 0.92, 0.81, 0.74 and about 0.97.
    np.testing.assert_allclose(np.mean(early, 0), [0.92, 0.81, 0.74], atol=0.1)
    np.testing.assert_allclose(np.mean(late, 0), 0.97, atol=0.1)
