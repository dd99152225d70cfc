"""Recurrent Forward-Forward: its iterations and a step of learning in numpy, local fields, its mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.forward_forward.recurrent import recurrent_forward_forward
from tests.conftest import assert_trees_close, random_batch
from tests.rules.test_contract import MLP
from tests.rules.test_forward_forward import LOCAL, doubled, logistic, negatives, patches, trained_somewhat

OPTIONS = {
    "goodness": "maximised",
    "convention": "hinton",
    "threshold": None,
    "temperature": 1.0,
    "damping": 0.3,
    "iterations": 4,
    "learned_from": 2,
    "scored": [2, 3],
    "negatives": "hard",
    "peer_strength": 0.03,
    "peer_rate": 0.1,
    "head_rate": 10.0,
    "weight_decay": 0.0,
    "head_decay": 0.0,
    "read_from": 1,
    "inference": "goodness",
}


def make(hidden=(9, 8, 5), *, options=None, **network):
    network = mlp((12,), 4, hidden=list(hidden), **{**MLP, "activation": "relu", "dropout": 0.0, **network})
    return recurrent_forward_forward(network, cross_entropy().value, **{**OPTIONS, **(options or {})})


def make_local(options=None, **network):
    network = cnn((4, 5, 1), 4, **{**MLP, **LOCAL, "topology": "conv2x3-conv3x3", **network})
    return recurrent_forward_forward(network, cross_entropy().value, **{**OPTIONS, **(options or {})})


def rows(a):
    return a / (1e-8 + np.sqrt((a**2).mean(tuple(range(1, a.ndim)), keepdims=True)))


def settle(up, down, x, label, iterations):
    """The states before each iteration and after the last, with what each layer gets newly at each iteration.

    `up` and `down` are, a layer, functions of what is sent from below and from above.
    """
    states, news = [[]], []
    for layer in up:
        states[0].append(np.maximum(layer(rows(states[0][-1] if states[0] else x)), 0))
    for _ in range(iterations):
        n = [rows(y) for y in (x, *states[-1], label)]
        new = [np.maximum(up[i](n[i]) + down[i](n[i + 2]), 0) for i in range(len(up))]
        news.append(new)
        states.append([0.3 * y + 0.7 * r for y, r in zip(states[-1], new, strict=True)])
    return states, news


def dense(params):
    """The ways up and down of a dense network."""
    up = [lambda n, p=params[f"stages_{i}"]["linear"]: n @ p["kernel"] + p["bias"] for i in range(3)]
    return up, [lambda n, p=params[f"downs_{i}"]: n @ p["kernel"] for i in range(3)]


@pytest.mark.parametrize(("goodness", "sign"), [("maximised", 1), ("minimised", -1)])
def test_a_step_is_that_of_the_equations(float64, goodness, sign):
    rule = make(options={"goodness": goodness})
    params, feedback = doubled(trained_somewhat(rule))
    batch = random_batch(dtype=np.float64)
    x, labels = np.asarray(batch.inputs), (np.asarray(batch.targets), negatives(rule, params, batch))
    zeros = jax.tree.map(np.zeros_like, params)
    steps, means = {n: zeros[n] for n in zeros if not n.startswith("heads_")}, [0.0, 0.0, 0.0]
    for label, true in zip(labels, (True, False), strict=True):
        states, news = settle(*dense(params), x, label, 4)
        for t in (2, 3, 4):
            n = [rows(y) for y in (x, *states[t - 1], label)]
            for i in range(3):
                y, r = states[t][i], news[t - 1][i]
                p = logistic(sign * ((y**2).sum(-1) - y.shape[-1]))[:, None]
                d = 0.7 * (r > 0) * sign * ((1 - p) * y if true else -p * y)
                if true:
                    m = feedback[f"stages_{i}"]
                    d = d + 0.03 * (m.mean() - m)
                    means[i] = means[i] + y.mean(0) / 3
                of_stage = steps[f"stages_{i}"]["linear"]
                of_stage["kernel"] += n[i].T @ d / len(x) / 3
                of_stage["bias"] += d.sum(0) / len(x) / 3
                steps[f"downs_{i}"]["kernel"] += n[i + 2].T @ d / len(x) / 3
    updates = rule.updates(params, feedback, batch)
    learned = jax.tree.map(jnp.subtract, feedback, rule.learn(params, feedback, batch, updates))
    for i in range(3):
        expected = 0.9 * feedback[f"stages_{i}"] + 0.1 * means[i]
        np.testing.assert_allclose(learned[f"stages_{i}"], expected, rtol=1e-12)
    found = {name: jax.tree.map(jnp.negative, u) for name, u in updates.items() if not name.startswith("heads_")}
    assert_trees_close(found, steps, rtol=1e-9, atol=1e-13)


def test_the_readouts_learn_from_one_pass_upward(float64):
    rule = make(options={"inference": "softmax"})
    params, feedback = doubled(trained_somewhat(rule))
    batch = random_batch(dtype=np.float64)
    up, down = dense(params)
    (states, *_), _ = settle(up, down, np.asarray(batch.inputs), np.asarray(batch.targets), 1)
    logits = sum(rows(states[i]) @ params[f"heads_{i - 1}"]["kernel"] for i in (1, 2))
    np.testing.assert_allclose(rule.predict(params, batch.inputs), logits, rtol=1e-9)
    missing = np.asarray(jax.nn.softmax(logits)) - np.asarray(batch.targets)
    updates = rule.updates(params, feedback, batch)
    for i in (1, 2):
        expected = rows(states[i]).T @ missing / len(missing)
        np.testing.assert_allclose(updates[f"heads_{i - 1}"]["kernel"], expected, rtol=1e-8, atol=1e-13)


def test_a_label_is_chosen_by_the_goodness_of_some_iterations(float64):
    rule = make()
    params, _ = doubled(trained_somewhat(rule))
    x = np.asarray(random_batch(dtype=np.float64).inputs)
    logits = []
    for label in np.eye(4):
        states, _ = settle(*dense(params), x, np.tile(label, (len(x), 1)), 3)
        logits.append(sum((y**2).sum(-1) - y.shape[-1] for t in (2, 3) for y in states[t]) / 2)
    np.testing.assert_allclose(rule.predict(params, x), np.transpose(logits), rtol=1e-9)


@pytest.mark.parametrize("shared", [False, True])
def test_local_fields_get_from_above_through_local_fields(float64, shared):
    rule = make_local(shared_weights=shared)
    params, _ = doubled(trained_somewhat(rule))
    x = np.asarray(random_batch((4, 5, 1), dtype=np.float64).inputs)

    def local(kernel, bias=0.0):
        def of(n):
            windows = patches(np.pad(n, ((0, 0), (1, 1), (1, 1), (0, 0))), 3)
            if shared:
                return np.einsum("nijhwc,hwcf->nijf", windows, kernel) + bias
            windows = windows.transpose(0, 1, 2, 5, 3, 4).reshape(*windows.shape[:3], -1)
            return np.einsum("nijk,ijkf->nijf", windows, kernel) + bias

        return of

    up = [local(p["kernel"], p["bias"]) for p in (params[f"stages_{i}"]["linear"] for i in (0, 1))]
    down = [local(params["downs_0"]["kernel"]), lambda n: (n @ params["downs_1"]["kernel"]).reshape(-1, 4, 5, 3)]
    logits = []
    for label in np.eye(4):
        states, _ = settle(up, down, x, np.tile(label, (len(x), 1)), 3)
        logits.append(sum((y**2).sum((1, 2, 3)) - y[0].size for t in (2, 3) for y in states[t]) / 2)
    np.testing.assert_allclose(rule.predict(params, x), np.transpose(logits), rtol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": (9,)}, "rule.read_from must be below the number of hidden layers, 1, .*; got 1"),
        ({"activation": "tanh"}, "rule=recurrent_forward_forward needs architecture.activation=relu"),
        ({"options": {"damping": 1.0}}, "rule.damping must be at least 0 and below 1; got 1.0"),
        ({"options": {"iterations": 0}}, "rule.iterations must be an integer of at least 1; got 0"),
        ({"options": {"learned_from": 5}}, "rule.learned_from must be at most rule.iterations=4; got 5"),
        ({"options": {"scored": [3, 5]}}, r"from 1 to rule.iterations=4, such as \[3,5\]; got \[3, 5\]"),
        ({"options": {"scored": 3}}, "rule.scored must be the first and the last iteration, .*; got 3"),
        ({"options": {"negatives": "hybrid"}}, "rule.negatives must be one of hard, uniform; got 'hybrid'"),
    ],
)
def test_bad_options_are_named(wrong, message):
    with pytest.raises(BadOption, match=message):
        make(**wrong)


def test_pooling_is_refused():
    with pytest.raises(BadOption, match="has no definition for pooling"):
        make_local(topology="conv2x3p2-conv3x2")


def test_the_signal_of_a_nudge_is_that_of_true_data_without_the_peers(float64):
    rule = make(options={"peer_strength": 0.3, "learned_from": 1, "iterations": 1, "scored": [1, 1]})
    params, feedback = doubled(trained_somewhat(rule))
    batch = random_batch(dtype=np.float64)
    nudges = {name: jnp.zeros((7, *hidden.shape)) for name, hidden in rule.network.hiddens.items()}
    signals = rule.network.nudges(rule.updates(rule.network.nudge(params, nudges), feedback, batch))
    states, news = settle(*dense(params), np.asarray(batch.inputs), np.asarray(batch.targets), 1)
    for i, (y, r) in enumerate(zip(states[1], news[0], strict=True)):
        p = logistic((y**2).sum(-1) - y.shape[-1])[:, None]
        np.testing.assert_allclose(signals[f"hiddens_{i}"], -0.7 * (r > 0) * (1 - p) * y / 7, rtol=1e-8, atol=1e-13)


def test_hidden_layers_are_their_activities(float64):
    rule = make()
    params, _ = doubled(trained_somewhat(rule))
    x = np.asarray(random_batch(dtype=np.float64).inputs)
    _, hiddens = rule.network.forward(params, x)
    (states, *_), _ = settle(*dense(params), x, np.zeros((7, 4)), 1)
    for i, y in enumerate(states):
        np.testing.assert_allclose(hiddens[f"hiddens_{i}"], y, rtol=1e-9)


def test_the_way_down_decays_like_the_way_up():
    rules = [make(options={"weight_decay": d}) for d in (0.1, 0.0)]
    params, feedback = trained_somewhat(rules[0])
    decayed, plain = (rule.updates(params, feedback, random_batch()) for rule in rules)
    for part, kernel in (("downs_1", ()), ("stages_1", ("linear",))):
        ours, theirs, own = decayed[part], plain[part], params[part]
        for step in (*kernel, "kernel"):
            ours, theirs, own = ours[step], theirs[step], own[step]
        np.testing.assert_allclose(ours, theirs + 0.1 * own, rtol=1e-4, atol=1e-6)
