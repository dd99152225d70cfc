"""Self-contrastive Forward-Forward: a step in numpy, its identities, its layers' turns, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.forward_forward.goodness import CONVENTIONS, Goodness
from fa_jax.rules.forward_forward.scff import STEP_COUNT, goodness, partners, scff
from tests.conftest import assert_trees_close, compiled, random_batch
from tests.rules.forward_forward_reference import LOCAL, RELU_MLP, random_readouts, to_numpy
from tests.rules.reference import sigmoid

OPTIONS = {
    "positive_threshold": [0.3, 0.2],
    "negative_threshold": [0.4, 0.1],
    "goodness_cost": [0.01, 0.02],
    "sent": ["triangle", "relu"],
    "layer_steps": 0,
    "readout_rate": 1.0,
}


def make(options=None, *, hidden=(6, 5), inputs=(12,), **network_options):
    biases = {"bias_init": "uniform", "bias_scale": 0.3}
    network = mlp(inputs, 4, hidden=list(hidden), **{**RELU_MLP, **biases, **network_options})
    return compiled(scff(network, cross_entropy().value, **{**OPTIONS, **(options or {})}))


def random_params(rule):
    params, feedback = random_readouts(rule)
    return {**params, "readouts_0": {**params["readouts_0"], "bias": jnp.arange(4.0)}}, feedback


def draw(rule):
    return *to_numpy(random_params(rule)), random_batch(dtype=np.float64)


def standardise(x):
    return (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-10)


def partners_of(batch):
    """The other images, by the shift of the rule's key."""
    shift = int(jax.random.randint(batch.key, (), 1, len(batch.inputs)))
    return np.roll(np.asarray(batch.inputs), -shift, 0)


def reference_step(params, x, other, y):
    """The gradients of all local losses, and of the readouts, written from the equations."""
    n, gradient = len(x), {}
    pairs = [standardise(np.concatenate([standardise(x), standardise(o)], 1)) for o in (x, other)]
    # The first layer sees the sum of both halves, and its bias twice.
    inputs, bias_count, features = [pair[:, :12] + pair[:, 12:] for pair in pairs], 2, []
    for i in range(2):
        layer = params[f"stages_{i}"]["linear"]
        z = [u @ layer["kernel"] + bias_count * layer["bias"] for u in inputs]
        active = [np.maximum(a, 0) for a in z]
        up, down = [(a**2).mean(1) for a in active]
        slopes = (
            (-sigmoid(OPTIONS["positive_threshold"][i] - up) + OPTIONS["goodness_cost"][i]) / n,
            (sigmoid(down - OPTIONS["negative_threshold"][i]) / n),
        )
        deltas = [s[:, None] * 2 * a / a.shape[1] for s, a in zip(slopes, active, strict=True)]
        gradient[f"stages_{i}"] = {
            "linear": {
                "kernel": sum(u.T @ d for u, d in zip(inputs, deltas, strict=True)),
                "bias": bias_count * sum(d.sum(0) for d in deltas),
            }
        }
        sent = [np.maximum(a - a.mean(1, keepdims=True), 0) if i == 0 else b for a, b in zip(z, active, strict=True)]
        inputs, bias_count = [standardise(h) for h in sent], 1
        features.append(inputs[0])
    logits = params["readouts_0"]["bias"] + sum(h @ params[f"readouts_{i}"]["kernel"] for i, h in enumerate(features))
    q = np.exp(logits - logits.max(1, keepdims=True))
    error = (q / q.sum(1, keepdims=True) - y) / n
    for i, h in enumerate(features):
        gradient[f"readouts_{i}"] = {"kernel": h.T @ error} | ({} if i else {"bias": error.sum(0)})
    return gradient, logits


