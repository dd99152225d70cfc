"""Distributions of weights, forward and backward alike.

Each has the signature `(key, shape, fan, scale) -> array`. `fan` is the number of terms that one output of the weights
sums: the inputs of a forward kernel, or the components of the error that a backward kernel receives.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fa_jax.checks import is_on

Draw = Callable[[jax.Array, tuple[int, ...], int, float], jax.Array]
QUICKLY_COMPILED = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
"""Options of XLA on a CPU for programs that draw data or initial states: they run once, and full optimization takes
longer than the training of small networks. The numbers are the same bit for bit; at level 0 they are not."""


def uniform(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from U[-scale, scale]."""
    del fan
    return jax.random.uniform(key, shape, minval=-scale, maxval=scale)


def normal(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from N(0, scale^2)."""
    del fan
    return scale * jax.random.normal(key, shape)


def fan_uniform(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from U[-a, a] with `a = scale / sqrt(fan)`; at scale 1 this is Torch's default for a linear layer."""
    return uniform(key, shape, fan, scale * fan**-0.5)


def fan_normal(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from N(0, scale^2 / fan): LeCun's at scale 1, He's at scale sqrt(2)."""
    return normal(key, shape, fan, scale * fan**-0.5)


def constant(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Sets every entry to `scale`."""
    del key, fan
    return jnp.full(shape, scale, jnp.float32)


def orthogonal(key: jax.Array, size: int, stack: tuple[int, ...] = ()) -> jax.Array:
    """Draws orthogonal matrices uniformly, `[*stack, size, size]`, by Gram-Schmidt on normal vectors.

    `jax.random.orthogonal` calls LAPACK's QR, which can block forever on a CPU of few cores if several devices draw at
    once (seen with jaxlib 0.10).
    """
    drawn = jax.random.normal(key, (*stack, size, size))

    def add(q, i):
        v = drawn[..., i, None]
        for _ in range(2):  # once leaves rounding that grows with the number of vectors
            v = v - q @ (jnp.swapaxes(q, -1, -2) @ v)
        return q.at[..., i].set((v / jnp.linalg.norm(v, axis=-2, keepdims=True))[..., 0]), None

    return jax.lax.scan(add, jnp.zeros_like(drawn), jnp.arange(size))[0]


class Distribution(NamedTuple):
    """A distribution of weights."""

    draw: Draw
    deviation: Callable[[int, float], float]
    """`(fan, scale) -> standard deviation`."""
    has_fan: bool
    """Whether the fan has an effect."""


DISTRIBUTIONS = {
    "uniform": Distribution(uniform, lambda fan, scale: scale * 3**-0.5, has_fan=False),
    "normal": Distribution(normal, lambda fan, scale: scale, has_fan=False),
    "fan_uniform": Distribution(fan_uniform, lambda fan, scale: scale * 3**-0.5 * fan**-0.5, has_fan=True),
    "fan_normal": Distribution(fan_normal, lambda fan, scale: scale * fan**-0.5, has_fan=True),
}
BIAS_DISTRIBUTIONS = {"constant": constant, "uniform": uniform, "normal": normal}


def sparsify(key: jax.Array, weights: jax.Array, density: float) -> jax.Array:
    """Sets each entry to zero with probability `1 - density`, independently; the others keep their values."""
    return weights * jax.random.bernoulli(key, density, weights.shape) if is_on(1 - density) else weights
