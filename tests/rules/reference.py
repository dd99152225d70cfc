"""The update rules of multilayer perceptrons, written from the papers in numpy: float64, no autodiff.

Layers count from 0: `h_{-1} = x`, `a_i = h_{i-1} W_i + b_i`, `h_i = f(a_i)`, the last layer linear in its logits. All
gradients are those of the mean over the batch.
"""

import numpy as np

ACTIVATIONS = {
    "linear": (lambda a: a, np.ones_like),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "logistic": (lambda a: 1 / (1 + np.exp(-a)), lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2),
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(a.dtype)),
}


def forward(weights, biases, x, activation):
    """Returns the pre-activations of all layers, the last of which are the logits, and the inputs of all layers."""
    f, _ = ACTIVATIONS[activation]
    inputs, pre = [x], []
    for w, b in zip(weights, biases, strict=True):
        pre.append(inputs[-1] @ w + b)
        inputs.append(f(pre[-1]))
    return pre, inputs[:-1]


def updates(deltas, inputs):
    """Returns (weight updates, bias updates) from the error at each layer's pre-activation."""
    return [h.T @ d for h, d in zip(inputs, deltas, strict=True)], [d.sum(0) for d in deltas]


def deltas_backward(backward, pre, error, activation):
    """BP (`backward[i] = W_{i+1}^T`) and FA (`B_{i+1}`): d_i = (d_{i+1} backward[i]) f'(a_i)."""
    _, slope = ACTIVATIONS[activation]
    deltas = [error]
    for b, a in zip(reversed(backward), reversed(pre[:-1]), strict=True):
        deltas.insert(0, (deltas[0] @ b) * slope(a))
    return deltas


def deltas_direct(matrices, pre, error, activation):
    """DFA: d_i = (e B_i) f'(a_i)."""
    _, slope = ACTIVATIONS[activation]
    return [(error @ b) * slope(a) for b, a in zip(matrices, pre[:-1], strict=True)] + [error]


def deltas_indirect(matrix, weights, pre, error, activation):
    """IFA: d_0 = (e B) f'(a_0), d_i = (d_{i-1} W_i) f'(a_i)."""
    _, slope = ACTIVATIONS[activation]
    deltas = [(error @ matrix) * slope(pre[0])]
    for w, a in zip(weights[1:-1], pre[1:-1], strict=True):
        deltas.append((deltas[-1] @ w) * slope(a))
    return [*deltas, error]
