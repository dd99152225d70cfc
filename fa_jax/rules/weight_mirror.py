"""Weight mirrors: feedback alignment whose feedback learns the forward weights from noise sent through them.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i),     dB_i = -xi (W_i xi)^T / sigma^2,     xi ~ N(0, sigma^2)

The expectation of `xi (W xi)^T` is `sigma^2 W^T`; here sigma is 1. With weight decay 1 in the feedback optimizer, the
feedback is a running average of such estimates, over about 1 / learning rate steps, and converges to `W^T` up to noise.

Akrout, Wilson, Humphreys, Lillicrap, Tweed, "Deep Learning without Weight Transport", NeurIPS 2019 (arXiv 1904.05391),
section 3. They send the noise through bias and activation function too, `f(W xi + b)`, which for small noise multiplies
the expectation by f'(b); here it passes the linear layer alone, and its size does not matter. They let the feedback
grow or rescale it; here it decays. Every training step includes one mirror step with as many noise examples as the
batch.
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, is_on
from fa_jax.core import Batch, FeedbackOptimizer, LayerArrays, LossFunction, PyTree, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.fa import fa

NOISE = "mirror"
"""The Flax random stream of the noise."""


def weight_mirror(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of weight mirrors; arguments as for `fa`.

    The updates of the feedback are minus the estimate of the forward weights; an optimizer without weight decay is
    refused. Layers under an `nn.scan` of your own must split the random stream `mirror` and stack the collection
    `observed`. A layer that is applied at several time steps learns from the mean of its estimates at them.
    """

    def learn(params, feedback, batch, updates):
        del updates
        estimates = mirror_estimates(network, params, batch)
        if lost := sorted(feedback.keys() - estimates.keys()):
            raise _unreached(lost[0])
        return {name: -_mean_over_time(estimates[name], kernel.ndim) for name, kernel in feedback.items()}

    rule = fa(network, loss, init_feedback=init_feedback)
    return rule._replace(learn=learn, extras=rule.extras._replace(check_feedback_optimizer=_must_decay))


def _must_decay(optimizer: FeedbackOptimizer) -> None:
    """Raises `BadOption` unless the feedback decays to the end."""
    decay = optimizer.weight_decay
    if not is_on(decay[-1][1] if isinstance(decay, list) else decay):
        raise BadOption(
            "must be above 0: the feedback is an average of estimates, and would grow without bound", "weight_decay"
        )


def mirror_estimates(network: Network, params: PyTree, batch: Batch) -> LayerArrays:
    """Returns `kernel_estimate` of every linear layer, with noise drawn by `batch.key`; named like `kernel_shapes`.

    Raises:
      BadOption: if a layer cannot draw noise.
    """

    def mirror(layer, x, y):
        if not layer.has_rng(NOISE):
            raise _unreached("/".join(layer.path))
        noise = jax.random.normal(layer.make_rng(NOISE), x.shape, x.dtype)
        return y, kernel_estimate(layer, noise)

    return network.observe_linear(params, batch.inputs, mirror, {NOISE: batch.key})


def _mean_over_time(estimates: jax.Array, axes: int) -> jax.Array:
    """Returns the estimate of a kernel with so many axes, the mean over an axis of time in front, if there is one."""
    return estimates.mean(tuple(range(estimates.ndim - axes)))


def _unreached(name: str) -> BadOption:
    return BadOption(
        f"cannot send noise through {name}: nn.scan, nn.vmap and nn.RNN need, beside what they have for params, "
        f"split_rngs={{'{NOISE}': True}} and variable_axes={{'observed': 0}} around it"
    )


def kernel_estimate(layer, noise: jax.Array) -> jax.Array:
    """Returns `xi (W xi)^T`, averaged over the examples and over the positions that share an entry of the kernel.

    Args:
      layer: a bound linear Flax layer.
      noise: xi, `[batch, ...]`, of unit variance.
    """
    params, unbound = layer.variables["params"], layer.clone(parent=None, name=None)
    without_bias = jax.tree.map(jnp.zeros_like, params)

    def apply(kernel, x):
        return unbound.apply({"params": {**without_bias, "kernel": kernel}}, x)

    # The vjp of a linear layer with respect to its kernel is the outer product of input and cotangent.
    response, outer_product = jax.vjp(lambda kernel: apply(kernel, noise), params["kernel"])
    # An entry of a convolution's kernel sums over positions, fewer of them at the padded border of an image.
    ones = jnp.ones((1, *noise.shape[1:]), noise.dtype)
    one_response, count = jax.vjp(lambda kernel: apply(kernel, ones), params["kernel"])
    # An entry that meets none, such as at the border of a map that is smaller than the window, has no estimate: 0.
    return outer_product(response)[0] / (jnp.maximum(count(jnp.ones_like(one_response))[0], 1) * len(noise))
