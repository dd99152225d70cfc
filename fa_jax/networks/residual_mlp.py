"""The pre-norm residual multilayer perceptron: a linear embedding, residual blocks of two dense layers, a readout.

    h_0 = W_0 x + b_0        h_i = h_{i-1} + W_{i,2} f(W_{i,1} norm(h_{i-1}))        logits = W norm(h_L)

`Hidden` is on the stream before the first block, where the embedding is the hidden layer, and after each block, so that
a rule teaches a block as one. What comes to a block from above is replaced as a whole, so that no signal of direct
feedback travels along the residuals; in feedback alignment the residuals and the norms keep their derivative, and the
two kernels of each block are replaced.

Behind the last norm, which `terminal_norm=false` leaves out, backprop's signal at h is orthogonal to h and, at equal
logits, exactly proportional to 1/|h|: where the stream grows, it shrinks.

Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020 (arXiv 2002.04745), without attention;
Hao, Wan, Zhai, arXiv 2606.21126, 2026, train it under feedback alignment.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from fa_jax.checks import choose, integer, switch
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage
from fa_jax.networks.layers import ACTIVATIONS, initials
from fa_jax.networks.mlp import SCANNED_FROM
from fa_jax.primitives import Hidden


class ResidualMlpBlock(nn.Module):
    """Two dense layers on the normed stream, added to it, then `Hidden` on the stream."""

    width: int
    """The width of the hidden layer of the block."""
    activation: Callable[[jax.Array], jax.Array]
    initial: dict[str, Any]

    @nn.nowrap
    def with_hidden_before_dropout(self) -> "ResidualMlpBlock":
        """Returns the block itself: it has no dropout."""
        return self

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        inner = nn.Dense(self.width, name="first", **self.initial)(nn.LayerNorm(name="norm")(h))
        outer = nn.Dense(h.shape[-1], name="second", **self.initial)(self.activation(inner))
        return Hidden(name="hidden")(h + outer)


class NormedReadout(nn.Module):
    """A linear readout of the stream, normed before or not."""

    outputs: int
    norm: bool
    initial: dict[str, Any]

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        h = nn.LayerNorm(name="norm")(h) if self.norm else h
        return nn.Dense(self.outputs, name="linear", **self.initial)(h)


def residual_mlp(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    width: int,
    blocks: int,
    block_width: int,
    terminal_norm: bool,
    activation: str,
    biases: bool,
    init,
    init_scale,
    density,
    bias_init,
    bias_scale,
) -> Network:
    """Returns a `Network` whose module is a `Chain` of the embedding and the blocks; inputs are flattened.

    Args:
      input_shape: of one example.
      outputs: the number of outputs.
      width: of the stream.
      blocks: the number of blocks, at least 1.
      block_width: of the hidden layer of each block.
      terminal_norm: whether there is a norm between the last block and the readout.
      activation: of the blocks, a name in `ACTIVATIONS`; the embedding is linear.
      biases: whether linear layers have biases.
      init, init_scale, density, bias_init, bias_scale: initial weights and biases, as in `layers.initials`, one value
        for all layers.

    Raises:
      BadOption: if an option is out of range.
    """
    width, blocks = integer("width", width, least=1), integer("blocks", blocks, least=1)
    block_width = integer("block_width", block_width, least=1)
    function = choose("activation", activation, ACTIVATIONS)
    (first,) = initials(1, init, init_scale, density, biases, bias_init, bias_scale)
    layer = first.keywords()
    embedding = DenseStage(width, ACTIVATIONS["linear"], **layer)
    repeats = [blocks] if blocks >= SCANNED_FROM else [1] * blocks
    stages = [embedding, *(ResidualMlpBlock(block_width, function, layer) for _ in repeats)]
    readout = NormedReadout(outputs, switch("terminal_norm", terminal_norm), layer)
    return Network(Chain(tuple(stages), (1, *repeats), readout), tuple(input_shape), first.is_sparse)
