"""How a rule's learning compares with backprop's: angles in degrees, from 0 to 180, with the norms beside them.

Angles are signed: the scalar product keeps its sign. (Lillicrap et al., arXiv 1411.0247, 2014, print its absolute
value, which would fold every angle to at most 90 degrees, while they describe angles that start near 90.)
"""

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, LayerArrays, LossFunction, Measure, Metric, PyTree, Rule
from fa_jax.network import Network
from fa_jax.rules.backward import gradient, hidden_gradient


def angle(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the angle between two arrays as vectors, in degrees from 0 to 180; NaN if either is zero.

    The half-angle form keeps its precision near 0 and 180, where the arc cosine loses half the digits.
    """
    lengths = norm(a), norm(b)
    a, b = (vector / jnp.where(length > 0, length, 1) for vector, length in zip((a, b), lengths, strict=True))
    degrees = jnp.degrees(2 * jnp.arctan2(norm(a - b), norm(a + b)))
    return jnp.where((lengths[0] > 0) & (lengths[1] > 0), degrees, jnp.nan)


def norm(a: jax.Array) -> jax.Array:
    """Returns the Euclidean norm of an array as a vector, also where the squares would under- or overflow."""
    largest = jnp.max(jnp.abs(a))
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.linalg.norm((a / scale).ravel())


def alignment(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns the alignment of a rule with backprop on a probe batch.

    Names end in the index of the layer, from 0 at the input:
    * `signal_angle_i`: between the learning signals of hidden layer i under the rule and under backprop, for each
      example, mean over the examples whose signals are not zero; `signal_norm_i` and `bp_signal_norm_i`: norms of the
      whole batch's signals, times the batch size. Absent if the rule does not provide its signals.
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
        values = [layer for *arrays, stack in pairs for layer in _each_layer(compare, stack, *arrays)]
        for i, layer in enumerate(values):
            metrics.update({f"{name}_{i}": value for name, value in zip(names, layer, strict=True)})

    if rule.extras.signals is not None:
        signals = rule.extras.signals(params, feedback, batch)
        bp_signals = hidden_gradient(network, loss, params, batch)
        pairs = [(signals[name], bp_signals[name], h.stack) for name, h in network.hidden_shapes.items()]
        record(("signal_angle", "signal_norm", "bp_signal_norm"), _compare_signals, pairs)

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


def _compare(actual: jax.Array, reference: jax.Array) -> tuple[jax.Array, ...]:
    return angle(actual, reference), norm(actual), norm(reference)


def _compare_signals(actual: jax.Array, reference: jax.Array) -> tuple[jax.Array, ...]:
    return jnp.nanmean(jax.vmap(angle)(actual, reference)), norm(actual) * len(actual), norm(reference) * len(reference)


def _each_layer(compare, stack: tuple[int, ...], *arrays: jax.Array) -> list[tuple[jax.Array, ...]]:
    """Returns `compare` of each layer of a scanned stack, or of the one layer.

    Vmapped, since a hundred separate comparisons take longer to compile than the training.
    """
    if not stack:
        return [compare(*arrays)]
    results = jax.vmap(compare)(*(a.reshape(-1, *a.shape[len(stack) :]) for a in arrays))
    return list(zip(*map(list, results), strict=True))


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


def _norm(name: str, label: str) -> Metric:
    return Metric(name, label, better="neither", plotted=False)


ALIGNMENT = Measure(
    (
        _angle("signal_angle", "angle of the learning signal to backprop's"),
        _angle("weight_angle", "angle of the backward weights to the forward weights"),
        _angle("update_angle", "angle of the update to backprop's"),
        _norm("signal_norm", "norm of the learning signal"),
        _norm("bp_signal_norm", "norm of backprop's signal"),
        _norm("update_norm", "norm of the update"),
        _norm("bp_update_norm", "norm of backprop's update"),
        _norm("weight_norm", "norm of the backward weights"),
        _norm("forward_norm", "norm of the forward weights"),
    ),
    alignment,
)
