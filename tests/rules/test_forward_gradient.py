"""Forward gradients: their equations in numpy without autodiff, their mean and variance over all noise of a kind."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.forward_gradient import activity_signals, central, exact, forward_gradient, one_sided, weight_update
from fa_jax.rules.node_perturbation import node_perturbation
from tests.conftest import MLP, RANDOM_WEIGHTS, assert_trees_close, compiled, filled, random_batch, to_float64
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value
OPTIONS = {
    "perturb": "activities",
    "derivative": "exact",
    "sigma": None,
    "noise": "normal",
    "draws": 1,
    "spare_silent": False,
}


@functools.cache
def make_network(activation="tanh", hidden=(4, 3), **options):
    given = {"hidden": list(hidden), "activation": activation, "dropout": 0.0, **options}
    return mlp((5,), 3, **{**MLP, **RANDOM_WEIGHTS, **given})


@functools.cache
def make(activation="tanh", hidden=(4, 3), size=4, **options):
    network = make_network(activation, hidden)
    batch = random_batch((5,), 3, size=size, dtype=np.float64)
    params = to_float64(filled(jax.eval_shape(network.init, jax.random.key(1))))
    return network, compiled(forward_gradient(network, LOSS, **{**OPTIONS, **options})), params, batch


class Backprop:
    """The reference's forward and backward pass: the errors at pre-activations, and those at hidden activations."""

    def __init__(self, network, params, batch, activation):
        self.weights, biases = reference.weights_and_biases(network, params)
        x, y = np.asarray(batch.inputs), np.asarray(batch.targets)
        self.preactivations, self.inputs = reference.forward(self.weights, biases, x, activation)
        p = np.exp(self.preactivations[-1])
        self.error = (p / p.sum(1, keepdims=True) - y) / len(x)
        backward = [w.T for w in self.weights[1:]]
        self.deltas = reference.layerwise_deltas(backward, self.preactivations, self.error, activation)
        self.signals = [d @ b for d, b in zip(self.deltas[1:], backward, strict=True)]


def drawn_noise(key, hiddens):
    return [
        np.asarray(jax.random.normal(jax.random.fold_in(key, i), h.shape, jnp.float64)) for i, h in enumerate(hiddens)
    ]


