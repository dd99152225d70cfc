"""Sign direct feedback alignment: every hidden layer receives the signs of the output error, as in `dfa`.

    d_i = (B_i sign(e)) * f'(a_i)             e = dL/dlogits

So an output sends one bit, and signals to hidden layers do not shrink as the error does. The readout learns from the
error itself.

Frenkel, Lefebvre, Bol, "Learning without feedback: Fixed random learning signals allow for feedforward training of deep
neural networks", Frontiers in Neuroscience 15, 2021 (arXiv 1909.01311). Their code does not divide the sign by the
batch size, though its output gradients are means over the batch; here the sign carries the `1/batch` of the mean loss.
"""

import jax.numpy as jnp

from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.dfa import direct_rule, output_error


def sdfa(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of direct feedback alignment with error signs; arguments as for `dfa`."""

    def output_signal(params, batch):
        return jnp.sign(output_error(network, loss, params, batch)) / len(batch.inputs)

    return direct_rule(network, output_signal, loss, init_feedback)
