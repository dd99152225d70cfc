"""The output error, sent directly to hidden layers by matrices, and the forward weights that it goes past."""

import jax
import jax.numpy as jnp

from fa_jax.core import LayerArrays, PyTree
from fa_jax.network import Network


def project(error: jax.Array, matrix: jax.Array) -> jax.Array:
    """Returns `B e` for each example, the output error projected to a hidden layer.

    Args:
      error: dL/dlogits, `[batch, outputs]`, with the `1/batch` of the mean loss.
      matrix: B^T, `[outputs, *shape]`.

    Returns:
      The learning signal of that layer, `[batch, *shape]`.

    Reference: Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, eq. 7.
    """
    return jnp.tensordot(error, matrix, 1)


def project_all(network: Network, error: jax.Array, feedback: LayerArrays) -> LayerArrays:
    """Returns `project(error, feedback[name])` for each hidden layer with feedback, `[*stack, batch, *shape]`."""
    signals = {}
    for name, matrix in feedback.items():
        send = project
        for _ in network.hidden_shapes[name].stack:
            send = jax.vmap(send, in_axes=(None, 0))
        signals[name] = send(error, matrix.astype(error.dtype))
    return signals


def forward_paths(network: Network, params: PyTree) -> LayerArrays | None:
    """Returns the products of forward weights from each hidden layer to the output, shaped like direct feedback.

    If all activation functions above a layer were the identity, backprop's signal would pass through its product.

    Returns:
      `[*stack, outputs, width]` by the name of each hidden layer; None unless every hidden layer is one dense layer,
      and nothing goes past one.
    """
    kernels = list(network.kernel_shapes.items())
    layers = [(h.stack, h.shape) for h in network.hidden_shapes.values()]
    dense = [(k.stack, k.shape[1:]) for _, k in kernels[:-1]]
    if layers != dense or any(len(k.shape) != 2 for _, k in kernels) or not network.is_layered:
        return None
    weights = network.kernels(params)
    product = weights[kernels[-1][0]].T
    paths = {}
    for name, (above, kernel) in reversed(list(zip(network.hidden_shapes, kernels[:-1], strict=True))):
        if kernel.stack:
            product, paths[name] = jax.lax.scan(lambda p, w: (p @ w.T, p), product, weights[above], reverse=True)
        else:
            paths[name], product = product, product @ weights[above].T
    return {name: paths[name] for name in network.hidden_shapes}
