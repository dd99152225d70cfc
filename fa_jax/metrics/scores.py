"""Scores: how good the outputs of a network are, one number for all examples of a split."""

import jax
import jax.numpy as jnp

from fa_jax.core import Metric


def error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the percentage of misclassified examples: the largest output is not at the largest target.

    Args:
      outputs: `[n, classes]`; any increasing function of the logits gives the same result.
      targets: `[n, classes]`, one-hot.

    Returns:
      A scalar from 0 to 100, float32; NaN if any output is NaN, so that a diverged run does not look like chance.
    """
    wrong = jnp.argmax(outputs, axis=-1) != jnp.argmax(targets, axis=-1)
    return jnp.where(jnp.isnan(outputs).any(), jnp.nan, 100 * jnp.mean(wrong))


def nse(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the normalised squared error, `mean |y* - y|^2 / mean |y*|^2`; the output 0 scores 1.

    Args:
      outputs: y, `[n, outputs]`.
      targets: y*, `[n, outputs]`.

    Returns:
      A scalar of at least 0.
    """
    return jnp.mean(jnp.square(targets - outputs)) / jnp.mean(jnp.square(targets))


ERROR = Metric("error", "error", unit="%", bounds=(0, 100), score=error)


def power(targets: jax.Array) -> jax.Array:
    """Returns the mean square of targets."""
    return jnp.mean(jnp.square(targets))


def nse_metric(power_of_targets: jax.Array) -> Metric:
    """Returns the metric `nse`; over training batches it is a geometric mean.

    A batch of one example can change it by an order of magnitude, so batches are averaged in the logarithm, relative to
    the `power` of all training targets.
    """

    def log_error(outputs, targets):
        return jnp.log(power(outputs - targets) / power_of_targets)

    return Metric("nse", "NSE", logarithmic=True, score=nse, batch_score=log_error, from_batches=jnp.exp)
