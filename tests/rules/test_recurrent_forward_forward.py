"""Recurrent Forward-Forward: its iterations and a step of learning in numpy, local fields, bad options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.forward_forward.recurrent import recurrent_forward_forward
from tests.conftest import assert_trees_close, compiled, random_batch
from tests.rules.forward_forward_reference import (
    LOCAL,
    RELU_MLP,
    divide_by_rms,
    hard_negative_labels,
    local_patches,
    patches,
    random_readouts,
    to_numpy,
)
from tests.rules.reference import sigmoid

OPTIONS = {
    "goodness": "maximised",
    "convention": "hinton",
    "threshold": None,
    "temperature": 1.0,
    "damping": 0.3,
    "iterations": 4,
    "first_training_iteration": 2,
    "eval_iterations": [2, 3],
    "negatives": "hard",
    "peer_strength": 0.03,
    "peer_rate": 0.1,
    "readout_rate": 10.0,
    "weight_decay": 0.0,
    "readout_decay": 0.0,
    "first_readout_layer": 1,
    "inference": "goodness",
}


def make(hidden=(9, 8, 5), *, options=None, **network_options):
    network = mlp((12,), 4, hidden=list(hidden), **{**RELU_MLP, **network_options})
    return compiled(recurrent_forward_forward(network, cross_entropy().value, **{**OPTIONS, **(options or {})}))


def make_local(options=None, **network_options):
    network = cnn((4, 5, 1), 4, **{**LOCAL, "topology": "conv2x3-conv3x3", **network_options})
    return compiled(recurrent_forward_forward(network, cross_entropy().value, **{**OPTIONS, **(options or {})}))


def settle(up, down, x, label, iterations):
    """Returns the states before each iteration and after the last, and `relu(a_l)` of each iteration.

    `up` and `down` have for each layer the function of its normalised input from below and from above.
    """
    states, rectified = [[]], []
    for layer in up:
        states[0].append(np.maximum(layer(divide_by_rms(states[0][-1] if states[0] else x)), 0))
    for _ in range(iterations):
        n = [divide_by_rms(y) for y in (x, *states[-1], label)]
        rectified.append([np.maximum(up[i](n[i]) + down[i](n[i + 2]), 0) for i in range(len(up))])
        states.append([0.3 * y + 0.7 * r for y, r in zip(states[-1], rectified[-1], strict=True)])
    return states, rectified


def dense_layers(params):
    """The ways up and down of a dense network of three layers."""
    up = [lambda n, p=params[f"stages_{i}"]["linear"]: n @ p["kernel"] + p["bias"] for i in range(3)]
    return up, [lambda n, p=params[f"downs_{i}"]: n @ p["kernel"] for i in range(3)]


def without_readouts(tree):
    return {name: part for name, part in tree.items() if not name.startswith("readouts_")}


def goodness_delta(y, rectified, sign, *, positive):
    """The direction of ascent at the pre-activations, without peer normalisation."""
    p = sigmoid(sign * ((y**2).sum(-1) - y.shape[-1]))[:, None]
    return 0.7 * (rectified > 0) * sign * ((1 - p) * y if positive else -p * y)


@pytest.mark.parametrize(("goodness", "sign"), [("maximised", 1), ("minimised", -1)])
def test_step_is_that_of_the_equations(float64, goodness, sign):
    rule = make(options={"goodness": goodness})
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    x, labels = np.asarray(batch.inputs), (np.asarray(batch.targets), hard_negative_labels(rule, params, batch))
    steps, means = without_readouts(jax.tree.map(np.zeros_like, params)), [0.0, 0.0, 0.0]
    for label, positive in zip(labels, (True, False), strict=True):
        states, rectified = settle(*dense_layers(params), x, label, 4)
        for t in (2, 3, 4):
            n = [divide_by_rms(y) for y in (x, *states[t - 1], label)]
            for i in range(3):
                y = states[t][i]
                delta = goodness_delta(y, rectified[t - 1][i], sign, positive=positive)
                if positive:
                    m = feedback[f"stages_{i}"]
                    delta = delta + 0.03 * (m.mean() - m)
                    means[i] = means[i] + y.mean(0) / 3
                layer = steps[f"stages_{i}"]["linear"]
                layer["kernel"] += n[i].T @ delta / len(x) / 3
                layer["bias"] += delta.sum(0) / len(x) / 3
                steps[f"downs_{i}"]["kernel"] += n[i + 2].T @ delta / len(x) / 3
    updates = rule.updates(params, feedback, batch)
    learned = jax.tree.map(jnp.subtract, feedback, rule.learn(params, feedback, batch, updates))
    for i in range(3):
        expected = 0.9 * feedback[f"stages_{i}"] + 0.1 * means[i]
        np.testing.assert_allclose(learned[f"stages_{i}"], expected, rtol=1e-12)
    assert_trees_close(jax.tree.map(jnp.negative, without_readouts(updates)), steps, rtol=1e-9, atol=1e-13)


def test_readouts_learn_from_one_pass_upward(float64):
    rule = make(options={"inference": "softmax"})
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    (initial_states, *_), _ = settle(*dense_layers(params), np.asarray(batch.inputs), np.asarray(batch.targets), 1)
    inputs = [divide_by_rms(y) for y in initial_states]
    logits = sum(inputs[i] @ params[f"readouts_{i - 1}"]["kernel"] for i in (1, 2))
    np.testing.assert_allclose(rule.predict(params, batch.inputs), logits, rtol=1e-9)
    error = np.asarray(jax.nn.softmax(logits)) - np.asarray(batch.targets)
    updates = rule.updates(params, feedback, batch)
    for i in (1, 2):
        expected = inputs[i].T @ error / len(error)
        np.testing.assert_allclose(updates[f"readouts_{i - 1}"]["kernel"], expected, rtol=1e-8, atol=1e-13)


def test_label_is_predicted_by_the_goodness_of_the_eval_iterations(float64):
    rule = make()
    params, _ = to_numpy(random_readouts(rule))
    x = np.asarray(random_batch(dtype=np.float64).inputs)
    logits = []
    for label in np.eye(4):
        states, _ = settle(*dense_layers(params), x, np.tile(label, (len(x), 1)), 3)
        logits.append(sum((y**2).sum(-1) - y.shape[-1] for t in (2, 3) for y in states[t]) / 2)
    np.testing.assert_allclose(rule.predict(params, x), np.transpose(logits), rtol=1e-9)


@pytest.mark.parametrize("shared", [False, True])
def test_local_layers_receive_the_layer_above_through_local_fields(float64, shared):
    rule = make_local(shared_weights=shared)
    params, _ = to_numpy(random_readouts(rule))
    x = np.asarray(random_batch((4, 5, 1), dtype=np.float64).inputs)

    def local(kernel, bias=0.0):
        def apply(n):
            padded = np.pad(n, ((0, 0), (1, 1), (1, 1), (0, 0)))
            if shared:
                return np.einsum("nijhwc,hwcf->nijf", patches(padded, 3), kernel) + bias
            return np.einsum("nijk,ijkf->nijf", local_patches(padded, 3), kernel) + bias

        return apply

    up = [local(p["kernel"], p["bias"]) for p in (params[f"stages_{i}"]["linear"] for i in (0, 1))]
    down = [local(params["downs_0"]["kernel"]), lambda n: (n @ params["downs_1"]["kernel"]).reshape(-1, 4, 5, 3)]
    logits = []
    for label in np.eye(4):
        states, _ = settle(up, down, x, np.tile(label, (len(x), 1)), 3)
        logits.append(sum((y**2).sum((1, 2, 3)) - y[0].size for t in (2, 3) for y in states[t]) / 2)
    np.testing.assert_allclose(rule.predict(params, x), np.transpose(logits), rtol=1e-9)


def test_signals_are_those_of_the_true_label_without_peer_normalisation(float64):
    rule = make(options={"peer_strength": 0.3})
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    signals = rule.extras.signals(params, feedback, batch)
    assert list(signals) == [f"hiddens_{i}" for i in range(3)]
    states, rectified = settle(*dense_layers(params), np.asarray(batch.inputs), np.asarray(batch.targets), 4)
    for i in range(3):
        deltas = [goodness_delta(states[t][i], rectified[t - 1][i], 1, positive=True) for t in (2, 3, 4)]
        np.testing.assert_allclose(signals[f"hiddens_{i}"], -sum(deltas) / 3 / 7, rtol=1e-8, atol=1e-13)


def test_hidden_layers_are_the_activities_of_the_pass_upward(float64):
    rule = make()
    params, _ = to_numpy(random_readouts(rule))
    x = np.asarray(random_batch(dtype=np.float64).inputs)
    _, hiddens = rule.extras.network.forward(params, x)
    (initial_states, *_), _ = settle(*dense_layers(params), x, np.zeros((7, 4)), 1)
    for i, y in enumerate(initial_states):
        np.testing.assert_allclose(hiddens[f"hiddens_{i}"], y, rtol=1e-9)


def test_weights_of_the_way_down_decay_like_those_of_the_way_up():
    with_decay, without = (make(options={"weight_decay": decay}) for decay in (0.1, 0.0))
    params, feedback = random_readouts(with_decay)
    decayed, plain = (rule.updates(params, feedback, random_batch()) for rule in (with_decay, without))
    kernels = {
        "downs_1": lambda tree: tree["downs_1"]["kernel"],
        "stages_1": lambda tree: tree["stages_1"]["linear"]["kernel"],
    }
    for name, kernel in kernels.items():
        expected = kernel(plain) + 0.1 * kernel(params)
        np.testing.assert_allclose(kernel(decayed), expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_pooling_is_refused():
    with pytest.raises(BadOption, match="is not defined with pooling"):
        make_local(topology="conv2x3p2-conv3x2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": (9,)}, "^first_readout_layer must be below 1, the number of hidden layers, .*; got 1"),
        ({"activation": "tanh"}, r"^needs activation=relu"),
        ({"options": {"damping": 1.0}}, "^damping must be a finite number at least 0 and below 1; got 1.0"),
        ({"options": {"iterations": 0}}, "^iterations must be an integer of at least 1; got 0"),
        (
            {"options": {"first_training_iteration": 5}},
            "^first_training_iteration must be at most iterations=4; got 5",
        ),
        (
            {"options": {"eval_iterations": [3, 5]}},
            r"^eval_iterations must be the first .*, from 1 to iterations=4, such as \[3,5\]; got \[3, 5\]",
        ),
        (
            {"options": {"eval_iterations": 3}},
            "^eval_iterations must be the first and the last iteration, .*; got 3",
        ),
        ({"options": {"negatives": "hybrid"}}, "^negatives must be one of hard, uniform; got 'hybrid'"),
    ],
)
def test_bad_options_are_named(arguments, message):
    with pytest.raises(BadOption, match=message):
        make(**arguments)
