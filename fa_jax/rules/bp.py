"""Backpropagation: the true gradient, by which every other rule is measured.

    d_i = (W_{i+1}^T d_{i+1}) * f'(a_i)

Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
"""

from fa_jax.core import LossFunction, Rule, Stream, stream
from fa_jax.network import Network, gradient


def bp(network: Network, loss: LossFunction) -> Rule:
    """Returns the `Rule` whose updates are the gradient of the mean loss; its feedback is `()`."""

    def updates(params, feedback, batch):
        del feedback
        return gradient(network, loss, params, batch)

    def crossing(params, feedback):
        del feedback
        return {name: (w, w) for name, w in list(network.weights(params).items())[1:]}

    return Rule(lambda key: (network.init(stream(key, Stream.INIT)), ()), updates, network.apply, crossing=crossing)
