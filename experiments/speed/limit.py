"""The matrix products of a training step, and loops that compute nothing else: the limit of a training loop's speed.

A training loop cannot be faster than its matrix products. How fast these are depends on the machine, their shapes and
the library, so `benchmark limit` measures them beside the training loops, by PyTorch and by XLA. The share of the limit
that a loop reaches says how well it is written, where a ratio to another program also depends on the machine.
"""

# pyright: reportMissingImports=false

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Product(NamedTuple):
    """A matrix product `[rows, inner] @ [inner, columns]`."""

    rows: int
    inner: int
    columns: int
    transposed: str = ""
    """The operand that is stored as its transpose: `left`, `right`, or neither."""

    @property
    def flops(self) -> int:
        """Additions and multiplications."""
        return 2 * self.rows * self.inner * self.columns


def forward(rows: int, inputs: int, outputs: int) -> Product:
    """Returns the product of a batch and the weights."""
    return Product(rows, inputs, outputs)


def gradient(rows: int, inputs: int, outputs: int) -> Product:
    """Returns the product of a batch of inputs and one of signals that is the gradient of the weights."""
    return Product(inputs, rows, outputs, "left")


def backward(rows: int, inputs: int, outputs: int) -> Product:
    """Returns the product of a batch of signals and the transposed weights."""
    return Product(rows, outputs, inputs, "right")


def backpropagation(widths: Sequence[int], batch: int) -> list[Product]:
    """Returns the products of BP and FA in a dense network: forward, gradients, backward except to the inputs."""
    layers = list(itertools.pairwise(widths))
    return [
        *(kind(batch, *layer) for kind in (forward, gradient) for layer in layers),
        *(backward(batch, *layer) for layer in layers[1:]),
    ]


def direct_feedback(widths: Sequence[int], batch: int) -> list[Product]:
    """Returns the products of DFA in a dense network: forward, gradients, and the output error to each hidden layer."""
    layers = list(itertools.pairwise(widths))
    return [
        *(kind(batch, *layer) for kind in (forward, gradient) for layer in layers),
        *(forward(batch, widths[-1], width) for width in widths[1:-1]),
    ]


def forward_forward(widths: Sequence[int], batch: int) -> list[Product]:
    """Returns the products of Forward-Forward: positive and negative data at once, a neutral pass, the readout."""
    layers, outputs = list(itertools.pairwise(widths[:-1])), widths[-1]
    readout = sum(widths[2:-1]), outputs
    return [
        *(kind(2 * batch, *layer) for kind in (forward, gradient) for layer in layers),
        *(forward(batch, *layer) for layer in layers),
        *(kind(batch, *readout) for kind in (forward, gradient)),
    ]


def associated_learning(widths: Sequence[int], batch: int) -> list[Product]:
    """Returns the products of associated learning: codes as wide as the stages, bridges five times as wide inside."""
    products = []
    for (below, width), (label, code) in zip(
        itertools.pairwise(widths[:-1]), itertools.pairwise([widths[-1], *widths[1:-1]]), strict=True
    ):
        bridge = (width, 5 * width), (5 * width, width)
        layers = ((below, width), *bridge, (label, code), (code, label))
        products += [kind(batch, *layer) for kind in (forward, gradient) for layer in layers]
        # The losses pass the bridge to the stage, and the decoder to the encoder.
        products += [backward(batch, *layer) for layer in (*bridge, (code, label))]
    return products


class TorchProducts:
    """The products in PyTorch, one after another."""

    def __init__(self, products: Sequence[Sequence], threads: int):
        """Makes the operands.

        Args:
          products: the fields of each `Product`.
          threads: their number.
        """
        import torch

        torch.set_num_threads(threads)
        self.operands = []
        for product in map(Product._make, products):
            left, right = (torch.from_numpy(operand) for operand in _operands(product))
            left = left.t() if product.transposed == "left" else left
            right = right.t() if product.transposed == "right" else right
            self.operands.append((left, right, torch.empty(product.rows, product.columns)))

    def run(self, steps: int) -> None:
        """Computes all products a number of times."""
        import torch

        for _ in range(steps):
            for left, right, result in self.operands:
                torch.mm(left, right, out=result)


class XlaProducts:
    """The products in XLA, in one compiled loop, as in a training loop of fa_jax."""

    def __init__(self, products: Sequence[Sequence]):
        """Makes the operands and compiles the loop; `products` are the fields of each `Product`."""
        import jax
        import jax.numpy as jnp

        made = [Product._make(product) for product in products]
        # Each step reads one of two left operands, so that no product can be moved out of the loop.
        self.operands = [
            (jnp.stack([jnp.asarray(left), -jnp.asarray(left)]), jnp.asarray(right))
            for left, right in map(_operands, made)
        ]

        def product(index, kind, left, right):
            left = left[index].T if kind.transposed == "left" else left[index]
            return left @ (right.T if kind.transposed == "right" else right)

        def loop(steps, operands, results):
            def step(i, results):
                del results
                return [product(i % 2, kind, *pair) for kind, pair in zip(made, operands, strict=True)]

            return jax.lax.fori_loop(0, steps, step, results)

        self.results = [jnp.zeros((kind.rows, kind.columns)) for kind in made]
        self.loop = jax.jit(loop)

    def run(self, steps: int) -> None:
        """Computes all products a number of times."""
        import jax

        jax.block_until_ready(self.loop(steps, self.operands, self.results))


def _operands(product: Product) -> tuple[np.ndarray, np.ndarray]:
    """Draws both operands, float32, as they are stored."""
    random = np.random.default_rng(0)
    shapes = [(product.rows, product.inner), (product.inner, product.columns)]
    sides = zip(("left", "right"), shapes, strict=True)
    stored = [shape[::-1] if product.transposed == side else shape for side, shape in sides]
    left, right = (random.standard_normal(shape, np.float32) for shape in stored)
    return left, right
