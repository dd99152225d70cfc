"""Predictive coding equals its equations, is backprop in its limits, and refuses what means nothing."""

import functools
import math

import jax
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.core import Batch
from fa_jax.losses import cross_entropy, squared_error
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.networks.resnet import resnet
from fa_jax.rules.backward import hidden_gradient
from fa_jax.rules.bp import bp
from fa_jax.rules.predictive_coding.rule import predictive_coding
from tests.conftest import (
    CNN,
    MLP,
    RANDOM_WEIGHTS,
    RESNET,
    assert_trees_close,
    compiled,
    filled,
    random_batch,
    to_float64,
)
from tests.rules import reference
from tests.rules.predictive_coding_reference import Reference

pytestmark = pytest.mark.usefixtures("float64")

OPTIONS = {
    "inference": "states",
    "error_position": "after_activation",
    "steps": 3,
    "step_size": 0.2,
    "momentum": 0.0,
    "nudging": "none",
    "nudging_strength": None,
    "nudging_sign": None,
    "sign_period": None,
}
POSITIONS = ("after_activation", "before_activation")
ZERO_DIVERGENCE = {"inference": "zero_divergence", "steps": None, "step_size": 1.0}
SQUARED_ERROR = squared_error(output="linear", derivative="exact").value
CROSS_ENTROPY = cross_entropy().value


@functools.cache
def make_mlp(hidden=(4, 3, 3), activation="tanh", dropout=0.0):
    options = {**MLP, **RANDOM_WEIGHTS, "activation": activation}
    return mlp((5,), 3, hidden=list(hidden), dropout=dropout, **options)


def make_rule(network, loss=SQUARED_ERROR, **options):
    return compiled(predictive_coding(network, loss, **{**OPTIONS, **options}))


def draw(network, size=4):
    params = to_float64(filled(jax.eval_shape(network.init, jax.random.key(1))))
    return params, random_batch(network.input_shape, network.outputs, size=size, dtype=np.float64)


def backprop(network, loss):
    return compiled(bp(network, loss))


def make_reference(network, params, batch, **options):
    weights, biases = reference.weights_and_biases(network, params)
    return Reference(weights, biases, np.asarray(batch.inputs), np.asarray(batch.targets), **options)


def layers_of(network, updates):
    """The updates of each linear layer as one vector."""
    weights, biases = reference.weights_and_biases(network, updates)
    return [np.concatenate([w.ravel(), b]) for w, b in zip(weights, biases, strict=True)]


def assert_updates(network, updates, expected, divisor):
    """Asserts that updates are sums over the batch, `(weights, biases)`, over the divisor."""
    for computed, sums in zip(reference.weights_and_biases(network, updates), expected, strict=True):
        for layer, expected_layer in zip(computed, sums, strict=True):
            np.testing.assert_allclose(layer, expected_layer / divisor, rtol=1e-10, atol=1e-13)


def relative_errors(network, updates, others):
    pairs = zip(layers_of(network, updates), layers_of(network, others), strict=True)
    return [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]


CASES = {
    "squared error": (SQUARED_ERROR, {"momentum": 0.5}),
    "cross-entropy": (CROSS_ENTROPY, {}),
    "errors": (CROSS_ENTROPY, {"inference": "errors", "momentum": 0.5}),
    "fixed prediction": (SQUARED_ERROR, {"inference": "fixed_prediction"}),
}
METHODS = {"states": "by_states", "errors": "by_errors", "fixed_prediction": "by_fixed_prediction"}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("case", CASES)
def test_updates_are_those_of_the_equations(case, position):
    loss, options = CASES[case]
    network = make_mlp()
    params, batch = draw(network)
    rule = make_rule(network, loss, error_position=position, **options)
    expected = make_reference(
        network, params, batch, softmax_output=loss is CROSS_ENTROPY, before=position == "before_activation"
    )
    chosen = {**OPTIONS, **options}
    arguments = [chosen["steps"], chosen["step_size"]]
    arguments += [] if case == "fixed prediction" else [chosen["momentum"]]
    sums = getattr(expected, METHODS[chosen["inference"]])(*arguments)
    assert_updates(network, rule.updates(params, (), batch), sums, len(batch.inputs))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("softmax_output", [False, True])
