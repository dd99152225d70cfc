"""The angle that a rule's learning signal would have with freshly drawn feedback.

    null_angle_i = angle between the signal through freshly drawn feedback and backprop's

Feedback alignment is alignment with the feedback that was used in training. So the signal through feedback of the same
distribution, drawn anew, is what an angle is to be compared with: the difference is what the rule has learned. A random
signal is another comparison, and a narrower one: all examples share the fresh feedback, so their angles deviate from 90
degrees together, and a mean over examples is not more exact than that.

Hao, Wan, Zhai (arXiv 2606.21126, 2026) report cosines of 0.002 +- 0.022 over 20 draws beside 0.163, in their notes.
"""

from collections.abc import Callable
from typing import cast

import jax

from fa_jax.core import Batch, LossFunction, Measure, PyTree, Rule
from fa_jax.metrics.alignment import angle_to_backprop, by_layer, mean_angles, signal_pairs
from fa_jax.network import Network
from fa_jax.networks.reach import crossed

METRIC = angle_to_backprop("null_angle", "angle of the learning signal through fresh feedback to backprop's")


def null_angle() -> Measure:
    """Returns the `Measure` of `null_angle_i`."""
    return Measure((METRIC,), fresh_feedback_angle)


def fresh_feedback_angle(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns `null_angle_i` of hidden layer i, in degrees, mean over the examples whose signals are not zero.

    Every evaluation of every seed draws its own feedback, so the spread over them is that of the draw. The feedback is
    as at the start of a run: the initial weights of another seed if it copies weights, zero if it starts from zero.
    Absent if the rule does not provide its signals, or these depend on no feedback that is drawn.

    Args:
      rule, network, loss: the rule, and what it was built from.
      params, feedback: of one seed.
      batch: the probe; its key draws the feedback.
    """
    if rule.extras.signals is None or not _are_drawn(rule, params, batch):
        return {}
    _, fresh = rule.init(jax.random.fold_in(batch.key, 1))
    pairs = signal_pairs(rule, network, loss, params, fresh, batch)
    return by_layer(METRIC.name, mean_angles(pairs)) if pairs else {}


def _are_drawn(rule: Rule, params: PyTree, batch: Batch) -> bool:
    """Returns whether the signals of a rule depend on the key that draws its feedback."""

    def signals(drawn, arguments):
        params, batch = arguments
        return cast(Callable, rule.extras.signals)(params, rule.init(drawn["key"])[1], batch)

    return bool(crossed(signals, {"key": batch.key}, (params, batch)))
