"""The random weights that carry a learning signal backward, drawn once a seed from the stream FEEDBACK."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.core import Kernel, Named, Network, PyTree
from fa_jax.distributions import DISTRIBUTIONS, thin
from fa_jax.networks.chain import require_hidden
from fa_jax.options import choose, number, per_layer

COPY = "weights"
"""The distribution that is none: the feedback is the initial forward weights, times the scale."""


def backward_kernels(network: Network, *, distribution: str, scale, kept) -> Callable[[jax.Array, PyTree], Named]:
    """Returns `(key, params) -> feedback` for a rule whose signal crosses layer after layer.

    One kernel of the forward kernel's shape, `[*stack, ..., in, out]`, for each linear layer but the first, below which
    there is nothing to teach.

    Args:
      network: the one to be trained.
      distribution: a name in `DISTRIBUTIONS`, or `weights`: a copy of the initial forward weights; or one a layer.
        The fan is what sums into one component of the signal below: the layer's outputs, times the window's size.
      scale: the distribution's, above 0; or one a layer, a scanned stack counting as one.
      kept: the fraction of the entries kept, the others being zero; or one a layer, likewise.

    Raises:
      BadOption: if an option is none of these.
    """
    names = list(network.kernels)[1:]
    choices = {**DISTRIBUTIONS, COPY: None}
    draws = per_layer("rule.distribution", distribution, len(names), lambda option, got: choose(option, got, choices))
    scales, fractions = _checked(scale, kept, len(names))

    def draw(key, params):
        weights = network.weights(params)
        feedback = {}
        for i, (name, distribute) in enumerate(zip(names, draws, strict=True)):
            value, thinning = jax.random.split(jax.random.fold_in(key, i))
            stack, shape = network.kernels[name]
            fan = _backward_fan(network.kernels[name])
            like = weights[name]
            full = scales[i] * like if distribute is None else distribute(value, (*stack, *shape), fan, scales[i])
            feedback[name] = thin(thinning, full, fractions[i]).astype(like.dtype)
        return feedback

    return draw


def direct_matrices(
    network: Network, *, distribution: str, scale, kept, layers: int | None = None
) -> Callable[[jax.Array], Named]:
    """Returns `key -> feedback` for a rule that sends the output error straight to the hidden layers.

    One array `[*stack, outputs, *shape]` for each hidden layer of `[*stack, batch, *shape]`.

    Args:
      network: the one to be trained.
      distribution: a name in `DISTRIBUTIONS`; or one a layer. The fan is the number of outputs.
      scale: the distribution's, above 0; or one a layer.
      kept: the fraction of the entries kept, the others being zero; or one a layer.
      layers: how many hidden layers, from the input, get one; None: all.

    Raises:
      BadOption: if an option is none of these, or the network marks no hidden layer.
    """
    require_hidden(network)
    names = list(network.hiddens)[:layers]
    draws = per_layer(
        "rule.distribution", distribution, len(names), lambda option, got: choose(option, got, DISTRIBUTIONS)
    )
    scales, fractions = _checked(scale, kept, len(names))

    def draw(key):
        feedback = {}
        for i, (name, distribute) in enumerate(zip(names, draws, strict=True)):
            value, thinning = jax.random.split(jax.random.fold_in(key, i))
            stack, shape = network.hiddens[name]
            # Drawn transposed, so that with one hidden layer the draw is that of `backward_kernels`.
            full = distribute(value, (*stack, *shape, network.outputs), network.outputs, scales[i])
            feedback[name] = jnp.moveaxis(thin(thinning, full, fractions[i]), -1, len(stack))
        return feedback

    return draw


def project(error: jax.Array, matrix: jax.Array) -> jax.Array:
    """Sends the output error to a hidden layer through its direct feedback: `e B`.

    Args:
      error: dL/dlogits, `[batch, outputs]`, with the `1/batch` of the mean loss in it.
      matrix: `[outputs, *shape]`, or `[depth, outputs, *shape]` with a two-dimensional rest for a scanned stack.

    Returns:
      The signal of that layer, `[batch, *shape]`.

    Reference: Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, eq. 7.
    """
    return jnp.tensordot(error, matrix, 1)


def project_all(network: Network, error: jax.Array, feedback: Named) -> Named:
    """Returns `project(error, feedback[name])` for each hidden layer that has feedback, `[*stack, batch, *shape]`."""
    signals = {}
    for name, matrix in feedback.items():
        send = project
        for _ in network.hiddens[name].stack:
            send = jax.vmap(send, in_axes=(None, 0))
        signals[name] = send(error, matrix.astype(error.dtype))
    return signals


def forward_paths(network: Network, params: PyTree) -> Named | None:
    """Returns the product of the forward weights from each hidden layer to the output, transposed like direct feedback.

    `[*stack, outputs, width]` by hidden layer, for a network in which every hidden layer is one dense layer; else None.
    It is what backprop's signal would cross if all the activation functions between were the identity.
    """
    kernels = list(network.kernels.items())
    layers = [(h.stack, h.shape) for h in network.hiddens.values()]
    dense = [(k.stack, k.shape[1:]) for _, k in kernels[:-1]]
    if layers != dense or any(len(k.shape) != 2 for _, k in kernels):
        return None
    weights = network.weights(params)
    product = weights[kernels[-1][0]].T
    paths = {}
    for name, (above, kernel) in reversed(list(zip(network.hiddens, kernels[:-1], strict=True))):
        if kernel.stack:
            product, paths[name] = jax.lax.scan(lambda p, w: (p @ w.T, p), product, weights[above], reverse=True)
        else:
            paths[name], product = product, product @ weights[above].T
    return {name: paths[name] for name in network.hiddens}


def _checked(scale, kept, layers: int) -> tuple[list[float], list[float]]:
    scales = per_layer("rule.scale", scale, layers, lambda option, got: number(option, got, above=0))
    return scales, per_layer("rule.kept", kept, layers, lambda option, got: number(option, got, above=0, most=1))


def _backward_fan(kernel: Kernel) -> int:
    return math.prod(kernel.shape) // kernel.shape[-2]
