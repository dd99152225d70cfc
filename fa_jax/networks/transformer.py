"""A small vision transformer: linear patch embedding, learned positions, pre-norm blocks, mean over tokens, readout.

    z_0 = E patches(x) + p
    u_i = z_{i-1} + attention(norm(z_{i-1}))        z_i = u_i + W_2 f(W_1 norm(u_i))
    logits = W mean over tokens of norm(z_L)

`Hidden` is on the stream z_i after each block, so that a rule teaches a block as one; the embedding and the positions
belong to the first block. The error crosses the kernels of queries, keys, values and outputs, and W_1, W_2: those are
replaced in feedback alignment. What lies between them (norms, softmax, the products of queries with keys and of
attention with values) has no weights that mix units, and keeps its derivative. In direct feedback alignment the signal
that a block receives passes through its own weights, as in the first of the two placements of Launay et al., one
feedback after each block. All tokens receive the same signal by default (`feedback.shared_positions`): the readout sees
their mean, and its weights cannot align with a matrix for each.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (arXiv 2010.11929), with the mean over tokens in place of
a class token (Beyer, Zhai, Kolesnikov, arXiv 2205.01580, 2022). Launay, Poli, Boniface, Krzakala, "Direct Feedback
Alignment Scales to Modern Deep Learning Tasks and Architectures", NeurIPS 2020 (arXiv 2006.12878).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from fa_jax.checks import BadOption, choose, integer
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, JoinedStage
from fa_jax.networks.layers import ACTIVATIONS, check_images, initials
from fa_jax.networks.mlp import SCANNED_FROM
from fa_jax.primitives import Hidden

POSITION_DEVIATION = 0.02
"""The standard deviation of the initial positions, that of Dosovitskiy et al."""


class Embedding(nn.Module):
    """A linear map of square patches, plus a learned vector for each position."""

    patch: int
    width: int
    initial: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        tokens = nn.Dense(self.width, name="linear", **self.initial)(patches(x, self.patch))
        draw = nn.initializers.normal(POSITION_DEVIATION)
        return tokens + self.param("positions", draw, tokens.shape[1:])


def patches(x: jax.Array, size: int) -> jax.Array:
    """Returns the patches of images, row by row, `[batch, patches, size * size * channels]`.

    Args:
      x: `[batch, height, width, channels]`, where the size divides height and width.
      size: of a square patch.
    """
    batch, height, width, channels = x.shape
    grid = x.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
    return grid.reshape(batch, -1, size * size * channels)


class TransformerBlock(nn.Module):
    """Self-attention and two dense layers, each on the normed stream and added to it, then `Hidden` on the stream."""

    heads: int
    mlp_width: int
    mlp_activation: Callable[[jax.Array], jax.Array]
    initial: dict[str, Any]

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        attention = nn.MultiHeadDotProductAttention(self.heads, name="attention", **self.initial)
        u = z + attention(nn.LayerNorm(name="attention_norm")(z))
        h = nn.Dense(self.mlp_width, name="first", **self.initial)(nn.LayerNorm(name="mlp_norm")(u))
        z = u + nn.Dense(z.shape[-1], name="second", **self.initial)(self.mlp_activation(h))
        return Hidden(name="hidden")(z)


class TokenReadout(nn.Module):
    """A linear readout of the mean over the normed tokens."""

    outputs: int
    initial: dict[str, Any]

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        return nn.Dense(self.outputs, name="linear", **self.initial)(nn.LayerNorm(name="norm")(z).mean(1))


def transformer(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    patch: int,
    width: int,
    blocks: int,
    heads: int,
    mlp_width: int,
    activation: str,
    biases: bool,
    init,
    init_scale,
    density,
    bias_init,
    bias_scale,
) -> Network:
    """Returns a `Network` whose module is a `Chain` of transformer blocks.

    Args:
      input_shape: of one image, `(height, width, channels)`.
      outputs: the number of outputs.
      patch: the height and width of a patch, which divides those of the image.
      width: of the stream.
      blocks: the number of blocks, at least 1.
      heads: of the attention; divides the width.
      mlp_width: of the hidden layer of a block.
      activation: of that layer, a name in `ACTIVATIONS`.
      biases: whether linear layers have biases.
      init, init_scale, density, bias_init, bias_scale: initial weights and biases, as in `layers.initials`, one value
        for all layers.

    Raises:
      BadOption: if an option is out of range, or inputs are no images.
    """
    check_images(input_shape)
    patch = integer("patch", patch, least=1)
    if input_shape[0] % patch or input_shape[1] % patch:
        raise BadOption(
            f"must divide the height and the width of the images, {input_shape[0]} and {input_shape[1]}; got {patch}",
            "patch",
        )
    width, heads = integer("width", width, least=1), integer("heads", heads, least=1)
    if width % heads:
        raise BadOption(f"must divide the width, {width}; got {heads}", "heads")
    blocks, mlp_width = integer("blocks", blocks, least=1), integer("mlp_width", mlp_width, least=1)
    function = choose("activation", activation, ACTIVATIONS)
    (first,) = initials(1, init, init_scale, density, biases, bias_init, bias_scale)
    layer = first.keywords()

    def block():
        return TransformerBlock(heads, mlp_width, function, layer)

    # The first block has the embedding with it, so it is not one of the equal ones that are scanned.
    equal = blocks - 1
    repeats = [equal] if equal >= SCANNED_FROM else [1] * equal
    stages = [JoinedStage([Embedding(patch, width, layer), block()]), *(block() for _ in repeats)]
    module = Chain(tuple(stages), (1, *repeats), TokenReadout(outputs, layer))
    return Network(module, tuple(input_shape), first.is_sparse)
