"""Direct Kolen-Pollack: direct feedback alignment whose feedback learns like a readout of each hidden layer.

    d_i = (B_i e) * f'(a_i),               dB_i = h_i e^T

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
        return {name: readout_gradient(error, h, len(network.hidden_shapes[name].stack)) for name, h in hiddens.items()}

    return dfa(network, loss, init_feedback=init_feedback)._replace(learn=learn)


def readout_gradient(error: jax.Array, h: jax.Array, batch_axis: int) -> jax.Array:
    """Returns `h e^T` summed over the batch, stored as B^T is, `[*stack, outputs, *shape]`.

    Args:
      error: e, `[batch, outputs]`.
      h: `[*stack, batch, *shape]`.
      batch_axis: the number of axes in `stack`.
    """
    product = jnp.tensordot(error, h, ((0,), (batch_axis,)))  # [outputs, *stack, *shape]
    return jnp.moveaxis(product, 0, batch_axis)
