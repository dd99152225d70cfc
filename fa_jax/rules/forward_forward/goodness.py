"""Goodness: what the layers of Forward-Forward raise on true data and lower on false data, in several scales.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number
from fa_jax.core import Batch, PyTree
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, each_stage
from fa_jax.networks.cnn import ConvolutionStage
from fa_jax.networks.layers import max_pool


def by_size(y: jax.Array) -> jax.Array:
    """Returns each example divided by the root of its mean square; no mean is taken out, zeros stay zeros."""
    return y / (1e-8 + _root(jnp.mean(jnp.square(y), range(1, y.ndim), keepdims=True)))


def by_length(y: jax.Array) -> jax.Array:
    """Returns each example divided by its length plus 1e-4."""
    return y / (1e-4 + _root(jnp.sum(jnp.square(y), range(1, y.ndim), keepdims=True)))


def _root(power: jax.Array) -> jax.Array:
    """The root, with a derivative of 0 at 0; where it is not taken it must not be differentiated either."""
    return jnp.where(power > 0, jnp.sqrt(jnp.where(power > 0, power, 1)), 0)


class Convention(NamedTuple):
    """What belongs together: how activities are sent up, what their goodness is and what it is compared with."""

    normalise: Callable[[jax.Array], jax.Array]
    """Activities `[batch, ...]` -> what the layer above is sent."""
    mean: bool
    """Whether goodness is the mean of the squares and not their sum."""
    threshold: float
    """What goodness is compared with, where nothing else is asked for."""
    times: Callable[[int, int], int]
    """`(units, inputs of each) ->` by what the threshold is multiplied."""


CONVENTIONS = {
    "hinton": Convention(by_size, mean=False, threshold=1.0, times=lambda units, inputs: units),
    "fan_in": Convention(by_size, mean=False, threshold=1.0, times=lambda units, inputs: inputs),
    "mean_square": Convention(by_size, mean=True, threshold=2.0, times=lambda units, inputs: 1),
    "unit_length": Convention(by_length, mean=True, threshold=2.0, times=lambda units, inputs: 1),
}
"""Hinton's code; and those of people who wrote it anew: the threshold by the number of inputs, the mean of the squares,
and that with activities sent up at length 1, whose gradients are smaller by orders of magnitude and need Adam."""


class Goodness(NamedTuple):
    """The goodness of the layers of a network, `p = logistic((G - theta) / temperature)`."""

    convention: Convention
    sign: float
    """1 where it is to be high on true data, -1 where low."""
    temperature: float
    thresholds: tuple[float, ...]
    """Theta, one a layer."""
    scales: tuple[float, ...]
    """By what all that a layer learns from is multiplied: 1 over the units where goodness is a mean, else 1."""
    read_from: int
    """The first layer that chooses a label, from 0."""

    def excess(self, layer: int, y: jax.Array) -> jax.Array:
        """Returns `(G - theta) / temperature`, `[batch]`, of activities `[batch, ...]`."""
        over = jnp.mean if self.convention.mean else jnp.sum
        return (over(jnp.square(y), range(1, y.ndim)) - self.thresholds[layer]) / self.temperature

    def told(self, layer: int, y: jax.Array, true: bool) -> jax.Array:
        """Returns D of Hinton's code, shaped like y: what makes activities better as true or as false data.

        It is half the gradient of log p or log(1 - p) of each example: `(1 - p) y` or `-p y`.
        """
        sign = self.sign if true else -self.sign
        missing = jax.nn.sigmoid(-sign * self.excess(layer, y))
        return sign / self.temperature * self.scales[layer] * missing.reshape(-1, *(1,) * (y.ndim - 1)) * y

    def vote(self, activities: Sequence[jax.Array]) -> jax.Array:
        """Returns how true each example seems to the layers that are read, `[batch]`: their excess, with the sign."""
        read = [self.excess(i, y) for i, y in enumerate(activities) if i >= self.read_from]
        return self.sign * functools.reduce(jnp.add, read)

    def contrast(self, true: Sequence[jax.Array], false: Sequence[jax.Array]) -> dict[str, jax.Array]:
        """Returns, by layer, the mean goodness of activities and how often they are the wrong way round.

        `positive_goodness_i` and `negative_goodness_i` in units of the threshold; `pairwise_error_i` in %.
        """
        found = {}
        for i, both in enumerate(zip(true, false, strict=True)):
            high, low = (self.excess(i, y) for y in both)
            found[f"positive_goodness_{i}"] = self.temperature * high.mean() / self.thresholds[i] + 1
            found[f"negative_goodness_{i}"] = self.temperature * low.mean() / self.thresholds[i] + 1
            found[f"pairwise_error_{i}"] = 100 * jnp.mean(self.sign * (high - low) <= 0)
        return found


def goodness_of(
    network: Network, *, goodness: str, convention: str, threshold: float | None, temperature: float, read_from: int
) -> Goodness:
    """Returns the `Goodness` of a network's hidden layers.

    Args:
      network: with a kernel `stages_i/linear` for each of its hidden layers.
      goodness: `maximised` on true data, or `minimised`.
      convention: a name in `CONVENTIONS`.
      threshold: of a layer's goodness, above 0: for each unit with `hinton`, for each input of a unit with `fan_in`,
        as it is with the others; None: the convention's.
      temperature: above 0.
      read_from: the first layer that chooses a label, from 0.

    Raises:
      BadOption: if an option is none of these.
    """
    sign = choose("rule.goodness", goodness, {"maximised": 1.0, "minimised": -1.0})
    chosen = choose("rule.convention", convention, CONVENTIONS)
    theta = chosen.threshold if threshold is None else number("rule.threshold", threshold, above=0)
    units = [math.prod(hidden.shape) for hidden in network.hiddens.values()]
    inputs = [network.kernels[f"stages_{i}/linear"].forward_fan for i in range(len(units))]
    thresholds = tuple(theta * chosen.times(n, k) for n, k in zip(units, inputs, strict=True))
    scales = tuple(1 / n if chosen.mean else 1.0 for n in units)
    return Goodness(chosen, sign, number("rule.temperature", temperature, above=0), thresholds, scales, read_from)


class Peers(NamedTuple):
    """What keeps the units of a layer about equally active: each is pulled towards the mean of them all."""

    strength: float
    rate: float

    def follow(self, mean: jax.Array, y: jax.Array) -> jax.Array:
        """Returns a running mean, shaped like an activity, that has taken in activities on true data `[batch, ...]`."""
        return (1 - self.rate) * mean + self.rate * y.mean(0)

    def pull(self, mean: jax.Array) -> jax.Array:
        """Returns what is added to D for every example, silent units not excepted: `lambda (mean_j m - m)`."""
        return self.strength * (mean.mean() - mean)


def peers_of(peer_strength: float, peer_rate: float) -> Peers:
    """Returns `Peers` of a strength of at least 0, which replace a share of their means, from 0 to 1, at each batch."""
    strength = number("rule.peer_strength", peer_strength, least=0)
    return Peers(strength, number("rule.peer_rate", peer_rate, least=0, most=1))


def first_read(read_from: int, layers: int) -> int:
    """Returns the first layer that is read out, checked: from 0 to the last.

    Raises:
      BadOption: if there is no such layer.
    """
    if integer("rule.read_from", read_from, least=0) >= layers:
        raise BadOption(
            f"rule.read_from must be below the number of hidden layers, {layers}, so that one is left to be read out; "
            f"got {read_from}"
        )
    return read_from


def with_label(x: jax.Array, label: jax.Array) -> jax.Array:
    """Returns inputs `[batch, ...]`, the first numbers of each overwritten by a label `[batch, classes]`."""
    flat = x.reshape(len(x), -1)
    return jnp.concatenate([label, flat[:, label.shape[-1] :]], -1).reshape(x.shape)


def wrong_labels(logits: jax.Array, batch: Batch) -> jax.Array:
    """Returns a one-hot label for each example, drawn by the softmax of the logits from those that are not true."""
    drawn = jax.random.categorical(batch.key, jnp.where(batch.targets > 0, -jnp.inf, logits))
    return jax.nn.one_hot(drawn, batch.targets.shape[-1], dtype=batch.inputs.dtype)


def relu_stages(network: Network, rule: str) -> tuple[Chain, list[DenseStage | ConvolutionStage]]:
    """Returns the chain and the stages of a network that Forward-Forward has a definition for, and refuses others.

    Args:
      network: whose stages have to be one layer of ReLU units each, dense or with local fields.
      rule: how the user calls the rule, for messages.

    Raises:
      BadOption: if it is another.
    """
    chain = network.module
    found = list(each_stage(chain)) if isinstance(chain, Chain) else []
    stages = [stage for stage in found if isinstance(stage, DenseStage | ConvolutionStage)]
    if not isinstance(chain, Chain) or len(stages) < len(found):
        raise BadOption(
            f"rule={rule} needs stages of one dense or local layer each, as architecture=mlp, cnn or locally_connected "
            "has them"
        )
    if any(stage.activation is not jax.nn.relu for stage in stages):
        raise BadOption(f"rule={rule} needs architecture.activation=relu")
    if any(stage.dropout or stage.input_dropout for stage in stages):
        raise BadOption(f"rule={rule} has no definition for dropout; architecture.dropout must be 0")
    if not all(stage.use_bias if isinstance(stage, DenseStage) else stage.initial["use_bias"] for stage in stages):
        raise BadOption(f"rule={rule} needs architecture.biases=true")
    local = [stage for stage in stages if isinstance(stage, ConvolutionStage)]
    if any(stage.norm is not None for stage in stages):
        raise BadOption(f"rule={rule} normalises by itself; architecture.norm must be none")
    if any(stage.hidden_ends != "after_pooling" for stage in local):
        raise BadOption(f"rule={rule} needs architecture.hidden_ends=after_pooling")
    if any(stage.pooling is not max_pool and stage.shape.pool > 1 for stage in local):
        raise BadOption(f"rule={rule} has no definition for averages; architecture.pooling must be max")
    return chain, stages


def decays_of(good: Goodness, weight_decay: float, head_decay: float) -> dict[str, float]:
    """Returns the decays of the parts of a rule by their names, for `decayed`.

    Args:
      good: whose scales are the decays' too.
      weight_decay: of the kernels of stages, and on the way down to them, at least 0.
      head_decay: of those of readouts, at least 0.
    """
    weights, heads = (
        number("rule.weight_decay", weight_decay, least=0),
        number("rule.head_decay", head_decay, least=0),
    )
    of_layers = {f"{kind}_{i}": weights * s for i, s in enumerate(good.scales) for kind in ("stages", "downs")}
    return of_layers | {f"heads_{i}": heads for i in range(len(good.scales))}


def decayed(updates: PyTree, params: PyTree, decays: Mapping[str, float]) -> PyTree:
    """Adds to the updates of kernels what decays them; `decays` by a part's name."""

    def of(path, update, value):
        decay = decays.get(path[0].key, 0.0)
        return update + decay * value if decay and path[-1].key == "kernel" else update

    return jax.tree_util.tree_map_with_path(of, updates, params)


def rates(heads_rate: float, params: PyTree) -> PyTree:
    """Returns the readouts' rate for parts whose name begins with `heads`, and 1 for all else."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: heads_rate if path[0].key.startswith("heads") else 1.0, params
    )
