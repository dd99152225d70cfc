"""The random weights that carry a learning signal backward, drawn once a seed from the stream FEEDBACK."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, per_layer, switch
from fa_jax.core import Named, PyTree
from fa_jax.initializers import DISTRIBUTIONS, thin
from fa_jax.network import Network
from fa_jax.networks.chain import require_hidden

COPY = "weights"
"""The distribution that is none: the feedback is the initial forward weights, times the scale."""


def backward_kernels(
    network: Network,
    *,
    distribution: str,
    scale,
    kept,
    rank: int | None = None,
    fan: str = "backward_fan",
) -> Callable[[jax.Array, PyTree], Named]:
    """Returns `(key, params) -> feedback` for a rule whose signal crosses layer after layer.

    One kernel of the forward kernel's shape, `[*stack, ..., in, out]`, for each linear layer but the first, below which
    there is nothing to teach.

    Args:
      network: the one to be trained.
      distribution: a name in `DISTRIBUTIONS`, or `weights`: a copy of the initial forward weights; or one a
        layer.
      scale: the distribution's, above 0; or one a layer, a scanned stack counting as one.
      kept: the fraction of the entries kept, the others being zero; or one a layer, likewise.
      rank: of each kernel as a matrix of its outputs by all else; None: whatever is drawn.
      fan: which of a `Kernel`'s fans the distribution goes by.

    Raises:
      BadOption: if an option is none of these, or the rank is above what a kernel can have.
    """
    names = list(network.kernels)[1:]
    choices = {**DISTRIBUTIONS, COPY: None}
    draws = per_layer("rule.distribution", distribution, len(names), lambda option, got: choose(option, got, choices))
    scales, fractions = _checked(scale, kept, len(names))
    matrices = [(math.prod(network.kernels[name].shape[:-1]), network.kernels[name].shape[-1]) for name in names]
    _check_rank(rank, dict(zip(names, matrices, strict=True)))
    if rank is not None and None in draws:
        raise BadOption("rule.rank needs feedback that is drawn; with rule.distribution=weights it must be null")

    def draw(key, params):
        weights = network.weights(params)
        feedback = {}
        for i, (name, distribute) in enumerate(zip(names, draws, strict=True)):
            value, thinning = jax.random.split(jax.random.fold_in(key, i))
            stack, shape, *_ = network.kernels[name]
            like = weights[name]
            if distribute is None:
                full = scales[i] * like
            else:
                full = _matrix(
                    value,
                    (*stack, *matrices[i]),
                    getattr(network.kernels[name], fan),
                    distribute,
                    scales[i],
                    rank,
                )
            full = full.reshape((*stack, *shape))
            feedback[name] = thin(thinning, full, fractions[i]).astype(like.dtype)
        return feedback

    return draw


def direct_matrices(
    network: Network,
    *,
    distribution: str,
    scale,
    kept,
    rank: int | None = None,
    shared: bool = False,
    layers: int | None = None,
) -> Callable[[jax.Array], Named]:
    """Returns `key -> feedback` for a rule that sends the output error straight to the hidden layers.

    One array `[*stack, outputs, *shape]` for each hidden layer of `[*stack, batch, *shape]`.

    Args:
      network: the one to be trained.
      distribution: a name in `DISTRIBUTIONS`; or one a layer. The fan is the number of outputs.
      scale: the distribution's, above 0; or one a layer.
      kept: the fraction of the entries kept, the others being zero; or one a layer.
      rank: of each array as a matrix of the outputs by all else; None: whatever is drawn.
      shared: whether all layers see the first units of one matrix, as wide as the widest layer (Launay, Poli,
        Krzakala, arXiv 1906.04554, 2019); they may still differ in scale and in what is kept.
      layers: how many hidden layers, from the input, get one; None: all.

    Raises:
      BadOption: if an option is none of these, the network marks no hidden layer, or the rank is above what an array
        can have.
    """
    require_hidden(network)
    names = list(network.hiddens)[:layers]
    draws = per_layer(
        "rule.distribution", distribution, len(names), lambda option, got: choose(option, got, DISTRIBUTIONS)
    )
    scales, fractions = _checked(scale, kept, len(names))
    shared = switch("rule.shared", shared)
    outputs = network.outputs
    sizes = {name: math.prod(network.hiddens[name].shape) for name in names}
    _check_rank(rank, {name: (size, outputs) for name, size in sizes.items()})

    def draw(key):
        feedback = {}
        for i, (name, distribute) in enumerate(zip(names, draws, strict=True)):
            value, thinning = jax.random.split(jax.random.fold_in(key, 0 if shared else i))
            stack, shape = network.hiddens[name]
            # Drawn transposed, so that with one hidden layer the draw is that of `backward_kernels`.
            drawn = (max(sizes.values()), outputs) if shared else (*stack, sizes[name], outputs)
            full = thin(thinning, _matrix(value, drawn, outputs, distribute, scales[i], rank), fractions[i])
            if shared:
                full = jnp.broadcast_to(full[: sizes[name]], (*stack, sizes[name], outputs))
            feedback[name] = jnp.moveaxis(full.reshape(*stack, *shape, outputs), -1, len(stack))
        return feedback

    return draw


def _matrix(key, shape, fan, distribute, scale, rank) -> jax.Array:
    """Draws matrices `[*stack, rows, columns]`: of entries by themselves, or of a rank with the same variance."""
    if rank is None:
        return distribute(key, shape, fan, scale)
    left, right = jax.random.split(key)
    *stack, rows, columns = shape
    mixing = jax.random.normal(right, (*stack, rank, columns)) * rank**-0.5
    return distribute(left, (*stack, rows, rank), fan, scale) @ mixing


def _check_rank(rank: int | None, matrices: dict[str, tuple[int, int]]) -> None:
    if rank is None:
        return
    integer("rule.rank", rank, least=1)
    name, most = min(((name, min(shape)) for name, shape in matrices.items()), key=lambda pair: pair[1])
    if rank > most:
        raise BadOption(f"rule.rank must be at most {most}, the most that the feedback of {name} can have; got {rank}")


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
