"""Shallow learning: only the readout learns; the hidden layers keep their initial weights.

The control for every feedback rule: whatever beats it has learnt a hidden representation.

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014, fig. 1d.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import LossFunction, Rule, Stream, stream
from fa_jax.network import Network, gradient
from fa_jax.networks.chain import require_hidden


def shallow(network: Network, loss: LossFunction) -> Rule:
    """Returns the `Rule` in which every hidden layer is taught a zero signal; its feedback is `()`.

    The hidden layers stay as they are under an optimizer that leaves them so: one with weight decay does not.

    Raises:
      BadOption: if the network marks no hidden layer.
    """
    require_hidden(network)

    def updates(params, feedback, batch):
        del feedback
        _, hiddens = network.forward(params, batch.inputs)
        return gradient(network, loss, params, batch, signals=jax.tree.map(jnp.zeros_like, hiddens))

    return Rule(lambda key: (network.init(stream(key, Stream.INIT)), ()), updates, network.apply)
