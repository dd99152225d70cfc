"""What architectures have in common: initial values, activation functions, normalisation."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, number, per_layer
from fa_jax.initializers import DISTRIBUTIONS, Distribution, constant, thin, uniform

ACTIVATIONS = {
    "linear": lambda a: a,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
BIAS_DISTRIBUTIONS = {"constant": constant, "uniform": uniform}
GROUP = 8


class BatchNorm(nn.Module):
    """Batch normalisation: by the batch's own statistics in training, else by their running averages.

    Whether it is training shows as it does to dropout, in the presence of the random stream `dropout`.

    Ioffe, Szegedy, "Batch Normalization", ICML 2015 (arXiv 1502.03167), algorithms 1 and 2.
    """

    momentum: float
    """How much of its running statistics it keeps at each batch."""
    epsilon: float
    """Added to the variance."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {"momentum": self.momentum, "epsilon": self.epsilon, "name": "norm"}
        return nn.BatchNorm(use_running_average=not self.has_rng("dropout"), **options)(x)


NORMS: dict[str, Callable[[], nn.Module] | None] = {
    "none": None,
    "layer": nn.LayerNorm,
    "group": lambda: nn.GroupNorm(num_groups=None, group_size=GROUP),
    "batch": lambda: BatchNorm(0.9, 1e-5),
    "batch_tensorflow": lambda: BatchNorm(0.99, 1e-3),
}
"""Normalisations: over the channels of each place of an image, over groups of eight channels at all places, or of each
channel over the batch and all places, with the constants of PyTorch (whose running variance is unbiased) or those of
TensorFlow."""


def max_pool(x: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> jax.Array:
    """Returns the maxima of windows that stay inside the image, `[batch, height, width, channels]`.

    They and their gradient, which goes to the first of equals, are those of `flax.linen.max_pool`, and what is not a
    number stays so; XLA takes up to ten times as long for the gradient of that one on a CPU.
    """
    sizes = [(n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], window, strides, strict=True)]
    offsets = [(i, j) for i in range(window[0]) for j in range(window[1])]
    first, *rest = (x[:, i : i + sizes[0] : strides[0], j : j + sizes[1] : strides[1]] for i, j in offsets)
    return functools.reduce(lambda best, one: jnp.where((one > best) | jnp.isnan(one), one, best), rest, first)


def straight(a: jax.Array) -> jax.Array:
    """Returns `relu(a)`, whose gradient goes through as if it were `a`: what is taught so reaches silent units too."""
    return a + jax.lax.stop_gradient(jax.nn.relu(a) - a)


def check_groups(norm: str, channels: int, where: str) -> None:
    """Refuses groups of eight channels where they do not come out even.

    Raises:
      BadOption: the message says `where`.
    """
    if norm == "group" and channels % GROUP:
        raise BadOption(f"architecture.norm=group needs channels in groups of {GROUP}; got {channels} {where}")


class Initial(NamedTuple):
    """How one layer starts."""

    kernel: Distribution
    scale: float
    kept: float
    bias: Distribution
    bias_scale: float

    def keywords(self, local: bool = False) -> dict[str, Any]:
        """Returns the `kernel_init` and `bias_init` of a Flax layer; of `nn.ConvLocal` if it is a local one."""

        def kernel_init(key, shape, dtype=jnp.float32):
            value, thinning = jax.random.split(key)
            drawn = self.kernel(value, shape, shape[-2] if local else math.prod(shape[:-1]), self.scale)
            return thin(thinning, drawn, self.kept).astype(dtype)

        def bias_init(key, shape, dtype=jnp.float32):
            return self.bias(key, shape, 1, self.bias_scale).astype(dtype)

        return {"kernel_init": kernel_init, "bias_init": bias_init}


def initials(layers: int, *, init: str, init_scale, kept, bias_init: str, bias_scale) -> list[Initial]:
    """Returns how each of the linear layers starts, the readout included.

    Args:
      layers: how many there are.
      init: a name in `DISTRIBUTIONS`; this and the four below may be a list of one value a layer.
      init_scale: the distribution's, at least 0.
      kept: the fraction of the forward weights kept, above 0; the others are zero, and stay so
        (`optimizers.keep_removed`).
      bias_init: `constant` or `uniform`.
      bias_scale: the constant, or the bound of the uniform distribution.

    Raises:
      BadOption: if an option is none of these.
    """
    columns = (
        per_layer("architecture.init", init, layers, lambda o, got: choose(o, got, DISTRIBUTIONS)),
        per_layer("architecture.init_scale", init_scale, layers, lambda o, got: number(o, got, least=0)),
        per_layer("architecture.kept", kept, layers, lambda o, got: number(o, got, above=0, most=1)),
        per_layer("architecture.bias_init", bias_init, layers, lambda o, got: choose(o, got, BIAS_DISTRIBUTIONS)),
        per_layer("architecture.bias_scale", bias_scale, layers, number),
    )
    return [Initial(*values) for values in zip(*columns, strict=True)]


def activation_function(option: str, got: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation function of that name."""
    return choose(option, got, ACTIVATIONS)


def drop_rate(option: str, got: float) -> float:
    """Returns a probability in [0, 1)."""
    rate = number(option, got, least=0)
    if rate >= 1:
        raise BadOption(f"{option} must be at least 0 and below 1; got {got!r}")
    return rate