def test_slopes_of_the_reference_are_differences_of_the_energy(before, softmax_output):
    network = make_mlp()
    params, batch = draw(network)
    case = make_reference(network, params, batch, softmax_output=softmax_output, before=before, precision=0.7)
    random = np.random.default_rng(0)
    states = [h + random.normal(size=h.shape) for h in case.forward_states()]
    weight_slopes, bias_slopes = case.weight_slopes(states, case.errors(states))
    groups = (
        (states, case.state_slopes(states), case.energy),
        (case.weights, weight_slopes, lambda w: case._replace(weights=w).energy(states)),
        (case.biases, bias_slopes, lambda b: case._replace(biases=b).energy(states)),
    )
    for arrays, slopes, energy in groups:
        directions = [random.normal(size=a.shape) for a in arrays]
        high, low = ([a + e * d for a, d in zip(arrays, directions, strict=True)] for e in (1e-5, -1e-5))
        expected = sum(np.vdot(s, d) for s, d in zip(slopes, directions, strict=True))
        np.testing.assert_allclose((energy(high) - energy(low)) / 2e-5, expected, rtol=1e-6)


@pytest.mark.parametrize(("strength", "sign"), [(0.4, "fixed"), (0.4, "both")])
@pytest.mark.parametrize("nudging", ["precision", "target"])
def test_nudged_updates_are_divided_by_the_strength(nudging, strength, sign):
    network = make_mlp()
    params, batch = draw(network)
    rule = make_rule(network, nudging=nudging, nudging_strength=strength, nudging_sign=sign)
    case = make_reference(network, params, batch)
    output = case.run()[2][-1]
    total = []
    for beta in (strength, -strength)[: 2 if sign == "both" else 1]:
        target = output - beta * (output - case.y)
        nudged = case._replace(precision=beta) if nudging == "precision" else case._replace(y=target)
        total.append([[s / beta for s in sums] for sums in nudged.by_states(3, 0.2, 0.0)])
    mean = [[sum(layers) / len(total) for layers in zip(*kinds, strict=True)] for kinds in zip(*total, strict=True)]
    assert_updates(network, rule.updates(params, (), batch), mean, len(batch.inputs))


NETWORKS = {
    "mlp": functools.partial(make_mlp, dropout=0.3),
    "scanned mlp": functools.partial(make_mlp, (3,) * 9),
    "cnn": lambda: cnn((6, 6, 1), 3, **{**CNN, "topology": "conv2x3p2-3"}),
    "resnet": lambda: resnet((4, 4, 1), 3, **{**RESNET, "width": 1}),
}
FIXED = {"inference": "fixed_prediction", "step_size": 1.0}


@pytest.mark.parametrize(
    ("name", "position", "options"),
    [
        ("mlp", "after_activation", ZERO_DIVERGENCE),
        ("mlp", "before_activation", ZERO_DIVERGENCE),
        ("mlp", "after_activation", {**FIXED, "steps": 3}),
        ("mlp", "before_activation", {**FIXED, "steps": 3}),
        ("scanned mlp", "after_activation", ZERO_DIVERGENCE),
        ("scanned mlp", "before_activation", {**FIXED, "steps": 9}),
        ("cnn", "after_activation", ZERO_DIVERGENCE),
        ("cnn", "before_activation", {**FIXED, "steps": 2}),
        ("resnet", "after_activation", {**FIXED, "steps": 4}),
    ],
)
def test_zero_divergence_and_fixed_prediction_are_backprop(name, position, options):
    network = NETWORKS[name]()
    params, batch = draw(network)
    gradient = backprop(network, CROSS_ENTROPY).updates(params, (), batch)
    updates = make_rule(network, CROSS_ENTROPY, error_position=position, **options).updates(params, (), batch)
    assert_trees_close(updates, gradient, rtol=1e-9, atol=1e-13)


