"""Mirrored PEPITA: the feedback of PEPITA is a product of backward weights that learn the forward weights from noise.

    F = c B_0 B_1 ... B_L,     dB_i = -xi (W_i xi)^T / sigma^2,     k_{-1} = x - F e

Each B_i converges to `W_i^T`, up to noise, so F to the transposed product of the weights; with it, `x - F e` descends
and `x + F e` would ascend. The factor c gives the entries of F a fixed standard deviation, so that a factor of B_i is
of no consequence.

Srinivasan, Mignacco, Sorbaro, Refinetti, Cooper, Kreiman, Dellaferrera, "Forward Learning with Top-Down Feedback:
Empirical and Analytical Characterization", ICLR 2024 (arXiv 2302.05440); the deviation is that of their code. They send
the noise through the activation function too, which for ReLU halves the expectation, rescale B_i instead of F, and
mirror in epochs of their own; here every training step includes one mirror step, as in `weight_mirror`.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, number
from fa_jax.core import LossFunction, Measure, Rule, Stream, stream
from fa_jax.feedback import INPUT
from fa_jax.network import Network
from fa_jax.rules.pepita import SIGNS, pepita
from fa_jax.rules.stagewise import require_dense_stages
from fa_jax.rules.weight_mirror import mirror_estimates


def mirrored_pepita(network: Network, loss: LossFunction, *, output_error: str, sign: str, scale: float) -> Rule:
    """Returns the `Rule` of PEPITA with mirrored feedback: a backward kernel for every linear layer.

    The updates of the feedback are minus the estimate of the forward weights, for an optimizer with weight decay.

    Args:
      network: a `Chain` of dense stages without a norm.
      loss: a mean over the batch.
      output_error: as for `pepita`.
      sign: `minus`.
      scale: the standard deviation of F times the root of the number of inputs, above 0.

    Raises:
      BadOption: if an option is out of range, or the network is not of this form.
    """
    require_dense_stages(network)
    if choose("sign", sign, SIGNS) > 0:
        raise BadOption(
            "must be minus: mirrored feedback follows the weights, so that x + F e ascends the loss", "sign"
        )
    scale = number("scale", scale, above=0)
    fixed = functools.partial(pepita, output_error=output_error, sign=sign, positions="sum")
    rule = fixed(network, loss, init_feedback=lambda *_: {})
    names = list(network.kernel_shapes)

    def init(key):
        params, feedback = network.init(key), {}
        for i, name in enumerate(names):
            kernel_key = jax.random.fold_in(stream(key, Stream.FEEDBACK), i)
            kernel = network.kernel_shapes[name]
            feedback[name] = jax.random.normal(kernel_key, (*kernel.stack, *kernel.shape)) * kernel.fan_in**-0.5
        return params, feedback

    def matrix(feedback):
        """Returns F as the feedback of PEPITA."""
        layers = [b for name in names for b in (feedback[name] if feedback[name].ndim == 3 else [feedback[name]])]
        # From the outputs down, of which there are few.
        product = functools.reduce(lambda product, b: b @ product, reversed(layers)).T
        product *= scale * product.shape[1] ** -0.5 / jnp.std(product)
        return {INPUT: product.reshape(-1, *network.input_shape)}

    def learn(params, feedback, batch, updates):
        del feedback, updates
        return {name: -estimate for name, estimate in mirror_estimates(network, params, batch).items()}

    def weight_pairs(params, feedback):
        weights = network.kernels(params)
        return {name: (b, weights[name]) for name, b in feedback.items()}

    def with_matrix(function):
        return lambda params, feedback, batch: function(params, matrix(feedback), batch)

    measure = cast(Measure, rule.extras.measure)
    extras = rule.extras._replace(
        signals=with_matrix(rule.extras.signals),
        weight_pairs=weight_pairs,
        measure=measure._replace(compute=with_matrix(measure.compute)),
    )
    return Rule(init, with_matrix(rule.updates), network.apply, learn, extras)
