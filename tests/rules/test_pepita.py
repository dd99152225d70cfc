"""PEPITA: its updates in numpy, identities, its limit for small feedback, convolutions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax import feedback
from fa_jax.checks import BadOption
from fa_jax.core import Batch
from fa_jax.feedback import INPUT
from fa_jax.losses import cross_entropy, squared_error
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.networks.resnet import resnet
from fa_jax.rules.bp import bp
from fa_jax.rules.pepita import METRIC, pepita
from tests.conftest import (
    CNN,
    DRAWN,
    MLP,
    RANDOM_WEIGHTS,
    RESNET,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    direct,
    filled,
    random_batch,
    to_float64,
)
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

CROSS_ENTROPY, SQUARED = cross_entropy().value, squared_error(output="linear", derivative="exact").value
TO_INPUT = functools.partial(feedback.to_input, **DRAWN, rank=None)
OPTIONS = {"output_error": "second", "sign": "plus", "positions": "sum"}
CONV = {**CNN, "hidden_position": "before_pooling"}


@functools.cache
def make(hidden=(4, 3), loss=CROSS_ENTROPY, activation="tanh", dropout=0.0, **options):
    """A rule on a 5-4-3-2 network, params, feedback and a batch of six."""
    options_of_network = {**MLP, **RANDOM_WEIGHTS, "activation": activation}
    network = mlp((5,), 2, hidden=list(hidden), dropout=dropout, **options_of_network)
    rule = pepita(network, loss, init_feedback=TO_INPUT, **{**OPTIONS, **options})
    params, drawn = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(1))))
    return network, compiled(rule), params, drawn, random_batch((5,), 2, size=6, dtype=np.float64)


def softmax(a):
    exponential = np.exp(a - a.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def reference_updates(
    network, params, matrix, batch, activation, masks, direction=1.0, second=True, loss=CROSS_ENTROPY
):
    """Weights and biases by the two passes; `masks` multiply the hidden activations of both."""
    f, _ = reference.ACTIVATIONS[activation]
    weights, biases = reference.weights_and_biases(network, params)
    x, y = np.asarray(batch.inputs), np.asarray(batch.targets)

    def run(x):
        activities = [x]
        for w, b, mask in zip(weights[:-1], biases[:-1], masks, strict=True):
            activities.append(mask * f(activities[-1] @ w + b))
        logits = activities[-1] @ weights[-1] + biases[-1]
        return activities, softmax(logits) - y

    h, error = run(x)
    k, second_error = run(x + direction * error @ np.asarray(matrix))
    changes = [(a - b) / len(x) for a, b in zip(h[1:], k[1:], strict=True)]
    return reference.updates([*changes, (second_error if second else error) / len(x)], k)


def check(network, updates, expected, **tolerance):
    for computed, wanted in zip(reference.weights_and_biases(network, updates), expected, strict=True):
        for layer, wanted_layer in zip(computed, wanted, strict=True):
            np.testing.assert_allclose(layer, wanted_layer, **{"rtol": 1e-10, "atol": 1e-13, **tolerance})


@pytest.mark.parametrize(
    ("hidden", "activation", "dropout", "options"),
    [
        ((4, 3), "tanh", 0.5, {}),
        ((4, 3), "relu", 0.0, {"sign": "minus", "output_error": "first"}),
        ((3,) * 10, "tanh", 0.0, {}),  # scanned
    ],
    ids=["dropout", "minus-first", "scanned"],
)
def test_updates_are_those_of_the_two_passes(hidden, activation, dropout, options):
    network, rule, params, drawn, batch = make(hidden, CROSS_ENTROPY, activation, dropout, **options)
    _, hiddens = network.forward(params, batch.inputs, key=batch.key)
    masks = [(np.asarray(h) != 0) / (1 - dropout) if dropout else 1.0 for h in network.hiddens_in_order(hiddens)]
    direction, second = (-1.0, False) if options else (1.0, True)
    expected = reference_updates(network, params, drawn[INPUT], batch, activation, masks, direction, second)
    check(network, rule.updates(params, drawn, batch), expected)


def test_without_feedback_only_the_readout_learns_by_its_true_gradient():
    network, rule, params, drawn, batch = make(dropout=0.5)
    updates = rule.updates(params, jax.tree.map(jnp.zeros_like, drawn), batch)
    gradient = compiled(bp(network, CROSS_ENTROPY)).updates(params, (), batch)
    assert_trees_close(updates.pop("readout"), gradient["readout"], rtol=1e-12, atol=1e-14)
    assert not any(np.any(update) for update in jax.tree.leaves(updates))


def test_without_error_nothing_changes():
    _, rule, params, drawn, batch = make(loss=SQUARED, dropout=0.0)
    batch = batch._replace(targets=rule.predict(params, batch.inputs))
    assert max(np.abs(update).max() for update in jax.tree.leaves(rule.updates(params, drawn, batch))) < 1e-15


def test_the_other_sign_is_that_of_the_feedback():
    _, rule, params, drawn, batch = make(dropout=0.5)
    minus = make(dropout=0.5, sign="minus")[1]
    negative = jax.tree.map(jnp.negative, drawn)
    assert_trees_equal(minus.updates(params, drawn, batch), rule.updates(params, negative, batch))


@pytest.mark.parametrize(("loss", "is_equal"), [(CROSS_ENTROPY, True), (SQUARED, False)], ids=["softmax", "linear"])
def test_feedback_equal_for_all_classes_has_no_effect_with_a_softmax(loss, is_equal):
    _, rule, params, drawn, batch = make(loss=loss)
    shifted = {INPUT: drawn[INPUT] + jnp.arange(5.0)}
    updates, others = (rule.updates(params, f, batch)["stages_0"]["linear"]["kernel"] for f in (drawn, shifted))
    assert np.allclose(updates, others, rtol=1e-10, atol=1e-14) == is_equal


def test_the_error_of_the_readout_concerns_the_readout_alone():
    _, rule, params, drawn, batch = make()
    updates, others = (r.updates(params, drawn, batch) for r in (rule, make(output_error="first")[1]))
    assert not np.allclose(updates.pop("readout")["kernel"], others.pop("readout")["kernel"])
    assert_trees_equal(updates, others)


def test_updates_are_means_over_examples():
    _, rule, params, drawn, batch = make()
    updates = rule.updates(params, drawn, batch)
    singles = [rule.updates(params, drawn, Batch(*(a[i : i + 1] for a in batch[:2]), batch.key)) for i in range(6)]
    assert_trees_close(jax.tree.map(lambda *u: sum(u) / 6, *singles), updates, rtol=1e-10, atol=1e-14)


def test_given_the_error_a_layer_does_not_depend_on_the_layers_above():
    _, rule, params, drawn, batch = make(loss=lambda logits, targets: jnp.mean(jnp.sum(logits * targets, -1)))
    others = {**params, "stages_1": params["stages_0"], "readout": jax.tree.map(lambda p: p + 1, params["readout"])}
    others["stages_1"] = jax.tree.map(lambda p: 2 * p, params["stages_1"])
    updates, changed = (rule.updates(p, drawn, batch) for p in (params, others))
    assert_trees_equal(updates["stages_0"], changed["stages_0"])
    assert not np.allclose(updates["stages_1"]["linear"]["kernel"], changed["stages_1"]["linear"]["kernel"])


def test_a_unit_that_is_silent_in_both_passes_does_not_learn():
    _, rule, params, drawn, batch = make(activation="relu")
    params = jax.tree.map(lambda a: a, params)
    params["stages_0"]["linear"]["bias"] = params["stages_0"]["linear"]["bias"].at[1].set(-100.0)
    update = rule.updates(params, drawn, batch)["stages_0"]["linear"]
    assert not np.any(update["kernel"][:, 1])
    assert not update["bias"][1]
    assert np.any(update["kernel"][:, 0])


def test_signals_explain_the_updates_to_first_order_in_the_feedback():
    network, rule, params, drawn, batch = make(dropout=0.5)
    small = {INPUT: 1e-6 * drawn[INPUT]}
    _, hiddens = network.forward(params, batch.inputs, key=batch.key)
    signals, updates = rule.extras.signals(params, small, batch), rule.updates(params, small, batch)
    below = np.asarray(batch.inputs)
    for i, h in enumerate(map(np.asarray, network.hiddens_in_order(hiddens))):
        delta = np.asarray(signals[f"stages_{i}/hidden"]) * 2 * (h != 0) * (1 - (h / 2) ** 2)
        expected = {"kernel": below.T @ delta, "bias": delta.sum(0)}
        assert_trees_close(updates[f"stages_{i}"]["linear"], expected, rtol=1e-4, atol=1e-12)
        below = h


def test_a_linear_network_has_direct_feedback_that_moves_with_the_weights():
    network, rule, params, drawn, batch = make(loss=SQUARED, activation="linear", output_error="first")
    weights, biases = reference.weights_and_biases(network, params)
    x, matrix = np.asarray(batch.inputs), np.asarray(drawn[INPUT])
    error = reference.forward(weights, biases, x, "linear")[0][-1] - np.asarray(batch.targets)
    k = reference.forward(weights, biases, x + error @ matrix, "linear")[1]
    first = -matrix @ weights[0]
    pairs = rule.extras.weight_pairs(params, drawn)
    for name, effective in zip(pairs, (first, first @ weights[1]), strict=True):
        np.testing.assert_allclose(pairs[name][0], effective, rtol=1e-10)
    changes = [error @ first / 6, error @ first @ weights[1] / 6, error / 6]
    check(network, rule.updates(params, drawn, batch), reference.updates(changes, k))
    # The error of the second pass is (I + W_L ... W_0 F) e.
    second = error + error @ matrix @ weights[0] @ weights[1] @ weights[2]
    update = make(loss=SQUARED, activation="linear")[1].updates(params, drawn, batch)["readout"]["bias"]
    np.testing.assert_allclose(update, second.mean(0), rtol=1e-10)


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu"])
def test_aligned_feedback_is_backprop_in_the_limit_and_opposite_feedback_ascends(activation):
    network, rule, params, _, batch = make((4,), activation=activation)
    first, readout = np.asarray(params["stages_0"]["linear"]["kernel"]), np.asarray(params["readout"]["kernel"])
    aligned = -readout.T @ np.linalg.pinv(first)  # W_0 F = -W_1^T, in rows
    gradient = compiled(bp(network, CROSS_ENTROPY)).updates(params, (), batch)["stages_0"]
    for size in (1e-7, -1e-7):
        update = rule.updates(params, {INPUT: jnp.asarray(size * aligned)}, batch)["stages_0"]
        assert_trees_close(jax.tree.map(lambda u, s=size: u / s, update), gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_kernel_as_large_as_the_image_is_a_dense_layer(shared):
    network = cnn((3, 3, 2), 2, **{**CONV, "topology": "conv4x3v-3", "shared_weights": shared})
    dense = mlp((3, 3, 2), 2, hidden=[4, 3], dropout=0.0, **{**MLP, **RANDOM_WEIGHTS})
    rules = [compiled(pepita(n, CROSS_ENTROPY, init_feedback=TO_INPUT, **OPTIONS)) for n in (network, dense)]
    params, drawn = to_float64(filled(jax.eval_shape(rules[0].init, jax.random.key(1))))
    batch = random_batch((3, 3, 2), 2, size=5, dtype=np.float64)
    kernel = params["stages_0"]["linear"]["kernel"]
    # Flax orders the inputs of a locally connected layer by channel, then by position.
    flat = kernel.reshape(18, 4) if shared else kernel.reshape(2, 9, 4).swapaxes(0, 1).reshape(18, 4)
    dense_params = {
        "stages_0": {"linear": {"kernel": flat, "bias": params["stages_0"]["linear"]["bias"].reshape(4)}},
        "stages_1": params["stages_1"],
        "readout": params["readout"]["linear"],
    }
    updates = rules[0].updates(params, drawn, batch)
    dense_updates = rules[1].updates(dense_params, drawn, batch)
    update = updates["stages_0"]["linear"]["kernel"]
    update = update.reshape(18, 4) if shared else update.reshape(2, 9, 4).swapaxes(0, 1).reshape(18, 4)
    np.testing.assert_allclose(update, dense_updates["stages_0"]["linear"]["kernel"], rtol=1e-10, atol=1e-14)
    assert_trees_close(updates["stages_1"], dense_updates["stages_1"], rtol=1e-10, atol=1e-14)


def test_kernels_of_a_convolution_learn_from_the_differences_at_all_positions():
    network = cnn((4, 4, 1), 2, **{**CONV, "topology": "conv2x3p2"})
    rules = {
        p: compiled(pepita(network, SQUARED, init_feedback=TO_INPUT, **{**OPTIONS, "positions": p}))
        for p in ("sum", "mean")
    }
    params, drawn = to_float64(filled(jax.eval_shape(rules["sum"].init, jax.random.key(1))))
    batch = random_batch((4, 4, 1), 2, size=3, dtype=np.float64)
    layer, x = params["stages_0"]["linear"], np.asarray(batch.inputs)
    logits, _ = network.forward(params, batch.inputs)
    modulated = x + np.tensordot(np.asarray(logits - batch.targets), np.asarray(drawn[INPUT]), 1)

    def patches(images):
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return np.stack([padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)], 3)[..., 0]

    h, k = (np.tanh(patches(i) @ np.asarray(layer["kernel"]).reshape(9, 2) + layer["bias"]) for i in (x, modulated))
    expected = np.einsum("nijp,nijc->pc", patches(modulated), h - k).reshape(3, 3, 1, 2) / 3
    total, mean = (rules[p].updates(params, drawn, batch)["stages_0"]["linear"]["kernel"] for p in ("sum", "mean"))
    np.testing.assert_allclose(total, expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(mean, total / 16, rtol=1e-12)


def test_angle_of_the_feedback_to_the_product_of_the_weights_is_measured():
    _, rule, params, _, batch = make()
    product = params["stages_0"]["linear"]["kernel"] @ params["stages_1"]["linear"]["kernel"]
    product = (product @ params["readout"]["kernel"]).T
    for factor, expected in ((2.0, 0.0), (-2.0, 180.0)):
        metrics = rule.extras.measure.compute(params, {INPUT: factor * product}, batch)
        np.testing.assert_allclose(metrics[METRIC.name], expected, atol=1e-6)
    network = cnn((4, 4, 1), 2, **{**CONV, "topology": "conv2x3p2"})
    rule = pepita(network, SQUARED, init_feedback=TO_INPUT, **OPTIONS)
    state = filled(jax.eval_shape(rule.init, jax.random.key(0)))
    assert rule.extras.measure.compute(*state, batch) == rule.extras.weight_pairs(*state) == {}


def test_feedback_is_drawn_by_the_number_of_inputs():
    network = mlp((20,), 4, hidden=[3], dropout=0.0, **MLP)
    options = {"distribution": "fan_uniform", "scale": 2.0, "density": 1.0, "rank": None}
    (drawn,) = feedback.to_input(network, jax.random.key(0), None, **options).values()
    assert drawn.shape == (4, 20)
    assert 0.9 * 2 / 20**0.5 < np.abs(drawn).max() <= 2 / 20**0.5


MISTAKES: dict[str, dict[str, Any]] = {
    "output_error must be one of first, second; got 'third'": {"output_error": "third"},
    "sign must be one of plus, minus; got '-'": {"sign": "-"},
    "positions must be one of sum, mean; got 'max'": {"positions": "max"},
    "positions must be sum unless the network has convolutions; got mean": {"positions": "mean"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_wrong_option_is_refused(message):
    with pytest.raises(BadOption, match=message):
        make(**MISTAKES[message])


def test_a_network_on_which_the_rule_is_not_defined_is_refused():
    networks = {
        "is not defined for normalised layers; it needs norm=none": mlp(
            (5,), 2, hidden=[4], dropout=0.0, **{**MLP, "norm": "layer"}
        ),
        "compares activations before the pooling; it needs hidden_position=before_pooling": cnn((8, 8, 1), 2, **CNN),
        "needs stages of one linear layer each, .* got 9 linear layers in 4 stages": resnet((8, 8, 1), 2, **RESNET),
    }
    for message, network in networks.items():
        with pytest.raises(BadOption, match=message):
            pepita(network, CROSS_ENTROPY, init_feedback=TO_INPUT, **OPTIONS)
    rule = pepita(mlp((5,), 2, hidden=[4], dropout=0.0, **MLP), CROSS_ENTROPY, init_feedback=direct(), **OPTIONS)
    with pytest.raises(BadOption, match="needs feedback to the input alone, such as to_input"):
        rule.init(jax.random.key(0))
