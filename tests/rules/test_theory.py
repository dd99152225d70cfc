"""What Lillicrap et al. (arXiv 1411.0247, 2014) prove of feedback alignment in linear networks, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.core import Batch
from fa_jax.losses import squared_error
from fa_jax.networks.mlp import mlp
from fa_jax.rules.fa import fa

pytestmark = pytest.mark.usefixtures("float64")

LOSS = squared_error(output="linear", derivative="exact").value


def linear_network(inputs, hidden, outputs):
    return mlp(
        (inputs,),
        outputs,
        hidden=[hidden],
        activation="linear",
        biases=False,
        init="uniform",
        init_scale=0.01,
        kept=1.0,
        bias_init="constant",
        bias_scale=0.0,
        dropout=0.0,
    )


@functools.partial(jax.jit, static_argnums=(0, 5))
def train(network, w0, w, b, batch, steps, rate):
    """Gradient descent by feedback alignment; weights as the paper writes them, outputs first."""
    rule = fa(network, LOSS, distribution="uniform", scale=1.0, kept=1.0)

    def step(_, weights):
        w0, w = weights
        params = {"stages_0": {"linear": {"kernel": w0.T}}, "readout": {"kernel": w.T}}
        got = rule.updates(params, {"readout": b}, batch)
        return w0 - rate * got["stages_0"]["linear"]["kernel"].T, w - rate * got["readout"]["kernel"].T

    return jax.lax.fori_loop(0, steps, step, (w0, w))


def test_a_scalar_network_from_zero_ends_at_the_cube_root_of_two():
    network, one = linear_network(1, 1, 1), jnp.ones((1, 1))
    batch = Batch(one, one, jax.random.key(0))
    w0, w = train(network, 0 * one, 0 * one, one, batch, 20000, 1e-3)
    assert abs(float(w0[0, 0]) - 2 ** (1 / 3)) < 2e-3
    assert abs(float(w[0, 0]) - 2 ** (-1 / 3)) < 2e-3


def mean_field(rate, time):
    """The relative drift of B W + W^T B^T - W0 W0^T and the relative error, under white inputs."""
    random = np.random.default_rng(0)
    target = jnp.asarray(random.uniform(-1, 1, (10, 30)))
    w0, w = (jnp.asarray(random.uniform(-0.01, 0.01, shape)) for shape in ((20, 30), (10, 20)))
    b = jnp.asarray(random.uniform(-0.5, 0.5, (20, 10)))
    x = np.sqrt(30) * jnp.eye(30)  # the mean of x x^T is the identity
    batch = Batch(x, x @ target.T, jax.random.key(0))
    after = train(linear_network(30, 20, 10), w0, w, b, batch, round(time / rate), rate)

    def quantity(w0, w):
        return b @ w + (b @ w).T - w0 @ w0.T

    drift = jnp.linalg.norm(quantity(*after) - quantity(w0, w)) / jnp.linalg.norm(after[0] @ after[0].T)
    return float(drift), float(jnp.linalg.norm(target - after[1] @ after[0]) / jnp.linalg.norm(target))


def test_the_conserved_quantity_drifts_in_proportion_to_the_step():
    fine, error = mean_field(1e-3, 60)
    coarse, _ = mean_field(1e-2, 60)
    assert fine < 5e-3
    assert 8 < coarse / fine < 12
    assert error < 1e-6


def test_on_one_pair_from_zero_weights_the_signal_is_the_pseudobackprop_one():
    random = np.random.default_rng(1)
    x, y = jnp.asarray(random.normal(size=(1, 30))), jnp.asarray(random.normal(size=(1, 10)))
    b = jnp.asarray(random.uniform(-0.5, 0.5, (20, 10)))
    batch = Batch(x, y, jax.random.key(0))
    network, w0, w = linear_network(30, 20, 10), jnp.zeros((20, 30)), jnp.zeros((10, 20))
    for steps in (3, 10, 30):
        a0, a = train(network, w0, w, b, batch, steps, 1e-3)
        error = (y - x @ a0.T @ a.T)[0]
        ours, theirs = np.asarray(b @ error), np.linalg.pinv(np.asarray(a)) @ np.asarray(error)
        ours, theirs = ours / np.linalg.norm(ours), theirs / np.linalg.norm(theirs)
        assert np.degrees(2 * np.arcsin(np.linalg.norm(ours - theirs) / 2)) < 0.01
