"""Convolutional and locally connected networks: convolutional stages with pooling, then dense stages."""

from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax

from fa_jax.checks import BadOption, choose, integer, per_layer, switch, unused
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, JoinedStage, Readout
from fa_jax.networks.layers import (
    ACTIVATIONS,
    NORMS,
    Dropout,
    check_groups,
    check_images,
    drop_rate,
    initials,
    max_pool,
)
from fa_jax.networks.topology import Convolution, check_sizes, parse
from fa_jax.primitives import Hidden

POOLS = {"max": max_pool, "average": nn.avg_pool}
POSITIONS = ("after_pooling", "before_pooling")


class ConvolutionStage(nn.Module):
    """One convolutional layer: convolution, norm, activation function, dropout, pooling, `Hidden`."""

    shape: Convolution
    shared: bool
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module] | None
    pooling: Callable
    pool_stride: int
    hidden_position: str | None
    """One of `POSITIONS`, or `before_dropout`; None: the stage has no `Hidden`."""
    dropout: float
    input_dropout: float
    initial: dict[str, Any]

    @nn.nowrap
    def with_hidden_before_dropout(self) -> "ConvolutionStage":
        """Returns the stage with its `Hidden` right after the activation function; the params are the same."""
        return self.clone(hidden_position="before_dropout")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kind = nn.Conv if self.shared else nn.ConvLocal
        window, stride = (self.shape.window,) * 2, (self.shape.stride,) * 2
        linear = kind(self.shape.channels, window, stride, self.shape.padding, name="linear", **self.initial)
        x = linear(Dropout(self.input_dropout)(x))
        if self.norm is not None:
            x = self.norm()(x)
        h = self.activation(x)
        if self.hidden_position == "before_dropout":
            h = Hidden(name="hidden")(h)
        h = Dropout(self.dropout)(h)
        if self.hidden_position == "before_pooling":
            h = Hidden(name="hidden")(h)
        if self.shape.pool > 1:
            h = self.pooling(h, (self.shape.pool,) * 2, (self.pool_stride,) * 2)
        return Hidden(name="hidden")(h) if self.hidden_position == "after_pooling" else h


def cnn(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    topology: str,
    shared_weights: bool,
    activation: str,
    biases: bool,
    norm: str,
    norm_dense: bool,
    pooling: str | None,
    pool_stride: int | None,
    average_positions: bool,
    hidden_position: str,
    dropout,
    input_dropout: float,
    init,
    init_scale,
    density,
    bias_init,
    bias_scale,
) -> Network:
    """Returns a `Network` whose module is a `Chain` of convolutional and dense stages.

    Args:
      input_shape: of one image, `(height, width, channels)`.
      outputs: the number of outputs.
      topology: the hidden layers from the input on, in the notation of `networks.topology`.
      shared_weights: True: convolutions; False: each position has weights of its own, with dropout and pooling as
        before (locally connected: Bartunov et al., arXiv 1807.04587, 2018).
      activation: a name in `ACTIVATIONS`.
      biases: whether layers have biases.
      norm: a name in `NORMS`, between a convolution and its activation function.
      norm_dense: whether dense hidden layers have that norm too.
      pooling: `max` or `average`; None: max, and where nothing is pooled.
      pool_stride: of the pooling, whose windows stay inside the image; None: 2, and where nothing is pooled.
      hidden_position: where a hidden layer ends and is taught: `after_pooling` (as in the code of Nøkland, 2016) or
        `before_pooling` (as in that of Frenkel et al., 2021).
      dropout: the probability that a hidden unit is dropped, in [0, 1); or a list of one per hidden layer.
      input_dropout: the probability that an input is dropped.
      init, init_scale, density, bias_init, bias_scale: initial weights and biases, as in `layers.initials`.
      average_positions: whether the layer above the last convolution reads the average of each channel over all
        positions; False: it reads all of them, flattened.

    Raises:
      BadOption: if an option is out of range or has no effect, the topology cannot be parsed, or the image gets too
        small for it.
    """
    grouped = parse(topology)
    layers = [layer for stage in grouped for layer in stage]
    check_images(input_shape)
    if all(isinstance(layer, int) or layer.pool == 1 for layer in layers):
        for option, got in (("pooling", pooling), ("pool_stride", pool_stride)):
            unused(option, got, f"with topology={topology}, which pools nothing")
    stride = integer("pool_stride", 2 if pool_stride is None else pool_stride, least=1)
    check_sizes(topology, layers, input_shape, stride)
    function = choose("activation", activation, ACTIVATIONS)
    conv_norm = choose("norm", norm, NORMS)
    dense_norm = conv_norm if switch("norm_dense", norm_dense) else None
    if norm_dense and conv_norm is None:
        raise BadOption("must be false with norm=none: there is no norm for dense layers", "norm_dense")
    for layer in layers:
        if not isinstance(layer, int):
            check_groups(norm, layer.channels, "topology")
        elif dense_norm is not None:
            check_groups(norm, layer, "topology")
    pool = choose("pooling", "max" if pooling is None else pooling, POOLS)
    position = choose("hidden_position", hidden_position, {name: name for name in POSITIONS})
    rates = per_layer("dropout", dropout, len(layers), drop_rate)
    input_rate = drop_rate("input_dropout", input_dropout)
    convolutions = sum(not isinstance(layer, int) for layer in layers)
    if switch("average_positions", average_positions) and convolutions == 0:
        raise BadOption("must be false: the topology has no convolution", "average_positions")
    shared = switch("shared_weights", shared_weights)
    if not shared and convolutions == 0:
        raise BadOption("must be true: the topology has no convolution", "shared_weights")
    inits = initials(len(layers) + 1, init, init_scale, density, biases, bias_init, bias_scale)

    def modules() -> Iterator[nn.Module]:
        ends = [end for stage in grouped for end in [False] * (len(stage) - 1) + [True]]
        for i, (layer, end) in enumerate(zip(layers, ends, strict=True)):
            rate_before = input_rate if i == 0 else 0.0
            if isinstance(layer, int):
                yield DenseStage(
                    layer,
                    function,
                    dropout=rates[i],
                    input_dropout=rate_before,
                    hidden=end,
                    norm=dense_norm,
                    average=average_positions and i == convolutions,
                    **inits[i].keywords(),
                )
            else:
                yield ConvolutionStage(
                    layer,
                    shared,
                    function,
                    conv_norm,
                    pool,
                    stride,
                    position if end else None,
                    rates[i],
                    rate_before,
                    inits[i].keywords(local=not shared),
                )

    each = modules()
    stages = [next(each) if len(stage) == 1 else JoinedStage([next(each) for _ in stage]) for stage in grouped]
    averaged = average_positions and convolutions == len(layers)
    readout = Readout(outputs, average=averaged, **inits[-1].keywords())
    module = Chain(tuple(stages), (1,) * len(stages), readout)
    return Network(module, tuple(input_shape), any(i.is_sparse for i in inits))
