"""Goodness: the activity that layers of Forward-Forward raise on positive data and lower on negative data.

    p_l = sigmoid(s (G_l - theta_l) / T),   G_l = sum_j y_lj^2,   s = 1, or -1 if goodness is to be low on positive data
    L_l = -1/2 log p_l on positive data, -1/2 log(1 - p_l) on negative data

The factor 1/2 is that of Hinton's code, whose updates lack the factor 2 of the gradient of a square. SymBa compares
each positive example with its negative one instead, without a threshold:

    L_l = 1/2 softplus(-s alpha (G_l on positive data - G_l on negative data))

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022. Lee, Song, "SymBa:
Symmetric Backpropagation-Free Contrastive Learning with Forward-Forward Algorithm for Optimizing Convergence", arXiv
2303.08418, 2023, whose loss is given here as in three reimplementations, which agree.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, number, unused
from fa_jax.core import Batch, Metric, PyTree
from fa_jax.losses import straight_through
from fa_jax.network import Network
from fa_jax.rules.square_root import square_root

METRICS = (
    Metric("positive_goodness", "goodness of positive data", unit="thresholds", better="neither"),
    Metric("negative_goodness", "goodness of negative data", unit="thresholds", better="neither"),
    Metric("pairwise_error", "pairs with goodness the wrong way round", unit="%", bounds=(0, 100)),
    Metric("probe_error_by_goodness", "probe error by goodness", unit="%", bounds=(0, 100)),
    Metric("probe_error_by_softmax", "probe error by softmax", unit="%", bounds=(0, 100)),
)


def divide_by_rms(y: jax.Array) -> jax.Array:
    """Returns each example divided by its root mean square (the mean is not subtracted); zeros stay zero."""
    return y / (1e-8 + square_root(jnp.mean(jnp.square(y), range(1, y.ndim), keepdims=True)))


def divide_by_length(y: jax.Array) -> jax.Array:
    """Returns each example divided by its Euclidean length plus 1e-4."""
    return y / (1e-4 + square_root(jnp.sum(jnp.square(y), range(1, y.ndim), keepdims=True)))


class Convention(NamedTuple):
    """A consistent choice of normalisation, goodness and threshold."""

    normalise: Callable[[jax.Array], jax.Array]
    """Activities `[batch, ...]` to the input of the layer above."""
    mean: bool
    """Whether goodness is the mean of squares instead of their sum."""
    threshold: float
    """The default threshold."""
    threshold_factor: Callable[[int, int], int]
    """`(units, inputs of each unit) -> factor` of the threshold."""


CONVENTIONS = {
    "hinton": Convention(divide_by_rms, mean=False, threshold=1.0, threshold_factor=lambda units, inputs: units),
    "fan_in": Convention(divide_by_rms, mean=False, threshold=1.0, threshold_factor=lambda units, inputs: inputs),
    "mean_square": Convention(divide_by_rms, mean=True, threshold=2.0, threshold_factor=lambda units, inputs: 1),
    "unit_length": Convention(divide_by_length, mean=True, threshold=2.0, threshold_factor=lambda units, inputs: 1),
}
"""The conventions of Hinton's code and of reimplementations: a threshold per input; the mean of squares; and the
mean of squares with inputs of length 1, whose gradients are smaller by orders of magnitude and need Adam."""


class Goodness(NamedTuple):
    """The goodness of the layers of a network."""

    convention: Convention
    sign: float
    """s: 1 if goodness is to be high on positive data, -1 if low."""
    temperature: float
    """T, the temperature of the logistic."""
    thresholds: tuple[float, ...]
    """theta, the threshold of each layer."""
    scales: tuple[float, ...]
    """The factor of a layer's peer term and weight decay: 1 / units if goodness is a mean, else 1, so that they keep
    their size beside the gradient of the goodness."""
    first_readout_layer: int
    """The first layer that votes for a label, from 0."""
    alpha: float | None = None
    """The factor of the difference of goodness in SymBa's loss; None: the loss with a threshold."""

    def goodness(self, y: jax.Array) -> jax.Array:
        """Returns G, `[batch]`, of activities `[batch, ...]`."""
        return (jnp.mean if self.convention.mean else jnp.sum)(jnp.square(y), range(1, y.ndim))

    def excess(self, layer: int, y: jax.Array) -> jax.Array:
        """Returns `(G - theta) / T`, `[batch]`, of activities `[batch, ...]`."""
        return (self.goodness(y) - self.thresholds[layer]) / self.temperature

    def loss(self, layer: int, y: jax.Array, *, positive: bool) -> jax.Array:
        """Returns L of a layer, the mean over the batch of activities `[batch, ...]`."""
        sign = self.sign if positive else -self.sign
        return jnp.mean(jax.nn.softplus(-sign * self.excess(layer, y))) / 2

    def joint_loss(self, layer: int, positive: jax.Array, negative: jax.Array) -> jax.Array:
        """Returns L of a layer on both kinds of data, or SymBa's L of pairs of a positive and a negative example."""
        if self.alpha is None:
            return self.loss(layer, positive, positive=True) + self.loss(layer, negative, positive=False)
        difference = self.goodness(positive) - self.goodness(negative)
        return jnp.mean(jax.nn.softplus(-self.sign * self.alpha * difference)) / 2

    def evidence(self, activities: Sequence[jax.Array]) -> jax.Array:
        """Returns the evidence for positive data, `[batch]`: the signed excess, summed over the layers that vote."""
        voting = [self.excess(i, y) for i, y in enumerate(activities) if i >= self.first_readout_layer]
        return self.sign * functools.reduce(jnp.add, voting)

    def probe_metrics(self, positive: Sequence[jax.Array], negative: Sequence[jax.Array]) -> dict[str, jax.Array]:
        """Returns the goodness and the pairwise error by layer.

        The goodness is a mean in units of the threshold. The pairwise error is the percentage of pairs in which the
        negative example has at least the evidence of the positive one.
        """
        metrics = {}
        for i, activities in enumerate(zip(positive, negative, strict=True)):
            high, low = (self.excess(i, y) for y in activities)
            metrics[f"positive_goodness_{i}"] = self.temperature * high.mean() / self.thresholds[i] + 1
            metrics[f"negative_goodness_{i}"] = self.temperature * low.mean() / self.thresholds[i] + 1
            metrics[f"pairwise_error_{i}"] = 100 * jnp.mean(self.sign * (high - low) <= 0)
        return metrics


