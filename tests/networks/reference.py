"""Layers of the references: norms, linear layers and activation functions, forward and backward, without autodiff."""

import numpy as np

EPSILON = 1e-6
"""Of layer norms."""


def gelu(a):
    """The approximation by tanh, and its derivative."""
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (a + 0.044715 * a**3))
    return a * (1 + t) / 2, (1 + t) / 2 + a * (1 - t**2) * c * (1 + 3 * 0.044715 * a**2) / 2


def relu(a):
    return np.maximum(a, 0), (a > 0).astype(a.dtype)


class Norm:
    """A layer norm, forward and backward."""

    def __init__(self, params, x):
        self.scale = np.asarray(params["scale"])
        centred = x - x.mean(-1, keepdims=True)
        self.deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        self.x = centred / self.deviation
        self.y = self.x * self.scale + np.asarray(params["bias"])

    def backward(self, d):
        """Returns the updates, and the error at the input."""
        updates = {"scale": (d * self.x).sum((0, 1)), "bias": d.sum((0, 1))}
        d = d * self.scale
        along = (d * self.x).mean(-1, keepdims=True)
        return updates, (d - d.mean(-1, keepdims=True) - self.x * along) / self.deviation


class Linear:
    """A linear layer from all axes of an input after the tokens to all axes of its output."""

    def __init__(self, params, x, axes=1):
        kernel = np.asarray(params["kernel"])
        self.x, self.axes, self.shape = x, axes, kernel.shape
        self.y = np.tensordot(x, kernel, axes) + np.asarray(params["bias"])

    def backward(self, d, backward_kernel):
        """Returns the updates, and the error at the input, by the backward kernel B^T."""
        outputs = backward_kernel.ndim - self.axes
        updates = {"kernel": np.tensordot(self.x, d, ((0, 1), (0, 1))), "bias": d.sum((0, 1))}
        last = tuple(range(d.ndim - outputs, d.ndim)), tuple(range(self.axes, backward_kernel.ndim))
        return updates, np.tensordot(d, backward_kernel, last)
