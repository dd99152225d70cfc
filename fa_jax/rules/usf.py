"""Uniform sign-concordant feedback: the backward weights have the signs of the forward ones, and one magnitude.

    d_i = (V_{i+1} d_{i+1}) * f'(a_i)         V_{i+1} = c sign(W_{i+1})^T

Liao, Leibo, Poggio, "How Important Is Weight Symmetry in Backpropagation?", AAAI 2016 (arXiv 1510.05067); uSF of
Moskovitz, Litwin-Kumar, Abbott, arXiv 1812.06488, 2018, without their normalisation of the weights.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from fa_jax.checks import choose, number, per_layer
from fa_jax.core import Batch, LossFunction, PyTree, Rule, Stream, stream
from fa_jax.initializers import DISTRIBUTIONS, standard_deviation
from fa_jax.network import Network, gradient


def usf(network: Network, loss: LossFunction, *, distribution: str, scale) -> Rule:
    """Returns the `Rule` of uniform sign-concordant feedback; its feedback is `()`.

    Args:
      network: any network.
      loss: a mean over the batch.
      distribution, scale: a layer's magnitude c is the standard deviation of this distribution, in
        `fa_jax.initializers.DISTRIBUTIONS`, the fan being that of the forward weights; or one a layer. With those of
        the forward weights, c is their initial standard deviation.
    """
    names = list(network.kernels)[1:]
    chosen = per_layer("rule.distribution", distribution, len(names), _known)
    scales = per_layer("rule.scale", scale, len(names), lambda option, got: number(option, got, above=0))
    size = {
        name: standard_deviation(one, network.kernels[name].forward_fan, s)
        for name, one, s in zip(names, chosen, scales, strict=True)
    }
    rule = sign_symmetric(network, loss, lambda key, params: (), lambda params, feedback, batch: size)
    return rule._replace(crossing=lambda params, feedback: crossed_signs(network, params, size))


def sign_symmetric(
    network: Network,
    loss: LossFunction,
    draw: Callable[[jax.Array, PyTree], PyTree],
    magnitudes: Callable[[PyTree, PyTree, Batch], Mapping[str, jax.Array | float]],
) -> Rule:
    """Returns the rule whose backward weights are magnitudes times the signs of the forward ones.

    Args:
      network, loss: as everywhere.
      draw: `(key, params) -> feedback`.
      magnitudes: `(params, feedback, batch) -> {name: magnitude}`, for each kernel that a signal crosses.
    """

    def init(key):
        params = network.init(stream(key, Stream.INIT))
        return params, draw(stream(key, Stream.FEEDBACK), params)

    def updates(params, feedback, batch):
        crossed = crossed_signs(network, params, magnitudes(params, feedback, batch))
        backward = {name: backward for name, (backward, _) in crossed.items()}
        return gradient(network, loss, params, batch, feedback=backward)

    return Rule(init, updates, network.apply)


def crossed_signs(
    network: Network, params: PyTree, magnitudes: Mapping[str, jax.Array | float]
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Returns (backward weights, forward weights) by the name of each kernel but the first."""
    weights = network.weights(params)
    return {name: (size * jnp.sign(weights[name]), weights[name]) for name, size in magnitudes.items()}


def _known(option: str, got: str) -> str:
    choose(option, got, DISTRIBUTIONS)
    return got
