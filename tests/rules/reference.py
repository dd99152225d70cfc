"""The update rules of multilayer perceptrons, written from the papers in numpy: float64, no autodiff.

Layers count from 0: `h_{-1} = x`, `a_i = h_{i-1} W_i + b_i`, `h_i = f(a_i)`; the last layer is linear. All gradients
are those of the mean over the batch.
"""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


ACTIVATIONS = {
    "linear": (lambda a: a, np.ones_like),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "sigmoid": (sigmoid, lambda a: sigmoid(a) * (1 - sigmoid(a))),
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(a.dtype)),
}
"""Each activation function with its derivative."""


def forward(weights, biases, x, activation):
    """Returns the pre-activations of all layers, the last of which are the logits, and the inputs of all layers."""
    f, _ = ACTIVATIONS[activation]
    inputs, preactivations = [x], []
    for w, b in zip(weights, biases, strict=True):
        preactivations.append(inputs[-1] @ w + b)
        inputs.append(f(preactivations[-1]))
    return preactivations, inputs[:-1]


def updates(deltas, inputs):
    """Returns `(weight updates, bias updates)` of all layers, given the error at their pre-activations."""
    return [h.T @ d for h, d in zip(inputs, deltas, strict=True)], [d.sum(0) for d in deltas]


def hidden_deltas(signals, preactivations, activation):
    """Returns `d_i = signal_i f'(a_i)` of the hidden layers."""
    _, derivative = ACTIVATIONS[activation]
    return [s * derivative(a) for s, a in zip(signals, preactivations[:-1], strict=True)]


def layerwise_deltas(backward, preactivations, error, activation):
    """BP (`backward[i] = W_{i+1}^T`) and FA (`B_{i+1}`): `d_i = (d_{i+1} backward[i]) f'(a_i)`."""
    _, derivative = ACTIVATIONS[activation]
    deltas = [error]
    for b, a in zip(reversed(backward), reversed(preactivations[:-1]), strict=True):
        deltas.insert(0, (deltas[0] @ b) * derivative(a))
    return deltas


def direct_deltas(matrices, preactivations, error, activation):
    """DFA: `d_i = (e B_i) f'(a_i)`."""
    return [*hidden_deltas([error @ b for b in matrices], preactivations, activation), error]


def indirect_deltas(matrix, weights, preactivations, error, activation):
    """IFA: `d_0 = (e B) f'(a_0)`, `d_i = (d_{i-1} W_i) f'(a_i)`."""
    _, derivative = ACTIVATIONS[activation]
    deltas = [(error @ matrix) * derivative(preactivations[0])]
    for w, a in zip(weights[1:-1], preactivations[1:-1], strict=True):
        deltas.append((deltas[-1] @ w) * derivative(a))
    return [*deltas, error]


def unstack(shapes, named):
    """Returns arrays in the order of the forward pass, scanned stacks unstacked.

    Args:
      shapes: `network.kernel_shapes` or `network.hidden_shapes`.
      named: arrays by their names, not necessarily all.
    """
    arrays = [(shape.stack, np.asarray(named[name])) for name, shape in shapes.items() if name in named]
    return [layer for stack, array in arrays for layer in (array if stack else [array])]


def weights_and_biases(network, params):
    """Returns the weights and the biases of all linear layers in order; the bias is 0 where a layer has none."""
    layers = {name: leaf(params, name) for name in network.kernel_shapes}
    weights = {name: layer["kernel"] for name, layer in layers.items()}
    biases = {
        name: layer.get("bias", np.zeros((*network.kernel_shapes[name].stack, layer["kernel"].shape[-1])))
        for name, layer in layers.items()
    }
    return unstack(network.kernel_shapes, weights), unstack(network.kernel_shapes, biases)


def leaf(tree, path):
    """Returns the node of a tree at a path such as `stages_0/linear`."""
    for part in path.split("/"):
        tree = tree[part]
    return tree
