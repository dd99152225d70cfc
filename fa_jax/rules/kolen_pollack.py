"""Kolen-Pollack: feedback alignment whose feedback takes the same steps as the forward weights, and converges to them.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i),     W <- (1 - l) W - r dW,     B <- (1 - l) B - r dW^T

Both ends of a synapse know `dW`, so no weight is transported. Under gradient descent of rate r with weight decay, the
difference of forward and backward weights shrinks by exactly `1 - l` per step, where l is the learning rate times the
optimizer's weight decay. Without decay it stays constant.

Kolen, Pollack, "Backpropagation without weight transport", ICNN 1994; in this form Akrout, Wilson, Humphreys,
Lillicrap, Tweed, "Deep Learning without Weight Transport", NeurIPS 2019 (arXiv 1904.05391), eqs. 16 and 17.
"""

from fa_jax.checks import BadOption
from fa_jax.core import FeedbackOptimizer, LossFunction, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.fa import fa


def kolen_pollack(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of Kolen and Pollack; arguments as for `fa`.

    The gap shrinks exactly under optimizers that treat every param separately. Clipping by the global norm is refused,
    since the first layer has no feedback: weights and feedback would take different steps. The gap does not shrink
    exactly with sparse forward weights, since the backward ones are dense.
    """

    def learn(params, feedback, batch, updates):
        del params, batch
        kernel_updates = network.kernels(updates)
        return {name: kernel_updates[name] for name in feedback}

    rule = fa(network, loss, init_feedback=init_feedback)
    extras = rule.extras._replace(check_feedback_optimizer=_check_optimizer)
    return rule._replace(learn=learn, extras=extras)


def _check_optimizer(optimizer: FeedbackOptimizer) -> None:
    """Raises `BadOption` if the feedback takes other steps than the weights."""
    if optimizer.clip is not None:
        raise BadOption("must be null: the weights and their feedback would be scaled differently", "clip")
