"""Losses with their output units: means over the batch of sums over the outputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fa_jax.checks import choose
from fa_jax.core import Loss

OUTPUTS = {
    "linear": lambda logits: logits,
    "sigmoid": jax.nn.sigmoid,
    "logistic": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
}


def squared_error(*, output: str, derivative: str) -> Loss:
    """Returns half the squared error, `1/2 sum_k (y_k - y*_k)^2`, mean over the batch.

    Args:
      output: the output units, `linear`, `sigmoid` or `softmax`.
      derivative: `exact`: the error at the logits is the gradient, `d = (y - y*) y (1 - y)` for sigmoid outputs;
        `straight_through`: the derivative of the output units is omitted, `d = y - y*`. Lillicrap et al. (arXiv
        1411.0247, 2014) print the second for their logistic network; it is also the gradient of the cross-entropy.

    Raises:
      BadOption: if an option is unknown.
    """
    activate = choose("output", output, OUTPUTS)
    differentiated = choose(
        "derivative", derivative, {"exact": activate, "straight_through": straight_through(activate)}
    )

    def value(logits, targets):
        return 0.5 * jnp.mean(jnp.sum(jnp.square(differentiated(logits) - targets), -1))

    return Loss(value, activate)


def binary_cross_entropy() -> Loss:
    """Returns `-sum_k y*_k log y_k + (1 - y*_k) log(1 - y_k)` of sigmoid outputs, in nats, mean over the batch."""

    def value(logits, targets):
        return jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), -1))

    return Loss(value, jax.nn.sigmoid, needs_probabilities=True)


def cross_entropy() -> Loss:
    """Returns `-sum_k y*_k log y_k` of softmax outputs, in nats, mean over the batch."""

    def value(logits, targets):
        return jnp.mean(optax.softmax_cross_entropy(logits, targets))

    return Loss(value, jax.nn.softmax, needs_probabilities=True)


def straight_through(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Returns the function with the derivative of the identity."""
    return lambda x: x + jax.lax.stop_gradient(function(x) - x)
