"""Feedback alignment: the error travels back layer by layer through fixed random weights.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i)         B_{i+1} random and fixed, in place of backprop's W_{i+1}^T

d_i is the substitute for dL/da_i, a_i the pre-activation of layer i, and f the activation function.

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014.
"""

from fa_jax.core import LossFunction, Rule, Stream, stream
from fa_jax.feedback import InitFeedback, require_all_kernels
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule


def fa(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of feedback alignment.

    Args:
      network: any network of Flax layers, unmodified.
      loss: a mean over the batch.
      init_feedback: draws a backward kernel, `[*stack, ..., in, out]`, for each linear layer but the first, such as
        `feedback.layerwise`. The kernel of a convolution has the shape of its forward kernel.
    """

    def init(key):
        params = network.init(key)
        feedback = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        return params, require_all_kernels(network, feedback)

    def backward(params, feedback, batch):
        del params, batch
        return {"feedback": feedback}

    def weight_pairs(params, feedback):
        weights = network.weights(params)
        return {name: (kernel, weights[name]) for name, kernel in feedback.items()}

    return backward_rule(network, loss, init=init, backward=backward, weight_pairs=weight_pairs)
