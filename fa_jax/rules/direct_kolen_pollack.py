"""Direct Kolen-Pollack: direct feedback alignment whose feedback learns like a readout of each hidden layer.

    d_i = (B_i e) * f'(a_i),               dB_i = e h_i^T

Each `B_i` follows the gradient of a readout from hidden layer i; for the last hidden layer this is Kolen-Pollack. The
feedback starts at zero by default, and is trained by the optimizer of the params unless it has one of its own.

Webster, Choi, Ahn, "Learning the Connections in Direct Feedback Alignment", ICLR 2021 submission. Signs and shapes are
those of its public code; the paper was not available to us.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.dfa import dfa


def direct_kolen_pollack(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of direct Kolen-Pollack; arguments as for `dfa`, `init_feedback` such as `direct_zeros`."""

    def learn(params, feedback, batch, updates):
        del feedback, updates
        logits, hiddens = network.forward(params, batch.inputs, key=batch.key)
        error = jax.grad(loss)(logits, batch.targets)
        return {name: readout_gradient(error, h, len(network.hiddens[name].stack)) for name, h in hiddens.items()}

    return dfa(network, loss, init_feedback=init_feedback)._replace(learn=learn)


def readout_gradient(error: jax.Array, h: jax.Array, batch_axis: int) -> jax.Array:
    """Returns `e^T h` summed over the batch, `[*stack, outputs, *shape]`, for h of `[*stack, batch, *shape]`."""
    return jnp.moveaxis(jnp.tensordot(error, h, ((0,), (batch_axis,))), 0, batch_axis)
