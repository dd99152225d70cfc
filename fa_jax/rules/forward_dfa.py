"""Forward direct feedback alignment: direct feedback learns the mean Jacobian of the outputs from forward noise.

    d_i = (B_i e) * f'(a_i),     dB_i = B_i - mean_n [u_i t^T],     t = sum_j (da_L/dh_j) u_j,     u ~ N(0, 1)

t is the derivative of the logits of one example along the noise that enters all its hidden layers at once, at `Hidden`;
the expectation of `u_i t^T` is the transpose of the Jacobian of the logits with respect to h_i. Under gradient descent
of rate r, B_i is a moving average of these estimates over about 1 / r steps, with weights `r (1 - r)^k`: the "momentum"
of the title. Neither targets nor the loss play a part in it. The feedback starts at zero by default.

Bacho, Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and Momentum", Neural Networks, 2024 (arXiv
2212.07282). Equations are those of the authors' code, which descends by Adam of rate 1e-4; the paper was not available
to us.
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.core import Batch, FeedbackOptimizer, LayerArrays, LossFunction, PyTree, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.dfa import dfa
from fa_jax.rules.direct_kolen_pollack import readout_gradient
from fa_jax.rules.forward_gradient import activity_noise


def forward_dfa(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of forward direct feedback alignment; arguments as for `dfa`.

    It refuses a feedback optimizer with which the feedback is no moving average.
    """

    def learn(params, feedback, batch, updates):
        del updates
        noise = activity_noise(network, params, batch, batch.key, jax.random.normal, spare_silent=False)
        estimates = jacobian_estimate(network, params, batch, noise)
        return {name: b - estimates[name] for name, b in feedback.items()}

    rule = dfa(network, loss, init_feedback=init_feedback)
    return rule._replace(learn=learn, extras=rule.extras._replace(check_feedback_optimizer=_check_optimizer))


def jacobian_estimate(network: Network, params: PyTree, batch: Batch, noise: LayerArrays) -> LayerArrays:
    """Returns an estimate of the mean Jacobian of the logits with respect to each hidden layer.

    Args:
      network, params, batch: of the forward pass.
      noise: u, `[*stack, batch, *shape]` by hidden layer, of mean 0 and variance 1.

    Returns:
      `[*stack, outputs, *shape]` by hidden layer, the mean over the batch.
    """

    def logits(perturbations):
        return network.apply(params, batch.inputs, key=batch.key, perturbations=perturbations)

    _, tangent = jax.jvp(logits, (jax.tree.map(jnp.zeros_like, noise),), (noise,))
    mean = tangent / len(batch.inputs)
    return {name: readout_gradient(mean, u, len(network.hidden_shapes[name].stack)) for name, u in noise.items()}


def _check_optimizer(optimizer: FeedbackOptimizer) -> None:
    """Raises `BadOption` unless the feedback is a moving average, or trained as in the authors' code."""
    if optimizer.scaling not in ("optax.identity", "optax.scale_by_adam") or optimizer.weight_decay:
        raise BadOption(
            "must be sgd, or adam as in the authors' code, without weight decay: the feedback of this rule is a moving "
            "average, which momentum or decay would change"
        )
    if optimizer.clips:
        raise BadOption("must be null: clipped steps make no moving average", "clip")
