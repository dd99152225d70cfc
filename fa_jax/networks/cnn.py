"""Convolutional and locally connected networks, from a short string: stages of convolution and pooling, then dense."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from fa_jax.checks import BadOption, choose, integer, per_layer, switch
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, Hidden, JoinedStage, Readout
from fa_jax.networks.layers import ACTIVATIONS, NORMS, check_groups, drop_rate, initials, max_pool

POOLS = {"max": max_pool, "average": nn.avg_pool}
PLACES = ("after_pooling", "before_pooling")
CONVOLUTION = re.compile(r"conv(?P<channels>\d+)x(?P<window>\d+)(?P<valid>v?)(s(?P<stride>\d+))?(p(?P<pool>\d+))?")
DENSE = re.compile(r"\d+")
BEGINNING = re.compile(r"conv(\d+(x\d*)?)?")
"""Of what might have become a convolution."""
GRAMMAR = (
    "a layer is conv<channels>x<window>, with v for no padding, s<stride> and p<pooling window>, or a dense width; "
    "- ends a stage, + does not"
)


class Convolution(NamedTuple):
    """One convolutional layer of a topology."""

    channels: int
    window: int
    padding: str
    stride: int
    pool: int
    """The pooling's window; 1: none."""


class ConvolutionStage(nn.Module):
    """One convolutional layer: convolution, normalisation, activation function, dropout, pooling, and `Hidden`."""

    shape: Convolution
    shared: bool
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module] | None
    pooling: Callable
    pool_stride: int
    hidden_ends: str | None
    """One of `PLACES`; None: not here."""
    dropout: float
    input_dropout: float
    initial: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def drop(rate):
            return nn.Dropout(rate, deterministic=not self.has_rng("dropout"))

        kind = nn.Conv if self.shared else nn.ConvLocal
        window, stride = (self.shape.window,) * 2, (self.shape.stride,) * 2
        linear = kind(self.shape.channels, window, stride, self.shape.padding, name="linear", **self.initial)
        x = linear(drop(self.input_dropout)(x))
        if self.norm is not None:
            x = self.norm()(x)
        h = drop(self.dropout)(self.activation(x))
        if self.hidden_ends == "before_pooling":
            h = Hidden(name="hidden")(h)
        if self.shape.pool > 1:
            h = self.pooling(h, (self.shape.pool,) * 2, (self.pool_stride,) * 2)
        return Hidden(name="hidden")(h) if self.hidden_ends == "after_pooling" else h


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
    pooling: str,
    pool_stride: int,
    hidden_ends: str,
    dropout,
    input_dropout: float,
    **initial,
) -> Network:
    """Returns a `Network` whose module is a `Chain` of convolutional and dense stages.

    Args:
      input_shape: of one image, `(height, width, channels)`.
      outputs: the number of outputs.
      topology: hidden layers from the input on, joined by `-`: `conv96x5p3` is 96 channels of 5x5 windows, padded to
        the size of the input, pooled over 3x3; `conv16x5v` is not padded, `conv64x3s2` has stride 2; `2048` is dense.
        Layers joined by `+` are one stage, which a rule teaches as a whole.
      shared_weights: whether a convolution has the same weights everywhere; else every place has its own, and dropout
        and pooling are as they are (Bartunov et al., arXiv 1807.04587, 2018: locally connected).
      activation: a name in `ACTIVATIONS`.
      biases: whether units have one.
      norm: a name in `NORMS`, between the convolution and the activation function.
      norm_dense: whether dense hidden layers are normalised likewise.
      pooling: `max` or `average`.
      pool_stride: of the pooling, whose windows stay inside the image.
      hidden_ends: where a hidden layer ends and is taught, `after_pooling` (as in the code of Nøkland, 2016) or
        `before_pooling` (as in that of Frenkel et al., 2021).
      dropout: the probability that a hidden unit is dropped, in [0, 1); or a list of one a hidden layer.
      input_dropout: the probability that an input is.
      **initial: how weights and biases start, as in `fa_jax.networks.layers.initials`.

    Raises:
      BadOption: if an option is none of these, the topology cannot be read, or the image gets too small for it.
    """
    joined = parse(topology)
    layers = [layer for stage in joined for layer in stage]
    if len(input_shape) != 3:
        raise BadOption(f"architecture: a convolution needs images; this task has inputs of shape {tuple(input_shape)}")
    pool_stride = integer("architecture.pool_stride", pool_stride, least=1)
    _check_sizes(topology, layers, input_shape, pool_stride)
    function = choose("architecture.activation", activation, ACTIVATIONS)
    chosen_norm = choose("architecture.norm", norm, NORMS)
    dense_norm = chosen_norm if switch("architecture.norm_dense", norm_dense) else None
    if norm_dense and chosen_norm is None:
        raise BadOption("architecture.norm_dense=true has dense layers normalised by architecture.norm, which is none")
    for layer in layers:
        if not isinstance(layer, int):
            check_groups(norm, layer.channels, f"in architecture.topology={topology}")
        elif dense_norm is not None:
            check_groups(norm, layer, f"in architecture.topology={topology}")
    pool = choose("architecture.pooling", pooling, POOLS)
    place = choose("architecture.hidden_ends", hidden_ends, {place: place for place in PLACES})
    rates = per_layer("architecture.dropout", dropout, len(layers), drop_rate)
    input_rate = drop_rate("architecture.input_dropout", input_dropout)
    use_bias = switch("architecture.biases", biases)
    shared = switch("architecture.shared_weights", shared_weights)
    inits = initials(len(layers) + 1, **initial)

    def modules() -> Iterator[nn.Module]:
        ends = [end for stage in joined for end in [False] * (len(stage) - 1) + [True]]
        for i, (layer, end) in enumerate(zip(layers, ends, strict=True)):
            before, init = input_rate if i == 0 else 0.0, inits[i]
            if isinstance(layer, int):
                yield DenseStage(
                    layer,
                    function,
                    use_bias,
                    dropout=rates[i],
                    input_dropout=before,
                    hidden=end,
                    norm=dense_norm,
                    **init.keywords(),
                )
            else:
                yield ConvolutionStage(
                    layer,
                    shared,
                    function,
                    chosen_norm,
                    pool,
                    pool_stride,
                    place if end else None,
                    rates[i],
                    before,
                    {"use_bias": use_bias, **init.keywords(local=not shared)},
                )

    each = modules()
    stages = [next(each) if len(stage) == 1 else JoinedStage([next(each) for _ in stage]) for stage in joined]
    readout = Readout(outputs, use_bias, False, **inits[-1].keywords())
    return Network(Chain(tuple(stages), (1,) * len(stages), readout), tuple(input_shape))


