"""Feedback is drawn as the options state, from a stream of its own."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from fa_jax import feedback
from fa_jax.checks import BadOption
from fa_jax.core import Batch, Stream, stream
from fa_jax.initializers import DISTRIBUTIONS
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.mlp import mlp
from fa_jax.primitives import Hidden
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.projection import forward_paths
from tests.conftest import MLP, assert_trees_close, assert_trees_equal, direct, layerwise, magnitudes

LOSS = cross_entropy().value
DENSE = {"distribution": "uniform", "scale": 0.5, "density": 1.0}


@functools.cache
def make_network(hidden=(300, 200), **options):
    return mlp((50,), 10, hidden=list(hidden), dropout=0.0, **{**MLP, **options})


@functools.cache
def initial_params(network):
    return network.init(jax.random.key(1))


def draw(init_feedback, network=None):
    network = network or make_network()
    return init_feedback(network, jax.random.key(0), initial_params(network))


def draw_layerwise(**options):
    return draw(layerwise(**{**DENSE, **options}))


def draw_direct(network=None, **options):
    return draw(direct(**{**DENSE, **options}), network)


def test_uniform_feedback_fills_its_interval():
    b = np.asarray(draw_layerwise()["stages_1/linear"])
    assert b.shape == (300, 200)
    assert b.min() < -0.499
    assert b.max() > 0.499
    assert abs(b).max() <= 0.5
    assert abs(b.mean()) < 0.01


def test_normal_feedback_has_its_standard_deviation():
    assert abs(np.std(draw_layerwise(distribution="normal", scale=0.3)["stages_1/linear"]) - 0.3) < 0.005


@pytest.mark.parametrize(
    ("fan", "name", "terms"),
    [
        ("fan_out", "stages_1/linear", 200),
        ("fan_out", "readout", 10),
        ("fan_in", "stages_1/linear", 300),
        ("fan_in", "readout", 200),
    ],
)
def test_bound_of_layerwise_feedback_has_the_fan_of_the_forward_weights(fan, name, terms):
    bound = abs(np.asarray(draw_layerwise(distribution="fan_uniform", scale=1.0, fan=fan)[name])).max()
    assert 0.99 * terms**-0.5 < bound <= terms**-0.5


def test_fan_of_direct_feedback_is_the_number_of_outputs():
    for b in draw_direct(distribution="fan_uniform", scale=1.0).values():
        assert 0.99 * 10**-0.5 < abs(np.asarray(b)).max() <= 10**-0.5


def test_sparse_feedback_has_its_density_and_its_range():
    b = np.asarray(draw_layerwise(density=0.25)["stages_1/linear"])
    assert abs(np.mean(b != 0) - 0.25) < 0.01
    assert abs(b).max() > 0.49


def test_list_gives_each_layer_its_scale():
    drawn = draw_layerwise(scale=[0.1, 0.7])
    assert abs(np.asarray(drawn["stages_1/linear"])).max() <= 0.1
    assert abs(np.asarray(drawn["readout"])).max() > 0.6


def test_copied_feedback_is_the_forward_weights_times_the_scale():
    network = make_network()
    weights = network.kernels(initial_params(network))
    for name, b in draw(layerwise(distribution="weights", scale=0.5, density=1.0), network).items():
        np.testing.assert_array_equal(b, 0.5 * weights[name])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_deviation_is_that_of_the_distribution(distribution):
    init_feedback = functools.partial(feedback.deviations, distribution=distribution, scale=0.7)
    drawn = draw(magnitudes(distribution=distribution, scale=0.7, density=1.0))
    for name, deviation in draw(init_feedback).items():
        assert deviation.shape == ()
        np.testing.assert_allclose(deviation, np.std(drawn[name]), rtol=0.05)


def test_direct_feedback_has_a_matrix_for_each_hidden_layer():
    shapes = {"stages_0/hidden": (10, 300), "stages_1/hidden": (10, 200)}
    assert {name: b.shape for name, b in draw_direct().items()} == shapes
    zeros = draw(feedback.direct_zeros)
    assert {name: b.shape for name, b in zeros.items()} == shapes
    assert not any(np.any(b) for b in zeros.values())


@pytest.mark.parametrize(("factory", "init_feedback"), [(fa, layerwise()), (dfa, direct())], ids=["fa", "dfa"])
def test_feedback_is_drawn_from_its_stream(factory, init_feedback):
    network, key = make_network(), jax.random.key(3)
    params, drawn = factory(network, LOSS, init_feedback=init_feedback).init(key)
    assert_trees_equal(drawn, init_feedback(network, stream(key, Stream.FEEDBACK), params))


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_low_rank_feedback_has_its_rank_and_the_variance_of_full_rank(distribution):
    full = np.asarray(draw_layerwise(distribution=distribution)["stages_1/linear"])
    low = np.asarray(draw_layerwise(distribution=distribution, rank=5)["stages_1/linear"])
    assert np.linalg.matrix_rank(low) == 5
    np.testing.assert_allclose(low.std(), full.std(), rtol=0.15)
    matrices = draw_direct(distribution=distribution, rank=3).values()
    assert {np.linalg.matrix_rank(b) for b in matrices} == {3}


def test_shared_feedback_is_one_matrix_of_which_each_layer_takes_its_width():
    network = make_network((300, 200, 300))
    first, second, third = draw_direct(network, distribution="normal", scale=[1.0, 2.0, 1.0], shared=True).values()
    np.testing.assert_array_equal(first, third)
    np.testing.assert_allclose(second, 2 * first[:, :200], rtol=1e-6)


def test_scanned_layers_share_feedback_too():
    drawn = draw_direct(make_network((8,) * 12), distribution="normal", scale=1.0, shared=True)
    first, stack = drawn.values()
    assert stack.shape == (11, 10, 8)
    np.testing.assert_array_equal(stack, np.broadcast_to(first, stack.shape))


def test_forward_paths_are_the_jacobians_of_the_linear_network():
    network = make_network((7,) * 12, activation="linear")
    params = network.init(jax.random.key(0))
    paths = forward_paths(network, params)
    weights = network.kernels(params)
    product = np.asarray(weights["readout"]).T
    for layer in reversed(np.asarray(weights["stages_1/linear"])[1:]):
        product = product @ layer.T
    np.testing.assert_allclose(paths["stages_1/hidden"][0], product, rtol=1e-4, atol=1e-7)
    assert paths["stages_0/hidden"].shape == (10, 7)


class Residual(nn.Module):
    skips: bool

    @nn.compact
    def __call__(self, x):
        h = Hidden()(nn.tanh(nn.Dense(6)(x)))
        h = Hidden()(nn.tanh(nn.LayerNorm()(nn.Dense(6)(h))) + (h if self.skips else 0))
        return nn.Dense(3)(h)


@pytest.mark.parametrize("skips", [False, True])
def test_there_is_no_forward_path_of_kernels_alone_where_something_goes_past_one(skips):
    network = Network(Residual(skips), (5,))
    assert network.is_layered is not skips
    assert (forward_paths(network, network.init(jax.random.key(0))) is None) == skips


@pytest.mark.parametrize("hidden", [(7, 7, 7), (7, 6, 5), (7,) * 12])
def test_forward_paths_are_the_jacobians_of_equally_wide_layers_too(hidden):
    network = make_network(hidden, activation="linear")
    params = network.init(jax.random.key(0))
    paths = forward_paths(network, params)
    inputs = jax.random.normal(jax.random.key(1), (1, *network.input_shape))
    for name, zero in network.hidden_zeros(inputs).items():
        jacobian = jax.jacobian(lambda h, name=name: network.apply(params, inputs, perturbations={name: h})[0])(zero)
        # [outputs, *stack, batch of 1, width] to [*stack, outputs, width]
        expected = np.moveaxis(np.asarray(jacobian)[..., 0, :], 0, -2)
        np.testing.assert_allclose(paths[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "unifrm"}, "^distribution must be one of .* did you mean 'uniform'"),
        ({"scale": float("nan")}, "^scale must be a finite number above 0; got nan"),
        ({"scale": 0}, "^scale must be a finite number above 0; got 0"),
        ({"scale": [1.0, 2.0, 3.0]}, "^scale must be one value or a list of 2, one per layer; got 3"),
        ({"rank": 11}, "^rank must be at most 10, the full rank of the feedback of readout; got 11"),
        ({"rank": 0}, "^rank must be an integer of at least 1; got 0"),
        ({"rank": 2, "distribution": "weights"}, "^rank must be null with distribution=weights: only drawn feedback"),
        ({"density": 1.5}, "^density must be a finite number above 0 and at most 1; got 1.5"),
        ({"distribution": "fan_normal", "fan": "in"}, "^fan must be one of fan_in, fan_out; got 'in'"),
        ({"fan": "fan_in"}, "^fan must be null with distribution=uniform, which has no fan; got 'fan_in'"),
        ({"distribution": "weights", "fan": "fan_in"}, "^fan must be null with distribution=weights, which has no fan"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        draw_layerwise(**options)


def test_magnitudes_have_by_default_the_fan_of_the_forward_weights():
    for fan, names in ((None, {"stages_1/linear": 300, "readout": 200}), ("fan_out", {"readout": 10})):
        drawn = draw(magnitudes(distribution="fan_uniform", scale=1.0, density=1.0, fan=fan))
        for name, terms in names.items():
            assert 0.99 * terms**-0.5 < abs(np.asarray(drawn[name])).max() <= terms**-0.5
    with pytest.raises(BadOption, match=r"^fan must be null with distribution=normal, which has no fan"):
        draw(magnitudes(fan="fan_out"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "weights"}, "^distribution must be one of uniform, normal, fan_uniform, fan_normal"),
        ({"network": make_network(hidden=(7,)), "shared": True}, "^shared must be false: there is one hidden layer"),
        ({"shared": "yes"}, "^shared must be true or false; got 'yes'"),
        ({"shared_positions": 1}, "^shared_positions must be true or false; got 1"),
        ({"shared_positions": True}, "^shared_positions must be false: no hidden layer has positions"),
        ({"rank": 11}, "^rank must be at most 10, the full rank of the feedback of stages_0/hidden; got 11"),
    ],
)
def test_bad_options_of_direct_feedback_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        draw_direct(**options)


class MeanOverPositions(nn.Module):
    """A hidden layer at each of five positions, whose mean is read out."""

    @nn.compact
    def __call__(self, x):
        hidden = Hidden(name="hidden")(nn.tanh(nn.Dense(4, name="layer")(x)))
        return nn.Dense(3, name="readout")(hidden.mean(1))


def test_feedback_shared_by_positions_is_that_of_fa_behind_their_mean():
    network = Network(MeanOverPositions(), (5, 6))
    random = np.random.default_rng(0)
    batch = Batch(random.normal(size=(7, 5, 6)), np.eye(3)[random.integers(0, 3, 7)], jax.random.key(0))
    params, by_layer = fa(network, LOSS, init_feedback=layerwise(density=1.0)).init(jax.random.key(1))
    rule = dfa(network, LOSS, init_feedback=direct(density=1.0, shared_positions=True))
    _, feedback = rule.init(jax.random.key(1))
    assert feedback["hidden"].shape == (3, 5, 4)
    np.testing.assert_allclose(feedback["hidden"][:, 2], by_layer["readout"].T / 5, rtol=1e-6)
    expected = fa(network, LOSS, init_feedback=layerwise()).updates(params, by_layer, batch)
    assert_trees_close(rule.updates(params, feedback, batch), expected, rtol=1e-4, atol=1e-7)