def check(network, updates, deltas, inputs):
    for computed, expected in zip(
        reference.weights_and_biases(network, updates), reference.updates(deltas, inputs), strict=True
    ):
        for a, b in zip(computed, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_activity_perturbation_multiplies_the_noise_of_each_example_by_the_derivative_of_its_loss():
    network, rule, params, batch = make()
    bp_pass = Backprop(network, params, batch, "tanh")
    noise = drawn_noise(batch.key, bp_pass.signals)
    slopes = sum((s * u).sum(1, keepdims=True) for s, u in zip(bp_pass.signals, noise, strict=True))
    deltas = reference.hidden_deltas([slopes * u for u in noise], bp_pass.preactivations, "tanh")
    check(network, rule.updates(params, (), batch), [*deltas, bp_pass.error], bp_pass.inputs)


def test_noise_that_spares_silent_units_is_noise_before_the_activation_function():
    """With ReLU units; the tangent carries f'(a) u, and the credit of a silent unit is 0."""
    network, rule, params, batch = make("relu", hidden=(6, 5), spare_silent=True)
    bp_pass = Backprop(network, params, batch, "relu")
    noise = drawn_noise(batch.key, bp_pass.signals)
    slopes = sum((d * u).sum(1, keepdims=True) for d, u in zip(bp_pass.deltas[:-1], noise, strict=True))
    active = [(a > 0).astype(float) for a in bp_pass.preactivations[:-1]]
    assert all(0 < np.mean(a) < 1 for a in active)
    deltas = [slopes * a * u for a, u in zip(active, noise, strict=True)]
    check(network, rule.updates(params, (), batch), [*deltas, bp_pass.error], bp_pass.inputs)


@pytest.mark.parametrize("perturb", ["weights", "hidden_weights"])
def test_weight_perturbation_multiplies_one_direction_by_the_derivative_of_the_mean_loss(perturb):
    network, rule, params, batch = make(perturb=perturb)
    bp_pass = Backprop(network, params, batch, "tanh")
    leaves, tree = jax.tree.flatten(params)
    v = [jax.random.normal(jax.random.fold_in(batch.key, i), p.shape, p.dtype) for i, p in enumerate(leaves)]
    weights, biases = reference.weights_and_biases(network, jax.tree.unflatten(tree, v))
    gradients = reference.updates(bp_pass.deltas, bp_pass.inputs)
    perturbed = slice(None) if perturb == "weights" else slice(-1)
    slope = sum(
        np.sum(g * w)
        for gradient, direction in zip(gradients, (weights, biases), strict=True)
        for g, w in zip(gradient[perturbed], direction[perturbed], strict=True)
    )
    updates = reference.weights_and_biases(network, rule.updates(params, (), batch))
    for computed, direction, gradient in zip(updates, (weights, biases), gradients, strict=True):
        expected = [slope * w for w in direction]
        expected[-1] = expected[-1] if perturb == "weights" else gradient[-1]
        for a, b in zip(computed, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def over_directions(network, rows):
    """Noise for every example alike: rows `[directions, units]` as hidden layers `[directions, ...]`."""
    widths = [h.shape[0] for h in network.hidden_shapes.values()]
    parts = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    return {name: jnp.asarray(part)[:, None] for name, part in zip(network.hidden_shapes, parts, strict=True)}


def test_the_mean_over_a_basis_of_all_hidden_units_is_backprop():
    network, _, params, batch = make("relu")
    noise = over_directions(network, np.sqrt(7) * np.eye(7))
    noise = {name: jnp.broadcast_to(u, (7, 4, u.shape[-1])) for name, u in noise.items()}
    signals = jax.jit(jax.vmap(lambda u: activity_signals(network, LOSS, params, batch, u, exact)))(noise)
    bp_pass = Backprop(network, params, batch, "relu")
    for signal, expected in zip(signals.values(), bp_pass.signals, strict=True):
        np.testing.assert_allclose(signal.mean(0), expected, rtol=1e-10, atol=1e-14)


def test_the_mean_over_a_basis_of_all_weights_is_the_gradient():
    network, _, params, batch = make(hidden=(2,))
    flat, unravel = ravel_pytree(params)
    directions = jax.vmap(unravel)(jnp.sqrt(len(flat)) * jnp.eye(len(flat)))
    updates = jax.jit(jax.vmap(lambda v: weight_update(network, LOSS, params, batch, v, exact)))(directions)
    mean = jax.tree.map(lambda u: u.mean(0), updates)
    assert_trees_close(mean, compiled(bp(network, LOSS)).updates(params, (), batch), rtol=1e-9, atol=1e-13)


def test_weight_perturbation_is_a_projection_on_its_direction():
    network, _, params, batch = make(hidden=(2,))
    gradient, unravel = ravel_pytree(compiled(bp(network, LOSS)).updates(params, (), batch))

    @jax.jit
    def update(v):
        return ravel_pytree(weight_update(network, LOSS, params, batch, unravel(v), exact))[0]

    v = jax.random.normal(jax.random.key(2), gradient.shape)
    np.testing.assert_allclose(update(v) @ gradient, (v @ gradient) ** 2, rtol=1e-10)
    np.testing.assert_allclose(update(gradient / jnp.linalg.norm(gradient)), gradient, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(update(3 * v), 9 * update(v), rtol=1e-10)
    np.testing.assert_allclose(update(-v), update(v), rtol=1e-12)  # an antithetic draw is the same draw


def test_errors_of_finite_differences_shrink_with_the_noise():
    """By half as much for one-sided, by a quarter for central ones; node perturbation is one-sided."""
    network, rule, params, batch = make()
    true = ravel_pytree(rule.updates(params, (), batch))[0]

    def error(rule):
        return np.linalg.norm(ravel_pytree(rule.updates(params, (), batch))[0] - true)

    for kind, ratio in (("one_sided", 2), ("central", 4)):
        errors = [error(make(derivative=kind, sigma=sigma)[1]) for sigma in (2e-3, 1e-3)]
        assert errors[1] > 0
        np.testing.assert_allclose(errors[0] / errors[1], ratio, rtol=0.02)
    same = [
        error(compiled(node_perturbation(network, LOSS, sigma=1e-3))),
        error(make(derivative="one_sided", sigma=1e-3)[1]),
    ]
    assert same[0] == same[1]
    assert error(compiled(node_perturbation(network, LOSS, sigma=1e-6))) < 2e-5 * np.linalg.norm(true)


def test_differences_of_a_function():
    def cube(x):
        return jnp.sum(x**3)

    x, v = jnp.array([2.0, 3.0]), jnp.array([1.0, -1.0])
    assert np.allclose(exact(cube, x, v), 3 * 4 - 3 * 9)
    assert np.allclose(one_sided(cube, x, v, 0.1), (2.1**3 + 2.9**3 - 35) / 0.1)
    assert np.allclose(central(cube, x, v, 0.1), (2.1**3 + 2.9**3 - 1.9**3 - 3.1**3) / 0.2)


def test_over_all_signs_of_two_examples_the_mean_is_backprop_and_the_variance_that_of_the_formula():
    """Entry (i, j) of a kernel: 1/N^2 sum_n h_ni^2 (|d_n|^2 - d_nj^2), d over all units, linear ones here."""
    network, _, params, batch = make("linear", hidden=(3,), size=2)
    signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=6))).reshape(64, 2, 3)
    (name,) = network.hidden_shapes
    signals = jax.jit(jax.vmap(lambda u: activity_signals(network, LOSS, params, batch, {name: u}, exact)))(signs)[name]
    bp_pass = Backprop(network, params, batch, "linear")
    np.testing.assert_allclose(signals.mean(0), bp_pass.signals[0], rtol=1e-10, atol=1e-14)
    updates = np.einsum("ni,knj->kij", bp_pass.inputs[0], signals)
    d = bp_pass.signals[0]  # with the 1/N
    variance = np.einsum("ni,nj->ij", bp_pass.inputs[0] ** 2, (d**2).sum(1, keepdims=True) - d**2)
    np.testing.assert_allclose(updates.var(0), variance, rtol=1e-10)