def parse(topology: str) -> list[list[Convolution | int]]:
    """Returns the stages of a topology, each a list of layers: convolutions, then the widths of dense layers.

    Raises:
      BadOption: if it cannot be read; the message points at the character.
    """
    stages: list[list[Convolution | int]] = [[]]
    at, dense = 0, False
    for token in re.split(r"([-+])", str(topology)):
        if token in ("-", "+"):
            if token == "-":
                stages.append([])
        else:
            layer = _layer(topology, token, at)
            if dense and not isinstance(layer, int):
                raise BadOption(
                    f"architecture.topology={topology}: {token} at character {at + 1} is a convolution after a dense "
                    "layer"
                )
            dense = isinstance(layer, int)
            stages[-1].append(layer)
        at += len(token)
    return stages


def _layer(topology: str, token: str, at: int) -> Convolution | int:
    """One layer of a topology, which begins `at` characters into it."""
    convolution = CONVOLUTION.match(token)
    found = convolution or DENSE.match(token) or BEGINNING.match(token)
    end = found.end() if found else 0
    if found is None or end < len(token) or found.re is BEGINNING:
        raise BadOption(
            f"architecture.topology={topology} cannot be read at character {at + end + 1}, "
            f"{token[end:] or 'the end'!r}: {GRAMMAR}"
        )
    if 0 in [int(n) for n in re.findall(r"\d+", token)]:
        raise BadOption(f"architecture.topology={topology}: {token} at character {at + 1} has a size of 0")
    if convolution is None:
        return int(token)
    groups = convolution.groupdict()
    sizes = [int(groups[name] or 1) for name in ("channels", "window", "stride", "pool")]
    return Convolution(sizes[0], sizes[1], "VALID" if groups["valid"] else "SAME", sizes[2], sizes[3])


def _check_sizes(topology: str, layers: list[Convolution | int], input_shape: tuple[int, ...], pool_stride: int):
    """Refuses an image that gets too small on its way."""
    sizes = list(input_shape[:2])
    for number, layer in enumerate(layers):
        if isinstance(layer, int):
            continue
        for what, window in (("window", layer.window if layer.padding == "VALID" else 1), ("pooling", layer.pool)):
            if min(sizes) < window:
                raise BadOption(
                    f"architecture.topology={topology}: the image is {sizes[0]}x{sizes[1]} at layer {number}, "
                    f"too small for its {what} of {window}x{window}"
                )
            if what == "window":
                less = window - 1
                sizes = [-(-(size - less) // layer.stride) for size in sizes]
            elif window > 1:
                sizes = [(size - window) // pool_stride + 1 for size in sizes]
