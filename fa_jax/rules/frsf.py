"""Fixed random-magnitude sign-concordant feedback: the signs of the forward weights, and magnitudes drawn once.

    d_i = (V_{i+1} d_{i+1}) * f'(a_i)         V_{i+1} = (|M_{i+1}| * sign(W_{i+1}))^T, M random and fixed

It separates the two parts of a weight: the backward pass knows the signs, as in `usf`, and none of the magnitudes.

Liao, Leibo, Poggio, "How Important Is Weight Symmetry in Backpropagation?", AAAI 2016 (arXiv 1510.05067).
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.usf import usf


def frsf(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` with fixed random magnitudes, which are its feedback.

    Args:
      network: any network.
      loss: a mean over the batch.
      init_feedback: draws M in the shapes of the kernels, such as `feedback.layerwise` with `fan=fan_in`: then the
        magnitudes are distributed like the initial forward weights.
    """
    return usf(network, loss, init_feedback=init_feedback)
