"""The share of entries in which a rule's learning signal has the sign of backprop's.

For signals with normally distributed entries at an angle of t degrees, it is 1 - t/180: 1/2 for a random signal. It
ignores sizes: a signal with the right signs and wrong sizes agrees fully, at an angle above zero.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, LossFunction, Measure, Metric, PyTree, Rule
from fa_jax.metrics.alignment import REFERENCE, by_layer, each_layer, signal_pairs
from fa_jax.network import Network

METRIC = Metric(
    "sign_agreement",
    "entries of the learning signal with the sign of backprop's",
    better="higher",
    bounds=(0, 1),
    flag=REFERENCE,
    random=(0.5, 0.5),
)


def sign_agreement() -> Measure:
    """Returns the `Measure` of `sign_agreement_i`."""
    return Measure((METRIC,), layer_agreement)


def layer_agreement(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns `sign_agreement_i` of hidden layer i, from 0 to 1: of each example, mean over those that have one.

    Absent if the rule does not provide its signals.

    Args:
      rule, network, loss: the rule, and what it was built from.
      params, feedback: of one seed.
      batch: the probe.
    """
    pairs = signal_pairs(rule, network, loss, params, feedback, batch)
    if not pairs:
        return {}
    (agreements,) = each_layer(lambda *signals: (jax.vmap(agreement)(*signals),), pairs)
    return by_layer(METRIC.name, jnp.nanmean(agreements, axis=1))


def agreement(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the share of entries with equal signs among those that are zero in neither array; NaN without any."""
    known = (a != 0) & (b != 0)
    count = jnp.sum(known)
    return jnp.where(count > 0, jnp.sum(known & ((a > 0) == (b > 0))) / jnp.maximum(count, 1), jnp.nan)
