"""The angle between a rule's learning signal and that of pseudobackprop, `W^+ e`.

Pseudobackprop sends the error through the Moore-Penrose inverse of the readout's weights where backprop uses their
transpose, which approximates the Gauss-Newton method. It is a diagnostic, not a rule that is trained here.

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014, fig. 4c.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, LossFunction, PyTree, Rule
from fa_jax.metrics.alignment import angle
from fa_jax.network import Network


def pseudobackprop(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns `pseudobackprop_angle`: at the last hidden layer, for each example, mean over the batch, in degrees.

    Args:
      rule, network, loss: the rule under test, and what it was made of; the network ends in a dense readout.
      params, feedback: one seed's.
      batch: the probe.
    """
    logits, hiddens = network.forward(params, batch.inputs)
    nudged = network.nudge(params, jax.tree.map(jnp.zeros_like, hiddens))
    signals = network.nudges(rule.updates(nudged, feedback, batch))[list(network.hiddens)[-1]]
    readout = list(network.weights(params).values())[-1]
    ideal = jax.grad(loss)(logits, batch.targets) @ jnp.linalg.pinv(readout)
    return {"pseudobackprop_angle": jnp.nanmean(jax.vmap(angle)(signals, ideal))}
