"""Weight mirrors estimate the forward weights, in dense and convolutional layers and in scanned stacks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.mlp import mlp
from fa_jax.rules.weight_mirror import kernel_estimate, weight_mirror
from tests.conftest import MLP, layerwise, random_batch

LOSS = cross_entropy().value
INIT_FEEDBACK = layerwise(distribution="fan_uniform", scale=1.0, density=1.0)


class Convolutional(nn.Module):
    """Padded, strided and plain convolutions, then a readout with bias."""

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Conv(3, (3, 3), padding="SAME")(x))
        x = jnp.tanh(nn.Conv(4, (3, 3), padding="SAME", strides=2)(x))
        return nn.Dense(4, bias_init=nn.initializers.ones)(x.reshape(len(x), -1))


NETWORKS = {
    "dense": mlp((12,), 4, hidden=[9, 8], dropout=0.0, **MLP),
    "scanned": mlp((12,), 4, hidden=[6] * 10, dropout=0.0, **MLP),
    "convolutional": Network(Convolutional(), (6, 6, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_mean_estimate_is_the_forward_weights(name):
    network = NETWORKS[name]
    rule = weight_mirror(network, LOSS, init_feedback=INIT_FEEDBACK)
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(network.input_shape, size=8)
    draws = 1000
    learn = jax.jit(jax.vmap(lambda key: rule.learn(params, feedback, batch._replace(key=key), None)))
    estimates = learn(jax.random.split(jax.random.key(1), draws))
    weights = network.kernels(params)
    assert set(estimates) == set(list(weights)[1:])
    for kernel, changes in estimates.items():
        estimate = -np.asarray(changes, np.float64)
        error = np.abs(estimate.mean(0) - np.asarray(weights[kernel]))
        assert np.all(error < 6 * estimate.std(0) / np.sqrt(draws)), kernel


def test_an_entry_that_meets_no_position_of_the_image_has_an_estimate_of_0():
    """A padded window of 3 on one pixel meets it by its middle alone."""
    layer = nn.Conv(2, (3, 3), padding="SAME")
    noise = jax.random.normal(jax.random.key(0), (4, 1, 1, 2))
    params = layer.init(jax.random.key(1), noise)["params"]
    estimate = np.array(kernel_estimate(layer.bind({"params": params}), noise))
    response = noise[:, 0, 0] @ params["kernel"][1, 1]
    np.testing.assert_allclose(estimate[1, 1], noise[:, 0, 0].T @ response / 4, rtol=1e-5)
    estimate[1, 1] = 0
    np.testing.assert_array_equal(estimate, 0)


def test_layers_of_a_scanned_stack_receive_independent_noise():
    network = mlp((6,), 4, hidden=[6] * 10, dropout=0.0, **MLP)
    rule = weight_mirror(network, LOSS, init_feedback=INIT_FEEDBACK)
    params, feedback = rule.init(jax.random.key(0))
    equal_layers = jax.tree.map(lambda p: jnp.broadcast_to(p[:1], p.shape), params["stages_1"])
    changes = jax.jit(rule.learn)({**params, "stages_1": equal_layers}, feedback, random_batch((6,)), None)
    estimates = changes["stages_1/linear"]
    assert np.abs(np.diff(np.asarray(estimates), axis=0)).max(axis=(1, 2)).min() > 0.01


def test_a_layer_that_noise_does_not_reach_is_named():
    network = NETWORKS["dense"]
    rule = weight_mirror(network, LOSS, init_feedback=INIT_FEEDBACK)
    params, feedback = rule.init(jax.random.key(0))
    with pytest.raises(BadOption, match=r"^cannot send noise through nowhere: nn\.scan, nn\.vmap and nn\.RNN need"):
        jax.eval_shape(rule.learn, params, {**feedback, "nowhere": jnp.zeros(2)}, random_batch(size=3), None)


def test_feedback_converges_to_the_weights():
    network = NETWORKS["dense"]
    rule = weight_mirror(network, LOSS, init_feedback=INIT_FEEDBACK)
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(size=64)

    def step(feedback, key):
        changes = rule.learn(params, feedback, batch._replace(key=key), None)
        return jax.tree.map(lambda b, u: b - 0.01 * (u + b), feedback, changes), None

    feedback, _ = jax.lax.scan(step, feedback, jax.random.split(jax.random.key(1), 1000))
    for name in feedback:
        b, w = (np.asarray(tree[name]).ravel() for tree in (feedback, network.kernels(params)))
        assert b @ w / np.linalg.norm(b) / np.linalg.norm(w) > 0.99
