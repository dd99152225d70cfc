"""Batchwise random-magnitude sign-concordant feedback: the signs of the forward weights, new magnitudes every step.

    d_i = (V_{i+1} d_{i+1}) * f'(a_i)         V_{i+1} = (|M_{i+1}| * sign(W_{i+1}))^T, M random in every mini-batch

Liao, Leibo, Poggio, "How Important Is Weight Symmetry in Backpropagation?", AAAI 2016 (arXiv 1510.05067).
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import backward_kernels
from fa_jax.network import Network
from fa_jax.rules.usf import sign_symmetric


def brsf(network: Network, loss: LossFunction, **magnitudes) -> Rule:
    """Returns the `Rule` with magnitudes drawn anew from each batch's key; its feedback is `()`.

    Args:
      network: any network.
      loss: a mean over the batch.
      **magnitudes: how M is drawn, as in `fa_jax.rules.frsf.frsf`, but for copies of the weights.

    Raises:
      BadOption: if an option is out of range, or M would be the weights themselves, for then it is backprop.
    """
    distribution = magnitudes["distribution"]
    if "weights" in (distribution if isinstance(distribution, list | tuple) else [distribution]):
        raise BadOption("rule=brsf draws its magnitudes anew; rule.distribution=weights would make it backprop")
    draw = backward_kernels(network, fan="forward_fan", **magnitudes)

    def sizes(params, feedback, batch):
        del feedback
        return jax.tree.map(jnp.abs, draw(batch.key, params))

    return sign_symmetric(network, loss, lambda key, params: (), sizes)
