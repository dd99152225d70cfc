"""Initialisation of feedback: the weights that carry a learning signal backward.

An initialiser is a function `(network, key, params, **options) -> feedback`; a rule is given one with its options
bound, as `init_feedback`. `key` is the key of the seed's stream FEEDBACK.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, per_layer, switch, unused
from fa_jax.core import LayerArrays, PyTree
from fa_jax.initializers import DISTRIBUTIONS, sparsify
from fa_jax.network import Network

InitFeedback = Callable[[Network, jax.Array, PyTree], PyTree]
"""`(network, key, params) -> feedback`."""
INPUT = "input"
"""The name of feedback to the input."""
COPY = "weights"
"""The distribution that copies the initial forward weights, times the scale."""


def layerwise(
    network: Network, key: jax.Array, params: PyTree, *, distribution, scale, density, rank: int | None, fan: str | None
) -> LayerArrays:
    """Draws a backward kernel for each linear layer that the error crosses: all but the first, which needs none.

    Args:
      network: to be trained.
      key: of the stream FEEDBACK.
      params: as from `network.init`.
      distribution: a name in `DISTRIBUTIONS`, or `weights`: a copy of the initial forward weights. This, scale and
        density may each be a list of one value per layer, of which a scanned stack counts as one.
      scale: of the distribution, above 0.
      density: the probability that an entry is kept, in (0, 1]; the other entries are zero.
      rank: of each kernel as a matrix of outputs by inputs; None: full.
      fan: `fan_in` or `fan_out` of the forward weights, which the `fan_` distributions use; None: `fan_out`, the number
        of terms that a backward kernel sums.

    Returns:
      `[*stack, *shape]` of the forward kernel, by its name.

    Raises:
      BadOption: if an option is out of range or has no effect, or the rank exceeds that of a kernel.
    """
    return _layerwise(network, key, params, distribution, scale, density, rank, fan, usual_fan="fan_out")


def magnitudes(
    network: Network, key: jax.Array, params: PyTree, *, distribution, scale, density, rank: int | None, fan: str | None
) -> LayerArrays:
    """Draws the magnitudes of backward kernels: as `layerwise`, but for the fan, which is by default `fan_in`.

    So by default they have the distribution of the forward weights.
    """
    return _layerwise(network, key, params, distribution, scale, density, rank, fan, usual_fan="fan_in")


def _layerwise(
    network: Network, key, params, distribution, scale, density, rank: int | None, fan: str | None, usual_fan: str
) -> LayerArrays:
    names = list(network.crossed_kernels)
    choices = {**DISTRIBUTIONS, COPY: None}
    draws = per_layer("distribution", distribution, len(names), lambda option, got: choose(option, got, choices))
    scales, densities = _scales(scale, len(names)), _densities(density, len(names))
    shapes = {name: network.kernel_shapes[name] for name in names}
    matrices = {name: (kernel.rows, math.prod(kernel.shape) // kernel.rows) for name, kernel in shapes.items()}
    _check_rank(rank, matrices)
    if rank is not None and None in draws:
        raise BadOption("must be null with distribution=weights: only drawn feedback has a rank", "rank")
    if not any(chosen is not None and chosen.has_fan for chosen in draws):
        unused("fan", fan, f"with distribution={distribution}, which has no fan")
    used_fan = usual_fan if fan is None else fan
    fans = {
        name: choose("fan", used_fan, {"fan_in": kernel.fan_in, "fan_out": kernel.fan_out})
        for name, kernel in shapes.items()
    }
    weights = network.kernels(params)
    feedback = {}
    for i, (name, chosen) in enumerate(zip(names, draws, strict=True)):
        value_key, density_key = jax.random.split(jax.random.fold_in(key, i))
        stack, shape, *_ = shapes[name]
        if chosen is None:
            full = scales[i] * weights[name]
        else:
            full = _matrix(value_key, (*stack, *matrices[name]), fans[name], chosen.draw, scales[i], rank)
        full = full.reshape((*stack, *shape))
        feedback[name] = sparsify(density_key, full, densities[i]).astype(weights[name].dtype)
    return feedback


def deviations(network: Network, key: jax.Array, params: PyTree, *, distribution, scale) -> LayerArrays:
    """Returns the standard deviation of a distribution for each layer as in `layerwise`; nothing is drawn.

    Args:
      network, key, params: as for `layerwise`.
      distribution: a name in `DISTRIBUTIONS`, whose fan is the fan-in; or one per layer.
      scale: of the distribution, above 0; or one per layer. With those of the forward weights, this is their initial
        standard deviation.
    """
    del key
    names, weights = list(network.crossed_kernels), network.kernels(params)
    chosen = per_layer("distribution", distribution, len(names), lambda option, got: choose(option, got, DISTRIBUTIONS))
    feedback = {}
    for name, drawn, layer_scale in zip(names, chosen, _scales(scale, len(names)), strict=True):
        value = drawn.deviation(network.kernel_shapes[name].fan_in, layer_scale)
        feedback[name] = jnp.asarray(value, weights[name].dtype)
    return feedback


def direct(
    network: Network,
    key: jax.Array,
    params: PyTree,
    *,
    distribution,
    scale,
    density,
    rank: int | None,
    shared: bool,
    shared_positions: bool,
) -> LayerArrays:
    """Draws a matrix from the output error to each hidden layer.

    Args:
      network: to be trained; marks its hidden layers.
      key: of the stream FEEDBACK.
      params: not used.
      distribution: a name in `DISTRIBUTIONS`, whose fan is the number of outputs. This, scale and density may each be a
        list of one value per layer, of which a scanned stack counts as one.
      scale: of the distribution, above 0.
      density: the probability that an entry is kept, in (0, 1]; the other entries are zero.
      rank: of each matrix; None: full.
      shared: whether all layers use the first rows of one matrix, as wide as the widest layer (Launay, Poli, Krzakala,
        arXiv 1906.04554, 2019). Scales and densities may still differ.
      shared_positions: whether all positions of a layer (tokens, pixels) use one matrix, which is divided by their
        number: so a readout of the mean over positions sends its error back. It can only align with a matrix that they
        share.

    Returns:
      `[*stack, outputs, *shape]` by the name of each hidden layer with activation `[*stack, batch, *shape]`.

    Raises:
      BadOption: if an option is out of range or has no effect, the network marks no hidden layer, or the rank exceeds
        that of a matrix.
    """
    del params
    require_hidden(network)
    names, at_positions = list(network.hidden_shapes), switch("shared_positions", shared_positions)
    if at_positions and all(len(hidden.shape) == 1 for hidden in network.hidden_shapes.values()):
        raise BadOption("must be false: no hidden layer has positions, such as tokens or pixels", "shared_positions")
    if switch("shared", shared) and len(names) == 1 and not network.hidden_shapes[names[0]].stack:
        raise BadOption("must be false: there is one hidden layer", "shared")
    return _direct(network, key, names, distribution, scale, density, rank, shared, at_positions)


def first_layer(
    network: Network, key: jax.Array, params: PyTree, *, distribution, scale, density, rank: int | None
) -> LayerArrays:
    """Draws a matrix from the output error to the first hidden layer alone; arguments as for `direct`."""
    del params
    require_hidden(network)
    first = list(network.hidden_shapes)[:1]
    return _direct(network, key, first, distribution, scale, density, rank, shared=False, shared_positions=False)


def to_input(
    network: Network, key: jax.Array, params: PyTree, *, distribution, scale, density, rank: int | None
) -> LayerArrays:
    """Draws a matrix from the output error to the input, whose fan is the number of inputs.

    Returns:
      `[outputs, *input_shape]` by the name `INPUT`. Arguments as for `direct`, one value each.
    """
    del params
    value_key, density_key = jax.random.split(key)
    shape = (math.prod(network.input_shape), network.outputs)
    draw, size = choose("distribution", distribution, DISTRIBUTIONS).draw, number("scale", scale, above=0)
    _check_rank(rank, {INPUT: shape})
    full = _matrix(value_key, shape, shape[0], draw, size, rank)
    full = sparsify(density_key, full, number("density", density, above=0, most=1))
    return {INPUT: full.T.reshape(-1, *network.input_shape)}


def direct_zeros(network: Network, key: jax.Array, params: PyTree) -> LayerArrays:
    """Returns zeros in the shapes of `direct`, for feedback that is learned."""
    del key, params
    require_hidden(network)
    return {name: jnp.zeros((*h.stack, network.outputs, *h.shape)) for name, h in network.hidden_shapes.items()}


def require_hidden(network: Network) -> None:
    """Checks that a network marks its hidden layers.

    Raises:
      BadOption: if it marks none.
    """
    if not network.hidden_shapes:
        raise BadOption(
            f"needs a network that marks its hidden layers, and {type(network.module).__name__} marks none; put "
            "fa_jax.primitives.Hidden() at the end of each hidden layer, or use feedback alignment (fa)"
        )


def require_all_kernels(network: Network, feedback: LayerArrays) -> LayerArrays:
    """Returns the feedback, checked to be one array for each linear layer that the error crosses.

    Raises:
      BadOption: if layers are missing, or others are there.
    """
    if set(feedback) != set(network.crossed_kernels):
        raise BadOption("needs feedback of each linear layer that the error crosses, such as layerwise")
    return feedback


def require_all_hidden(network: Network, feedback: LayerArrays) -> LayerArrays:
    """Returns the feedback, checked to be one array for each hidden layer.

    Raises:
      BadOption: if layers are missing, or others are there.
    """
    if set(feedback) != set(network.hidden_shapes):
        raise BadOption("needs feedback of each hidden layer, such as direct")
    return feedback


def _direct(
    network, key, names, distribution, scale, density, rank, shared: bool, shared_positions: bool
) -> LayerArrays:
    draws = per_layer("distribution", distribution, len(names), lambda option, got: choose(option, got, DISTRIBUTIONS))
    scales, densities = _scales(scale, len(names)), _densities(density, len(names))
    outputs = network.outputs
    shapes = {name: network.hidden_shapes[name].shape for name in names}
    if shared_positions:
        shapes = {name: (*[1] * (len(shape) - 1), shape[-1]) for name, shape in shapes.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    _check_rank(rank, {name: (size, outputs) for name, size in sizes.items()})
    feedback = {}
    for i, (name, chosen) in enumerate(zip(names, draws, strict=True)):
        value_key, density_key = jax.random.split(jax.random.fold_in(key, 0 if shared else i))
        stack, full_shape = network.hidden_shapes[name]
        # Drawn transposed, so that with one hidden layer the draw equals that of `layerwise`.
        drawn = (max(sizes.values()), outputs) if shared else (*stack, sizes[name], outputs)
        full = sparsify(density_key, _matrix(value_key, drawn, outputs, chosen.draw, scales[i], rank), densities[i])
        if shared:
            full = jnp.broadcast_to(full[: sizes[name]], (*stack, sizes[name], outputs))
        matrix = jnp.moveaxis(full.reshape(*stack, *shapes[name], outputs), -1, len(stack))
        positions = math.prod(full_shape) // sizes[name]
        feedback[name] = jnp.broadcast_to(matrix / positions, (*stack, outputs, *full_shape))
    return feedback


def _matrix(key, shape, fan, draw, scale, rank) -> jax.Array:
    """Draws matrices `[*stack, rows, columns]`: with independent entries, or of a rank with the same variance."""
    if rank is None:
        return draw(key, shape, fan, scale)
    left, right = jax.random.split(key)
    *stack, rows, columns = shape
    mixing = jax.random.normal(right, (*stack, rank, columns)) * rank**-0.5
    return draw(left, (*stack, rows, rank), fan, scale) @ mixing


def _scales(scale, layers: int) -> list[float]:
    return per_layer("scale", scale, layers, lambda option, got: number(option, got, above=0))


def _densities(density, layers: int) -> list[float]:
    return per_layer("density", density, layers, lambda option, got: number(option, got, above=0, most=1))


def _check_rank(rank: int | None, matrices: dict[str, tuple[int, int]]) -> None:
    if rank is None:
        return
    integer("rank", rank, least=1)
    name, most = min(((name, min(shape)) for name, shape in matrices.items()), key=lambda pair: pair[1])
    if rank > most:
        raise BadOption(f"must be at most {most}, the full rank of the feedback of {name}; got {rank}", "rank")
