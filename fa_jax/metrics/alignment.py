"""How a rule's learning compares with backprop's: angles in degrees, signed (0 to 180), with the norms beside them.

The scalar product in the angle keeps its sign. (Lillicrap et al., arXiv 1411.0247, 2014, print its norm, which would
fold every angle to at most 90 degrees, while they describe angles that start near 90.)
"""

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, LossFunction, PyTree, Rule
from fa_jax.network import Network, gradient


def angle(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the angle between two arrays taken as vectors, in degrees from 0 to 180; NaN if either is zero.

    The half-angle form keeps its precision near 0 and 180, where the arc cosine loses half the digits.
    """
    a, b = a / norm(a), b / norm(b)
    return jnp.degrees(2 * jnp.arctan2(norm(a - b), norm(a + b)))


def norm(a: jax.Array) -> jax.Array:
    """Returns the Euclidean norm of an array taken as a vector, also where the squares would under- or overflow."""
    largest = jnp.max(jnp.abs(a))
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.linalg.norm((a / scale).ravel())


def alignment(rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch):
    """Returns the alignment of a rule with backprop on a probe batch, as a dict of scalars.

    The names end in the index of the layer, from 0 at the input:
    * `signal_angle_i`: of the learning signals that hidden layer i receives under the rule and under backprop, the
      angle for each example, mean over those whose signals are not zero; `signal_norm_i` and `bp_signal_norm_i`: the
      norms of the whole batch's signals, times the batch size.
    * `update_angle_i`: of linear layer i's whole update, weights and biases, and backprop's; `update_norm_i` and
      `bp_update_norm_i`: their norms.
    * `weight_angle_i`: of the weights that the signal crosses on its way to hidden layer i and the forward weights
      that backprop's would cross; `weight_norm_i` and `forward_norm_i`: their norms. Absent where none are crossed.

    Args:
      rule, network, loss: the rule under test, and what it was made of.
      params, feedback: one seed's.
      batch: the probe.
    """
    zeros = {
        name: jnp.zeros((*h.stack, len(batch.inputs), *h.shape), batch.inputs.dtype)
        for name, h in network.hiddens.items()
    }
    nudged = network.nudge(params, zeros)
    by_rule = rule.updates(nudged, feedback, batch)
    by_bp = gradient(network, loss, nudged, batch)
    report = {}

    def of_signals(ours, theirs):
        return jnp.nanmean(jax.vmap(angle)(ours, theirs)), norm(ours) * len(ours), norm(theirs) * len(theirs)

    def of_weights(ours, theirs):
        return angle(ours, theirs), norm(ours), norm(theirs)

    def write(names, of, pairs):
        """`pairs` of (ours, theirs, stack), in the order of the forward pass."""
        values = [layer for ours, theirs, stack in pairs for layer in _each_layer(of, stack, ours, theirs)]
        for i, of_layer in enumerate(values):
            report.update({f"{name}_{i}": value for name, value in zip(names, of_layer, strict=True)})

    signals, bp_signals = network.nudges(by_rule), network.nudges(by_bp)
    pairs = [(signals[name], bp_signals[name], h.stack) for name, h in network.hiddens.items()]
    write(("signal_angle", "signal_norm", "bp_signal_norm"), of_signals, pairs)

    ours, theirs = _layers(network, by_rule), _layers(network, by_bp)
    pairs = [(ours[name], theirs[name], kernel.stack) for name, kernel in network.kernels.items()]
    write(("update_angle", "update_norm", "bp_update_norm"), of_weights, pairs)

    crossed = {} if rule.crossing is None else rule.crossing(params, feedback)
    stacks = {**{n: k.stack for n, k in network.kernels.items()}, **{n: h.stack for n, h in network.hiddens.items()}}
    pairs = [(backward, forward, stacks[name]) for name, (backward, forward) in crossed.items()]
    write(("weight_angle", "weight_norm", "forward_norm"), of_weights, pairs)
    return report


def _each_layer(of, stack: tuple[int, ...], *arrays: jax.Array) -> list[tuple[jax.Array, ...]]:
    """What `of` returns for each layer of a scanned stack, or for the one layer where there is none.

    Vmapped, since a hundred layers compared one by one take longer to compile than the training.
    """
    if not stack:
        return [of(*arrays)]
    results = jax.vmap(of)(*(a.reshape(-1, *a.shape[len(stack) :]) for a in arrays))
    return list(zip(*map(list, results), strict=True))


def _layers(network: Network, updates: PyTree) -> dict[str, jax.Array]:
    """The update of each linear layer as one vector, weights first; `[*stack, length]`."""
    flat = {"/".join(map(str, path)): leaf for path, leaf in _flatten(updates)}
    layers = {}
    for name, kernel in network.kernels.items():
        leaves = [flat[key] for key in (f"{name}/kernel", f"{name}/bias") if key in flat]
        layers[name] = jnp.concatenate([leaf.reshape(*kernel.stack, -1) for leaf in leaves], -1)
    return layers


def _flatten(tree: PyTree):
    return [([entry.key for entry in path], leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
