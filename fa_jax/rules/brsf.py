"""Batchwise random-magnitude sign-concordant feedback: the signs of the forward weights, new magnitudes in every step.

    d_i = (V_{i+1} d_{i+1}) * f'(a_i)         V_{i+1} = (|M_{i+1}| * sign(W_{i+1}))^T, M drawn for every mini-batch

The backward pass knows the signs of the forward weights, as in `usf`. The forward weights cannot come to agree with
magnitudes that change in every step, as they might with those of `frsf`.

Liao, Leibo, Poggio, "How Important Is Weight Symmetry in Backpropagation?", AAAI 2016 (arXiv 1510.05067).
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import InitFeedback, require_all_kernels
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule
from fa_jax.rules.usf import sign_concordant


def brsf(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` with magnitudes drawn from each batch's key; its feedback is `()`.

    Args:
      network: any network.
      loss: a mean over the batch.
      init_feedback: draws M, as for `frsf`.

    Raises:
      BadOption: if M does not depend on the key. A copy of the weights would make this backprop.
    """
    params = network.init(jax.random.key(0))
    first, second = (init_feedback(network, jax.random.key(seed), params) for seed in (0, 1))
    require_all_kernels(network, first)
    if all(jnp.array_equal(first[name], second[name]) for name in first):
        raise BadOption(
            "needs feedback that is drawn at random; got feedback without randomness, such as distribution=weights"
        )

    def backward(params, feedback, batch):
        del feedback
        magnitudes = jax.tree.map(jnp.abs, init_feedback(network, batch.key, params))
        return {"backward_kernels": sign_concordant(network, params, magnitudes)}

    return backward_rule(network, loss, init=lambda key: (network.init(key), ()), backward=backward)