def goodness_of(
    network: Network,
    *,
    goodness: str,
    convention: str,
    threshold: float | None,
    temperature: float,
    first_readout_layer: int,
) -> Goodness:
    """Returns the `Goodness` of a network's hidden layers.

    Args:
      network: has a kernel `stages_i/linear` for each of its hidden layers.
      goodness: `maximised` or `minimised` on positive data.
      convention: a name in `CONVENTIONS`.
      threshold: above 0; per unit with `hinton`, per input of a unit with `fan_in`; None: the convention's.
      temperature: above 0.
      first_readout_layer: the first layer that votes for a label, from 0.

    Raises:
      BadOption: if an option is out of range.
    """
    sign = choose("goodness", goodness, {"maximised": 1.0, "minimised": -1.0})
    chosen = choose("convention", convention, CONVENTIONS)
    theta = chosen.threshold if threshold is None else number("threshold", threshold, above=0)
    units = [math.prod(hidden.shape) for hidden in network.hidden_shapes.values()]
    inputs = [network.kernel_shapes[f"stages_{i}/linear"].fan_in for i in range(len(units))]
    thresholds = tuple(theta * chosen.threshold_factor(n, k) for n, k in zip(units, inputs, strict=True))
    scales = tuple(1 / n if chosen.mean else 1.0 for n in units)
    return Goodness(chosen, sign, number("temperature", temperature, above=0), thresholds, scales, first_readout_layer)


