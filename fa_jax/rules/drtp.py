"""Direct random target projection: hidden layers receive the target in place of the error.

    d_i = -(B_i y*) * f'(a_i)

A one-hot target is minus the sign of the one output error that is certainly negative, and it is known before the
forward pass ends: no layer waits for another.

Frenkel, Lefebvre, Bol, "Learning without feedback: Fixed random learning signals allow for feedforward training of deep
neural networks", Frontiers in Neuroscience 15, 2021 (arXiv 1909.01311). Their code does not divide the target by the
batch size, though its output gradients are means over the batch; here the target carries the `1/batch` of the mean
loss. Their code has `+B_i y*`, which is the same rule for a B drawn symmetrically around 0; the sign here is the
error's.
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.dfa import direct_rule


def drtp(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of direct random target projection; arguments as for `dfa`."""

    def output_signal(params, batch):
        del params
        return -batch.targets / len(batch.inputs)

    return direct_rule(network, output_signal, loss, init_feedback)
