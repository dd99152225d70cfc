"""Feedback alignment: the error travels back layer by layer, through fixed random weights.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i)         B_{i+1} random and fixed, in the place of backprop's W_{i+1}^T

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014. It works on any network of stock Flax layers, which need not know of it.
"""

from fa_jax.core import LossFunction, Rule, Stream, stream
from fa_jax.feedback import backward_kernels
from fa_jax.network import Network, gradient


def fa(network: Network, loss: LossFunction, **feedback) -> Rule:
    """Returns the `Rule` of feedback alignment.

    Its feedback holds a kernel `[*stack, ..., in, out]` by the name of each linear layer but the first. Convolutions
    are transported like dense layers: over a kernel of the same shape.

    Args:
      network: any network.
      loss: a mean over the batch.
      **feedback: how it is drawn, as in `fa_jax.feedback.backward_kernels`.
    """
    draw = backward_kernels(network, **feedback)

    def init(key):
        params = network.init(stream(key, Stream.INIT))
        return params, draw(stream(key, Stream.FEEDBACK), params)

    def updates(params, feedback, batch):
        return gradient(network, loss, params, batch, feedback=feedback)

    def crossing(params, feedback):
        weights = network.weights(params)
        return {name: (feedback[name], weights[name]) for name in list(network.kernels)[1:]}

    return Rule(init, updates, network.apply, crossing=crossing)
