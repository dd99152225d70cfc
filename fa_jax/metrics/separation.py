"""How far apart the classes are in each hidden layer: the ratio of distances between classes and within them."""

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, LossFunction, Measure, Metric, PyTree, Rule
from fa_jax.network import Network

METRIC = Metric("separation", "between-class / within-class distance", better="higher")


def separation() -> Measure:
    """Returns the `Measure` of `separation_i`."""
    return Measure((METRIC,), layer_separation, needs_classes=True)


def layer_separation(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns `separation_i`, the `ratio` of hidden layer i, from 0 at the input.

    Args:
      rule, network, loss: the rule with the network and the loss that it was built for.
      params, feedback: of one seed.
      batch: the probe, with one-hot targets.
    """
    del rule, loss, feedback
    _, hiddens = network.forward(params, batch.inputs)
    return {f"separation_{i}": ratio(layer, batch.targets) for i, layer in enumerate(network.hiddens_in_order(hiddens))}


def ratio(points: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean distance between points of different classes over that between points of the same class.

    Distances are Euclidean, over all pairs of distinct points. Kao, Chen (arXiv 1906.05560) report such an inter- to
    intra-class ratio and cite Michael, Lin, IEEE Transactions on Systems, Man, and Cybernetics 3(2), 1973, whose
    formula was not available to us; this is our own definition.

    Args:
      points: `[n, ...]`.
      targets: `[n, classes]`, one-hot.
    """
    flat = points.reshape(len(points), -1)
    flat = flat - flat.mean(0)  # leaves distances unchanged and reduces rounding errors
    squares = jnp.sum(jnp.square(flat), -1)
    distances = jnp.sqrt(jnp.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))
    same = targets @ targets.T
    pairs = 1 - jnp.eye(len(flat))

    def mean(selected):
        return jnp.sum(selected * distances) / jnp.sum(selected)

    return mean(pairs * (1 - same)) / mean(pairs * same)


def centroid_ratio(points: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean distance between class means over the mean distance of a point from the mean of its class.

    Arguments as for `ratio`; every class has at least one point.
    """
    flat = points.reshape(len(points), -1)
    means = targets.T @ flat / targets.sum(0)[:, None]
    classes = len(means)
    between = jnp.linalg.norm(means[:, None] - means, axis=-1).sum() / (classes * (classes - 1))
    return between / jnp.linalg.norm(flat - targets @ means, axis=-1).mean()
