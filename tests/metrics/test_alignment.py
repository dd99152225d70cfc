"""Angles and norms are those of the signals, updates and weights themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.losses import cross_entropy
from fa_jax.metrics.alignment import alignment, angle, norm
from fa_jax.metrics.pseudobackprop import pseudobackprop
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.shallow import shallow
from tests.conftest import random_batch
from tests.rules.test_contract import MLP

LOSS = cross_entropy().value
FEEDBACK = {"distribution": "uniform", "scale": 0.5, "kept": 1.0}


@pytest.mark.parametrize("degrees", [0, 1e-4, 30, 90, 135, 180])
def test_angles_are_signed_and_exact_even_where_the_cosine_is_flat(degrees):
    b = jnp.asarray([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], jnp.float32)
    assert abs(float(angle(jnp.asarray([3.0, 0.0]), 7 * b)) - degrees) < max(1e-5 * degrees, 1e-9)


def test_the_angle_of_nothing_is_nan():
    assert np.isnan(angle(jnp.zeros(3), jnp.ones(3)))
    assert np.isnan(angle(jnp.full(3, jnp.inf), jnp.ones(3)))


@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e25, 1e36])
def test_angles_and_norms_hold_where_squares_under_or_overflow(scale):
    a = jnp.asarray([3.0, 4.0])
    assert float(angle(scale * a, a)) < 1e-4
    assert abs(float(angle(-scale * a, a)) - 180) < 1e-4
    np.testing.assert_allclose(norm(scale * a), 5 * scale, rtol=1e-5)


def measure(rule, network, seed=0):
    params, feedback = rule.init(jax.random.key(seed))
    return alignment(rule, network, LOSS, params, feedback, random_batch()), params, feedback


def test_backprop_is_aligned_with_itself():
    network = mlp((12,), 4, hidden=[9, 8], dropout=0.0, **MLP)
    report, _, _ = measure(bp(network, LOSS), network)
    assert {name: float(v) for name, v in report.items() if "angle" in name} == {
        f"{kind}_angle_{i}": 0 for kind, layers in (("signal", 2), ("update", 3), ("weight", 2)) for i in range(layers)
    }


def test_signals_of_dfa_are_measured_as_e_b_against_the_chain_rule():
    network = mlp((12,), 4, hidden=[9, 8], dropout=0.0, **MLP)
    report, params, feedback = measure(dfa(network, LOSS, **FEEDBACK), network)
    batch = random_batch()
    logits, hiddens = network.forward(params, batch.inputs)
    error = np.asarray(jax.grad(LOSS)(logits, batch.targets))
    ours = error @ np.asarray(feedback["stages_0/hidden"])
    above = error @ np.asarray(params["readout"]["kernel"]).T
    theirs = (above * (1 - np.asarray(hiddens["stages_1/hidden"]) ** 2)) @ np.asarray(
        params["stages_1"]["linear"]["kernel"]
    ).T
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    np.testing.assert_allclose(report["signal_angle_0"], np.degrees(np.arccos(cosines)).mean(), rtol=1e-4)
    np.testing.assert_allclose(report["signal_norm_0"], np.linalg.norm(ours) * len(error), rtol=1e-5)
    np.testing.assert_allclose(report["bp_signal_norm_0"], np.linalg.norm(theirs) * len(error), rtol=1e-5)


def test_weight_angles_of_fa_compare_b_with_w():
    network = mlp((12,), 4, hidden=[9, 8], dropout=0.0, **MLP)
    report, params, feedback = measure(fa(network, LOSS, **FEEDBACK), network)
    for i, name in enumerate(("stages_1/linear", "readout")):
        b, w = np.asarray(feedback[name]).ravel(), np.asarray(network.weights(params)[name]).ravel()
        truth = np.degrees(np.arccos(b @ w / np.linalg.norm(b) / np.linalg.norm(w)))
        np.testing.assert_allclose(report[f"weight_angle_{i}"], truth, rtol=1e-4)
        np.testing.assert_allclose(report[f"forward_norm_{i}"], np.linalg.norm(w), rtol=1e-5)


@pytest.mark.slow
def test_scanned_layers_are_measured_one_by_one_in_order():
    network = mlp((12,), 4, hidden=[9] * 12, dropout=0.0, **MLP)
    report, _, _ = measure(dfa(network, LOSS, **FEEDBACK), network)
    assert sum(name.startswith("signal_angle_") for name in report) == 12
    assert sum(name.startswith("update_angle_") for name in report) == 13
    assert sum(name.startswith("weight_angle_") for name in report) == 12
    # Backprop's signal shrinks on its way down through tanh layers of these weights.
    assert report["bp_signal_norm_0"] < report["bp_signal_norm_11"]


def test_a_silent_rule_has_no_angle_but_a_norm_of_zero():
    network = mlp((12,), 4, hidden=[9], dropout=0.0, **MLP)
    report, _, _ = measure(shallow(network, LOSS), network)
    assert np.isnan(report["signal_angle_0"])
    assert report["signal_norm_0"] == 0
    assert report["bp_signal_norm_0"] > 0


def test_the_pseudobackprop_angle_is_that_to_the_error_through_the_pseudoinverse():
    network = mlp((12,), 4, hidden=[9], dropout=0.0, **MLP)
    rule = fa(network, LOSS, **FEEDBACK)
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch()
    got = pseudobackprop(rule, network, LOSS, params, feedback, batch)["pseudobackprop_angle"]
    error = np.asarray(jax.grad(LOSS)(network.apply(params, batch.inputs), batch.targets))
    ours = error @ np.asarray(feedback["readout"]).T
    ideal = error @ np.linalg.pinv(np.asarray(params["readout"]["kernel"]))
    cosines = (ours * ideal).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(ideal, axis=1)
    np.testing.assert_allclose(got, np.degrees(np.arccos(cosines)).mean(), rtol=1e-4)
