"""Residual networks for small images: a convolution, three groups of residual blocks, an average, dense layers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from fa_jax.checks import BadOption, choose, integer, switch
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, Hidden, JoinedStage, Readout
from fa_jax.networks.layers import ACTIVATIONS, NORMS, check_groups, initials

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
    """Two convolutions around which the input is added to their output; a `Hidden` stands on the stream after the sum.

    Were it before the sum, backprop would leak past the taught layers through the shortcuts.
    """

    features: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module] | None
    initial: tuple[dict[str, Any], ...]
    """Of the two convolutions and of the shortcut, which is a 1x1 convolution where the shape changes."""
    normed_shortcut: bool
    hidden: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def normalised(h):
            return h if self.norm is None else self.norm()(h)

        first, second, shortcut = self.initial
        strides = (self.stride, self.stride)
        h = self.activation(normalised(nn.Conv(self.features, (3, 3), strides, name="first", **first)(x)))
        h = normalised(nn.Conv(self.features, (3, 3), name="second", **second)(h))
        if h.shape != x.shape:
            x = nn.Conv(self.features, (1, 1), strides, name="shortcut", **shortcut)(x)
            x = normalised(x) if self.normed_shortcut else x
        h = self.activation(h + x)
        return Hidden(name="hidden")(h) if self.hidden else h


def resnet(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    depth: int,
    width: int,
    activation: str,
    biases: bool,
    norm: str,
    normed_shortcuts: bool,
    stage: str,
    dense: list[int],
    **initial,
) -> Network:
    """Returns a `Network` after He, Zhang, Ren, Sun, arXiv 1512.03385, 2015, section 4.2 (ResNet-20, -56, ...).

    It differs from theirs in the shortcuts between groups, which are 1x1 convolutions, and in the normalisation, unless
    `norm` is `batch`.

    Args:
      input_shape: of one image, `(height, width, channels)`.
      outputs: the number of outputs.
      depth: the number of layers but for dense hidden ones, `6 n + 2` for n blocks in each of three groups.
      width: channels of the first group; the second has twice as many, the third four times.
      activation: a name in `ACTIVATIONS`.
      biases: whether units have one.
      norm: a name in `NORMS`.
      normed_shortcuts: whether the 1x1 convolutions are normalised as well.
      stage: what a rule teaches as one, a `block` or a `group` of blocks.
      dense: widths of dense hidden layers above the average, each a stage, and normalised too; none in He's.
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
    if not isinstance(dense, list | tuple):
        raise BadOption(f"architecture.dense must be a list of widths such as [500,100], or []; got {dense!r}")
    widths = [integer("architecture.dense", features, least=1) for features in dense]
    for features in widths:
        check_groups(norm, features, f"from architecture.dense={widths}")
    (start,) = initials(1, **initial)
    of_layer = {"use_bias": switch("architecture.biases", biases), **start.keywords()}

    shortcuts = switch("architecture.normed_shortcuts", normed_shortcuts)
    by_block = choose("architecture.stage", stage, {"block": True, "group": False})

    def block(group, number):
        stride, hidden = 2 if group and not number else 1, by_block or number == blocks - 1
        features = width * 2**group
        return ResidualBlock(features, stride, function, chosen_norm, (of_layer,) * 3, shortcuts, hidden)

    stages: list[nn.Module] = [Stem(width, function, chosen_norm, of_layer)]
    for group in range(GROUPS):
        members = [block(group, number) for number in range(blocks)]
        stages += members if by_block else [JoinedStage(members)]
    stages += [DenseStage(features, function, norm=chosen_norm, average=True, **of_layer) for features in widths]
    readout = Readout(outputs, average=True, **of_layer)
    return Network(Chain(tuple(stages), (1,) * len(stages), readout), tuple(input_shape))
