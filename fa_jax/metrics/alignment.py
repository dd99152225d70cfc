"""How a rule's learning compares with backprop's: angles in degrees, from 0 to 180, with the norms beside them.

Angles are signed: the scalar product keeps its sign. (Lillicrap et al., arXiv 1411.0247, 2014, print its absolute
value, which would fold every angle to at most 90 degrees, while they describe angles that start near 90.)
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, Flag, LayerArrays, LossFunction, Measure, Metric, PyTree, Rule
from fa_jax.network import Network
from fa_jax.rules.backward import gradient, hidden_gradient

FLOOR = 1.3e-5
"""The smallest `reference_norm_i` with which a comparison of signals is not marked. Hao, Wan, Zhai (arXiv 2606.21126,
2026) have 1e-7 for the gradient of a mean over 128 examples, which is this number for one example."""
REFERENCE = Flag("reference_norm", (FLOOR, None), f"backprop's signal of an example is below the floor of {FLOOR:g}")


def angle(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the angle between two arrays as vectors, in degrees from 0 to 180; NaN if either is zero."""
    return _angle_of(*_lengths(a, b))


def _lengths(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the norms of two arrays, and those of the difference and of the sum of their unit vectors, `[2]` each."""
    pair = jnp.stack([a.ravel(), b.ravel()])
    norms = norm(pair)
    a, b = pair / jnp.where(norms > 0, norms, 1)[:, None]
    # Of unit vectors, squares neither under- nor overflow where they count.
    return norms, jnp.linalg.norm(jnp.stack([a - b, a + b]), axis=-1)


def _angle_of(norms: jax.Array, of_units: jax.Array) -> jax.Array:
    """Returns the angles of pairs, given their `_lengths`, `[..., 2]` each.

    The half-angle form keeps its precision near 0 and 180, where the arc cosine loses half the digits.
    """
    degrees = jnp.degrees(2 * jnp.arctan2(of_units[..., 0], of_units[..., 1]))
    return jnp.where((norms > 0).all(-1), degrees, jnp.nan)


def norm(vectors: jax.Array) -> jax.Array:
    """Returns the Euclidean norms over the last axis, also where the squares would under- or overflow."""
    largest = jnp.max(jnp.abs(vectors), axis=-1)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.linalg.norm(vectors / scale[..., None], axis=-1)


def alignment(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns the alignment of a rule with backprop on a probe batch.

    Names end in the index of the layer, from 0 at the input:
    * `signal_angle_i`: between the learning signals of hidden layer i under the rule and under backprop, for each
      example, mean over the examples whose signals are not zero; `dead_signals_i`: how many are zero, in percent;
      `signal_norm_i` and `bp_signal_norm_i`: norms of the whole batch's signals, times the batch size. Absent if the
      rule does not provide its signals.
    * `reference_norm_i`: the norm of backprop's signal of an example, which is dL/dh times the batch size, since L is a
      mean: median over the examples. Below `FLOOR`, comparisons with that signal are marked.
    * `update_angle_i`: between the update of linear layer i, weights and biases together, and backprop's;
      `update_norm_i` and `bp_update_norm_i`: their norms.
    * `weight_angle_i`: between the backward weights on the way to hidden layer i and the forward weights that backprop
      uses there; `weight_norm_i` and `forward_norm_i`: their norms. Absent if the signal passes through no weights.

    Args:
      rule, network, loss: the rule, and what it was built from.
      params, feedback: of one seed.
      batch: the probe.
    """
    metrics = {}

    def record(names, compare, pairs):
        """Compares pairs of (actual, reference, stack), in the order of the forward pass."""
        for name, values in zip(names, compare(pairs) if pairs else (), strict=False):
            metrics.update(by_layer(name, values))

    pairs = signal_pairs(rule, network, loss, params, feedback, batch)
    record(("signal_angle", "dead_signals", "signal_norm", "bp_signal_norm"), _compare_signals, pairs)
    references = [pair[1:] for pair in pairs] or bp_signals(network, loss, params, batch)
    record(("reference_norm",), _reference_norm, references)

    actual = _layers(network, rule.updates(params, feedback, batch))
    reference = _layers(network, gradient(network, loss, params, batch))
    pairs = [(actual[name], reference[name], kernel.stack) for name, kernel in network.kernel_shapes.items()]
    record(("update_angle", "update_norm", "bp_update_norm"), _compare, pairs)

    weight_pairs = {} if rule.extras.weight_pairs is None else rule.extras.weight_pairs(params, feedback)
    # In the order of the network, since the feedback, a pytree, may be sorted by name.
    layers = [*network.kernel_shapes.items(), *network.hidden_shapes.items()]
    pairs = [(*weight_pairs[name], layer.stack) for name, layer in layers if name in weight_pairs]
    record(("weight_angle", "weight_norm", "forward_norm"), _compare, pairs)
    return metrics


def bp_signals(network: Network, loss: LossFunction, params: PyTree, batch: Batch) -> list:
    """Returns backprop's signal of each hidden layer, as pairs of (signals, stack); none without marked layers."""
    if not network.hidden_shapes:
        return []
    signals = hidden_gradient(network, loss, params, batch)
    return [(signals[name], h.stack) for name, h in network.hidden_shapes.items()]


def signal_pairs(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> list:
    """Returns (signals of the rule, signals of backprop, stack) of each hidden layer, for `each_layer`.

    There are none if the rule does not provide its signals.
    """
    if rule.extras.signals is None:
        return []
    signals = rule.extras.signals(params, feedback, batch)
    references = bp_signals(network, loss, params, batch)
    return [(signals[name], *pair) for name, pair in zip(network.hidden_shapes, references, strict=True)]


def by_layer(name: str, values: jax.Array) -> dict[str, jax.Array]:
    """Returns the values of a metric, `[layers]`, by column."""
    return {f"{name}_{i}": values[i] for i in range(len(values))}


def _compare(pairs: list) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the angles between pairs, and the norms of both, `[layers]` each."""
    norms, of_units = each_layer(_lengths, pairs)
    return _angle_of(norms, of_units), norms[:, 0], norms[:, 1]


def _compare_signals(pairs: list) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns the mean angles of examples, the percentage without one as a signal is zero, and the norms of both.

    These are norms of all examples together, times their number.
    """
    norms, of_units = each_layer(jax.vmap(_lengths), pairs)  # [layers, examples, 2]
    whole = norms.shape[1] * norm(norms.swapaxes(1, 2))
    dead = 100 * jnp.mean((norms == 0).any(-1), axis=1)
    return jnp.nanmean(_angle_of(norms, of_units), axis=1), dead, whole[:, 0], whole[:, 1]


def mean_angles(pairs: list) -> jax.Array:
    """Returns the mean angles of examples in degrees, `[layers]`, given `signal_pairs`."""
    return _compare_signals(pairs)[0]


def _reference_norm(signals: list) -> tuple[jax.Array]:
    """Returns the median norms of signals of examples, times the number of examples, `[layers]`."""
    norms = median_norms(signals)
    first, stack = signals[0]
    return (first.shape[len(stack)] * norms,)


def median_norms(layers: list) -> jax.Array:
    """Returns medians over examples of their norms, `[layers]`, given pairs of (`[*stack, examples, ...]`, stack)."""
    (norms,) = each_layer(lambda layer: (norm(layer.reshape(len(layer), -1)),), layers)
    return jnp.median(norms, axis=1)


def each_layer(function: Callable[..., tuple[jax.Array, ...]], layers: list) -> list[jax.Array]:
    """Returns the results of a function of arrays of a layer, `[layers, ...]` each.

    The layers of a scanned stack are vmapped, since a hundred of them take longer to compile than the training.

    Args:
      function: maps arrays without the axis of the stack to results.
      layers: tuples of (*arrays, stack), such as pairs of a signal and its reference.
    """
    parts = []
    for *arrays, stack in layers:
        parts.append(jax.vmap(function)(*(array.reshape(-1, *array.shape[len(stack) :]) for array in arrays)))
    return [jnp.concatenate(results) for results in zip(*parts, strict=True)]


def _layers(network: Network, updates: PyTree) -> LayerArrays:
    """Returns the update of each linear layer as one vector, weights first; `[*stack, length]`."""
    flat = {
        "/".join(entry.key for entry in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(updates)[0]
    }
    layers = {}
    for name, kernel in network.kernel_shapes.items():
        leaves = [flat[key] for key in (f"{name}/kernel", f"{name}/bias") if key in flat]
        layers[name] = jnp.concatenate([leaf.reshape(*kernel.stack, -1) for leaf in leaves], -1)
    return layers


def _angle(name: str, label: str) -> Metric:
    return Metric(name, label, unit="degrees", bounds=(0, 180))


def angle_to_backprop(name: str, label: str) -> Metric:
    """Returns the declaration of a mean angle of signals to backprop's."""
    return Metric(name, label, "degrees", bounds=(0, 180), flag=REFERENCE, random=(90, math.degrees(1)))


def _norm(name: str, label: str) -> Metric:
    return Metric(name, label, better="neither", plotted=False)


ALIGNMENT = Measure(
    (
        angle_to_backprop("signal_angle", "angle of the learning signal to backprop's"),
        _angle("weight_angle", "angle of the backward weights to the forward weights"),
        _angle("update_angle", "angle of the update to backprop's"),
        _norm("signal_norm", "norm of the learning signal"),
        _norm("bp_signal_norm", "norm of backprop's signal"),
        _norm("update_norm", "norm of the update"),
        Metric("dead_signals", "examples whose signal is zero", "%", "neither", bounds=(0, 100), plotted=False),
        Metric("reference_norm", "norm of backprop's signal of an example", "", "neither", True, plotted=False),
        _norm("bp_update_norm", "norm of backprop's update"),
        _norm("weight_norm", "norm of the backward weights"),
        _norm("forward_norm", "norm of the forward weights"),
    ),
    alignment,
)
