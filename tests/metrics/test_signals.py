"""What is measured of signals and hidden states keeps the laws of `measures-2026`, section by section."""

import functools
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fa_jax
from fa_jax.checks import BadOption
from fa_jax.cli.groups import choices
from fa_jax.core import Batch, Extras, Rule
from fa_jax.losses import cross_entropy, squared_error
from fa_jax.metrics.alignment import ALIGNMENT, FLOOR, alignment
from fa_jax.metrics.null_angle import null_angle
from fa_jax.metrics.pseudobackprop import pseudobackprop
from fa_jax.metrics.rho import correlation, rho
from fa_jax.metrics.scale import LARGEST_GROWTH, SCALE, growth
from fa_jax.metrics.scores import ERROR
from fa_jax.metrics.separation import separation
from fa_jax.metrics.sign_agreement import agreement, sign_agreement
from fa_jax.network import Network
from fa_jax.networks.mlp import mlp
from fa_jax.primitives import Hidden
from fa_jax.rules.backward import gradient, hidden_gradient
from tests.conftest import MLP, make_rule, random_batch

LOSS = cross_entropy().value
NAME = "stages_0/hidden"


def with_signals(rule, change):
    """A rule with the true signals changed by a function `(name, array) -> array`, for the measures alone."""

    def signals(params, feedback, batch):
        del feedback
        true = hidden_gradient(NETWORK, LOSS, params, batch)
        return {name: change(name, array) for name, array in true.items()}

    return rule._replace(extras=Extras(signals=signals))


NETWORK, BP = make_rule("bp", hidden=(9,))
PARAMS = functools.cache(lambda: BP.init(jax.random.key(0))[0])


def compute(measure, rule, batch, params=None, feedback=()):
    return measure.compute(rule, NETWORK, LOSS, PARAMS() if params is None else params, feedback, batch)


def true_signals(batch, params):
    """dL/dh of the hidden layer of `NETWORK` in numpy: (softmax - y) W^T / N."""
    kernels = {name: np.asarray(kernel, float) for name, kernel in NETWORK.kernels(params).items()}
    biases = [np.asarray(params[name]["bias"], float) for name in ("readout",)]
    first = params["stages_0"]["linear"]
    h = np.tanh(np.asarray(batch.inputs, float) @ np.asarray(first["kernel"], float) + np.asarray(first["bias"], float))
    logits = h @ kernels["readout"] + biases[0]
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    error = softmax / softmax.sum(1, keepdims=True) - np.asarray(batch.targets, float)
    return error @ kernels["readout"].T / len(h), h


def reference_norm(rule, network, params, batch):
    """That of the first layer, compiled without the other measures."""
    return jax.jit(lambda *state: alignment(rule, network, LOSS, *state)["reference_norm_0"])(params, (), batch)


def test_reference_norm_is_that_of_an_example_whatever_the_size_of_the_batch():
    batch, params = random_batch(), PARAMS()
    twice = Batch(*(jnp.concatenate([part, part]) for part in batch[:2]), batch.key)
    signals, _ = true_signals(batch, params)
    norms = np.linalg.norm(signals, axis=1)
    for of in (batch, twice):
        np.testing.assert_allclose(reference_norm(BP, NETWORK, params, of), 7 * np.median(norms), rtol=1e-5)
    # What is published is the norm under a mean loss, which falls with the batch.
    published = [np.median(np.linalg.norm(true_signals(of, params)[0], axis=1)) for of in (batch, twice)]
    np.testing.assert_allclose(published[0], 2 * published[1], rtol=1e-12)


def test_dead_signals_are_counted_and_not_taken_for_aligned():
    batch = random_batch()
    dead = jnp.arange(7)[:, None] < 5  # the rest is turned around
    metrics = compute(ALIGNMENT, with_signals(BP, lambda _, signal: jnp.where(dead, 0, -signal)), batch)
    assert abs(metrics["dead_signals_0"] - 100 * 5 / 7) < 1e-4
    np.testing.assert_allclose(metrics["signal_angle_0"], 180, atol=1e-3)
    assert compute(ALIGNMENT, BP, batch)["dead_signals_0"] == 0


