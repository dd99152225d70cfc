"""Direct feedback alignment with the sign of the error: a layer learns which outputs were too high, not by how much.

    d_i = (B_i sign(e)) * f'(a_i)             e = dL/dlogits

Frenkel, Lefebvre, Bol, "Learning without feedback: Fixed random learning signals allow for feedforward training of deep
neural networks", Frontiers in Neuroscience 15, 2021 (arXiv 1909.01311). Their code leaves the sign undivided beside
output gradients that are means over the batch; here it carries the `1/batch` of the mean loss like every signal.
"""

import jax.numpy as jnp

from fa_jax.core import LossFunction, Rule
from fa_jax.network import Network
from fa_jax.rules.dfa import direct, output_error


def sdfa(network: Network, loss: LossFunction, **feedback) -> Rule:
    """Returns the `Rule` of direct feedback alignment with error signs; arguments and feedback as for `dfa`."""

    def teaching(params, batch):
        return jnp.sign(output_error(network, loss, params, batch)) / len(batch.inputs)

    return direct(network, loss, teaching, **feedback)
