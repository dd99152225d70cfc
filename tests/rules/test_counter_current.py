"""Counter-current learning: updates of both networks in numpy, finite differences, identities, convolutions."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.networks.resnet import resnet
from fa_jax.rules.bp import bp
from fa_jax.rules.counter_current import METRIC, cosine_loss, counter_current, dot_loss, sent_down, turned
from tests.conftest import (
    CNN,
    MLP,
    RANDOM_WEIGHTS,
    RESNET,
    WITHOUT_BIASES,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    layerwise,
    random_batch,
    to_float64,
)
from tests.rules import images, reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value
DOT: dict[str, Any] = {"level_loss": "dot", "scale": 0.5, "decorrelation": None, "learned": True}
COSINE: dict[str, Any] = {"level_loss": "cosine", "scale": 0.7, "decorrelation": 0.3, "learned": True}
IMAGES = {**CNN, "topology": "conv2x3p2-conv3x3p2"}


def make_network(hidden=(4, 3), activation="tanh", **options):
    return mlp(
        (5,),
        2,
        **{**MLP, **RANDOM_WEIGHTS, "hidden": list(hidden), "activation": activation, "dropout": 0.0, **options},
    )


def make(options, network=None, shape=(5,)):
    """A rule on a 5-4-3-2 network, params, feedback and a batch of six."""
    network = network or make_network()
    rule = compiled(counter_current(network, LOSS, init_feedback=layerwise(density=1.0), **options))
    return network, rule, *to_float64(rule.init(jax.random.key(1))), random_batch(shape, 2, size=6, dtype=np.float64)


def level(h, g, y, options):
    """Q in numpy."""
    if options["level_loss"] == "dot":
        return options["scale"] * 256 / h.shape[1] * np.mean((h @ g.T - y) ** 2)
    u, v = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-8) for rows in (h, g))
    apart = sum(np.mean((rows @ rows.T - np.eye(len(rows))) ** 2) for rows in (u, v))
    return options["scale"] * np.mean((u @ v.T - y) ** 2) + options["decorrelation"] * apart


class Pair:
    """Both networks in numpy, layer by layer."""

    def __init__(self, network, params, feedback, batch, activation="tanh"):
        self.f, self.derivative = reference.ACTIVATIONS[activation]
        self.weights, self.biases = reference.weights_and_biases(network, params)
        self.a, self.inputs = reference.forward(self.weights, self.biases, np.asarray(batch.inputs), activation)
        self.y = np.asarray(batch.targets)
        self.v = reference.unstack(network.kernel_shapes, feedback)
        self.rows, self.u = [np.eye(2)], []  # from the readout down
        for v in reversed(self.v):
            self.u.append(self.rows[-1] @ v.T)
            self.rows.append(self.f(self.u[-1]))
        self.u, self.g, self.above = self.u[::-1], self.rows[:0:-1], self.rows[-2::-1]


@pytest.mark.parametrize(
    ("hidden", "activation"), [((4, 3), "tanh"), ((4, 3), "relu"), ((3,) * 9, "tanh")], ids=["tanh", "relu", "scanned"]
)
def test_both_networks_descend_the_dot_loss_of_their_level(hidden, activation):
    network, rule, params, feedback, batch = make(DOT, make_network(hidden, activation))
    pair = Pair(network, params, feedback, batch, activation)
    updates, changes = rule.updates(params, feedback, batch), rule.learn(params, feedback, batch, None)
    deltas, expected = [], []
    for i, (h, g) in enumerate(zip(pair.inputs[1:], pair.g, strict=True)):
        residual = 2 * 0.5 * 256 / h.shape[1] / (6 * 2) * (h @ g.T - pair.y)
        deltas.append(residual @ g * pair.derivative(pair.a[i]))
        expected.append((residual.T @ h * pair.derivative(pair.u[i])).T @ pair.above[i])
    logits = np.exp(pair.a[-1])
    deltas.append((logits / logits.sum(1, keepdims=True) - pair.y) / 6)
    computed, wanted = reference.weights_and_biases(network, updates), reference.updates(deltas, pair.inputs)
    for computed_kind, wanted_kind in zip(computed, wanted, strict=True):
        for layer, wanted_layer in zip(computed_kind, wanted_kind, strict=True):
            np.testing.assert_allclose(layer, wanted_layer, rtol=1e-9, atol=1e-13)
    for change, wanted_change in zip(reference.unstack(network.kernel_shapes, changes), expected, strict=True):
        np.testing.assert_allclose(change, wanted_change, rtol=1e-9, atol=1e-13)
    measured = rule.extras.measure.compute(params, feedback, batch)
    for i, (h, g) in enumerate(zip(pair.inputs[1:], pair.g, strict=True)):
        np.testing.assert_allclose(measured[f"{METRIC.name}_{i}"], level(h, g, pair.y, DOT), rtol=1e-12)


def test_both_networks_descend_the_cosine_loss_of_their_level():
    """Finite differences in the weights of a layer, with its input held."""
    network, rule, params, feedback, batch = make(COSINE)
    pair = Pair(network, params, feedback, batch)
    updates, changes = rule.updates(params, feedback, batch), rule.learn(params, feedback, batch, None)
    kernels = reference.unstack(network.kernel_shapes, network.kernels(updates))
    learned = reference.unstack(network.kernel_shapes, changes)
    measured = rule.extras.measure.compute(params, feedback, batch)
    for i in range(2):
        expected = level(pair.inputs[i + 1], pair.g[i], pair.y, COSINE)
        np.testing.assert_allclose(measured[f"{METRIC.name}_{i}"], expected, rtol=1e-10)

        def forward(w, i=i):
            return level(np.tanh(pair.inputs[i] @ w + pair.biases[i]), pair.g[i], pair.y, COSINE)

        def backward(v, i=i):
            return level(pair.inputs[i + 1], np.tanh(pair.above[i] @ v.T), pair.y, COSINE)

        for function, array, computed in (
            (forward, pair.weights[i], kernels[i]),
            (backward, pair.v[i], learned[i]),
        ):
            for index in np.ndindex(array.shape):
                step = np.zeros(array.shape)
                step[index] = 1e-5
                difference = (function(array + step) - function(array - step)) / 2e-5
                np.testing.assert_allclose(computed[index], difference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [DOT, COSINE], ids=["dot", "cosine"])
def test_a_layer_learns_from_nothing_beyond_its_level(options):
    _, rule, params, feedback, batch = make(options)
    above = {**params, **{name: jax.tree.map(lambda p: 2 * p, params[name]) for name in ("stages_1", "readout")}}
    below = {**feedback, "stages_1/linear": 2 * feedback["stages_1/linear"]}
    for first, second in ((params, feedback), (above, feedback)):
        updates = rule.updates(first, second, batch)["stages_0"]
        assert_trees_equal(updates, rule.updates(params, feedback, batch)["stages_0"])
    # Level 1 sees neither the first hidden layer's readout nor the layers of the second network below it.
    assert_trees_equal(
        rule.updates(params, below, batch)["stages_1"], rule.updates(params, feedback, batch)["stages_1"]
    )
    changes, others = rule.learn(params, feedback, batch, None), rule.learn(above, below, batch, None)
    assert not np.array_equal(changes["stages_1/linear"], others["stages_1/linear"])
    others = rule.learn({**params, "readout": above["readout"]}, below, batch, None)
    assert_trees_equal(changes["readout"], others["readout"])


def test_dot_loss_conserves_the_balance_of_relu_networks():
    network, rule, params, feedback, batch = make(DOT, make_network(activation="relu", **WITHOUT_BIASES))
    updates, changes = rule.updates(params, feedback, batch), rule.learn(params, feedback, batch, None)
    weights, gradients = network.kernels(params), network.kernels(updates)
    for layer, above in (("stages_0/linear", "stages_1/linear"), ("stages_1/linear", "readout")):
        forward = np.sum(np.asarray(weights[layer]) * gradients[layer])
        np.testing.assert_allclose(forward, np.sum(np.asarray(feedback[above]) * changes[above]), rtol=1e-10)
        assert abs(forward) > 1e-6


def test_cosine_loss_ignores_the_lengths_of_rows():
    random = np.random.default_rng(0)
    h, g, y = (jnp.asarray(random.normal(size=shape)) for shape in ((6, 4), (2, 4), (6, 2)))
    gradient = jax.grad(lambda h: cosine_loss(h, g, y, 1.0, 0.5))(h)
    assert np.abs(jnp.sum(gradient * h, 1)).max() < 1e-7
    lengths = jnp.asarray(random.uniform(1, 3, (6, 1)))
    np.testing.assert_allclose(cosine_loss(lengths * h, g, y, 1.0, 0.5), cosine_loss(h, g, y, 1.0, 0.5), rtol=1e-6)
    silent = jax.grad(lambda h: cosine_loss(h, g, y, 1.0, 0.5))(h.at[0].set(0.0))
    assert np.all(np.isfinite(silent))


def test_one_row_per_class_is_one_row_per_example_if_classes_are_equally_frequent():
    random = np.random.default_rng(0)
    h, g = (jnp.asarray(random.normal(size=shape)) for shape in ((6, 4), (2, 4)))
    for classes, is_equal in (([0, 0, 0, 1, 1, 1], True), ([0, 0, 1, 1, 1, 1], False)):
        y = jnp.eye(2)[jnp.asarray(classes)]
        losses = dot_loss(h, g, y, 1.0), dot_loss(h, y @ g, y @ y.T, 1.0)
        assert np.allclose(*losses, rtol=1e-12) == is_equal


def test_a_perfect_readout_leaves_nothing_to_learn():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)))
    y = jnp.eye(2)[jnp.asarray([0, 1, 1])]
    h = y @ jnp.linalg.pinv(g).T
    assert np.abs(jax.grad(dot_loss)(h, g, y, 1.0)).max() < 1e-13


def test_the_control_has_equal_updates_and_fixed_feedback():
    network, rule, params, feedback, batch = make(DOT)
    control = make({**DOT, "learned": False})[1]
    assert control.learn is None
    assert_trees_equal(control.updates(params, feedback, batch), rule.updates(params, feedback, batch))
    gradient = bp(network, LOSS).updates(params, (), batch)["readout"]
    assert_trees_close(control.updates(params, feedback, batch)["readout"], gradient, rtol=1e-12, atol=1e-14)


def test_images_are_upsampled_and_convolved_on_the_way_down():
    random = np.random.default_rng(0)
    g, kernel = random.normal(size=(2, 3, 3, 4)), random.normal(size=(3, 3, 5, 4))
    padded = np.pad(g.repeat(2, 1).repeat(2, 2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 6, 6, 5))
    for i in range(3):
        for j in range(3):
            expected += padded[:, i : i + 6, j : j + 6] @ kernel[i, j].T
    computed = sent_down(jnp.asarray(g), jnp.asarray(kernel), (6, 6, 5))
    np.testing.assert_allclose(computed, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("window", [3, 5])
def test_a_turned_kernel_sends_down_what_the_transpose_of_the_convolution_does(window):
    random = np.random.default_rng(0)
    kernel = jnp.asarray(random.normal(size=(window, window, 3, 4)))
    h, g = jnp.asarray(random.normal(size=(2, 6, 6, 3))), jnp.asarray(random.normal(size=(2, 6, 6, 4)))
    forward = functools.partial(nn.Conv(4, (window, window), use_bias=False).apply, {"params": {"kernel": kernel}})
    (expected,) = jax.vjp(forward, h)[1](g)
    computed = sent_down(g, turned({"layer": kernel})["layer"], (6, 6, 3))
    np.testing.assert_allclose(computed, expected, rtol=1e-10, atol=1e-12)


def test_copied_weights_of_convolutions_are_at_no_angle_to_the_forward_ones():
    network = cnn((8, 8, 1), 2, **IMAGES)
    copied = layerwise(distribution="weights", scale=1.0, density=1.0)
    rule = counter_current(network, LOSS, init_feedback=copied, **COSINE)
    params, feedback = rule.init(jax.random.key(0))
    for backward, forward in rule.extras.weight_pairs(params, feedback).values():
        np.testing.assert_array_equal(backward, forward)
    assert np.any(feedback["stages_1/linear"] != network.kernels(params)["stages_1/linear"])


def cosine_gradients(h, g, y, options):
    """The gradients of Q in h and in G, `[batch, ...]` and `[classes, ...]`, in numpy."""
    rows = [array.reshape(len(array), -1) for array in (h, g)]
    lengths = [np.linalg.norm(array, axis=1, keepdims=True) for array in rows]
    u, v = (array / (length + 1e-8) for array, length in zip(rows, lengths, strict=True))
    residual = 2 * options["scale"] * (u @ v.T - y) / y.size
    in_units = []
    for unit, pulled in ((u, residual @ v), (v, residual.T @ u)):
        apart = 4 * options["decorrelation"] * (unit @ unit.T - np.eye(len(unit))) / len(unit) ** 2
        in_units.append(pulled + apart @ unit)
    gradients = []
    for array, length, gradient in zip(rows, lengths, in_units, strict=True):
        along = np.sum(gradient * array, axis=1, keepdims=True) * array / (length * (length + 1e-8))
        gradients.append((gradient - along) / (length + 1e-8))
    return gradients[0].reshape(h.shape), gradients[1].reshape(g.shape)


def test_both_convolutional_networks_descend_the_cosine_loss_of_their_level():
    """Two padded convolutions with pooling: the second network upsamples and convolves on the way down."""
    _, rule, params, feedback, batch = make(COSINE, cnn((8, 8, 1), 2, **IMAGES), (8, 8, 1))
    updates, changes = rule.updates(params, feedback, batch), rule.learn(params, feedback, batch, None)
    first, second = (params[f"stages_{i}"]["linear"] for i in range(2))
    x, y = np.asarray(batch.inputs), np.asarray(batch.targets)
    h0 = np.tanh(images.convolve(x, np.asarray(first["kernel"]), np.asarray(first["bias"]), "SAME"))
    p0, maxima0 = images.max_pool(h0, 2, 2)
    h1 = np.tanh(images.convolve(p0, np.asarray(second["kernel"]), np.asarray(second["bias"]), "SAME"))
    p1, maxima1 = images.max_pool(h1, 2, 2)

    v_dense, v_kernel = (np.asarray(feedback[name]) for name in ("readout/linear", "stages_1/linear"))
    down = v_kernel.swapaxes(2, 3)
    g1 = np.tanh((np.eye(2) @ v_dense.T).reshape(2, 2, 2, 3))
    upsampled = g1.repeat(2, 1).repeat(2, 2)
    g0 = np.tanh(images.convolve(upsampled, down, 0.0, "SAME"))
    (in_h0, in_g0), (in_h1, in_g1) = (cosine_gradients(h, g, y, COSINE) for h, g in ((p0, g0), (p1, g1)))

    delta0 = images.unpool(in_h0, maxima0, h0.shape, 2, 2) * (1 - h0**2)
    delta1 = images.unpool(in_h1, maxima1, h1.shape, 2, 2) * (1 - h1**2)
    for i, (below, delta, kernel) in enumerate(((x, delta0, first["kernel"]), (p0, delta1, second["kernel"]))):
        computed = updates[f"stages_{i}"]["linear"]
        expected = images.kernel_update(below, delta, np.asarray(kernel), "SAME")
        np.testing.assert_allclose(computed["kernel"], expected, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(computed["bias"], delta.sum((0, 1, 2)), rtol=1e-9, atol=1e-13)
    expected = images.kernel_update(upsampled, in_g0 * (1 - g0**2), down, "SAME").swapaxes(2, 3)
    np.testing.assert_allclose(changes["stages_1/linear"], expected, rtol=1e-9, atol=1e-13)
    expected = (in_g1 * (1 - g1**2)).reshape(2, -1).T
    np.testing.assert_allclose(changes["readout/linear"], expected, rtol=1e-9, atol=1e-13)


def test_a_convolution_of_the_second_network_changes_the_level_below_it_alone():
    _, rule, params, feedback, batch = make(COSINE, cnn((8, 8, 1), 2, **IMAGES), (8, 8, 1))
    updates = rule.updates(params, feedback, batch)
    other = {**feedback, "stages_1/linear": 2 * feedback["stages_1/linear"]}
    others = rule.updates(params, other, batch)
    assert_trees_equal(updates.pop("stages_1"), others.pop("stages_1"))
    assert np.any(updates["stages_0"]["linear"]["kernel"] != others["stages_0"]["linear"]["kernel"])


MISTAKES: dict[str, dict[str, Any]] = {
    "level_loss must be one of dot, cosine; got 'mean'": {"level_loss": "mean"},
    "scale must be a finite number above 0; got -1": {"scale": -1},
    "decorrelation must be null with level_loss=dot; got 0.5": {"decorrelation": 0.5},
    "decorrelation must be a finite number at least 0; got None": {"level_loss": "cosine"},
    "learned must be true or false; got 1": {"learned": 1},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_wrong_option_is_refused(message):
    with pytest.raises(BadOption, match=message):
        make({**DOT, **MISTAKES[message]})


def test_a_network_on_which_the_rule_is_not_defined_is_refused():
    networks = {
        "is not defined for normalised layers; it needs norm=none": make_network(norm="layer"),
        "is not defined with dropout; it needs dropout=0 and input_dropout=0": make_network(dropout=0.1),
        "needs stages of one dense or convolutional layer each": resnet((8, 8, 1), 2, **RESNET),
        "needs stages of one dense or conv": cnn((8, 8, 1), 2, **{**IMAGES, "shared_weights": False}),
        "needs hidden_position=after_pooling": cnn((8, 8, 1), 2, **{**IMAGES, "hidden_position": "before_pooling"}),
        "needs padded convolutions after the first, .* got 7x4 and then 3x2": cnn((14, 8, 1), 2, **IMAGES),
        "needs padded conv.* got 4x4 and then 2x2": cnn((8, 8, 1), 2, **{**IMAGES, "topology": "conv2x3p2-conv2x3v"}),
    }
    convolutional = cnn((8, 8, 1), 2, **IMAGES)
    averaging = convolutional.module.readout.clone(average=True)
    averaged = Network(convolutional.module.clone(readout=averaging), (8, 8, 1))
    networks["needs dense layers on flattened images, not on averages"] = averaged
    for message, network in networks.items():
        with pytest.raises(BadOption, match=message):
            counter_current(network, LOSS, init_feedback=layerwise(), **DOT)
