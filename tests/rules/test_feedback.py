"""Feedback is drawn as the options say, from a stream of its own."""

import jax
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.feedback import backward_kernels, direct_matrices, forward_paths
from fa_jax.networks.mlp import mlp
from tests.rules.test_contract import MLP


def network_of(hidden=(300, 200)):
    return mlp((50,), 10, hidden=list(hidden), dropout=0.0, **MLP)


def draw(**options):
    network = network_of()
    options = {"distribution": "uniform", "scale": 0.5, "kept": 1.0, **options}
    return backward_kernels(network, **options)(jax.random.key(0), network.init(jax.random.key(1)))


def test_uniform_feedback_fills_its_interval():
    b = np.asarray(draw()["stages_1/linear"])
    assert b.shape == (300, 200)
    assert b.min() < -0.499
    assert b.max() > 0.499
    assert abs(b).max() <= 0.5
    assert abs(b.mean()) < 0.01


def test_normal_feedback_has_its_standard_deviation():
    assert abs(np.std(draw(distribution="normal", scale=0.3)["stages_1/linear"]) - 0.3) < 0.005


@pytest.mark.parametrize(("name", "fan"), [("stages_1/linear", 200), ("readout", 10)])
def test_the_fan_of_feedback_is_what_sums_into_the_signal_below(name, fan):
    bound = abs(np.asarray(draw(distribution="fan_uniform", scale=1.0)[name])).max()
    assert 0.99 * fan**-0.5 < bound <= fan**-0.5


def test_sparse_feedback_keeps_its_fraction_and_the_range_of_the_rest():
    b = np.asarray(draw(kept=0.25)["stages_1/linear"])
    assert abs(np.mean(b != 0) - 0.25) < 0.01
    assert abs(b).max() > 0.49


def test_a_list_gives_each_layer_its_own_scale():
    feedback = draw(scale=[0.1, 0.7])
    assert abs(np.asarray(feedback["stages_1/linear"])).max() <= 0.1
    assert abs(np.asarray(feedback["readout"])).max() > 0.6


def test_direct_feedback_has_a_matrix_for_each_hidden_layer():
    matrices = direct_matrices(network_of(), distribution="uniform", scale=0.5, kept=1.0)(jax.random.key(0))
    assert {name: b.shape for name, b in matrices.items()} == {
        "stages_0/hidden": (10, 300),
        "stages_1/hidden": (10, 200),
    }


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_feedback_of_a_rank_has_it_and_the_variance_of_full_rank(distribution):
    full = np.asarray(draw(distribution=distribution)["stages_1/linear"])
    low = np.asarray(draw(distribution=distribution, rank=5)["stages_1/linear"])
    assert np.linalg.matrix_rank(low) == 5
    np.testing.assert_allclose(low.std(), full.std(), rtol=0.15)
    matrices = direct_matrices(network_of(), distribution=distribution, scale=0.5, kept=1.0, rank=3)
    assert {np.linalg.matrix_rank(b) for b in matrices(jax.random.key(0)).values()} == {3}


def test_shared_feedback_is_one_matrix_of_which_each_layer_takes_its_width():
    network = network_of((300, 200, 300))
    feedback = direct_matrices(network, distribution="normal", scale=[1.0, 2.0, 1.0], kept=1.0, shared=True)
    wide, narrow, again = feedback(jax.random.key(0)).values()
    np.testing.assert_array_equal(wide, again)
    np.testing.assert_allclose(narrow, 2 * wide[:, :200], rtol=1e-6)


def test_a_scanned_stack_shares_too():
    network = network_of([8] * 12)
    feedback = direct_matrices(network, distribution="normal", scale=1.0, kept=1.0, shared=True)(jax.random.key(0))
    first, stack = feedback.values()
    assert stack.shape == (11, 10, 8)
    np.testing.assert_array_equal(stack, np.broadcast_to(first, stack.shape))


def test_forward_paths_multiply_up_to_the_jacobian_of_the_linear_network():
    network = mlp((50,), 10, hidden=[7] * 12, dropout=0.0, **{**MLP, "activation": "linear"})
    params = network.init(jax.random.key(0))
    paths = forward_paths(network, params)
    weights = network.weights(params)
    product = np.asarray(weights["readout"]).T
    for layer in reversed(np.asarray(weights["stages_1/linear"])[1:]):
        product = product @ layer.T
    np.testing.assert_allclose(paths["stages_1/hidden"][0], product, rtol=1e-4, atol=1e-7)
    assert paths["stages_0/hidden"].shape == (10, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "unifrm"}, "rule.distribution must be one of .* did you mean 'uniform'"),
        ({"scale": float("nan")}, "rule.scale must be a finite number above 0; got nan"),
        ({"scale": 0}, "rule.scale must be a finite number above 0; got 0"),
        ({"scale": [1.0, 2.0, 3.0]}, r"rule.scale must be one value or a list of 2, one a layer; got 3"),
        ({"rank": 11}, "rule.rank must be at most 10, the most that the feedback of readout can have; got 11"),
        ({"rank": 0}, "rule.rank must be an integer of at least 1; got 0"),
        ({"rank": 2, "distribution": "weights"}, "rule.rank needs feedback that is drawn"),
        ({"kept": 1.5}, "rule.kept must be a finite number above 0 and at most 1; got 1.5"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        draw(**options)
