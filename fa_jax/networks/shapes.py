"""The shapes of hidden layers and of the kernels of Flax's linear layers, with the fans of these."""

import math
from typing import Any, NamedTuple

import flax.linen as nn


class ActivationShape(NamedTuple):
    """The shape of one hidden layer's activation, `[*stack, batch, *shape]`.

    `stack` is `()`; `(depth,)` for a scanned stack of equal layers; or `(time,)` for the states of a recurrent layer.
    """

    stack: tuple[int, ...]
    shape: tuple[int, ...]


class KernelShape(NamedTuple):
    """The shape of one linear layer's kernel, `[*stack, *shape]`, and its fans."""

    stack: tuple[int, ...]
    shape: tuple[int, ...]
    fan_in: int
    """The number of inputs that one output sums."""
    fan_out: int
    """The number of outputs that one input reaches; for a convolution, window size times output channels, as if the
    stride were 1."""
    rows: int
    """The number of rows of the kernel as a matrix `[rows, columns]`, whose columns are outputs."""


class Layers(NamedTuple):
    """The layers of a network, in the order of the forward pass."""

    kernel_shapes: dict[str, KernelShape]
    hidden_shapes: dict[str, ActivationShape]
    outputs: int


def fans(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns `(fan_in, fan_out, rows)` of a linear layer whose kernel has this shape."""
    size, rows = math.prod(shape), math.prod(shape[:-1])
    if isinstance(layer, nn.ConvLocal):  # [*positions, window times channels in, channels out]
        return shape[-2], _window(layer) * shape[-1], rows
    if isinstance(layer, nn.Conv):  # [*window, channels in of a group, channels out of all groups]
        return rows, size // shape[-2] // layer.feature_group_count, rows
    if isinstance(layer, nn.ConvTranspose) and layer.transpose_kernel:  # [*window, channels out, channels in]
        return size // shape[-2], rows, rows
    if isinstance(layer, nn.Einsum):
        return *_fans_of_einsum(str(layer.einsum_str), shape), rows
    if isinstance(layer, nn.DenseGeneral):  # [*batch, *in, *out]
        outputs = math.prod(_as_tuple(layer.features))
        batch = math.prod(shape[: len(_as_tuple(layer.batch_dims))])
        return size // (batch * outputs), outputs, size // outputs
    return rows, size // shape[-2], rows


def _window(layer: nn.ConvLocal) -> int:
    return math.prod(_as_tuple(layer.kernel_size))


def _as_tuple(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _fans_of_einsum(equation: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the fans of a kernel from the letters of its axes: those summed, and those of the output alone."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    x, _, kernel = inputs.partition(",")
    sizes = dict(zip(kernel.replace("...", ""), shape[-len(kernel.replace("...", "")) :], strict=True))
    fan_in = math.prod(size for letter, size in sizes.items() if letter not in output)
    return fan_in, math.prod(size for letter, size in sizes.items() if letter not in x)
