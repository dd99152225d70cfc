"""Residual networks for small images: a convolution, three groups of residual blocks, and an averaging readout."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from fa_jax.network import Network
from fa_jax.networks.chain import Chain, Hidden, Readout
from fa_jax.networks.layers import ACTIVATIONS, NORMS, check_groups, initials
from fa_jax.options import BadOption, choose, integer, switch

LAYERS_OUTSIDE_BLOCKS = 2
GROUPS = 3


class Stem(nn.Module):
    """The first hidden layer: convolution, normalisation, activation function, `Hidden`."""

    features: int
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module] | None
    initial: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(self.features, (3, 3), name="linear", **self.initial)(x)
        return Hidden(name="hidden")(self.activation(x if self.norm is None else self.norm()(x)))


class ResidualBlock(nn.Module):
    """Two convolutions around which the input is added to their output; `Hidden` stands on the stream after the sum.

    Were it before the sum, backprop would leak past the taught layers through the shortcuts.
    """

    features: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module] | None
    initial: tuple[dict[str, Any], ...]
    """Of the two convolutions and of the shortcut, which is a 1x1 convolution where the shape changes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def normalised(h):
            return h if self.norm is None else self.norm()(h)

        first, second, shortcut = self.initial
        strides = (self.stride, self.stride)
        h = self.activation(normalised(nn.Conv(self.features, (3, 3), strides, name="first", **first)(x)))
        h = normalised(nn.Conv(self.features, (3, 3), name="second", **second)(h))
        if h.shape != x.shape:
            x = normalised(nn.Conv(self.features, (1, 1), strides, name="shortcut", **shortcut)(x))
        return Hidden(name="hidden")(self.activation(h + x))


def resnet(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    depth: int,
    width: int,
    activation: str,
    biases: bool,
    norm: str,
    **initial,
) -> Network:
    """Returns a `Network` after He, Zhang, Ren, Sun, arXiv 1512.03385, 2015, section 4.2 (ResNet-20, -56, ...).

    It differs from theirs in the normalisation, which needs no running statistics, and in the shortcuts between groups,
    which are 1x1 convolutions.

    Args:
      input_shape: of one image, `(height, width, channels)`.
      outputs: the number of outputs.
      depth: the number of layers, `6 n + 2` for n blocks in each of three groups.
      width: channels of the first group; the second has twice as many, the third four times.
      activation: a name in `ACTIVATIONS`.
      biases: whether units have one.
      norm: a name in `NORMS`.
      **initial: how weights and biases start, one value each, as in `fa_jax.networks.layers.initials`.

    Raises:
      BadOption: if an option is none of these.
    """
    blocks, rest = divmod(integer("architecture.depth", depth, least=8) - LAYERS_OUTSIDE_BLOCKS, 2 * GROUPS)
    if rest:
        raise BadOption(f"architecture.depth must be 6 n + 2, such as 20 or 56; got {depth}")
    if len(input_shape) != 3:
        raise BadOption(f"architecture: a convolution needs images; this task has inputs of shape {tuple(input_shape)}")
    width = integer("architecture.width", width, least=1)
    function = choose("architecture.activation", activation, ACTIVATIONS)
    chosen_norm = choose("architecture.norm", norm, NORMS)
    check_groups(norm, width, f"from architecture.width={width}")
    (start,) = initials(1, **initial)
    of_layer = {"use_bias": switch("architecture.biases", biases), **start.keywords()}

    stages: list[nn.Module] = [Stem(width, function, chosen_norm, of_layer)]
    stages += [
        ResidualBlock(width * 2**group, 2 if group and not block else 1, function, chosen_norm, (of_layer,) * 3)
        for group in range(GROUPS)
        for block in range(blocks)
    ]
    readout = Readout(outputs, average=True, **of_layer)
    return Network(Chain(tuple(stages), (1,) * len(stages), readout), tuple(input_shape))