def test_fixed_prediction_approaches_backprop_at_the_rate_of_its_step_size():
    """With one hidden layer the error is (1 - gamma)^T of backprop's; it differs from it one step before."""
    network = make_mlp((4,))
    params, batch = draw(network)
    gradient = backprop(network, SQUARED_ERROR).updates(params, (), batch)
    rule = make_rule(network, inference="fixed_prediction", steps=5, step_size=0.3)
    hidden, readout = relative_errors(network, rule.updates(params, (), batch), gradient)
    np.testing.assert_allclose((hidden, readout), (0.7**5, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("inference", ["states", "fixed_prediction"])
def test_errors_descend_one_layer_per_step(inference):
    network = make_mlp()
    params, batch = draw(network)
    updates = layers_of(network, make_rule(network, inference=inference, steps=2).updates(params, (), batch))
    assert [bool(np.any(update)) for update in updates] == [False, True, True, True]


def test_with_small_steps_the_update_is_backprops_times_a_power_of_the_step_size():
    """k layers below the output it is gamma^k C(T, k), with an error of the order of gamma."""
    network, steps = make_mlp(), 4
    params, batch = draw(network)
    gradient = layers_of(network, backprop(network, SQUARED_ERROR).updates(params, (), batch))
    differences = []
    for rate in (1e-3, 5e-4):
        updates = layers_of(network, make_rule(network, steps=steps, step_size=rate).updates(params, (), batch))
        scales = [rate**k * math.comb(steps, k) for k in (3, 2, 1, 0)]
        differences.append(
            [np.linalg.norm(u / s - g) / np.linalg.norm(g) for u, s, g in zip(updates, scales, gradient, strict=True)]
        )
    assert max(differences[0]) < 0.05
    np.testing.assert_allclose(np.divide(*differences), 2, rtol=0.02)


@pytest.mark.parametrize(("sign", "ratio"), [("fixed", 2), ("both", 4)])
def test_precision_nudging_approaches_backprop_as_its_strength_falls(sign, ratio):
    network = make_mlp((4, 3))
    params, batch = draw(network)
    gradient = backprop(network, CROSS_ENTROPY).updates(params, (), batch)
    options = {"steps": 200, "step_size": 0.5, "nudging": "precision", "nudging_sign": sign}
    errors = [
        relative_errors(
            network,
            make_rule(network, CROSS_ENTROPY, **options, nudging_strength=beta).updates(params, (), batch),
            gradient,
        )
        for beta in (0.02, 0.01)
    ]
    assert max(errors[0]) < 0.05
    np.testing.assert_allclose(np.divide(*errors), ratio, rtol=0.1)


def test_drawn_sign_is_kept_for_its_period():
    network, options = make_mlp((4,)), {"nudging": "target", "inference": "errors"}
    params, batch = draw(network)
    at = {
        sign: make_rule(network, **options, nudging_strength=sign * 0.5, nudging_sign="fixed").updates(
            params, (), batch
        )
        for sign in (1, -1)
    }
    rule = make_rule(network, **options, nudging_strength=0.5, nudging_sign="drawn", sign_period=3)
    feedback = rule.init(jax.random.key(0))[1]
    signs = []
    for step in range(30):
        signs.append(int(feedback["sign"]))
        if step % 3 == 0:
            updates = rule.updates(params, feedback, batch)
            assert max(relative_errors(network, updates, at[signs[-1]])) < 1e-12
        changes = rule.learn(params, feedback, batch._replace(key=jax.random.key(step)), None)
        feedback = jax.tree.map(lambda f, c: f - c, feedback, changes)
    assert all(len(set(signs[i : i + 3])) == 1 for i in range(0, 30, 3))
    assert set(signs) == {1, -1}
    starts = {int(rule.init(jax.random.key(seed))[1]["sign"]) for seed in range(8)}
    assert starts == {1, -1}


def test_target_nudging_of_strength_1_is_none_and_of_strength_0_is_not_backprop():
    network = make_mlp((4, 3))
    params, batch = draw(network)
    plain = make_rule(network, steps=200).updates(params, (), batch)
    updates = {
        beta: make_rule(network, steps=200, nudging="target", nudging_strength=beta, nudging_sign="fixed").updates(
            params, (), batch
        )
        for beta in (1.0, 1e-4)
    }
    assert_trees_close(updates[1.0], plain, rtol=1e-12, atol=1e-15)
    gradient = backprop(network, SQUARED_ERROR).updates(params, (), batch)
    assert min(relative_errors(network, updates[1e-4], gradient)) > 0.1


def test_linear_network_at_equilibrium_descends_the_energy_that_is_left():
    """F* = 1/2 r S^-1 r^T, S = I + sum_l P_l P_l^T; the errors are r S^-1 sent down by the weights."""
    network = make_mlp((4, 3), activation="linear")
    params, batch = draw(network)
    weights, biases = reference.weights_and_biases(network, params)
    x, y = np.asarray(batch.inputs), np.asarray(batch.targets)

    def equilibrium(weights):
        output = x
        for w, b in zip(weights, biases, strict=True):
            output = output @ w + b
        products = [weights[1] @ weights[2], weights[2]]
        s = np.eye(3) + sum(p.T @ p for p in products)
        error = (y - output) @ np.linalg.inv(s)
        return 0.5 * np.sum(error * (y - output)), error

    rule = make_rule(network, steps=3000)
    energy, error = equilibrium(weights)
    signals = [-len(x) * s for s in rule.extras.signals(params, (), batch).values()]
    np.testing.assert_allclose(signals[1], error @ weights[2].T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(signals[0], signals[1] @ weights[1].T, rtol=1e-9, atol=1e-12)
    start = 0.5 * np.sum((y - make_reference(network, params, batch, activation="linear").run()[2][-1]) ** 2)
    decrease = rule.extras.measure.compute(params, (), batch)["energy_decrease"]
    np.testing.assert_allclose(decrease, 100 * (1 - energy / start), rtol=1e-9)
    direction = [np.random.default_rng(0).normal(size=w.shape) for w in weights]
    high, low = ([w + e * d for w, d in zip(weights, direction, strict=True)] for e in (1e-5, -1e-5))
    updated, _ = reference.weights_and_biases(network, rule.updates(params, (), batch))
    change = sum(np.vdot(u, d) for u, d in zip(updated, direction, strict=True))
    np.testing.assert_allclose((equilibrium(high)[0] - equilibrium(low)[0]) / 2e-5 / len(x), change, rtol=1e-7)


def test_batch_learns_the_mean_of_its_examples():
    network = make_mlp((4,))
    params, batch = draw(network)
    rule = make_rule(network, CROSS_ENTROPY, momentum=0.5)
    apart = [
        rule.updates(params, (), Batch(batch.inputs[i : i + 1], batch.targets[i : i + 1], batch.key)) for i in range(4)
    ]
    mean = jax.tree.map(lambda *updates: sum(updates) / len(updates), *apart)
    assert_trees_close(rule.updates(params, (), batch), mean, rtol=1e-10, atol=1e-13)


def test_energy_falls_at_every_small_step():
    network = make_mlp()
    params, batch = draw(network)
    decreases = [
        float(make_rule(network, steps=t).extras.measure.compute(params, (), batch)["energy_decrease"])
        for t in (1, 2, 8)
    ]
    assert decreases[0] > 0
    assert decreases == sorted(decreases)


def test_one_full_step_from_no_errors_reaches_those_of_backprop():
    network = make_mlp()
    params, batch = draw(network)
    rule = make_rule(network, CROSS_ENTROPY, inference="errors", steps=1, step_size=1.0)
    gradient = hidden_gradient(network, CROSS_ENTROPY, params, batch)
    assert_trees_close(rule.extras.signals(params, (), batch), gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("position", POSITIONS)
def test_errors_and_states_have_one_equilibrium(position):
    network = make_mlp((4, 3))
    params, batch = draw(network)
    options = {"error_position": position, "steps": 1500, "step_size": 0.1}
    by_errors, by_states = (
        make_rule(network, inference=inference, **options).updates(params, (), batch)
        for inference in ("errors", "states")
    )
    assert_trees_close(by_errors, by_states, rtol=1e-9, atol=1e-11)


def test_prediction_is_the_forward_pass():
    network = make_mlp()
    params, batch = draw(network)
    np.testing.assert_array_equal(make_rule(network).predict(params, batch.inputs), network.apply(params, batch.inputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "^steps must be an integer of at least 1; got 0"),
        ({"steps": None}, "^steps must be an integer of at least 1; got None"),
        ({"step_size": 0}, "^step_size must be a finite number above 0; got 0"),
        ({"inference": "fixed_prediction", "step_size": 2}, "^step_size must be .* below 2; got 2"),
        ({**ZERO_DIVERGENCE, "steps": 3}, "^steps must be null with inference=zero_divergence"),
        ({**ZERO_DIVERGENCE, "step_size": 0.5}, "^step_size must be 1 with inference=zero_divergence; got 0.5"),
        ({**ZERO_DIVERGENCE, "momentum": 0.5}, "^momentum must be 0 with inference=zero_divergence; got 0.5"),
        ({"inference": "fixed_prediction", "momentum": 0.5}, "^momentum must be 0 with inference=fixed_prediction"),
        ({"momentum": 1}, "^momentum must be .* at least 0 and below 1; got 1"),
        ({"inference": "exact"}, "^inference must be one of states, errors, fixed_prediction, zero_divergence"),
        ({"error_position": "middle"}, "^error_position must be one of after_activation, before_activation"),
        ({"nudging": "label"}, "^nudging must be one of none, precision, target; got 'label'"),
        ({"nudging_strength": 0.5}, "^nudging_strength must be null with nudging=none; got 0.5"),
        ({"nudging_sign": "both"}, "^nudging_sign must be null with nudging=none; got 'both'"),
        ({"sign_period": 3}, "^sign_period must be null unless nudging_sign=drawn; got 3"),
        (
            {"nudging": "precision", "nudging_strength": 0.5, "nudging_sign": "drawn"},
            "^sign_period must be an integer of at least 1; got None",
        ),
        (
            {"nudging": "precision", "nudging_strength": 0, "nudging_sign": "fixed"},
            "^nudging_strength must be other than 0; got 0",
        ),
        (
            {"nudging": "precision", "nudging_strength": -1, "nudging_sign": "both"},
            "^nudging_strength must be above 0 with nudging_sign=both, which uses both signs; got -1",
        ),
        (
            {"nudging": "target", "nudging_strength": 1.1, "nudging_sign": "fixed"},
            "^nudging_strength must be a finite number at least -1 and at most 1; got 1.1",
        ),
        (
            {"nudging": "precision", "nudging_strength": None, "nudging_sign": "fixed"},
            "^nudging_strength must be a finite number; got None",
        ),
        (
            {**ZERO_DIVERGENCE, "nudging": "precision", "nudging_strength": 0.1, "nudging_sign": "fixed"},
            "^nudging must be none with inference=zero_divergence, which is linear in the output error",
        ),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        make_rule(make_mlp(), **options)


def test_a_sweep_of_numbers_can_be_one_program():
    """Numbers of options are traced then; which loss there is, is decided all the same."""
    network = make_mlp((4,))

    def updates(step_size, momentum, strength):
        options = {"step_size": step_size, "momentum": momentum, "nudging_strength": strength}
        rule = make_rule(network, nudging="target", nudging_sign="fixed", **options)
        params, batch = draw(network)
        return rule.updates(params, (), batch)

    jax.eval_shape(updates, 0.1, 0.5, 0.4)


def test_networks_and_losses_on_which_it_is_not_defined_are_refused():
    normed = mlp((5,), 3, hidden=[4], dropout=0.0, **{**MLP, "norm": "batch"})
    with pytest.raises(BadOption, match=r"^is not defined with batch norm"):
        make_rule(normed)
    with pytest.raises(BadOption, match=r"^error_position must be after_activation unless .* 9 linear layers in 4"):
        make_rule(NETWORKS["resnet"](), error_position="before_activation")
    target = {"nudging": "target", "nudging_strength": 0.5, "nudging_sign": "fixed"}
    for loss in (CROSS_ENTROPY, squared_error(output="sigmoid", derivative="straight_through").value):
        with pytest.raises(BadOption, match=r"^nudging must be none or precision, unless loss=squared_error"):
            make_rule(make_mlp(), loss, **target)
