"""Differences `f(x + u) - f(x)` of activation functions, with all digits of a small u.

A target lies close to its activation, so in float32 the difference of their images would lose most of its digits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.networks.layers import ACTIVATIONS

Function = Callable[[jax.Array], jax.Array]
Difference = Callable[[jax.Array, jax.Array], jax.Array]
"""`(x, u) -> f(x + u) - f(x)`."""


def tanh_difference(x: jax.Array, u: jax.Array) -> jax.Array:
    """Uses `tanh a - tanh b = tanh(a - b) (1 - tanh a tanh b)`."""
    return jnp.tanh(u) * (1 - jnp.tanh(x) * jnp.tanh(x + u))


def sigmoid_difference(x: jax.Array, u: jax.Array) -> jax.Array:
    """Uses `sigmoid(x) = (1 + tanh(x / 2)) / 2`."""
    return tanh_difference(x / 2, u / 2) / 2


def relu_difference(x: jax.Array, u: jax.Array) -> jax.Array:
    """Is u itself where both arguments are positive."""
    both = (x > 0) & (x + u > 0)
    return jnp.where(both, u, jax.nn.relu(x + u) - jax.nn.relu(x))


def elu_difference(x: jax.Array, u: jax.Array) -> jax.Array:
    """Is u itself where both arguments are positive, and `e^x (e^u - 1)` where none is."""
    positive, negative = (x > 0) & (x + u > 0), (x <= 0) & (x + u <= 0)
    exponential = jnp.exp(jnp.where(negative, x, 0)) * jnp.expm1(jnp.where(negative, u, 0))
    return jnp.where(positive, u, jnp.where(negative, exponential, jax.nn.elu(x + u) - jax.nn.elu(x)))


DIFFERENCES: dict[str, Difference] = {
    "linear": lambda x, u: u,
    "tanh": tanh_difference,
    "sigmoid": sigmoid_difference,
    "relu": relu_difference,
    "elu": elu_difference,
}
"""The functions by the name of the activation function."""


def difference_of(function: Function) -> Difference:
    """Returns the difference of an activation function.

    Raises:
      BadOption: if there is none.
    """
    for name, difference in DIFFERENCES.items():
        if ACTIVATIONS[name] is function:
            return difference
    raise BadOption(f"needs activation={' or '.join(DIFFERENCES)}, whose differences keep their digits")
