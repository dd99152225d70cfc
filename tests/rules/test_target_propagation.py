"""Target propagation: targets and losses of the inverses in numpy, identities, minima, digits of small differences."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import OUTPUTS, cross_entropy, squared_error
from fa_jax.networks.cnn import cnn
from fa_jax.networks.layers import ACTIVATIONS as FUNCTIONS
from fa_jax.networks.mlp import mlp
from fa_jax.optimizers import constant, descend, must_be_plain, with_fixed
from fa_jax.rules.bp import bp
from fa_jax.rules.target_propagation import variants
from fa_jax.rules.target_propagation.differences import DIFFERENCES
from fa_jax.rules.target_propagation.passes import AUXILIARY
from fa_jax.rules.target_propagation.rule import target_propagation
from tests.conftest import (
    CNN,
    MLP,
    RANDOM_WEIGHTS,
    assert_trees_close,
    compiled,
    filled,
    layerwise,
    random_batch,
    to_float64,
)
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value
OPTIONS: dict[str, dict[str, Any]] = {
    "dtp": {"step_size": 0.3},
    "sdtp": {"step_size": None},
    "ao_sdtp": {"step_size": None, "auxiliary_units": 3},
    "drl": {"step_size": 0.3},
    "l_drl": {"step_size": 0.3, "inner_rate": 0.2},
}
SHARED = {"sigma": 0.2, "inner_steps": 1, "inner_rate": None, "auxiliary_units": None}


def make_network(hidden=(4, 3), outputs=2, activation="tanh", **options):
    widths = {"hidden": list(hidden), "activation": activation, "dropout": 0.0}
    return mlp((5,), outputs, **{**MLP, **RANDOM_WEIGHTS, **widths, **options})


@functools.cache
def make(variant, hidden=(4, 3), outputs=2, activation="tanh", **options):
    """A rule on a 5-4-3-2 network, random params and feedback, and a batch of three."""
    network = make_network(hidden, outputs, activation)
    init_feedback = layerwise(distribution="fan_normal", scale=1.0, density=1.0)
    merged = {"variant": variant, **SHARED, **OPTIONS[variant], **options}
    rule = target_propagation(network, LOSS, init_feedback=init_feedback, **merged)
    params, feedback = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(1))))
    return network, compiled(rule), params, feedback, random_batch((5,), outputs, size=3, dtype=np.float64)


def softmax(a):
    exponential = np.exp(a - a.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


class Reference:
    """Layers and inverses of a network with one activation function, in numpy; targets are recomputed, not carried."""

    def __init__(self, variant, network, params, feedback, batch, activation="tanh"):
        self.variant, self.network = variant, network
        self.f, self.derivative = reference.ACTIVATIONS[activation]
        self.weights, self.biases = reference.weights_and_biases(network, params)
        self.x, self.y = np.asarray(batch.inputs), np.asarray(batch.targets)
        self.a, self.inputs = reference.forward(self.weights, self.biases, self.x, activation)
        self.error = softmax(self.a[-1]) - self.y
        self.set(feedback)

    def set(self, feedback):
        """Sets the inverses, `(V, c)` by layer; those of the variant without biases get zeros."""
        kernels = {name: part["kernel"] for name, part in feedback.items() if name != AUXILIARY}
        biases = {name: part["bias"] for name, part in feedback.items() if "bias" in part}
        shapes = self.network.kernel_shapes
        v, c = reference.unstack(shapes, kernels), reference.unstack(shapes, biases) or [0.0] * len(kernels)
        self.units = np.asarray(feedback[AUXILIARY]["units"]) if AUXILIARY in feedback else None
        if self.units is not None:
            v[-1] = np.concatenate([v[-1], np.asarray(feedback[AUXILIARY]["kernel"])], 1)
        self.inverses = dict(enumerate(zip(v, c, strict=True), 1))

    def layer(self, i, h):
        """What the inverse of layer i reads, given the input of the layer."""
        a = h @ self.weights[i] + self.biases[i]
        if i < len(self.weights) - 1:
            return self.f(a)
        if self.variant == "ao_sdtp":
            return np.concatenate([softmax(a), self.f(h @ self.units)], 1)
        return softmax(a) if self.variant == "sdtp" else a

    def g(self, i, y):
        v, c = self.inverses[i]
        if self.variant == "l_drl":
            return (y if i == len(self.weights) - 1 else self.f(y)) @ v.T
        return self.f(y @ v.T + c)

    def displacements(self, step):
        """Target minus activation of the hidden layers."""
        last = len(self.weights) - 1
        h = [*self.inputs[1:], self.layer(last, self.inputs[-1])]
        if self.variant == "dtp":
            targets = {last - 1: h[last - 1] - step * self.error @ self.weights[-1].T}
        elif self.variant == "sdtp":
            targets = {last: self.y}
        elif self.variant == "ao_sdtp":
            targets = {last: np.concatenate([self.y, h[last][:, self.y.shape[1] :]], 1)}
        else:
            targets = {last: h[last] - step * self.error}
        for i in range(max(targets), 0, -1):
            targets[i - 1] = h[i - 1] + self.g(i, targets[i]) - self.g(i, h[i])
        return [targets[i] - h[i] for i in range(last)]

    def updates(self, step):
        factor = 1 if self.variant == "l_drl" else 2
        readout = factor * step if self.variant in ("drl", "l_drl") else 1
        signals = [-factor * d for d in self.displacements(step)]
        deltas = [*reference.hidden_deltas(signals, self.a, "tanh" if self.f is np.tanh else "linear")]
        return reference.updates([d / len(self.x) for d in [*deltas, readout * self.error]], self.inputs)

    def loss(self, i, xi, zeta, sigma):
        """The loss of the inverse of layer i."""
        h = self.inputs[i]
        y, noisy = self.layer(i, h), self.layer(i, h + xi)
        if self.variant in ("dtp", "sdtp", "ao_sdtp"):
            wanted = h + xi if self.variant == "dtp" else h
            return np.mean(np.sum((self.g(i, noisy) - wanted) ** 2, 1))
        if self.variant == "l_drl":
            change = self.g(i, y + zeta) - self.g(i, y)
            return np.mean(np.sum(change**2 - 2 * xi * (self.g(i, noisy) - self.g(i, y)), 1))
        last = len(self.weights) - 1
        clean, q = {i - 1: h}, h + xi
        for j in range(i, last + 1):
            clean[j], q = self.layer(j, clean[j - 1]), self.layer(j, q)
        for j in range(last, i - 1, -1):
            q = self.g(j, q) - self.g(j, clean[j]) + clean[j - 1]
        return np.mean((q - (h + xi)) ** 2) / sigma**2


def reference_gradient(variant, network, params, feedback, batch, key, sigma=0.2):
    """Central differences of the loss of each inverse with respect to its own V and c alone."""
    names = [name for name in network.kernel_shapes if name in feedback]
    owners = {name: i for i, name in enumerate(names, 1)}
    oracle = Reference(variant, network, params, feedback, batch)
    owners[AUXILIARY] = len(names)

    def loss(changed, i):
        oracle.set(changed)
        shapes = oracle.inputs[i].shape, oracle.layer(i, oracle.inputs[i]).shape
        keys = jax.random.split(jax.random.fold_in(key, i - 1))
        xi, zeta = (sigma * np.asarray(jax.random.normal(k, s)) for k, s in zip(keys, shapes, strict=True))
        return oracle.loss(i, xi, zeta, sigma)

    gradient = {}
    for name, part in feedback.items():
        gradient[name] = {leaf: np.zeros(value.shape) for leaf, value in part.items()}
        for leaf, value in part.items():
            for index in np.ndindex(*([] if leaf == "units" else [value.shape])):
                if leaf == "units":
                    continue
                losses = []
                for size in (1e-5, -1e-5):
                    moved = np.array(value)
                    moved[index] += size
                    losses.append(loss({**feedback, name: {**part, leaf: moved}}, owners[name]))
                gradient[name][leaf][index] = (losses[0] - losses[1]) / 2e-5
    return gradient


def check(network, updates, expected, **tolerance):
    for computed, wanted in zip(reference.weights_and_biases(network, updates), expected, strict=True):
        for layer, wanted_layer in zip(computed, wanted, strict=True):
            np.testing.assert_allclose(layer, wanted_layer, **{"rtol": 1e-9, "atol": 1e-13, **tolerance})


@pytest.mark.parametrize(
    ("variant", "hidden"), [(variant, (4, 3)) for variant in OPTIONS] + [("sdtp", (3,) * 9)], ids=lambda v: str(v)[:9]
)
def test_updates_are_those_of_the_targets(variant, hidden):
    network, rule, params, feedback, batch = make(variant, hidden)
    used = feedback
    if variant == "l_drl":  # learns first
        changes = rule.learn(params, feedback, batch, None)
        used = jax.tree.map(jnp.subtract, feedback, changes)
        assert rule.extras.check_feedback_optimizer is must_be_plain
    oracle = Reference(variant, network, params, used, batch)
    check(network, rule.updates(params, feedback, batch), oracle.updates(OPTIONS[variant]["step_size"]))


@pytest.mark.parametrize("variant", OPTIONS)
def test_feedback_descends_the_loss_of_its_inverses(variant):
    network, rule, params, feedback, batch = make(variant)
    changes = rule.learn(params, feedback, batch, None)
    key = jax.random.fold_in(batch.key, 0)
    expected = reference_gradient(variant, network, params, feedback, batch, key)
    rate = OPTIONS[variant].get("inner_rate", 1.0)
    assert_trees_close(changes, jax.tree.map(lambda g: rate * g, expected), rtol=1e-7, atol=1e-9)
    assert (rule.extras.check_feedback_optimizer is must_be_plain) == (variant == "l_drl")


def test_several_inner_steps_are_steps_of_gradient_descent():
    network, rule, params, feedback, batch = make("dtp", inner_steps=2, inner_rate=0.2)
    changes = rule.learn(params, feedback, batch, None)
    stepped = feedback
    for k in range(2):
        gradient = reference_gradient("dtp", network, params, stepped, batch, jax.random.fold_in(batch.key, k))
        stepped = jax.tree.map(lambda v, g: v - 0.2 * g, stepped, gradient)
    assert rule.extras.check_feedback_optimizer is must_be_plain
    assert_trees_close(jax.tree.map(jnp.subtract, feedback, changes), stepped, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("variant", OPTIONS)
def test_without_error_targets_are_the_activations(variant):
    _, rule, params, feedback, batch = make(variant)
    batch = batch._replace(targets=jax.nn.softmax(rule.predict(params, batch.inputs)))
    assert max(np.abs(update).max() for update in jax.tree.leaves(rule.updates(params, feedback, batch))) < 1e-15


@pytest.mark.parametrize(("variant", "factor"), [("dtp", 1), ("sdtp", 1), ("drl", 0.6), ("l_drl", 0.3)])
def test_the_readout_follows_the_gradient(variant, factor):
    network, rule, params, feedback, batch = make(variant)
    updates, gradient = rule.updates(params, feedback, batch), compiled(bp(network, LOSS)).updates(params, (), batch)
    scaled = jax.tree.map(lambda g: factor * g, gradient)
    assert_trees_close(updates["readout"], scaled["readout"], rtol=1e-12, atol=1e-14)
    if variant == "dtp":  # the last hidden layer too, at 2 alpha
        scaled = jax.tree.map(lambda g: 0.6 * g, gradient)
        assert_trees_close(updates["stages_1"], scaled["stages_1"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("variant", "factor"), [("drl", 0.6), ("l_drl", 0.3)])
def test_transposed_weights_as_inverses_of_a_linear_network_are_backprop(variant, factor):
    options = {"inner_rate": 1e-15} if variant == "l_drl" else {}
    network, rule, params, feedback, batch = make(variant, activation="linear", **options)
    kernels = network.kernels(params)
    feedback = {name: {**part, "kernel": kernels[name]} for name, part in feedback.items()}
    gradient = compiled(bp(network, LOSS)).updates(params, (), batch)
    scaled = jax.tree.map(lambda g: factor * g, gradient)
    assert_trees_close(rule.updates(params, feedback, batch), scaled, rtol=1e-9, atol=1e-13)


def test_linear_inverses_send_direct_feedback():
    """Products of V take the place of direct feedback, without derivatives on the way down."""
    network, rule, params, feedback, batch = make("drl", activation="linear")
    v = [np.asarray(feedback[name]["kernel"]).T for name in ("stages_1/linear", "readout")]
    oracle = Reference("drl", network, params, feedback, batch, "linear")
    deltas = [oracle.error @ v[1] @ v[0], oracle.error @ v[1], oracle.error]
    expected = reference.updates([0.6 * d / 3 for d in deltas], oracle.inputs)
    check(network, rule.updates(params, feedback, batch), expected)


@pytest.mark.parametrize("variant", ["dtp", "drl"])
def test_exact_inverses_reach_the_target_and_have_nothing_to_learn(variant):
    network, rule, params, feedback, batch = make(variant, (3, 3), 3, "linear")
    kernels, feedback = network.kernels(params), dict(feedback)
    for name, part in feedback.items():
        inverse = np.linalg.inv(kernels[name])
        bias = np.asarray(reference.leaf(params, name)["bias"])
        feedback[name] = {"kernel": jnp.asarray(inverse.T), "bias": jnp.asarray(-bias @ inverse)}
        assert set(part) == set(feedback[name])
    changes = jax.tree.leaves(rule.learn(params, feedback, batch, None))
    assert max(np.abs(change).max() for change in changes) < 1e-12
    signals = [np.asarray(s) for s in rule.extras.signals(params, feedback, batch).values()]
    np.testing.assert_allclose(signals[0] @ kernels["stages_1/linear"], signals[1], rtol=1e-9, atol=1e-13)
    if variant == "drl":  # Gauss-Newton: the logits reach their target
        error = (softmax(np.asarray(rule.predict(params, batch.inputs))) - batch.targets) * 0.6 / 3
        np.testing.assert_allclose(signals[1] @ kernels["readout"], error, rtol=1e-9, atol=1e-13)


def test_without_weights_from_the_auxiliary_units_ao_sdtp_is_sdtp():
    _, ao_sdtp, params, feedback, batch = make("ao_sdtp")
    silent = {**feedback, AUXILIARY: {**feedback[AUXILIARY], "kernel": jnp.zeros((3, 3))}}
    rest = {name: part for name, part in feedback.items() if name != AUXILIARY}
    updates = make("sdtp")[1].updates(params, rest, batch)
    assert_trees_close(ao_sdtp.updates(params, silent, batch), updates, rtol=1e-12, atol=1e-14)
    others = ao_sdtp.updates(params, feedback, batch)["stages_0"]["linear"]["kernel"]
    assert not np.allclose(others, updates["stages_0"]["linear"]["kernel"])


def test_auxiliary_units_never_change():
    _, rule, params, feedback, batch = make("ao_sdtp")
    optimizer = descend(optax.identity(), learning_rate=0.1, schedule=constant, weight_decay=0.5, clip=None)
    step = with_fixed(optimizer(1), rule.extras.fixed_feedback)
    changes, _ = step.update(rule.learn(params, feedback, batch, None), step.init(feedback), feedback)
    assert not np.any(changes[AUXILIARY]["units"])
    assert np.any(changes[AUXILIARY]["kernel"])


def test_without_inverses_only_the_readout_learns():
    network, rule, params, feedback, batch = make("sdtp")
    updates = rule.updates(params, jax.tree.map(jnp.zeros_like, feedback), batch)
    gradient = compiled(bp(network, LOSS)).updates(params, (), batch)
    assert_trees_close(updates.pop("readout"), gradient["readout"], rtol=1e-12, atol=1e-14)
    assert not any(np.any(update) for update in jax.tree.leaves(updates))


def linear_layer(kernel):
    """A linear layer on four examples."""
    below = jnp.asarray(np.random.default_rng(0).normal(size=(4, kernel.shape[0])))
    return variants.Layer(kernel, 0.0, FUNCTIONS["linear"], below, below @ kernel, below @ kernel)


@pytest.mark.parametrize("variant", ["l_drl", "drl"])
def test_minimum_of_the_loss_is_the_transpose_or_the_pseudoinverse(variant):
    """With noise of covariance exactly sigma^2, along each axis in turn."""
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4 if variant == "l_drl" else 3)))
    minimum = kernel if variant == "l_drl" else jnp.linalg.pinv(kernel).T
    layer, noise = linear_layer(kernel), 0.1 * 4**0.5 * jnp.eye(4)
    chosen = variants.VARIANTS[variant]

    def loss(v):
        inverse = chosen.inverse({"kernel": v, "bias": jnp.zeros(4)}, layer, layer)
        return chosen.reconstruction([layer], [inverse], noise, noise, 0.1)

    gradient = jax.grad(loss)
    assert np.abs(gradient(minimum)).max() < 1e-12
    assert np.abs(gradient(1.1 * minimum)).max() > 1e-3


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_small_difference_keeps_its_digits(name):
    x, u = np.linspace(-3, 3, 25), np.tile([1e-6, -1e-6], 13)[:25]
    f = FUNCTIONS[name]
    exact = np.asarray(f(jnp.asarray(x + u)) - f(jnp.asarray(x)))
    x = np.float32(x)
    computed = np.asarray(DIFFERENCES[name](jnp.asarray(x), jnp.asarray(u, jnp.float32)))
    assert computed.dtype == np.float32
    np.testing.assert_allclose(computed[x != 0], exact[x != 0], rtol=1e-5, atol=1e-15)
    large = jnp.asarray([[3.0, -5.0], [-2.0, 6.0], [-1.0, 0.5], [0.5, 200.0]])
    difference = f(large[:, 0] + large[:, 1]) - f(large[:, 0])
    np.testing.assert_allclose(DIFFERENCES[name](large[:, 0], large[:, 1]), difference, rtol=1e-12)
    assert np.all(np.isfinite(jax.grad(lambda u: DIFFERENCES[name](large[:, 0], u).sum())(large[:, 1])))


def test_one_hidden_layer_under_dtp_has_no_inverses():
    network, rule, params, feedback, batch = make("dtp", (4,))
    assert feedback == {}
    assert rule.learn(params, feedback, batch, None) == {}
    scaled = jax.tree.map(lambda g: 0.6 * g, compiled(bp(network, LOSS)).updates(params, (), batch)["stages_0"])
    assert_trees_close(rule.updates(params, feedback, batch)["stages_0"], scaled, rtol=1e-12, atol=1e-14)


MISTAKES: dict[str, dict[str, Any]] = {
    "step_size must be a finite number above 0; got None": {"step_size": None},
    "step_size must be null with variant=sdtp, whose first target is the label; got 0.1": {
        "variant": "sdtp",
        "step_size": 0.1,
    },
    "sigma must be a finite number above 0; got 0": {"sigma": 0},
    "inner_steps must be an integer of at least 1; got 0": {"inner_steps": 0},
    "inner_rate must be a finite number above 0; got None": {"inner_steps": 2},
    "inner_rate must be null with variant=dtp and one inner step; got 0.1": {"inner_rate": 0.1},
    "auxiliary_units must be null unless variant=ao_sdtp; got 3": {"auxiliary_units": 3},
    "auxiliary_units must be an integer of at least 1; got None": {"variant": "ao_sdtp", "auxiliary_units": None},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_wrong_option_is_refused(message):
    options = {"variant": "dtp", **MISTAKES[message]}
    with pytest.raises(BadOption, match=message):
        make(**options)
    with pytest.raises(BadOption, match="variant must be one of dtp, sdtp, ao_sdtp, drl, l_drl; got 'tp'"):
        target_propagation(make_network(), LOSS, init_feedback=layerwise(), variant="tp", step_size=1.0, **SHARED)


def test_labels_are_targets_of_softmax_outputs_alone():
    shared = {**SHARED, "init_feedback": layerwise(), "variant": "sdtp", "step_size": None}
    losses = {output: squared_error(output=output, derivative="exact").value for output in OUTPUTS}
    for output in ("linear", "sigmoid"):
        with pytest.raises(BadOption, match=r"^variant must be dtp, drl or l_drl unless the loss is one of softmax"):
            target_propagation(make_network(), losses[output], **shared)
    target_propagation(make_network(), losses["softmax"], **shared)


def test_a_network_on_which_the_rule_is_not_defined_is_refused():
    networks = {
        "is not defined for normalised layers; it needs norm=none": make_network(norm="layer"),
        "is not defined with dropout; it needs dropout=0 and input_dropout=0": make_network(dropout=0.1),
        "needs activation=linear or tanh or sigmoid or relu or elu, whose differences": make_network(activation="silu"),
        "needs stages of one dense layer each": cnn((8, 8, 1), 2, **CNN),
    }
    for message, network in networks.items():
        with pytest.raises(BadOption, match=message):
            target_propagation(network, LOSS, init_feedback=layerwise(), variant="drl", step_size=1.0, **SHARED)
