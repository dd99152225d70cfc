"""Mirrored PEPITA: what the feedback learns, the scale of F, and the direction of the updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.feedback import INPUT
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.mirrored_pepita import mirrored_pepita
from fa_jax.rules.pepita import pepita
from fa_jax.rules.weight_mirror import kernel_estimate
from tests.conftest import MLP, RANDOM_WEIGHTS, assert_trees_close, compiled, filled, random_batch, to_float64
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value
OPTIONS = {"output_error": "first", "sign": "minus", "scale": 0.07}


@functools.cache
def make(hidden=(4, 3), activation="tanh", **options):
    network = mlp((5,), 2, hidden=list(hidden), dropout=0.0, **{**MLP, **RANDOM_WEIGHTS, "activation": activation})
    rule = mirrored_pepita(network, LOSS, **{**OPTIONS, **options})
    params, feedback = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(1))))
    return network, compiled(rule), params, feedback, random_batch((5,), 2, size=6, dtype=np.float64)


@pytest.mark.parametrize("hidden", [(4, 3), (3,) * 9], ids=["unrolled", "scanned"])
def test_it_is_pepita_with_the_product_of_the_backward_weights(hidden):
    network, rule, params, feedback, batch = make(hidden)
    product = functools.reduce(np.matmul, reference.unstack(network.kernel_shapes, feedback)).T
    matrix = {INPUT: jnp.asarray(0.07 / 5**0.5 * product / product.std())}
    options = {"output_error": "first", "sign": "minus", "positions": "sum"}
    fixed = compiled(pepita(network, LOSS, init_feedback=lambda *_: matrix, **options))
    updates = rule.updates(params, feedback, batch)
    assert_trees_close(updates, fixed.updates(params, matrix, batch), rtol=1e-9, atol=1e-14)
    scaled = {name: 3 * b for name, b in feedback.items()}
    assert_trees_close(rule.updates(params, scaled, batch), updates, rtol=1e-9, atol=1e-14)


def test_orthogonal_noise_estimates_the_weights_exactly():
    network, _, params, _, _ = make()
    noise = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]) * 5**0.5
    estimates = network.observe_linear(
        params, jnp.zeros((5, 5)), lambda layer, x, y: (y, kernel_estimate(layer, noise[:, : x.shape[-1]])), {}
    )
    for name, kernel in network.kernels(params).items():
        np.testing.assert_allclose(estimates[name], kernel, rtol=1e-10, atol=1e-14)


def test_feedback_updates_are_minus_the_estimates_of_every_layer():
    _, rule, params, feedback, batch = make()
    changes = rule.learn(params, feedback, batch, None)
    assert jax.tree.map(jnp.shape, changes) == jax.tree.map(jnp.shape, feedback)
    # With a zero kernel the estimate is zero, whatever the noise and the bias.
    silent = {**params, "readout": jax.tree.map(lambda p: 0 * p, params["readout"])}
    changes = rule.learn(silent, feedback, batch, None)
    assert not np.any(changes["readout"])
    assert np.any(changes["stages_0/linear"])


def test_the_mean_of_many_estimates_is_that_of_the_weights():
    network, rule, params, feedback, _ = make()
    changes = rule.learn(params, feedback, random_batch((5,), 2, size=20_000, dtype=np.float64), None)
    for name, kernel in network.kernels(params).items():
        np.testing.assert_allclose(changes[name], -kernel, atol=0.05)
        assert np.abs(kernel).max() > 0.4


def test_feedback_equal_to_the_weights_descends_and_the_other_sign_would_ascend():
    network, rule, params, _, batch = make((4,), "linear", scale=1e-6)
    mirrored = network.kernels(params)
    gradient = bp(network, LOSS).updates(params, (), batch)["stages_0"]["linear"]["kernel"]
    update = rule.updates(params, mirrored, batch)["stages_0"]["linear"]["kernel"]
    assert np.sum(np.asarray(update) * gradient) > 0
    product = np.asarray(mirrored["stages_0/linear"] @ mirrored["readout"]).T
    options = {"output_error": "first", "sign": "plus", "positions": "sum"}
    plus = pepita(network, LOSS, init_feedback=lambda *_: {}, **options)
    update = plus.updates(params, {INPUT: jnp.asarray(1e-6 * product)}, batch)["stages_0"]["linear"]["kernel"]
    assert np.sum(np.asarray(update) * gradient) < 0


MISTAKES = {
    "sign must be minus: mirrored feedback follows the weights, so that x \\+ F e ascends": {"sign": "plus"},
    "output_error must be one of first, second; got 1": {"output_error": 1},
    "scale must be a finite number above 0; got 0": {"scale": 0},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_wrong_option_is_refused(message):
    with pytest.raises(BadOption, match=message):
        make((4,), "tanh", **MISTAKES[message])
