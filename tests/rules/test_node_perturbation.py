"""Node perturbation estimates the gradient: without bias, and by the equation it prints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.core import gradient
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.options import BadOption
from fa_jax.rules.node_perturbation import node_perturbation
from tests.conftest import random_batch
from tests.rules.test_contract import MLP

LOSS = cross_entropy().value


@pytest.mark.usefixtures("float64")
def test_the_mean_update_over_many_noises_is_the_gradient():
    network = mlp((6,), 3, **{**MLP, "hidden": [5, 4], "dropout": 0.0})
    rule = node_perturbation(network, LOSS, sigma=1e-4)
    params, feedback = rule.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    batch = random_batch((6,), 3, size=4, dtype=np.float64)
    draws = 20000
    many = jax.vmap(lambda key: rule.updates(params, feedback, batch._replace(key=key)))(
        jax.random.split(jax.random.key(1), draws)
    )
    for got, true in zip(jax.tree.leaves(many), jax.tree.leaves(gradient(network, LOSS, params, batch)), strict=True):
        spread = np.asarray(got).std(0) / np.sqrt(draws)
        assert (np.abs(np.asarray(got).mean(0) - np.asarray(true)) <= 5 * spread + 1e-12).all()


def test_the_readout_has_its_true_gradient_whatever_the_noise():
    network = mlp((6,), 3, **{**MLP, "hidden": [5], "dropout": 0.0})
    rule = node_perturbation(network, LOSS, sigma=0.5)
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch((6,), 3)
    got = rule.updates(params, feedback, batch)
    true = gradient(network, LOSS, params, batch)
    np.testing.assert_array_equal(got["readout"]["kernel"], true["readout"]["kernel"])
    assert float(jnp.abs(got["stages_0"]["linear"]["kernel"] - true["stages_0"]["linear"]["kernel"]).max()) > 1e-3


def test_a_noise_of_no_width_is_refused():
    network = mlp((6,), 3, **{**MLP, "hidden": [5], "dropout": 0.0})
    with pytest.raises(BadOption, match=r"rule\.sigma must be a finite number above 0; got 0"):
        node_perturbation(network, LOSS, sigma=0)