class BehindNorm(nn.Module):
    """A hidden state behind which a layer norm without an epsilon and a readout follow."""

    @nn.compact
    def __call__(self, x):
        h = Hidden()(nn.Dense(6, name="hidden")(x))
        return nn.Dense(4, name="readout")(nn.LayerNorm(epsilon=0.0, name="norm")(h))


@pytest.mark.parametrize("factor", [8.0, 2.0**20])
def test_behind_a_layer_norm_the_signal_is_inverse_to_the_scale_with_its_direction_kept(factor):
    network, batch = Network(BehindNorm(), (12,)), random_batch()
    params = network.init(jax.random.key(0))
    grown = {**params, "hidden": jax.tree.map(lambda leaf: factor * leaf, params["hidden"])}
    signals, hiddens = [], []

    @jax.jit
    def measured(params):
        gradients = hidden_gradient(network, LOSS, params, batch)
        return list(gradients.values()), list(network.forward(params, batch.inputs)[1].values())

    for of in (params, grown):
        (signal,), (h,) = measured(of)
        signals.append(np.asarray(signal, float))
        hiddens.append(np.asarray(h, float))
    np.testing.assert_allclose(factor * signals[1], signals[0], rtol=1e-4, atol=1e-7)
    cosines = (signals[0] * hiddens[0]).sum(1) / np.linalg.norm(signals[0], axis=1) / np.linalg.norm(hiddens[0], axis=1)
    np.testing.assert_allclose(cosines, 0, atol=1e-5)
    rule = Rule(network.init, lambda *_: params, network.apply)
    norms = [reference_norm(rule, network, of, batch) for of in (params, grown)]
    np.testing.assert_allclose(norms[0], factor * norms[1], rtol=1e-4)
    assert (norms[1] < FLOOR) == (factor > 100)


LINEAR = mlp((4,), 2, hidden=[3], dropout=0.0, **{**MLP, "activation": "linear", "biases": False})
SQUARED = squared_error(output="linear", derivative="exact").value


@jax.jit
def true_linear(params, batch):
    return hidden_gradient(LINEAR, SQUARED, params, batch)[NAME]


@jax.jit
def measured_linear(params, batch, signal):
    signals = {NAME: signal}
    rule = Rule(LINEAR.init, lambda p, f, b: gradient(LINEAR, SQUARED, p, b, signals=signals), LINEAR.apply)
    rule = rule._replace(extras=Extras(signals=lambda p, f, b: signals))
    metrics = alignment(rule, LINEAR, SQUARED, params, (), batch)
    return metrics["update_angle_0"], metrics["signal_angle_0"]


def measured_update(inputs, signal):
    """Returns the angle of the update by some signals, `[examples, 3]`, of a linear layer, theirs, and backprop's.

    Args:
      inputs: `[examples, 4]`.
      signal: maps backprop's signals to those of the rule.
    """
    targets = np.random.default_rng(3).normal(size=(len(inputs), 2))
    batch = Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32), jax.random.key(0))
    params = LINEAR.init(jax.random.key(2))
    true = np.asarray(true_linear(params, batch), float)
    return *map(float, measured_linear(params, batch, jnp.asarray(signal(true), jnp.float32))), true


def degrees(cosine):
    return np.degrees(np.arccos(cosine))


def test_an_update_angle_weighs_pairs_of_examples_by_the_products_of_their_inputs():
    random = np.random.default_rng(0)
    inputs, noise = random.normal(size=(4, 4)), random.normal(size=(4, 3))
    angle, _, g = measured_update(inputs, lambda g: noise)
    k = inputs @ inputs.T
    a = noise

    def weighed(x, y):
        return sum(k[i, j] * x[i] @ y[j] for i in range(4) for j in range(4))

    np.testing.assert_allclose(angle, degrees(weighed(a, g) / np.sqrt(weighed(a, a) * weighed(g, g))), rtol=1e-4)


