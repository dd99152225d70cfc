"""Feedback alignment: the error travels back layer by layer through fixed random weights.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i)         B_{i+1} random and fixed, in place of backprop's W_{i+1}^T

It can learn because the forward weights come to agree with B: what the hidden units learn through B makes the next
layer's updates turn W towards B^T, until the signal is within 90 degrees of backprop's (measured as `signal_angle_i`).
In a linear network with one hidden layer and small steps, `B_1 W_1 + (B_1 W_1)^T - W_0 W_0^T` is conserved. From zero
weights it is zero, so that W_1 and B_1^T are at most 90 degrees apart.

`primitives.with_backward_weights` multiplies by B, and autodiff by f'; `backward_rule` builds the rule from both.

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
      init_feedback: draws a backward kernel for each linear layer through which the error is propagated (all but the
        first, see `Network.crossed_kernels`), such as `feedback.layerwise`. It has the shape of the forward kernel,
        `[*stack, ..., in, out]`.

    Raises:
      BadOption: when params are drawn, if `init_feedback` does not return one kernel for each of these layers, or the
        error crosses other weights.
    """

    def init(key):
        params = network.init(key)
        feedback = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        return params, require_all_kernels(network, feedback)

    def backward(params, feedback, batch):
        del params, batch
        return {"backward_kernels": feedback}

    def weight_pairs(params, feedback):
        kernels = network.kernels(params)
        return {name: (backward_kernel, kernels[name]) for name, backward_kernel in feedback.items()}

    return backward_rule(network, loss, init=init, backward=backward, weight_pairs=weight_pairs)
