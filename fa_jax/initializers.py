"""How weights are drawn, forward and backward alike: a distribution, a scale, and the fraction of entries kept.

Every distribution is `(key, shape, fan, scale) -> array`, where `fan` is how many numbers one output of the weights
sums over: the inputs of a forward kernel, the components of the error that cross a backward one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Distribution = Callable[[jax.Array, tuple[int, ...], int, float], jax.Array]


def uniform(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from U[-scale, scale]."""
    del fan
    return jax.random.uniform(key, shape, minval=-scale, maxval=scale)


def normal(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from N(0, scale^2)."""
    del fan
    return scale * jax.random.normal(key, shape)


def fan_uniform(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from U[-a, a] with `a = scale / sqrt(fan)`: at scale 1 what Torch draws for a linear layer."""
    return uniform(key, shape, fan, scale * fan**-0.5)


def fan_normal(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Draws from N(0, scale^2 / fan): LeCun's at scale 1, He's at scale sqrt(2)."""
    return normal(key, shape, fan, scale * fan**-0.5)


def constant(key: jax.Array, shape: tuple[int, ...], fan: int, scale: float) -> jax.Array:
    """Gives every entry the value `scale`."""
    del key, fan
    return jnp.full(shape, scale, jnp.float32)


def standard_deviation(distribution: str, fan: int, scale: float) -> float:
    """Returns that of a distribution in `DISTRIBUTIONS`."""
    of_uniform = 3**-0.5 if distribution.endswith("uniform") else 1.0
    return scale * of_uniform * (fan**-0.5 if distribution.startswith("fan_") else 1.0)


DISTRIBUTIONS = {"uniform": uniform, "normal": normal, "fan_uniform": fan_uniform, "fan_normal": fan_normal}


def thin(key: jax.Array, weights: jax.Array, kept: float) -> jax.Array:
    """Sets every entry to zero with probability `1 - kept`, each by itself, and leaves the others as they are."""
    return weights if kept == 1 else weights * jax.random.bernoulli(key, kept, weights.shape)
