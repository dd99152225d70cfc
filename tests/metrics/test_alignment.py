"""Angles and norms are those of the signals, updates and weights themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.core import Extras
from fa_jax.losses import cross_entropy
from fa_jax.metrics.alignment import ALIGNMENT, alignment, angle, norm
from fa_jax.metrics.pseudobackprop import pseudobackprop
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.shallow import shallow
from tests.conftest import CNN, MLP, direct, layerwise, random_batch

LOSS = cross_entropy().value
DENSE = {"distribution": "uniform", "scale": 0.5, "density": 1.0}
FA = functools.partial(fa, init_feedback=layerwise(**DENSE))
DFA = functools.partial(dfa, init_feedback=direct(**DENSE))


def make_mlp(*hidden):
    return mlp((12,), 4, hidden=list(hidden), dropout=0.0, **MLP)


def measure_alignment(rule, network, kinds=("",)):
    """Returns metrics, params and feedback; the metrics are those whose names start with one of the kinds."""

    @jax.jit
    def compute(params, feedback, batch):
        metrics = alignment(rule, network, LOSS, params, feedback, batch)
        return {name: value for name, value in metrics.items() if name.startswith(tuple(kinds))}

    params, feedback = jax.tree.map(jnp.asarray, rule.init(jax.random.key(0)))  # JAX returns a dict sorted by name
    return compute(params, feedback, random_batch(network.input_shape)), params, feedback


def mean_angle(a, b):
    """The mean over rows of the angle, in degrees, by the arc cosine."""
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.degrees(np.arccos(cosines)).mean()


@pytest.mark.parametrize("degrees", [0, 1e-4, 30, 90, 135, 180])
def test_angles_are_signed_and_exact_also_where_the_cosine_is_flat(degrees):
    b = jnp.asarray([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], jnp.float32)
    assert abs(float(angle(jnp.asarray([3.0, 0.0]), 7 * b)) - degrees) < max(1e-5 * degrees, 1e-9)


def test_angle_to_zero_or_infinity_is_nan():
    assert np.isnan(angle(jnp.zeros(3), jnp.ones(3)))
    assert np.isnan(angle(jnp.full(3, jnp.inf), jnp.ones(3)))


@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e25, 1e36])
def test_angles_and_norms_are_exact_where_squares_under_or_overflow(scale):
    a = jnp.asarray([3.0, 4.0])
    assert float(angle(scale * a, a)) < 1e-4
    assert abs(float(angle(-scale * a, a)) - 180) < 1e-4
    np.testing.assert_allclose(norm(scale * a), 5 * scale, rtol=1e-5)


def test_backprop_has_no_angle_to_itself():
    network = make_mlp(9, 8)
    metrics, _, _ = measure_alignment(bp(network, LOSS), network)
    assert {name: float(value) for name, value in metrics.items() if "angle" in name} == {
        f"{kind}_angle_{i}": 0 for kind, layers in (("signal", 2), ("update", 3), ("weight", 2)) for i in range(layers)
    }


def test_metrics_are_those_declared():
    network = make_mlp(9, 8)
    metrics, _, _ = measure_alignment(FA(network, LOSS), network)
    assert {name.rpartition("_")[0] for name in metrics} == {metric.name for metric in ALIGNMENT.metrics}


def test_rule_without_signals_and_weight_pairs_has_angles_of_updates_alone():
    network = make_mlp(9, 8)
    rule = FA(network, LOSS)._replace(extras=Extras())
    metrics, _, _ = measure_alignment(rule, network)
    names = {"update_angle", "update_norm", "bp_update_norm", "reference_norm"}
    assert {name.rpartition("_")[0] for name in metrics} == names


def test_dfa_signals_are_compared_with_the_chain_rule():
    network = make_mlp(9, 8)
    metrics, params, feedback = measure_alignment(DFA(network, LOSS), network)
    batch = random_batch()
    logits, hiddens = network.forward(params, batch.inputs)
    error = np.asarray(jax.grad(LOSS)(logits, batch.targets))
    signal = error @ np.asarray(feedback["stages_0/hidden"])
    second_signal = error @ np.asarray(params["readout"]["kernel"]).T
    second_delta = second_signal * (1 - np.asarray(hiddens["stages_1/hidden"]) ** 2)
    bp_signal = second_delta @ np.asarray(params["stages_1"]["linear"]["kernel"]).T
    np.testing.assert_allclose(metrics["signal_angle_0"], mean_angle(signal, bp_signal), rtol=1e-4)
    np.testing.assert_allclose(metrics["signal_norm_0"], np.linalg.norm(signal) * len(error), rtol=1e-5)
    np.testing.assert_allclose(metrics["bp_signal_norm_0"], np.linalg.norm(bp_signal) * len(error), rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (make_mlp(9, 8), ["stages_1/linear", "readout"]),
        (make_mlp(*[9, 8] * 6), [*(f"stages_{i}/linear" for i in range(1, 12)), "readout"]),
        (cnn((8, 8, 2), 4, **CNN), ["stages_1/linear", "stages_2/linear", "readout/linear"]),
    ],
    ids=["mlp", "deep mlp", "cnn"],
)
def test_weight_angles_compare_backward_with_forward_weights_in_the_order_of_the_forward_pass(network, layers):
    metrics, params, feedback = measure_alignment(FA(network, LOSS), network, ["weight", "forward"])
    assert set(feedback) == set(layers)
    assert list(feedback) != layers
    assert sum(name.startswith("weight_angle_") for name in metrics) == len(layers)
    for i, name in enumerate(layers):
        b, w = np.asarray(feedback[name]).ravel(), np.asarray(network.kernels(params)[name]).ravel()
        expected = np.degrees(np.arccos(b @ w / np.linalg.norm(b) / np.linalg.norm(w)))
        np.testing.assert_allclose(metrics[f"weight_angle_{i}"], expected, rtol=1e-4)
        np.testing.assert_allclose(metrics[f"weight_norm_{i}"], np.linalg.norm(b), rtol=1e-5)
        np.testing.assert_allclose(metrics[f"forward_norm_{i}"], np.linalg.norm(w), rtol=1e-5)


def test_direct_feedback_is_compared_with_forward_paths_in_the_order_of_the_forward_pass():
    network = make_mlp(*[9, 8] * 6)
    metrics, params, feedback = measure_alignment(DFA(network, LOSS), network, ["weight", "forward"])
    assert list(feedback) != list(network.hidden_shapes)
    _, *weights = (np.asarray(w) for w in network.kernels(params).values())
    for i, name in enumerate(network.hidden_shapes):
        path = functools.reduce(np.matmul, weights[i:]).T
        np.testing.assert_allclose(metrics[f"weight_norm_{i}"], np.linalg.norm(feedback[name]), rtol=1e-5)
        np.testing.assert_allclose(metrics[f"forward_norm_{i}"], np.linalg.norm(path), rtol=1e-4)


@pytest.mark.slow
def test_scanned_layers_are_measured_one_by_one_in_order():
    network = make_mlp(*[9] * 12)
    metrics, _, _ = measure_alignment(DFA(network, LOSS), network)
    assert sum(name.startswith("signal_angle_") for name in metrics) == 12
    assert sum(name.startswith("update_angle_") for name in metrics) == 13
    assert sum(name.startswith("weight_angle_") for name in metrics) == 12
    # Backprop's signal shrinks on its way down through tanh layers of these weights.
    assert metrics["bp_signal_norm_0"] < metrics["bp_signal_norm_11"]


def test_zero_signal_has_no_angle_but_a_norm_of_zero():
    network = make_mlp(9)
    metrics, _, _ = measure_alignment(shallow(network, LOSS), network)
    assert np.isnan(metrics["signal_angle_0"])
    assert metrics["signal_norm_0"] == 0
    assert metrics["bp_signal_norm_0"] > 0


def test_pseudobackprop_angle_is_that_to_the_error_through_the_pseudoinverse():
    network = make_mlp(9)
    rule = FA(network, LOSS)
    params, feedback = rule.init(jax.random.key(0))
    batch, measure = random_batch(), pseudobackprop()
    metrics = measure.compute(rule, network, LOSS, params, feedback, batch)
    assert list(metrics) == [metric.name for metric in measure.metrics] == ["pseudobackprop_angle"]
    error = np.asarray(jax.grad(LOSS)(network.apply(params, batch.inputs), batch.targets))
    signal = error @ np.asarray(feedback["readout"]).T
    pseudobackprop_signal = error @ np.linalg.pinv(np.asarray(params["readout"]["kernel"]))
    expected = mean_angle(signal, pseudobackprop_signal)
    np.testing.assert_allclose(metrics["pseudobackprop_angle"], expected, rtol=1e-4)
    without_signals = rule._replace(extras=rule.extras._replace(signals=None))
    assert measure.compute(without_signals, network, LOSS, params, feedback, batch) == {}


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"norm": "batch"}])
def test_pseudobackprop_of_an_orthonormal_readout_is_backprop_in_the_same_forward_pass(options):
    network = mlp((12,), 4, hidden=[9], **{"dropout": 0.0, **MLP, **options})
    params = network.init(jax.random.key(0))
    params["readout"]["kernel"] = jnp.linalg.qr(params["readout"]["kernel"])[0]
    angle = pseudobackprop().compute(bp(network, LOSS), network, LOSS, params, (), random_batch())
    assert angle["pseudobackprop_angle"] < 0.1
