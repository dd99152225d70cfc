"""How good the outputs of a network are: one number for a whole split."""

import jax
import jax.numpy as jnp


def error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the misclassified examples in percent: the largest output is not where the largest target is.

    Args:
      outputs: `[n, classes]`; any increasing function of the logits gives the same.
      targets: `[n, classes]`, one-hot.

    Returns:
      A scalar from 0 to 100, float32; NaN if any output is NaN, so that a diverged run does not look like a guess.
    """
    wrong = jnp.argmax(outputs, axis=-1) != jnp.argmax(targets, axis=-1)
    return jnp.where(jnp.isnan(outputs).any(), jnp.nan, 100 * jnp.mean(wrong))


def nse(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the normalised squared error, `mean |y* - y|^2 / mean |y*|^2`; 1 is what the output 0 gets.

    Args:
      outputs: y, `[n, outputs]`.
      targets: y*, `[n, outputs]`.

    Returns:
      A scalar of at least 0.
    """
    return jnp.mean(jnp.square(targets - outputs)) / jnp.mean(jnp.square(targets))
