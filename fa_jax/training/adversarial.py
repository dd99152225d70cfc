"""Adversarial training: every example is perturbed to raise its loss before the network learns from it."""

import jax.numpy as jnp

from fa_jax.core import Batch, LossFunction, PyTree
from fa_jax.network import Network
from fa_jax.networks.fast_gradients import grad


def fast_gradient_sign(network: Network, loss: LossFunction, params: PyTree, batch: Batch, epsilon: float) -> Batch:
    """Returns the batch with each input component moved by `epsilon` in the direction that raises the loss, unclipped.

    The gradient is the true one, whatever the rule: this kind of training involves weight transport.

    Reference: Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572, 2014,
      section 4.
    """

    def value(inputs):
        return loss(network.apply(params, inputs, key=batch.key), batch.targets)

    return batch._replace(inputs=batch.inputs + epsilon * jnp.sign(grad(value)(batch.inputs)))