def test_several_draws_are_averaged():
    _, rule, params, batch = make(draws=3)
    _, single, _, _ = make()
    keys = jax.random.split(batch.key, 3)
    updates = [single.updates(params, (), batch._replace(key=key)) for key in keys]
    mean = jax.tree.map(lambda *u: sum(u) / 3, *updates)
    assert_trees_close(rule.updates(params, (), batch), mean, rtol=1e-10, atol=1e-14)


def test_noise_of_signs_has_unit_size():
    _, rule, params, batch = make(noise="signs")
    signals = rule.extras.signals(params, (), batch)
    for signal in signals.values():
        sizes = np.abs(signal)
        np.testing.assert_allclose(sizes, np.broadcast_to(sizes[:, :1], sizes.shape), rtol=1e-12)
        assert len(np.unique(np.sign(signal))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturb": "units"}, "perturb must be one of activities, weights, hidden_weights; got 'units'"),
        ({"derivative": "backward"}, "derivative must be one of exact, one_sided, central"),
        ({"sigma": 0.1}, "sigma must be null with derivative=exact, which has no finite noise; got 0.1"),
        ({"derivative": "central"}, "sigma must be a finite number above 0; got None"),
        ({"noise": "uniform"}, "noise must be one of normal, signs"),
        ({"draws": 0}, "draws must be an integer of at least 1; got 0"),
        ({"spare_silent": True}, "spare_silent must be false unless activation=relu"),
        ({"spare_silent": True, "perturb": "weights"}, "spare_silent must be false with perturb=weights"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(BadOption, match=f"^{message}"):
        make(**options)


def test_noise_in_activities_is_refused_with_batch_statistics():
    network = make_network(norm="batch")
    with pytest.raises(BadOption, match=r"^is not defined for noise in activities with batch statistics"):
        forward_gradient(network, LOSS, **OPTIONS)
    rule = forward_gradient(network, LOSS, **{**OPTIONS, "perturb": "weights"})
    params, _ = filled(jax.eval_shape(rule.init, jax.random.key(0)))
    updates = jax.jit(rule.updates)(params, (), random_batch((5,), 3, size=4))
    for path in network.statistics_paths:
        assert not np.any(functools.reduce(lambda tree, name: tree[name], path, updates))
    assert np.any(updates["readout"]["kernel"])
