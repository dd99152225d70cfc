"""The angle that a rule's learning signal would have with freshly drawn feedback.

    null_angle_i = angle between the signal through freshly drawn feedback and backprop's

Feedback alignment is alignment with the feedback that was used in training. So the signal through feedback of the same
distribution, drawn anew, is what an angle is to be compared with: the difference is what the rule has learned. A random
signal is another comparison, and a narrower one: all examples share the fresh feedback, so their angles deviate from 90
degrees together, and a mean over examples is not more exact than that.

Hao, Wan, Zhai (arXiv 2606.21126, 2026) report cosines of 0.002 +- 0.022 over 20 draws beside 0.163, in their notes.
"""

import jax

from fa_jax.core import Batch, LossFunction, Measure, PyTree, Rule
from fa_jax.metrics.alignment import angle_to_backprop, by_layer, mean_angles, signal_pairs
from fa_jax.network import Network

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
    Absent if the rule has no feedback, or does not provide its signals.

    Args:
      rule, network, loss: the rule, and what it was built from.
      params, feedback: of one seed.
      batch: the probe; its key draws the feedback.
    """
    if not jax.tree.leaves(feedback):
        return {}
    _, fresh = rule.init(jax.random.fold_in(batch.key, 1))
    pairs = signal_pairs(rule, network, loss, params, fresh, batch)
    return by_layer(METRIC.name, mean_angles(pairs)) if pairs else {}
