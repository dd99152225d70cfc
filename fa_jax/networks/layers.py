"""Shared components of the architectures: initial weights, activation functions, norms, pooling."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, is_on, number, per_layer, switch
from fa_jax.initializers import BIAS_DISTRIBUTIONS, DISTRIBUTIONS, Draw, constant, sparsify

ACTIVATIONS = {
    "linear": lambda a: a,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "logistic": jax.nn.sigmoid,
    "shifted_sigmoid": lambda a: jax.nn.sigmoid(4 * a - 2),
    "clip": lambda a: jnp.clip(a, 0, 1),
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
"""Activation functions. `clip` limits to [0, 1]; `shifted_sigmoid` is a smooth form of it, with slope 1 at 1/2."""
GROUP_SIZE = 8


class Dropout(nn.Module):
    """Dropout in training, which the presence of the random stream `dropout` means; Flax's, but a rate may be traced.

    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout", JMLR 2014, section 4; scaled in training.
    """

    rate: float
    """The probability that a unit is dropped."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not (is_on(self.rate) and self.has_rng("dropout")):
            return x
        kept = 1 - self.rate
        return jnp.where(jax.random.bernoulli(self.make_rng("dropout"), kept, x.shape), x / kept, 0)


class BatchNorm(nn.Module):
    """Batch norm: uses the statistics of the batch in training, else running averages.

    As with dropout, the presence of the random stream `dropout` means training.

    Ioffe, Szegedy, "Batch Normalization", ICML 2015 (arXiv 1502.03167), algorithms 1 and 2.
    """

    momentum: float
    """The share of its running statistics that a batch leaves unchanged."""
    epsilon: float
    """Added to the variance."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {"momentum": self.momentum, "epsilon": self.epsilon, "name": "norm"}
        return nn.BatchNorm(use_running_average=not self.has_rng("dropout"), **options)(x)


NORMS: dict[str, Callable[[], nn.Module] | None] = {
    "none": None,
    "layer": nn.LayerNorm,
    "group": lambda: nn.GroupNorm(num_groups=None, group_size=GROUP_SIZE),
    "batch": lambda: BatchNorm(0.9, 1e-5),
    "batch_tensorflow": lambda: BatchNorm(0.99, 1e-3),
}
"""Norms: over the channels of each position; over groups of eight channels at all positions; over the batch and all
positions for each channel, with the constants of PyTorch (whose running variance is unbiased) or of TensorFlow."""


def max_pool(x: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> jax.Array:
    """Returns the maxima of windows inside the image, `[batch, height, width, channels]`.

    Values and gradients equal those of `flax.linen.max_pool` (the first of equal maxima gets the gradient, NaN stays
    NaN), whose gradient takes XLA up to ten times as long on a CPU.
    """
    sizes = [(n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], window, strides, strict=True)]
    offsets = [(i, j) for i in range(window[0]) for j in range(window[1])]
    first, *rest = (x[:, i : i + sizes[0] : strides[0], j : j + sizes[1] : strides[1]] for i, j in offsets)
    return functools.reduce(lambda best, new: jnp.where((new > best) | jnp.isnan(new), new, best), rest, first)


def check_groups(norm: str, channels: int, option: str) -> None:
    """Checks that the groups of a group norm divide a number of channels.

    Raises:
      BadOption: if they do not; the message names the option that set the number.
    """
    if norm == "group" and channels % GROUP_SIZE:
        raise BadOption(f"must be a multiple of {GROUP_SIZE} with norm=group; got {channels}", option)


class Initial(NamedTuple):
    """The initial weights and biases of one layer."""

    draw: Draw
    scale: float
    density: float
    use_bias: bool
    draw_bias: Draw
    bias_scale: float

    @property
    def is_sparse(self) -> bool:
        """Whether some weights are removed."""
        return is_on(1 - self.density)

    def keywords(self, local: bool = False) -> dict[str, Any]:
        """Returns `kernel_init`, `use_bias` and `bias_init` of a Flax layer; `local`: of `nn.ConvLocal`."""

        def kernel_init(key, shape, dtype=jnp.float32):
            value_key, density_key = jax.random.split(key)
            drawn = self.draw(value_key, shape, shape[-2] if local else math.prod(shape[:-1]), self.scale)
            return sparsify(density_key, drawn, self.density).astype(dtype)

        def bias_init(key, shape, dtype=jnp.float32):
            return self.draw_bias(key, shape, 1, self.bias_scale).astype(dtype)

        return {"kernel_init": kernel_init, "use_bias": self.use_bias, "bias_init": bias_init}


def initials(layers: int, init, init_scale, density, biases: bool, bias_init, bias_scale) -> list[Initial]:
    """Returns the initial weights of each linear layer, the readout included.

    Args:
      layers: how many there are.
      init: a name in `DISTRIBUTIONS`; each argument may be a list of one value per layer.
      init_scale: of the distribution, at least 0.
      density: the probability that a forward weight is kept, in (0, 1]; the others are zero, and stay zero
        (`optimizers.keep_removed`).
      biases: whether layers have biases; all or none.
      bias_init: `constant`, `uniform` or `normal`.
      bias_scale: the constant, the bound of the uniform or the deviation of the normal distribution; None: 0, with
        `bias_init=constant`.

    Raises:
      BadOption: if an option is out of range, or initial biases are chosen and there are none.
    """
    draws = per_layer("bias_init", bias_init, layers, lambda o, got: choose(o, got, BIAS_DISTRIBUTIONS))
    are_drawn = any(draw is not constant for draw in draws)
    if not switch("biases", biases) and (are_drawn or bias_scale is not None):
        chosen = f"bias_init={bias_init} and bias_scale={'null' if bias_scale is None else bias_scale}"
        raise BadOption(
            f"must be true, unless bias_init=constant and bias_scale=null; got false and {chosen}", "biases"
        )
    if bias_scale is None:
        if are_drawn:
            raise BadOption(
                f"must be constant without bias_scale, the size of the biases; got {bias_init!r}", "bias_init"
            )
        bias_scale = 0.0
    columns = (
        per_layer("init", init, layers, lambda o, got: choose(o, got, DISTRIBUTIONS).draw),
        per_layer("init_scale", init_scale, layers, lambda o, got: number(o, got, least=0)),
        per_layer("density", density, layers, lambda o, got: number(o, got, above=0, most=1)),
        [biases] * layers,
        draws,
        per_layer("bias_scale", bias_scale, layers, number),
    )
    return [Initial(*values) for values in zip(*columns, strict=True)]


def activation_function(option: str, got: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation function of that name."""
    return choose(option, got, ACTIVATIONS)


def drop_rate(option: str, got: float) -> float:
    """Returns a probability in [0, 1)."""
    return number(option, got, least=0, below=1)


def check_images(input_shape: tuple[int, ...]) -> None:
    """Checks that inputs are images, `(height, width, channels)`.

    Raises:
      BadOption: if they are not.
    """
    if len(input_shape) != 3:
        raise BadOption(f"needs images; the inputs of the task have shape {tuple(input_shape)}")
