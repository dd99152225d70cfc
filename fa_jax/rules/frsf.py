"""Fixed random-magnitude sign-concordant feedback: the signs of the forward weights, and magnitudes drawn once.

    d_i = (V_{i+1} d_{i+1}) * f'(a_i)         V_{i+1} = (|M_{i+1}| * sign(W_{i+1}))^T, M random and fixed

Liao, Leibo, Poggio, "How Important Is Weight Symmetry in Backpropagation?", AAAI 2016 (arXiv 1510.05067).
"""

import jax
import jax.numpy as jnp

from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import backward_kernels
from fa_jax.network import Network
from fa_jax.rules.usf import crossed_signs, sign_symmetric


def frsf(network: Network, loss: LossFunction, **magnitudes) -> Rule:
    """Returns the `Rule` with fixed random magnitudes.

    Its feedback holds them, with the shapes of the kernels, by the name of each kernel but the first.

    Args:
      network: any network.
      loss: a mean over the batch.
      **magnitudes: how M is drawn, as in `fa_jax.feedback.backward_kernels`, but that the fan is that of the forward
        weights: with their distribution and scale, the magnitudes are those of the forward weights at the start.
    """
    draw = backward_kernels(network, fan="forward_fan", **magnitudes)

    def sizes(key, params):
        return jax.tree.map(jnp.abs, draw(key, params))

    rule = sign_symmetric(network, loss, sizes, lambda params, feedback, batch: feedback)
    return rule._replace(crossing=lambda params, feedback: crossed_signs(network, params, feedback))
