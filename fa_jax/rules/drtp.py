"""Direct random target projection: hidden layers are sent the target in the place of the error.

    d_i = -(B_i y*) * f'(a_i)

A one-hot target is minus the sign of the one output error that is surely negative, known before the forward pass ends:
no layer waits for another.

Frenkel, Lefebvre, Bol, "Learning without feedback: Fixed random learning signals allow for feedforward training of deep
neural networks", Frontiers in Neuroscience 15, 2021 (arXiv 1909.01311). Their code leaves the target undivided beside
output gradients that are means over the batch; here it carries the `1/batch` of the mean loss like every signal. Their
code has `+B_i y*`, the same rule for a B drawn symmetrically around 0; the sign here is that of the error.
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.network import Network
from fa_jax.rules.dfa import direct


def drtp(network: Network, loss: LossFunction, **feedback) -> Rule:
    """Returns the `Rule` of direct random target projection; arguments and feedback as for `dfa`."""
    return direct(network, loss, lambda params, batch: -batch.targets / len(batch.inputs), **feedback)