def alpha_of_pairs(contrast: str, alpha: float | None, **without_effect: tuple) -> float | None:
    """Returns the alpha of SymBa's loss, or None for the loss with a threshold.

    Args:
      contrast: `threshold` or `pairs`.
      alpha: above 0 with pairs, None with a threshold.
      **without_effect: options that have no effect with pairs: what was got, and what it must be then.

    Raises:
      BadOption: if an option is out of range or has no effect.
    """
    if not choose("contrast", contrast, {"threshold": False, "pairs": True}):
        unused("alpha", alpha, "with contrast=threshold")
        return None
    for option, (got, valid) in without_effect.items():
        if got != valid:
            needed = "null" if valid is None else valid
            raise BadOption(f"must be {needed} with contrast=pairs, which has no threshold; got {got!r}", option)
    return number("alpha", alpha, above=0)


class PeerNormalisation(NamedTuple):
    """Keeps the units of a layer about equally active: pulls the mean activity of each towards that of all units."""

    strength: float
    """lambda, the strength of the pull."""
    rate: float
    """The share of a running mean that a batch replaces."""

    def update(self, mean: jax.Array, y: jax.Array) -> jax.Array:
        """Returns the running mean, shaped like an activity, updated by activities on positive data `[batch, ...]`."""
        return (1 - self.rate) * mean + self.rate * y.mean(0)

    def pull(self, mean: jax.Array) -> jax.Array:
        """Returns `lambda (mean_j m - m)`."""
        return self.strength * (mean.mean() - mean)

    def loss(self, mean: jax.Array, a: jax.Array) -> jax.Array:
        """Returns the loss whose gradient is minus the pull for every example of `a`, `[batch, ...]`.

        It is linear in `a`, which must let gradients reach silent units too: the pull is meant to wake them. `a` is
        therefore the pre-activation, or a `straight_through_relu` of it.
        """
        return -jnp.sum(jax.lax.stop_gradient(self.pull(mean)) * a) / len(a)


def peer_normalisation(strength: float, rate: float) -> PeerNormalisation:
    """Returns the `PeerNormalisation` of a strength of at least 0 and a rate in [0, 1]."""
    return PeerNormalisation(number("peer_strength", strength, least=0), number("peer_rate", rate, least=0, most=1))


straight_through_relu = straight_through(jax.nn.relu)
"""`relu` with the derivative of the identity, so that peer normalisation reaches silent units. The goodness of silent
units has derivative 0 in any case."""


def decays(goodness: Goodness, weight_decay: float, readout_decay: float) -> dict[str, float]:
    """Returns the weight decay of each part of the params; that of a stage is multiplied by the scale of its layer."""
    weights = number("weight_decay", weight_decay, least=0)
    readouts = number("readout_decay", readout_decay, least=0)
    by_layer = {f"{kind}_{i}": weights * s for i, s in enumerate(goodness.scales) for kind in ("stages", "downs")}
    return by_layer | {f"readouts_{i}": readouts for i in range(len(goodness.scales))}


def error_of_other_inference(softmax: Callable, goodness: Callable, *, by_softmax: bool) -> Callable:
    """Returns `(params, batch) -> {metric: error in %}` of the inference that a rule does not predict with.

    Args:
      softmax, goodness: the logits of each inference, `(params, inputs) -> [batch, classes]`.
      by_softmax: whether the rule predicts by softmax.
    """
    other = goodness if by_softmax else softmax
    name = f"probe_error_by_{'goodness' if by_softmax else 'softmax'}"

    def measure(params: PyTree, batch: Batch) -> dict[str, jax.Array]:
        predicted = other(params, batch.inputs).argmax(-1)
        return {name: 100 * jnp.mean(predicted != batch.targets.argmax(-1))}

    return measure
