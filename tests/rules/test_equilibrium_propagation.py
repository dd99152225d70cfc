"""Equilibrium propagation equals its equations, and in its limits the gradient at the fixed point."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.core import Batch
from fa_jax.losses import binary_cross_entropy, cross_entropy, squared_error
from fa_jax.network import Network
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.backward import gradient, hidden_gradient
from fa_jax.rules.equilibrium_propagation.dynamics import Dynamics, linear_layers
from fa_jax.rules.equilibrium_propagation.rule import equilibrium_propagation
from tests.conftest import CNN, MLP, RANDOM_WEIGHTS, assert_trees_close, compiled, random_batch, to_float64

pytestmark = pytest.mark.usefixtures("float64")

OPTIONS = {
    "output": "readout",
    "points": 2,
    "nudging_strength": 0.3,
    "free_steps": 150,
    "nudged_steps": 100,
    "tolerance": None,
    "order": "synchronous",
}
SQUARED_ERROR = squared_error(output="linear", derivative="exact").value
CROSS_ENTROPY = cross_entropy().value
ACTIVATIONS = {
    "shifted_sigmoid": lambda z: 1 / (1 + np.exp(2 - 4 * z)),
    "tanh": np.tanh,
    "clip": lambda z: np.clip(z, 0, 1),
}
DERIVATIVES = {
    "shifted_sigmoid": lambda s: 4 * s * (1 - s),
    "tanh": lambda s: 1 - s**2,
    "clip": lambda s: ((s > 0) & (s < 1)).astype(float),
}
"""Of each activation function, where its value is s."""


def make(loss=CROSS_ENTROPY, *, activation="shifted_sigmoid", hidden=(4, 3), network_options=None, **options):
    settings = {**MLP, **RANDOM_WEIGHTS, "init_scale": 0.8, "activation": activation, **(network_options or {})}
    network = mlp((5,), 3, hidden=list(hidden), **{"dropout": 0.0, **settings})
    return compiled(equilibrium_propagation(network, loss, **{**OPTIONS, **options}))


def draw(rule, size=3):
    batch = random_batch((5,), 3, size=size, dtype=np.float64)
    return to_float64(rule.init(jax.random.key(1))[0]), batch._replace(inputs=jnp.abs(batch.inputs))


def softmax(a):
    q = np.exp(a)
    return q / q.sum(1, keepdims=True)


class Reference:
    """The network in numpy: `weights` are `[in, out]`; states are `s[1]` to `s[K]`, and `s[0] = x`."""

    def __init__(
        self, params, batch, *, output="readout", activation="shifted_sigmoid", order="synchronous", loss=None
    ):
        layers = linear_layers(params)
        self.weights = [np.asarray(layer["kernel"]) for layer in layers]
        self.biases = [np.asarray(layer["bias"]) for layer in layers]
        self.x, self.y = np.asarray(batch.inputs), np.asarray(batch.targets)
        self.has_output_state, self.order = output == "state", order
        self.count = len(layers) if self.has_output_state else len(layers) - 1
        self.f, self.derivative = ACTIVATIONS[activation], DERIVATIVES[activation]
        self.is_cross_entropy = loss is CROSS_ENTROPY

    def output(self, s):
        return s[-1] if self.has_output_state else s[-1] @ self.weights[-1] + self.biases[-1]

    def error(self, s):
        output = self.output(s)
        return (softmax(output) if self.is_cross_entropy else output) - self.y

    def loss_slope(self, s):
        """dloss/ds_K of each example."""
        return self.error(s) if self.has_output_state else self.error(s) @ self.weights[-1].T

    def loss(self, s):
        output = self.output(s)
        if self.is_cross_entropy:
            return -np.mean(np.sum(self.y * np.log(softmax(output)), 1))
        return 0.5 * np.mean(np.sum((output - self.y) ** 2, 1))

    def drive(self, s, i, beta):
        drive = s[i - 1] @ self.weights[i - 1] + self.biases[i - 1]
        return drive + (s[i + 1] @ self.weights[i].T if i < self.count else -beta * self.loss_slope(s))

    def settle(self, s, beta, steps):
        layers = range(1, self.count + 1)
        groups = [layers] if self.order == "synchronous" else [layers[::2], layers[1::2]]
        for _ in range(steps):
            for group in groups:
                new = {i: self.f(self.drive(s, i, beta)) for i in group}
                s = [new.get(i, old) for i, old in enumerate(s)]
        return s

    def free(self, steps=150):
        return self.settle(
            [self.x, *(np.zeros((len(self.x), w.shape[1])) for w in self.weights[: self.count])], 0, steps
        )

    def products(self, s):
        kernels = [s[i].T @ s[i + 1] / len(self.x) for i in range(self.count)]
        return kernels, [a.sum(0) / len(self.x) for a in s[1:]]

    def updates(self, beta, points, nudged_steps=100):
        free = self.free()
        if points == 1:
            phases = [(beta, 1.0), (None, -1.0)]
        else:
            phases = [(beta * np.exp(2j * np.pi * k / points), 1 / points) for k in range(points)]
        total, readout = None, None
        for strength, weight in phases:
            s = free if strength is None else self.settle(free, strength, nudged_steps)
            factor = -weight / (beta if strength is None else strength)
            terms = [[factor * a for a in kind] for kind in self.products(s)]
            total = (
                terms
                if total is None
                else [[a + b for a, b in zip(*kinds, strict=True)] for kinds in zip(total, terms, strict=True)]
            )
            if strength is not None:
                error = self.error(s) / len(self.x)
                term = weight * (s[-1].T @ error), weight * error.sum(0)
                readout = term if readout is None else [a + b for a, b in zip(readout, term, strict=True)]
        kernels, biases = total
        if not self.has_output_state:
            kernels, biases = [*kernels, readout[0]], [*biases, readout[1]]
        return [{"kernel": w.real, "bias": b.real} for w, b in zip(kernels, biases, strict=True)]

    def implicit_gradient(self, s):
        """(1 - D C) lambda = D dloss/ds for each example; dW_l = lambda_l s_{l-1} + s_l lambda_{l-1}."""
        sizes = [a.shape[1] for a in s[1:]]
        ends = np.cumsum([0, *sizes])
        coupling = np.zeros((ends[-1], ends[-1]))
        for i in range(1, self.count):
            block = slice(ends[i], ends[i + 1]), slice(ends[i - 1], ends[i])
            coupling[block], coupling[block[::-1]] = self.weights[i].T, self.weights[i]
        slopes = np.concatenate([*(np.zeros_like(a) for a in s[1:-1]), self.loss_slope(s)], 1)
        lambdas = []
        for n in range(len(self.x)):
            d = np.diag(self.derivative(np.concatenate([a[n] for a in s[1:]])))
            lambdas.append(np.linalg.solve(np.eye(ends[-1]) - d @ coupling, d @ slopes[n]))
        split = np.split(np.stack(lambdas) / len(self.x), ends[1:-1], 1)
        by_layer = [np.zeros_like(self.x), *split]
        result = [
            {"kernel": s[i].T @ by_layer[i + 1] + by_layer[i].T @ s[i + 1], "bias": by_layer[i + 1].sum(0)}
            for i in range(self.count)
        ]
        if not self.has_output_state:
            error = self.error(s) / len(self.x)
            result.append({"kernel": s[-1].T @ error, "bias": error.sum(0)})
        return result, split


CASES = [
    (CROSS_ENTROPY, {"points": 1}),
    (CROSS_ENTROPY, {"points": 2, "order": "asynchronous"}),
    (CROSS_ENTROPY, {"points": 5}),
    (SQUARED_ERROR, {"points": 1, "nudging_strength": -0.3, "output": "state"}),
    (SQUARED_ERROR, {"points": 4, "output": "state", "order": "asynchronous"}),
    (SQUARED_ERROR, {"points": 2}),
]


@pytest.mark.parametrize(("loss", "options"), CASES)
def test_updates_are_those_of_the_equations(loss, options):
    rule = make(loss, **options, nudged_steps=4)
    params, batch = draw(rule)
    chosen = {**OPTIONS, **options}
    case = Reference(params, batch, output=chosen["output"], order=chosen["order"], loss=loss)
    expected = case.updates(chosen["nudging_strength"], chosen["points"], nudged_steps=4)
    updates = linear_layers(rule.updates(params, (), batch))
    assert_trees_close(updates, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rule.predict(params, batch.inputs), case.output(case.free()), rtol=1e-10)


IMPLICIT = [
    (CROSS_ENTROPY, "readout", "shifted_sigmoid", "synchronous"),
    (SQUARED_ERROR, "state", "tanh", "asynchronous"),
    (CROSS_ENTROPY, "readout", "clip", "synchronous"),
]


@pytest.mark.parametrize(("loss", "output", "activation", "order"), IMPLICIT)
def test_the_gradient_of_the_network_is_that_at_the_fixed_point(loss, output, activation, order):
    """With `clip`, of units that are saturated too."""
    rule = make(loss, output=output, activation=activation, order=order)
    params, batch = draw(rule)
    case = Reference(params, batch, output=output, activation=activation, loss=loss)
    states = case.free(400)
    expected, lambdas = case.implicit_gradient(states)
    network = rule.extras.network
    computed = linear_layers(gradient(network, loss, params, batch))
    assert_trees_close(computed, expected, rtol=1e-8, atol=1e-11)
    signals = hidden_gradient(network, loss, params, batch)
    for signal, expected_signal in zip(signals.values(), lambdas, strict=False):
        np.testing.assert_allclose(signal, expected_signal, rtol=1e-8, atol=1e-11)
    if activation == "clip":
        assert any(np.any((s == 0) | (s == 1)) for s in states[1:])


def test_the_implicit_gradient_of_the_reference_is_a_difference_of_the_loss():
    rule = make()
    params, batch = draw(rule)
    case = Reference(params, batch, loss=CROSS_ENTROPY)
    slopes, _ = case.implicit_gradient(case.free(400))
    random = np.random.default_rng(0)
    directions = [random.normal(size=w.shape) for w in case.weights]
    weights, losses = case.weights, []
    for e in (1e-5, -1e-5):
        case.weights = [w + e * d for w, d in zip(weights, directions, strict=True)]
        losses.append(case.loss(case.free(400)))
    expected = sum(np.vdot(s["kernel"], d) for s, d in zip(slopes, directions, strict=True))
    np.testing.assert_allclose((losses[0] - losses[1]) / 2e-5, expected, rtol=1e-6)


def errors_of(rule, params, batch, expected):
    computed = jax.tree.leaves(linear_layers(rule.updates(params, (), batch)))
    pairs = list(zip(computed, jax.tree.leaves(expected), strict=True))
    return np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])


@pytest.mark.parametrize(("points", "ratio"), [(1, 2), (2, 4), (4, 16)])
def test_updates_approach_the_gradient_at_the_fixed_point_with_the_order_of_the_points(points, ratio):
    strengths = (0.02, 0.01) if points < 4 else (0.2, 0.1)
    errors = []
    for beta in strengths:
        rule = make(points=points, nudging_strength=beta)
        params, batch = draw(rule)
        case = Reference(params, batch, loss=CROSS_ENTROPY)
        errors.append(errors_of(rule, params, batch, case.implicit_gradient(case.free(400))[0]))
    assert errors[0].max() < 0.1
    np.testing.assert_allclose(errors[0] / errors[1], ratio, rtol=0.1)


def test_many_points_reach_the_gradient_at_the_fixed_point():
    rule = make(points=20, nudging_strength=0.2)
    params, batch = draw(rule)
    case = Reference(params, batch, loss=CROSS_ENTROPY)
    expected, lambdas = case.implicit_gradient(case.free(400))
    assert errors_of(rule, params, batch, expected).max() < 1e-10
    for signal, expected_signal in zip(rule.extras.signals(params, (), batch).values(), lambdas, strict=True):
        np.testing.assert_allclose(signal, expected_signal, rtol=1e-9, atol=1e-12)


def test_centred_is_the_mean_of_both_one_sided_rules():
    centred, *sides = make(), make(points=1), make(points=1, nudging_strength=-0.3)
    params, batch = draw(centred)
    high, low = (side.updates(params, (), batch) for side in sides)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, high, low)
    assert_trees_close(centred.updates(params, (), batch), mean, rtol=1e-10, atol=1e-13)
    high, low = (side.extras.signals(params, (), batch) for side in sides)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, high, low)
    assert_trees_close(centred.extras.signals(params, (), batch), mean, rtol=1e-10, atol=1e-13)


def test_small_nudges_of_few_steps_are_backprop_through_the_last_steps():
    rule = make(nudging_strength=1e-4, nudged_steps=2, hidden=(4, 3, 3))
    params, batch = draw(rule)
    dynamics = rule.extras.network.module.dynamics
    shifts = [jnp.zeros(())] * 3
    settled = dynamics.free(linear_layers(params), batch.inputs, shifts, 150)

    def loss_after_two_steps(layers):
        states = settled
        for _ in range(2):
            states = dynamics.step(layers, batch.inputs, shifts, states, None)
        return CROSS_ENTROPY(states[-1] @ layers[-1]["kernel"] + layers[-1]["bias"], batch.targets)

    expected = jax.grad(loss_after_two_steps)(linear_layers(params))
    updates = linear_layers(rule.updates(params, (), batch))
    assert_trees_close(updates, expected, rtol=1e-6, atol=1e-9)
    assert [bool(np.any(layer["kernel"])) for layer in updates] == [False, True, True, True]


def test_target_that_is_the_free_output_teaches_nothing():
    rule = make(SQUARED_ERROR, nudged_steps=3)
    params, batch = draw(rule)
    updates = rule.updates(params, (), batch._replace(targets=rule.predict(params, batch.inputs)))
    assert max(np.abs(update).max() for update in jax.tree.leaves(updates)) < 1e-12


def test_batch_learns_the_mean_of_its_examples():
    rule = make()
    params, batch = draw(rule)
    apart = [
        rule.updates(params, (), Batch(batch.inputs[i : i + 1], batch.targets[i : i + 1], batch.key)) for i in range(3)
    ]
    mean = jax.tree.map(lambda *updates: sum(updates) / len(updates), *apart)
    assert_trees_close(rule.updates(params, (), batch), mean, rtol=1e-9, atol=1e-12)


def energy(layers, x, states):
    """E with f the shifted sigmoid, whose inverse has the integral G."""
    total, below = 0.0, x
    for layer, s in zip(layers, states, strict=False):
        entropy = (s * np.log(s) + (1 - s) * np.log(1 - s) + 2 * s) / 4
        total += np.sum(entropy - s * (below @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])))
        below = s
    return total


def test_asynchronous_steps_settle_where_synchronous_ones_oscillate():
    """Two units that inhibit each other are switched on and off together, or one of them wins."""
    rules = {order: make(hidden=(1, 1), order=order) for order in ("synchronous", "asynchronous")}
    params, batch = draw(rules["synchronous"])
    inhibition = {"kernel": jnp.full((1, 1), -5.0), "bias": jnp.full((1,), 2.0)}
    params["stages_0"] = {"linear": {**inhibition, "kernel": jnp.zeros((5, 1))}}
    params["stages_1"] = {"linear": inhibition}
    residuals = {o: float(r.extras.measure.compute(params, (), batch)["settling_residual"]) for o, r in rules.items()}
    assert residuals["asynchronous"] < 1e-6
    assert residuals["synchronous"] > 0.9


def test_asynchronous_steps_never_raise_the_energy():
    rule = make(hidden=(6, 6), network_options={"init_scale": 3.0}, order="asynchronous")
    params, batch = draw(rule)
    layers, dynamics = linear_layers(params), rule.extras.network.module.dynamics
    states, energies = [jnp.full((3, 6), 0.5)] * 2, []
    for _ in range(8):
        energies.append(energy(layers, np.asarray(batch.inputs), [np.clip(s, 1e-12, 1 - 1e-12) for s in states]))
        states = dynamics.step(layers, batch.inputs, [jnp.zeros(())] * 2, states, None)
    assert np.all(np.diff(energies) <= 1e-9)
    assert energies[-1] < energies[0] - 0.1


def test_a_phase_with_a_tolerance_ends_when_it_has_settled():
    dynamics = Dynamics((jnp.tanh,), asynchronous=False, tolerance=1e-3)
    (state,) = dynamics.settle(lambda s: [0.5 * s[0]], [jnp.ones((2, 2))], steps=100)
    np.testing.assert_allclose(state, 0.5**10)  # the first whose change is at most 1e-3
    (state,) = dynamics.settle(lambda s: [0.5 * s[0]], [jnp.ones((2, 2))], steps=3)
    np.testing.assert_allclose(state, 0.5**3)
    exact, loose = (make(tolerance=tolerance) for tolerance in (None, 1e-10))
    params, batch = draw(exact)
    assert_trees_close(loose.updates(params, (), batch), exact.updates(params, (), batch), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free_steps": 0}, "^free_steps must be an integer of at least 1; got 0"),
        ({"nudged_steps": 0}, "^nudged_steps must be an integer of at least 1; got 0"),
        ({"points": 0}, "^points must be an integer of at least 1; got 0"),
        ({"nudging_strength": 0}, "^nudging_strength must be a finite number above 0; got 0"),
        ({"nudging_strength": -0.5}, "^nudging_strength must be a finite number above 0; got -0.5"),
        ({"points": 1, "nudging_strength": 0}, "^nudging_strength must be other than 0; got 0"),
        ({"tolerance": 0}, "^tolerance must be a finite number above 0; got 0"),
        ({"order": "random"}, "^order must be one of synchronous, asynchronous; got 'random'"),
        ({"order": "asynchronous", "hidden": (4,)}, "^order must be synchronous: a single layer settles"),
        ({"output": "state"}, "^output must be readout, unless loss=squared_error"),
        ({"output": "linear"}, "^output must be one of readout, state; got 'linear'"),
        ({"activation": "gelu"}, "^needs an activation function that is increasing"),
        ({"activation": "clip", "points": 4}, "^needs an activation function that is analytic with points=4"),
        ({"network_options": {"norm": "layer"}}, "^is not defined for normalised layers"),
        ({"network_options": {"dropout": 0.5}}, "^is not defined with dropout"),
        ({"loss": binary_cross_entropy().value, "points": 4}, "^points must be at most 2 with a loss that is neither"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        make(**options)


def test_a_sweep_of_numbers_can_be_one_program():
    """Numbers of options are traced then; which loss there is, is decided all the same."""

    def updates(strength):
        rule = make(nudging_strength=strength, free_steps=2, nudged_steps=1)
        params, batch = draw(rule)
        return rule.updates(params, (), batch)

    jax.eval_shape(updates, 0.3)


@pytest.mark.parametrize("readout", [None, nn.Dense(4)])
def test_convolutions_are_refused(readout):
    network = cnn((8, 8, 2), 4, **CNN)
    module = network.module if readout is None else network.module.clone(readout=readout)
    with pytest.raises(BadOption, match=r"^needs stages of one dense layer each, as those of mlp"):
        equilibrium_propagation(Network(module, network.input_shape), CROSS_ENTROPY, **OPTIONS)
