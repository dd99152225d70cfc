"""Shallow learning: only the readout learns; the hidden layers keep their initial weights.

    d_i = 0 for every hidden layer

The control for rules on the same network: one that beats it has learned a hidden representation. A rule with heads or a
network of its own is compared with itself, its hidden layers frozen (`frozen=[stages_*]`).

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014, fig. 1d.
"""

from fa_jax.checks import BadOption
from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import require_hidden
from fa_jax.network import Network
from fa_jax.networks.reach import readout_params
from fa_jax.rules.backward import backward_rule
from fa_jax.rules.freezing import freeze


def shallow(network: Network, loss: LossFunction) -> Rule:
    """Returns the `Rule` in which no signal reaches a hidden layer; its feedback is `()`.

    The hidden layers stay as they are, bit for bit, under any optimizer and weight decay; a param that the readout
    shares with one of them learns. A step costs a forward pass, and the gradient of the readout.

    Raises:
      BadOption: if the network marks no hidden layer, or has no params above the last one.
    """
    require_hidden(network)

    def backward(params, feedback, batch):
        # The readout receives the activations as constants, so that nothing below is differentiated.
        _, hiddens = network.forward(params, batch.inputs, key=batch.key)
        return {"states": hiddens}

    learned = readout_params(network)
    if not learned:
        raise BadOption("would learn nothing: the network has no params above its last hidden layer")
    rule = backward_rule(network, loss, init=lambda key: (network.init(key), ()), backward=backward)
    return freeze(rule, lambda path: path not in learned)
