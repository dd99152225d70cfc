"""Kolen-Pollack: feedback alignment whose feedback takes the steps of the forward weights, and with decay meets them.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i),     W <- (1 - l) W - r dW,     B <- (1 - l) B - r dW^T

The step `dW = d h^T` is a product of two signals that are present where the backward weight is, too, so that both can
take it and no weight is transported. Under gradient descent of rate r, every step multiplies the difference of forward
and backward weights by exactly `1 - l`, where l is the learning rate times the optimizer's weight decay. Without decay,
the default, the difference stays constant.

Kolen, Pollack, "Backpropagation without weight transport", ICNN 1994; in this form Akrout, Wilson, Humphreys,
Lillicrap, Tweed, "Deep Learning without Weight Transport", NeurIPS 2019 (arXiv 1904.05391), eqs. 16 and 17.
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.optimizers import must_not_clip
from fa_jax.rules.fa import fa


def kolen_pollack(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of Kolen and Pollack; arguments as for `fa`.

    With decay, the difference shrinks as stated under plain gradient descent, and with momentum in the long run. Adam
    and RMSprop scale decayed steps, which differ between W and B. Sparse forward weights differ from their feedback,
    which is dense, where they are zero. Clipping by the global norm is refused: the first layer has no feedback, so
    weights and feedback would take different steps.
    """

    def learn(params, feedback, batch, updates):
        del params, batch
        kernel_updates = network.kernels(updates)
        return {name: kernel_updates[name] for name in feedback}

    rule = fa(network, loss, init_feedback=init_feedback)
    partners = tuple(((name,), (*name.split("/"), "kernel")) for name in network.crossed_kernels)
    extras = rule.extras._replace(partners=partners, check_feedback_optimizer=must_not_clip)
    return rule._replace(learn=learn, extras=extras)
