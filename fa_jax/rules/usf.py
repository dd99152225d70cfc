"""Uniform sign-concordant feedback: backward weights with the signs of the forward weights and one magnitude per layer.

    d_i = (V_{i+1} d_{i+1}) * f'(a_i)         V_{i+1} = c_{i+1} sign(W_{i+1})^T

One bit of each forward weight is known to the backward pass, its sign; the magnitude c is fixed. `frsf` and `brsf` draw
a magnitude for each weight, once or in every step.

Liao, Leibo, Poggio, "How Important Is Weight Symmetry in Backpropagation?", AAAI 2016 (arXiv 1510.05067); uSF of
Moskovitz, Litwin-Kumar, Abbott, arXiv 1812.06488, 2018, without their normalisation of the weights.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import LayerArrays, LossFunction, PyTree, Rule, Stream, stream
from fa_jax.feedback import InitFeedback, require_all_kernels
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule


def usf(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of sign-concordant feedback with fixed magnitudes, which are its feedback.

    Args:
      network: any network.
      loss: a mean over the batch.
      init_feedback: returns the magnitudes c, of which the absolute value is used: one number for each linear layer but
        the first, such as `feedback.deviations`.
    """

    def init(key):
        params = network.init(key)
        magnitudes = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        return params, jax.tree.map(jnp.abs, require_all_kernels(network, magnitudes))

    def backward(params, feedback, batch):
        del batch
        return {"backward_kernels": sign_concordant(network, params, feedback)}

    def weight_pairs(params, feedback):
        weights = network.kernels(params)
        return {name: (v, weights[name]) for name, v in sign_concordant(network, params, feedback).items()}

    return backward_rule(network, loss, init=init, backward=backward, weight_pairs=weight_pairs)


def sign_concordant(network: Network, params: PyTree, magnitudes: LayerArrays) -> LayerArrays:
    """Returns magnitudes times the signs of the forward weights, by the name of each kernel with a magnitude."""
    weights = network.kernels(params)
    return {name: magnitude * jnp.sign(weights[name]) for name, magnitude in magnitudes.items()}