def test_with_orthonormal_inputs_it_is_the_angle_of_all_signals_and_with_equal_ones_that_of_their_means():
    noise = np.random.default_rng(1).normal(size=(4, 3))

    def cosine(x, y):
        return (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)

    angle, _, g = measured_update(np.eye(4), lambda g: noise)
    np.testing.assert_allclose(angle, degrees(cosine(noise, g)), rtol=1e-4)
    angle, _, g = measured_update(np.ones((4, 4)), lambda g: noise)
    np.testing.assert_allclose(angle, degrees(cosine(noise.mean(0), g.mean(0))), rtol=1e-4)


def test_signals_right_for_each_example_may_update_wrongly_and_the_other_way_round():
    inputs = np.ones((4, 4))
    weights = np.array([30.0, 1.0, 1.0, 1.0])[:, None]
    update, signal, _ = measured_update(inputs, lambda g: weights * g)
    assert signal < 1e-2
    assert update > 20
    random = np.random.default_rng(2)
    inputs = np.ones((400, 4))

    def noisy(g):
        mean = g.mean(0)
        return mean + 4 * np.linalg.norm(mean) * random.normal(size=g.shape)

    update, signal, _ = measured_update(inputs, noisy)
    assert signal > degrees(0.3)
    assert update < degrees(0.95)


@pytest.mark.parametrize("t", [30, 60, 90, 120])
def test_signs_of_normal_signals_at_an_angle_of_t_agree_in_1_minus_t_over_180(t):
    first, second = np.random.default_rng(0).normal(size=(2, 100_000))
    turned = np.cos(np.radians(t)) * first + np.sin(np.radians(t)) * second
    np.testing.assert_allclose(agreement(jnp.asarray(first), jnp.asarray(turned)), 1 - t / 180, atol=0.005)


def test_sign_agreement_is_of_entries_that_are_not_zero_and_of_examples_that_have_some():
    assert agreement(jnp.array([1.0, -2, 0, 3]), jnp.array([5.0, 1, 1, 0])) == 0.5
    assert np.isnan(agreement(jnp.zeros(3), jnp.ones(3)))
    batch, dead = random_batch(), jnp.arange(7)[:, None] < 6
    half = jnp.arange(9) < 3  # a third of the entries turned around, in the one example that is not dead
    rule = with_signals(BP, lambda _, signal: jnp.where(dead, 0, jnp.where(half, -7 * signal, signal)))
    np.testing.assert_allclose(compute(sign_agreement(), rule, batch)["sign_agreement_0"], 2 / 3, rtol=1e-6)


def test_rho_of_the_gradient_is_1_of_its_negative_minus_1_and_of_noise_0():
    batch, measure = random_batch(), rho(directions=16)
    np.testing.assert_allclose(compute(measure, BP, batch)["rho_0"], 1, atol=1e-4)
    opposite = with_signals(BP, lambda _, signal: -3 * signal)
    np.testing.assert_allclose(compute(measure, opposite, batch)["rho_0"], -1, atol=1e-4)
    noise = with_signals(BP, lambda _, signal: jax.random.normal(jax.random.key(7), signal.shape))
    # A random signal has rho of 0 with the variance 1/d + 1/K for one example.
    assert abs(compute(measure, noise, batch)["rho_0"]) < 4 * np.sqrt((1 / 9 + 1 / 16) / 7)


