"""Kolen-Pollack: feedback alignment whose feedback takes the steps of the forward weights, and so becomes them.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i),     W <- (1 - l) W - r dW,     B <- (1 - l) B - r dW^T

Both sides of a synapse know `dW`, so no weight is transported. Under gradient descent of rate r with weight decay the
difference of forward and backward weights shrinks by exactly `1 - l` a step; here l is `optimizer.learning_rate` times
`optimizer.weight_decay`. Without decay it stays as it is.

Kolen, Pollack, "Backpropagation without weight transport", ICNN 1994; in this form Akrout, Wilson, Humphreys,
Lillicrap, Tweed, "Deep Learning without Weight Transport", NeurIPS 2019 (arXiv 1904.05391), eqs. 16 and 17.
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.network import Network
from fa_jax.rules.fa import fa


def kolen_pollack(network: Network, loss: LossFunction, **feedback) -> Rule:
    """Returns the `Rule` of Kolen and Pollack; arguments and feedback as for `fa`.

    The options say how the feedback starts; weights left out of it, or a rank, do not last. The gap shrinks exactly for
    optimizers whose step depends on one param alone: not where updates are clipped by their global norm, since the
    first layer has no feedback, nor where forward connections were removed, since the backward ones were not.
    """

    def learn(params, feedback, batch, updates):
        del params, batch
        of_kernels = network.weights(updates)
        return {name: of_kernels[name] for name in feedback}

    return fa(network, loss, **feedback)._replace(learn=learn)