def test_updates_and_predictions_are_those_of_the_equations(float64):
    rule = make()
    params, feedback, batch = draw(rule)
    expected, logits = reference_step(params, np.asarray(batch.inputs), partners_of(batch), np.asarray(batch.targets))
    assert_trees_close(rule.updates(params, feedback, batch), expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(rule.predict(params, batch.inputs), logits, rtol=1e-10)


def test_signals_are_those_of_positive_data_at_the_pre_activations(float64):
    rule = make()
    params, feedback, batch = draw(rule)
    layers = rule.extras.network.call("preactivations", params, batch.inputs, batch.inputs)
    for i, (signal, z) in enumerate(zip(rule.extras.signals(params, feedback, batch).values(), layers, strict=True)):
        y = np.maximum(z, 0)
        slope = -sigmoid(OPTIONS["positive_threshold"][i] - (y**2).mean(1)) + OPTIONS["goodness_cost"][i]
        np.testing.assert_allclose(signal, slope[:, None] * 2 * y / y.shape[1] / len(y), rtol=1e-10, atol=1e-15)


def test_image_beside_itself_has_four_times_its_goodness_and_halves_can_be_exchanged(float64):
    """The second normalisation is a factor, sqrt((2 n - 1) / (2 n - 2)) for halves of n numbers."""
    rule = make(bias_scale=0.0)
    params, _, batch = draw(rule)
    x, other = np.asarray(batch.inputs), partners_of(batch)
    kernel = params["stages_0"]["linear"]["kernel"]
    factor = (2 * 12 - 1) / (2 * 12 - 2)
    z, *_ = rule.extras.network.call("preactivations", params, x, x)
    np.testing.assert_allclose(goodness(z), 4 * factor * goodness(jnp.asarray(standardise(x) @ kernel)), rtol=1e-9)
    mixed, swapped = (rule.extras.network.call("preactivations", params, *pair) for pair in ((x, other), (other, x)))
    np.testing.assert_allclose(mixed[0], np.sqrt(factor) * (standardise(x) + standardise(other)) @ kernel, rtol=1e-9)
    assert_trees_close(swapped, mixed, rtol=1e-12, atol=1e-14)


def test_pull_ends_where_the_goodness_reaches_its_bound(float64):
    """At theta + log(1 / lambda - 1)."""
    cost = 0.2
    options = {"positive_threshold": 0.3, "negative_threshold": 0.4, "goodness_cost": cost, "sent": "relu"}
    rule = make(options, hidden=(6,))
    params, feedback, batch = draw(rule)
    example = batch._replace(inputs=batch.inputs[:1], targets=batch.targets[:1])
    (z,) = rule.extras.network.call("preactivations", params, example.inputs, example.inputs)
    scale = np.sqrt((0.3 + np.log(1 / cost - 1)) / float(goodness(z)[0]))
    at_bound = {**params, "stages_0": jax.tree.map(lambda p: scale * p, params["stages_0"])}
    (signal,) = rule.extras.signals(at_bound, feedback, example).values()
    (below,) = rule.extras.signals(params, feedback, example).values()
    np.testing.assert_allclose(signal, 0, atol=1e-14)
    assert np.any(np.abs(below) > 1e-3)


def test_with_one_threshold_and_no_cost_the_loss_is_that_of_forward_forward(float64):
    options = {"positive_threshold": 2.0, "negative_threshold": 2.0, "goodness_cost": 0.0, "sent": "relu"}
    rule = make(options, hidden=(6,))
    params, feedback, batch = draw(rule)
    network = rule.extras.network
    good = Goodness(CONVENTIONS["mean_square"], 1.0, 1.0, (2.0,), (1.0,), 0)

    def total(params):
        pairs = [(batch.inputs, other) for other in (batch.inputs, partners_of(batch))]
        (up,), (down,) = (network.call("preactivations", params, *pair) for pair in pairs)
        return 2 * good.joint_loss(0, jax.nn.relu(up), jax.nn.relu(down))

    expected = jax.grad(total)(params)["stages_0"]
    assert_trees_close(rule.updates(params, feedback, batch)["stages_0"], expected, rtol=1e-10, atol=1e-14)


def test_no_image_is_its_own_partner_and_each_is_the_partner_of_one():
    batch = random_batch(size=5)
    shifts = set()
    for seed in range(40):
        others = partners(batch._replace(key=jax.random.key(seed)))
        places = [int(np.flatnonzero((others == x).all(1))[0]) for x in np.asarray(batch.inputs)]
        (shift,) = {(place - i) % 5 for i, place in enumerate(places)}
        shifts.add(shift)
    assert shifts == {1, 2, 3, 4}


def test_layers_learn_one_after_another():
    rule, together = make({"layer_steps": 2}), make()
    params, feedback = random_params(rule)
    batch = random_batch()
    expected, turns = together.updates(params, feedback, batch), []
    for _ in range(6):
        updates = rule.updates(params, feedback, batch)
        turns.append([bool(np.any(updates[f"stages_{i}"]["linear"]["kernel"])) for i in range(2)])
        for i in range(2):
            if turns[-1][i]:
                assert_trees_close(updates[f"stages_{i}"], expected[f"stages_{i}"], rtol=1e-5, atol=1e-7)
        learned = rule.learn(params, feedback, batch, updates)
        feedback = jax.tree.map(jnp.subtract, feedback, learned)
    assert turns == [[True, False]] * 2 + [[False, True]] * 4
    assert feedback[STEP_COUNT] == 6


@pytest.mark.parametrize(
    ("options", "network_options", "message"),
    [
        ({"sent": "tanh"}, {}, "^sent must be one of triangle, relu; got 'tanh'"),
        ({"goodness_cost": -1}, {}, "^goodness_cost must be a finite number at least 0; got -1"),
        ({"positive_threshold": [1, 2, 3]}, {}, "^positive_threshold must be one value or a list of 2"),
        ({"layer_steps": -1}, {}, "^layer_steps must be an integer of at least 0; got -1"),
        ({"readout_rate": 0}, {}, "^readout_rate must be a finite number above 0; got 0"),
        ({}, {"hidden": (6, 1)}, "^standardises inputs and layers; it needs at least two units in each"),
        ({}, {"activation": "tanh"}, "^needs activation=relu"),
        ({}, {"dropout": 0.5}, "^is not defined with dropout"),
    ],
)
def test_bad_options_are_named(options, network_options, message):
    with pytest.raises(BadOption, match=message):
        make(options, **network_options)


def test_convolutions_are_refused():
    with pytest.raises(BadOption, match=r"^needs stages of one dense layer each, as those of mlp"):
        scff(cnn((6, 5, 1), 4, **LOCAL), cross_entropy().value, **OPTIONS)