def test_correlation_is_pearson_s_and_missing_where_one_of_both_does_not_vary():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 20)).astype(np.float32)
    expected = [np.corrcoef(*pair)[0, 1] for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(correlation(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-4)
    varying, constant = jnp.asarray([1.0, 2, 4]), jnp.full(3, 2.0)
    for pair in ((varying, constant), (constant, varying), (constant, constant)):
        assert np.isnan(correlation(*pair))


@pytest.mark.slow
def test_rho_of_each_layer_approaches_the_cosine_of_its_signal_angle():
    network, rule = make_rule("dfa", hidden=(9, 8))
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(size=1)
    arguments = rule, network, LOSS, params, feedback, batch
    angles, rhos = alignment(*arguments), rho(directions=4000).compute(*arguments)
    for i in range(2):
        assert abs(rhos[f"rho_{i}"] - np.cos(np.radians(angles[f"signal_angle_{i}"]))) < 4 / np.sqrt(4000)


def test_rho_needs_directions_to_correlate_and_examples_that_do_not_change_each_other():
    with pytest.raises(BadOption, match="directions must be an integer of at least 3; got 2"):
        rho(directions=2)
    normed = mlp((12,), 4, hidden=[9], dropout=0.0, **{**MLP, "norm": "batch"})
    with pytest.raises(BadOption, match=r"measure\.rho is not defined with batch normalisation"):
        rho(directions=3).check(normed)
    rho(directions=3).check(NETWORK)


def test_null_angle_is_the_signal_angle_with_feedback_drawn_anew():
    network, rule = make_rule("fa", hidden=(9,))
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch()
    aligned = jax.tree.map(lambda kernel: network.kernels(params)["readout"], feedback)
    assert alignment(rule, network, LOSS, params, aligned, batch)["signal_angle_0"] < 1e-2
    measured = []
    for i in range(2):
        other = batch._replace(key=jax.random.key(i))
        fresh = rule.init(jax.random.fold_in(other.key, 1))[1]
        expected = alignment(rule, network, LOSS, params, fresh, batch)["signal_angle_0"]
        measured.append(null_angle().compute(rule, network, LOSS, params, aligned, other)["null_angle_0"])
        np.testing.assert_allclose(measured[-1], expected, rtol=1e-5)
    assert abs(measured[0] - measured[1]) > 1


def test_rules_without_feedback_or_signals_have_no_null_angle():
    assert compute(null_angle(), BP, random_batch()) == {}
    for name in ("usf", "brsf", "forward_forward"):  # their feedback is not drawn, or not used by their signals
        network, rule = make_rule(name)
        params, feedback = rule.init(jax.random.key(0))
        network = rule.extras.network or network
        assert null_angle().compute(rule, network, LOSS, params, feedback, random_batch()) == {}, name
    silent = BP._replace(extras=Extras())
    for measure in (null_angle(), sign_agreement(), rho(directions=3)):
        assert compute(measure, silent, random_batch(), feedback={"b": jnp.ones(2)}) == {}


(SIGNAL_ANGLE,) = (metric for metric in ALIGNMENT.metrics if metric.name == "signal_angle")


@pytest.mark.parametrize(
    ("metric", "compare"),
    [
        (SIGNAL_ANGLE, lambda a, b: degrees((a * b).sum(-1))),
        (sign_agreement().metrics[0], lambda a, b: (a * b > 0).mean(-1)),
    ],
    ids=["angle", "sign agreement"],
)
def test_random_signals_compare_as_the_declaration_says_up_to_its_deviation(metric, compare):
    value, of_unit = metric.random
    draws = np.random.default_rng(0).normal(size=(2, 4000, 50))
    compared = compare(*(draws / np.linalg.norm(draws, axis=-1, keepdims=True)))
    assert abs(compared.mean() - value) < 4 * of_unit / np.sqrt(50 * 4000)
    np.testing.assert_allclose(compared.std(), of_unit / np.sqrt(50), rtol=0.05)


class Stream(nn.Module):
    """A residual stream with `Hidden` before the first block and after each."""

    @nn.compact
    def __call__(self, x):
        h = Hidden(name="embedded")(nn.Dense(5, name="embed")(x))
        for i in range(3):
            h = Hidden(name=f"after_{i}")(h + nn.Dense(5, name=f"block_{i}")(jnp.tanh(h)))
        return nn.Dense(4, name="readout")(h)


def test_scales_are_median_norms_of_the_stream_in_the_order_of_the_pass_and_growth_their_largest_ratio():
    network, batch = Network(Stream(), (12,)), random_batch()
    params = network.init(jax.random.key(0))
    params["block_1"]["kernel"] *= 300
    measured = SCALE.compute(BP, network, LOSS, params, (), batch)
    h, scales = np.asarray(batch.inputs, float) @ params["embed"]["kernel"] + params["embed"]["bias"], []
    for i in range(4):
        scales.append(np.median(np.linalg.norm(h, axis=1)))
        if i < 3:
            block = {name: np.asarray(leaf, float) for name, leaf in params[f"block_{i}"].items()}
            h = h + np.tanh(h) @ block["kernel"] + block["bias"]
    assert list(measured) == [*(f"scale_{i}" for i in range(4)), "growth"]
    np.testing.assert_allclose([measured[f"scale_{i}"] for i in range(4)], scales, rtol=1e-5)
    np.testing.assert_allclose(measured["growth"], scales[2] / scales[1], rtol=1e-5)
    assert measured["growth"] > 50


def test_growth_is_not_of_a_layer_after_a_silent_one():
    np.testing.assert_allclose(growth(jnp.array([2.0, 6.0, 3.0, 0.0, 9.0, 18.0])), 3)
    assert np.isnan(growth(jnp.zeros(3)))


def test_the_page_of_measures_describes_every_one():
    page = Path(fa_jax.__file__).parent.joinpath("metrics", "README.md").read_text()
    measured = {metric.name for metric in (*ALIGNMENT.metrics, *SCALE.metrics)} | choices("measure").keys()
    assert sorted(name for name in measured if not re.search(rf"`{name}(_i|_angle)?`", page)) == []
    assert f"**{FLOOR:.1e}**".replace("e-05", "e-5") in page
    assert f"**{LARGEST_GROWTH:g}**" in page


def test_one_hidden_layer_has_a_scale_and_no_growth_and_unmarked_layers_have_neither():
    assert list(compute(SCALE, BP, random_batch())) == ["scale_0"]
    unmarked = Network(nn.Dense(4), (12,))
    assert SCALE.compute(BP, unmarked, LOSS, unmarked.init(jax.random.key(0)), (), random_batch()) == {}


BOUNDS = {"degrees": (0, 180), "%": (0, 100), "rho": (-1, 1), "sign_agreement": (0, 1)}
HIGHER = ("rho", "sign_agreement", "separation")


def test_metrics_declare_their_bounds_what_is_better_and_what_is_plotted():
    measures = (ALIGNMENT, SCALE, separation(), pseudobackprop(), rho(directions=3), sign_agreement(), null_angle())
    metrics = [ERROR, *(metric for measure in measures for metric in measure.metrics)]
    assert len({metric.name for metric in metrics}) == len(metrics) == 19
    for metric in metrics:
        assert metric.bounds == BOUNDS.get(metric.name, BOUNDS.get(metric.unit, (None, None))), metric.name
        is_norm = metric.name.endswith("norm") or metric.name in ("dead_signals", "scale", "growth")
        better = "higher" if metric.name in HIGHER else "neither" if is_norm else "lower"
        assert metric.better == better, metric.name
        assert metric.plotted == (not is_norm or metric.name == "growth"), metric.name
        assert metric.logarithmic == (metric.name in ("reference_norm", "scale", "growth")), metric.name
        judged_by_reference = metric.name in ("signal_angle", "null_angle", "rho", "sign_agreement")
        assert (metric.flag is not None) == (judged_by_reference or metric.name == "growth"), metric.name
