"""The angle between a rule's learning signal and that of pseudobackprop, `W^+ e`.

Pseudobackprop sends the error through the Moore-Penrose inverse of the readout's weights where backprop uses their
transpose, which approximates the Gauss-Newton method. It is a diagnostic, not a rule that is trained here.

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014, fig. 4c.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, LossFunction, Measure, Metric, PyTree, Rule
from fa_jax.metrics.alignment import angle
from fa_jax.network import Network

METRIC = Metric("pseudobackprop_angle", "angle of the learning signal to pseudobackprop's", "degrees", bounds=(0, 180))


def pseudobackprop() -> Measure:
    """Returns the `Measure` of `pseudobackprop_angle`."""
    return Measure((METRIC,), pseudobackprop_angle)


def pseudobackprop_angle(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns the angle at the last hidden layer, in degrees, mean over the examples.

    Returns nothing if the rule does not provide its signals, or the last kernel is not a dense readout of that layer.

    Args:
      rule, network, loss: the rule, and what it was built from.
      params, feedback: of one seed.
      batch: the probe.
    """
    hidden = list(network.hidden_shapes.values())[-1]
    readout = list(network.kernels(params).values())[-1]
    if rule.extras.signals is None or hidden.shape != readout.shape[:-1]:
        return {}
    signals = network.hiddens_in_order(rule.extras.signals(params, feedback, batch))[-1]
    error = jax.grad(loss)(network.apply(params, batch.inputs, key=batch.key), batch.targets)
    return {METRIC.name: jnp.nanmean(jax.vmap(angle)(signals, error @ jnp.linalg.pinv(readout)))}
