"""Direct Kolen-Pollack: direct feedback alignment whose feedback learns as the readout's weights would in its place.

    d_i = (B_i e) * f'(a_i),               dB_i = e h_i^T

Every `B_i` follows the gradient of a readout from hidden layer i. For the last hidden layer that is Kolen-Pollack
itself. The feedback starts at zero unless told otherwise, and is trained like the params unless it is given an
optimizer of its own.

Webster, Choi, Ahn, "Learning the Connections in Direct Feedback Alignment", ICLR 2021 submission. The signs and shapes
are those of its public code; the paper was not read.
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import switch
from fa_jax.core import LossFunction, Rule
from fa_jax.network import Network
from fa_jax.rules.dfa import dfa


def direct_kolen_pollack(network: Network, loss: LossFunction, *, zero: bool, **feedback) -> Rule:
    """Returns the `Rule` of direct Kolen-Pollack; other arguments and feedback as for `dfa`.

    Args:
      network, loss: as for `dfa`.
      zero: whether the feedback starts at zero, and not as it is drawn.
      **feedback: as for `dfa`; it says how the feedback starts where `zero` is off, and nothing of what becomes of it.
    """
    rule = dfa(network, loss, **feedback)
    zero = switch("rule.zero", zero)

    def init(key):
        params, drawn = rule.init(key)
        return params, jax.tree.map(jnp.zeros_like, drawn) if zero else drawn

    def learn(params, feedback, batch, updates):
        del feedback, updates
        logits, hiddens = network.forward(params, batch.inputs, key=batch.key)
        error = jax.grad(loss)(logits, batch.targets)
        return {name: _readout_gradient(error, h, len(network.hiddens[name].stack)) for name, h in hiddens.items()}

    return rule._replace(init=init, learn=learn)


def _readout_gradient(error: jax.Array, h: jax.Array, batch_axis: int) -> jax.Array:
    """`e^T h` summed over the batch, `[*stack, outputs, *shape]`."""
    return jnp.moveaxis(jnp.tensordot(error, h, ((0,), (batch_axis,))), 0, batch_axis)
