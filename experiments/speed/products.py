"""Multiply-adds of matrix products that one training step of a rule takes on one example, in a dense network.

Each is a sum over the passes that the rule needs, so a ratio of two is what their times come to if products alone took
time and nothing were computed twice. Options are the defaults of `conf/rule`. P is the sum over layers of inputs times
outputs, Q the same without the first layer, S the number of hidden units and C that of outputs.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple


class Layers(NamedTuple):
    """Layer widths, inputs and outputs included, and the number of examples in a batch."""

    widths: tuple[int, ...]
    batch: int

    @property
    def by_layer(self) -> list[int]:
        """Inputs times outputs of each layer."""
        return [m * n for m, n in itertools.pairwise(self.widths)]

    @property
    def p(self) -> int:
        """P."""
        return sum(self.by_layer)

    @property
    def q(self) -> int:
        """Q."""
        return sum(self.by_layer[1:])

    @property
    def c_s(self) -> int:
        """C times S: a product between every hidden unit and every output."""
        return self.widths[-1] * sum(self.widths[1:-1])

    @property
    def from_each_hidden(self) -> int:
        """Passes from every hidden layer to the outputs."""
        return sum(sum(self.by_layer[i:]) for i in range(1, len(self.by_layer)))


def bp(n: Layers) -> float:
    """Forward, backward, gradients of the weights."""
    return 2 * n.p + n.q


def local_loss(n: Layers) -> float:
    """Forward and gradients; for each stage three products of its prediction, of its similarity, and with the batch."""
    squares = sum(width**2 for width in n.widths[1:-1])
    return 2 * n.p + 3 * n.c_s + 3 * squares + 3 * n.batch * sum(n.widths[1:-1])


def local_forward_gradient(n: Layers) -> float:
    """Forward and gradients; the heads and their tangents and gradients."""
    return 2 * n.p + 3 * n.c_s


def forward_dfa(n: Layers) -> float:
    """Forward with its tangent, gradients; direct feedback and its estimate."""
    return 2 * n.p + n.q + 2 * n.c_s


def product_feedback_alignment(n: Layers) -> float:
    """The products of `bp`, but the error passes two factors, ten times as wide in between, of which one learns."""
    mixing = sum(width**2 for width in n.widths[2:])
    return 2 * n.p + 10 * (mixing + 2 * n.q)


def pepita(n: Layers) -> float:
    """Two forward passes, gradients, the error at the inputs."""
    return 3 * n.p + n.widths[0] * n.widths[-1]


def mirrored_pepita(n: Layers) -> float:
    """The products of `pepita`, the mirrors' responses and outer products, and once per batch that of all feedback."""
    return pepita(n) + 2 * n.p + n.widths[-1] * sum(n.by_layer[:-1]) / n.batch


def target_propagation(n: Layers) -> float:
    """Forward, gradients, targets; for each inverse a pass up and down from its layer, and its own gradient."""
    return 2 * n.p + 2 * n.q + 2 * n.from_each_hidden + 2 * n.q


def direct_target_propagation(n: Layers) -> float:
    """Forward, gradients, direct feedback; a forward pass at full precision, with noise from every hidden layer on."""
    return 2 * n.p + n.c_s + n.p + n.from_each_hidden + 2 * n.c_s


def fixed_weight_target_propagation(n: Layers) -> float:
    """Forward, gradients; inverses on the targets and on the activations."""
    return 2 * n.p + 2 * n.q


def predictive_coding(n: Layers) -> float:
    """Forward, gradients; in each of 20 steps predictions and errors above the first layer."""
    return 2 * n.p + 20 * 2 * n.q


def scff(n: Layers) -> float:
    """Forward and gradients for two kinds of pairs; readouts of all layers, with gradients."""
    stages = sum(n.by_layer[:-1])
    return 2 * 2 * stages + 2 * n.c_s


def counter_current(n: Layers) -> float:
    """Forward and gradients; the products of both networks, and the second one, which runs on the classes."""
    classes = n.widths[-1]
    return 2 * n.p + classes * (3 * sum(n.widths[:-1]) - n.widths[0]) + 2 * n.p * classes / n.batch


def equilibrium_propagation(n: Layers) -> float:
    """Products of the inputs once; 200 free steps and twice 50 nudged ones, up and down; gradients of both ends."""
    return n.p + 300 * 2 * n.q + 2 * n.p


OF_RULES: dict[str, Callable[[Layers], float]] = {
    "local_loss": local_loss,
    "forward_gradient": bp,
    "local_forward_gradient": local_forward_gradient,
    "forward_dfa": forward_dfa,
    "product_feedback_alignment": product_feedback_alignment,
    "pepita": pepita,
    "mirrored_pepita": mirrored_pepita,
    "target_propagation": target_propagation,
    "direct_target_propagation": direct_target_propagation,
    "fixed_weight_target_propagation": fixed_weight_target_propagation,
    "predictive_coding": predictive_coding,
    "scff": scff,
    "counter_current": counter_current,
    "equilibrium_propagation": equilibrium_propagation,
}
"""`forward_gradient` has a forward pass with its tangent and the gradients, as many products as `bp`."""


def over_bp(rule: str, widths: tuple[int, ...], batch: int) -> float:
    """Returns the ratio of the products of a rule to those of backprop."""
    layers = Layers(widths, batch)
    return OF_RULES[rule](layers) / bp(layers)
