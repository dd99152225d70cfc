"""Residual networks for small images: a convolution, three groups of residual blocks, average pooling, readout."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from fa_jax.checks import BadOption, choose, integer, sequence, switch, unused
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, JoinedStage, Readout
from fa_jax.networks.layers import ACTIVATIONS, NORMS, check_groups, check_images, initials
from fa_jax.primitives import Hidden

LAYERS_OUTSIDE_BLOCKS = 2
GROUPS = 3


class Stem(nn.Module):
    """The first hidden layer: convolution, norm, activation function, `Hidden`."""

    features: int
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module] | None
    initial: dict[str, Any]

    @nn.nowrap
    def with_hidden_before_dropout(self) -> "Stem":
        """Returns the stage itself: it has no dropout."""
        return self

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(self.features, (3, 3), name="linear", **self.initial)(x)
        return Hidden(name="hidden")(self.activation(x if self.norm is None else self.norm()(x)))


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut around them; the `Hidden` is on the stream after the sum.

    Before the sum, backprop would pass the taught layers through the shortcuts.
    """

    features: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module] | None
    initial: tuple[dict[str, Any], ...]
    """Keyword arguments of the two convolutions and of the shortcut, a 1x1 convolution where the shape changes."""
    normed_shortcut: bool
    hidden: bool

    @nn.nowrap
    def with_hidden_before_dropout(self) -> "ResidualBlock":
        """Returns the block itself: it has no dropout."""
        return self

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def normalise(h):
            return h if self.norm is None else self.norm()(h)

        first, second, shortcut = self.initial
        strides = (self.stride, self.stride)
        h = self.activation(normalise(nn.Conv(self.features, (3, 3), strides, name="first", **first)(x)))
        h = normalise(nn.Conv(self.features, (3, 3), name="second", **second)(h))
        if h.shape != x.shape:
            x = nn.Conv(self.features, (1, 1), strides, name="shortcut", **shortcut)(x)
            x = normalise(x) if self.normed_shortcut else x
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
    normed_shortcuts: bool | None,
    stage: str,
    dense: list[int],
    init,
    init_scale,
    density,
    bias_init,
    bias_scale,
) -> Network:
    """Returns a `Network` after He, Zhang, Ren, Sun, arXiv 1512.03385, 2015, section 4.2 (ResNet-20, -56, ...).

    Unlike theirs, the shortcuts between groups are 1x1 convolutions, and the norm is batch norm only with `norm=batch`.

    Args:
      input_shape: of one image, `(height, width, channels)`.
      outputs: the number of outputs.
      depth: the number of layers without dense hidden ones, `6 n + 2` for n blocks in each of three groups.
      width: channels of the first group; the second has twice and the third four times as many.
      activation: a name in `ACTIVATIONS`.
      biases: whether layers have biases.
      norm: a name in `NORMS`.
      normed_shortcuts: whether the 1x1 convolutions have the norm too; None: they do if there is one.
      stage: the unit that a rule teaches as one, a `block` or a `group` of blocks.
      dense: widths of dense hidden layers above the average, each a stage with the norm; He has none.
      init, init_scale, density, bias_init, bias_scale: initial weights and biases, as in `layers.initials`, one value
        for all layers.

    Raises:
      BadOption: if an option is out of range.
    """
    blocks, rest = divmod(integer("depth", depth, least=8) - LAYERS_OUTSIDE_BLOCKS, 2 * GROUPS)
    if rest:
        raise BadOption(f"must be 6 n + 2, such as 20 or 56; got {depth}", "depth")
    check_images(input_shape)
    width = integer("width", width, least=1)
    function = choose("activation", activation, ACTIVATIONS)
    chosen_norm = choose("norm", norm, NORMS)
    check_groups(norm, width, "width")
    widths = [integer("dense", features, least=1) for features in sequence("dense", dense, "[500,100] or []")]
    for features in widths:
        check_groups(norm, features, "dense")
    (first,) = initials(1, init, init_scale, density, biases, bias_init, bias_scale)
    layer = first.keywords()

    if chosen_norm is None:
        unused("normed_shortcuts", normed_shortcuts, "with norm=none")
    shortcuts = normed_shortcuts is None or switch("normed_shortcuts", normed_shortcuts)
    by_block = choose("stage", stage, {"block": True, "group": False})

    def block(group, number):
        stride, hidden = 2 if group and not number else 1, by_block or number == blocks - 1
        features = width * 2**group
        return ResidualBlock(features, stride, function, chosen_norm, (layer,) * 3, shortcuts, hidden)

    stages: list[nn.Module] = [Stem(width, function, chosen_norm, layer)]
    for group in range(GROUPS):
        members = [block(group, number) for number in range(blocks)]
        stages += members if by_block else [JoinedStage(members)]
    stages += [DenseStage(features, function, norm=chosen_norm, average=True, **layer) for features in widths]
    readout = Readout(outputs, average=True, **layer)
    return Network(Chain(tuple(stages), (1,) * len(stages), readout), tuple(input_shape), first.is_sparse)
