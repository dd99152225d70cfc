"""Shallow learning: only the readout learns; the hidden layers keep their initial weights.

    d_i = 0 for every hidden layer

The control for every other rule: whatever beats it has learned a hidden representation.

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014, fig. 1d.
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import require_hidden
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule


def shallow(network: Network, loss: LossFunction) -> Rule:
    """Returns the `Rule` in which every hidden layer is taught a zero signal; its feedback is `()`.

    The hidden layers stay fixed under any optimizer without weight decay.

    Raises:
      BadOption: if the network marks no hidden layer.
    """
    require_hidden(network)
    return backward_rule(
        network,
        loss,
        init=lambda key: (network.init(key), ()),
        backward=lambda params, feedback, batch: {"signals": network.hidden_zeros(batch.inputs)},
    )
