"""Error and normalised squared error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.metrics.scores import ERROR, error, nse, nse_metric, power


@pytest.fixture
def outputs():
    return jax.random.normal(jax.random.key(0), (40, 10))


def test_error_is_the_percentage_of_wrong_largest_outputs(outputs):
    classes = np.random.default_rng(0).integers(0, 10, 40)
    expected = 100 * np.mean(np.argmax(np.asarray(outputs), axis=1) != classes)
    assert expected > 0
    np.testing.assert_allclose(error(outputs, jnp.eye(10)[classes]), expected, rtol=1e-6)


def test_error_runs_from_0_to_100(outputs):
    predicted = jnp.eye(10)[jnp.argmax(outputs, axis=1)]
    assert error(outputs, predicted) == 0
    assert error(outputs, jnp.roll(predicted, 1, axis=1)) == 100


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
def test_score_is_a_scalar_also_under_jit_and_vmap(score, outputs):
    targets = jnp.eye(10)[jnp.arange(40) % 10]
    assert score(outputs, targets).shape == ()
    np.testing.assert_allclose(jax.jit(score)(outputs, targets), score(outputs, targets), rtol=1e-6)
    seeds = jnp.stack([outputs, 2 * outputs, outputs**2])
    scores = [score(o, targets) for o in seeds]
    np.testing.assert_allclose(jax.vmap(score, in_axes=(0, None))(seeds, targets), scores, rtol=1e-6)


def test_nse_of_batches_is_averaged_geometrically_relative_to_all_training_targets(outputs):
    targets = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32)
    metric = nse_metric(power(jnp.asarray(targets)))
    batches = [slice(0, 4), slice(4, 8), slice(8, 12)]
    scores = [metric.batch_score(outputs[rows], targets[rows]) for rows in batches]
    errors = [np.mean((np.asarray(outputs[rows], np.float64) - targets[rows]) ** 2) for rows in batches]
    expected = np.exp(np.mean(np.log(errors))) / np.mean(targets.astype(np.float64) ** 2)
    np.testing.assert_allclose(metric.from_batches(np.mean(scores)), expected, rtol=1e-5)
    np.testing.assert_array_equal(metric.score(outputs, targets), nse(outputs, targets))
    assert (metric.name, metric.logarithmic) == ("nse", True)


def test_error_of_batches_is_their_mean(outputs):
    targets = jnp.eye(10)[jnp.arange(40) % 10]
    scores = [ERROR.score(outputs[rows], targets[rows]) for rows in (slice(0, 20), slice(20, 40))]
    assert ERROR.batch_score is None
    np.testing.assert_allclose(ERROR.from_batches(np.mean(scores)), error(outputs, targets), rtol=1e-6)
