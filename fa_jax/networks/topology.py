"""The notation of convolutional networks, such as `conv96x5p3-conv128x5p3-2048`.

A layer is `conv<channels>x<window>` or the width of a dense layer. After the window, `v` means no padding, `s<n>` a
stride of n, `p<n>` pooling over n x n. `-` ends a stage; layers joined by `+` are one stage.
"""

import re
from typing import NamedTuple

from fa_jax.checks import BadOption

CONVOLUTION = re.compile(r"conv(?P<channels>\d+)x(?P<window>\d+)(?P<valid>v?)(s(?P<stride>\d+))?(p(?P<pool>\d+))?")
DENSE = re.compile(r"\d+")
INCOMPLETE = re.compile(r"conv(\d+(x\d*)?)?")
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
    """The window of the pooling; 1: none."""


def parse(topology: str) -> list[list[Convolution | int]]:
    """Returns the stages of a topology, each a list of convolutions and of widths of dense layers.

    Raises:
      BadOption: if it cannot be parsed; the message gives the position of the first wrong character.
    """
    stages: list[list[Convolution | int]] = [[]]
    position, dense = 0, False
    for token in re.split(r"([-+])", str(topology)):
        if token == "-":
            stages.append([])
        elif token != "+":
            layer = _layer(topology, token, position)
            if dense and not isinstance(layer, int):
                problem = f"{token} at character {position + 1} is a convolution after a dense layer"
                raise BadOption(f"cannot be {topology}: {problem}", "topology")
            dense = isinstance(layer, int)
            stages[-1].append(layer)
        position += len(token)
    return stages


def _layer(topology: str, token: str, position: int) -> Convolution | int:
    """Parses one layer of a topology, which starts at this position."""
    convolution = CONVOLUTION.match(token)
    match = convolution or DENSE.match(token) or INCOMPLETE.match(token)
    end = match.end() if match else 0
    if match is None or end < len(token) or match.re is INCOMPLETE:
        wrong = repr(token[end:] or "the end")
        raise BadOption(
            f"cannot be {topology}: character {position + end + 1}, {wrong}, cannot be read; {GRAMMAR}", "topology"
        )
    if 0 in [int(n) for n in re.findall(r"\d+", token)]:
        raise BadOption(f"cannot be {topology}: {token} at character {position + 1} has a size of 0", "topology")
    if convolution is None:
        return int(token)
    groups = convolution.groupdict()
    channels, window, stride, pool = (int(groups[name] or 1) for name in ("channels", "window", "stride", "pool"))
    return Convolution(channels, window, "VALID" if groups["valid"] else "SAME", stride, pool)


def check_sizes(topology: str, layers: list[Convolution | int], input_shape: tuple[int, ...], pool_stride: int) -> None:
    """Checks that the image stays at least as large as every window.

    Raises:
      BadOption: if it gets too small; the message names the layer.
    """
    sizes = list(input_shape[:2])

    def require(window: int, layer: int, kind: str) -> None:
        if min(sizes) < window:
            problem = f"the image is {sizes[0]}x{sizes[1]} at layer {layer}, too small for its {kind}"
            raise BadOption(f"cannot be {topology}: {problem} of {window}x{window}", "topology")

    for number, layer in enumerate(layers):
        if isinstance(layer, int):
            continue
        require(layer.window if layer.padding == "VALID" else 1, number, "window")
        border = layer.window - 1 if layer.padding == "VALID" else 0
        sizes = [-(-(size - border) // layer.stride) for size in sizes]
        require(layer.pool, number, "pooling")
        if layer.pool > 1:
            sizes = [(size - layer.pool) // pool_stride + 1 for size in sizes]
