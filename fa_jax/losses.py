"""Losses, each with the output units it is meant for: means over the batch, sums over the outputs."""

import jax
import jax.numpy as jnp
import optax

from fa_jax.checks import choose
from fa_jax.core import Loss

OUTPUTS = {"linear": lambda logits: logits, "logistic": jax.nn.sigmoid, "softmax": jax.nn.softmax}


def squared_error(*, output: str, derivative: str) -> Loss:
    """Returns half the squared error, `1/2 sum_k (y_k - y*_k)^2`, mean over the batch.

    Args:
      output: what makes outputs `y` of logits: `linear`, `logistic` or `softmax`.
      derivative: `exact`: the error at the logits is the gradient, `d = (y - y*) y (1 - y)` for logistic outputs;
        `omitted`: the derivative of the outputs is left out, `d = y - y*`. Lillicrap et al. (arXiv 1411.0247, 2014)
        print the second for their logistic network, which is also the exact gradient of the cross-entropy.

    Raises:
      BadOption: if either is none of these.
    """
    activate = choose("loss.output", output, OUTPUTS)
    seen = choose("loss.derivative", derivative, {"exact": activate, "omitted": _straight_through(activate)})

    def value(logits, targets):
        return 0.5 * jnp.mean(jnp.sum(jnp.square(seen(logits) - targets), -1))

    return Loss(value, activate)


def binary_cross_entropy() -> Loss:
    """Returns `-sum_k y*_k log y_k + (1 - y*_k) log(1 - y_k)` of logistic outputs, in nats, mean over the batch."""
    return Loss(
        lambda z, targets: jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(z, targets), -1)),
        jax.nn.sigmoid,
        probabilities=True,
    )


def cross_entropy() -> Loss:
    """Returns `-sum_k y*_k log y_k` of softmax outputs, in nats, mean over the batch."""
    return Loss(
        lambda z, targets: jnp.mean(optax.softmax_cross_entropy(z, targets)), jax.nn.softmax, probabilities=True
    )


def _straight_through(activate):
    """`activate` with the derivative of the identity."""
    return lambda z: z + jax.lax.stop_gradient(activate(z) - z)
