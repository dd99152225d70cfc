"""Error and normalised squared error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.metrics.scores import error, nse


@pytest.fixture
def outputs():
    return jax.random.normal(jax.random.key(0), (40, 10))


def test_error_is_the_share_of_wrong_largest_outputs_in_percent(outputs):
    classes = np.random.default_rng(0).integers(0, 10, 40)
    expected = 100 * np.mean(np.argmax(np.asarray(outputs), axis=1) != classes)
    assert expected > 0
    np.testing.assert_allclose(error(outputs, jnp.eye(10)[classes]), expected, rtol=1e-6)


def test_error_runs_from_0_to_100(outputs):
    right = jnp.eye(10)[jnp.argmax(outputs, axis=1)]
    assert error(outputs, right) == 0
    assert error(outputs, jnp.roll(right, 1, axis=1)) == 100


def test_error_is_the_same_for_logits_and_probabilities(outputs):
    targets = jnp.eye(10)[jnp.arange(40) % 10]
    assert error(outputs, targets) == error(jax.nn.softmax(outputs), targets)


def test_error_of_a_diverged_network_is_nan(outputs):
    assert jnp.isnan(error(outputs.at[3, 2].set(jnp.nan), jnp.eye(10)[jnp.arange(40) % 10]))


def test_nse_is_the_squared_error_over_the_squared_target(outputs):
    y, target = np.asarray(outputs, np.float64), np.random.default_rng(0).normal(size=(40, 10))
    expected = np.mean(np.sum((target - y) ** 2, axis=1)) / np.mean(np.sum(target**2, axis=1))
    np.testing.assert_allclose(nse(outputs, jnp.asarray(target)), expected, rtol=1e-5)


def test_nse_of_the_zero_output_is_1_and_of_the_target_0(outputs):
    assert nse(jnp.zeros_like(outputs), outputs) == 1
    assert nse(outputs, outputs) == 0


@pytest.mark.parametrize("score", [error, nse])
def test_a_score_is_a_scalar_also_under_jit_and_vmap(score, outputs):
    targets = jnp.eye(10)[jnp.arange(40) % 10]
    assert score(outputs, targets).shape == ()
    np.testing.assert_allclose(jax.jit(score)(outputs, targets), score(outputs, targets), rtol=1e-6)
    seeds = jnp.stack([outputs, 2 * outputs, outputs**2])
    each = [score(o, targets) for o in seeds]
    np.testing.assert_allclose(jax.vmap(score, in_axes=(0, None))(seeds, targets), each, rtol=1e-6)
