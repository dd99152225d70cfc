"""Convolution, pooling and what goes back through them, in numpy with loops over the window: float64, no autodiff.

Images are `[batch, height, width, channels]`, kernels `[height, width, in, out]`.
"""

import numpy as np


def padded(x, window, padding):
    """The image with a border of zeros, as much as keeps its size."""
    before = (window - 1) // 2 if padding == "SAME" else 0
    after = window - 1 - before if padding == "SAME" else 0
    return np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))


def windows(x, kernel, padding):
    """Yields, for each place in the window, its number and the slice of the padded image that it sees."""
    size = kernel.shape[0]
    p = padded(x, size, padding)
    reach = p.shape[1] - size + 1
    for i in range(size):
        for j in range(size):
            yield i, j, p[:, i : i + reach, j : j + reach]


def convolve(x, kernel, bias, padding):
    """The output of a convolution of stride 1."""
    return bias + sum(seen @ kernel[i, j] for i, j, seen in windows(x, kernel, padding))


def kernel_update(x, delta, kernel, padding):
    """What a convolution's kernel is updated by, given the error at its output."""
    update = np.zeros_like(kernel)
    for i, j, seen in windows(x, kernel, padding):
        update[i, j] = np.einsum("byxc,byxd->cd", seen, delta)
    return update


def back(delta, kernel, padding, shape):
    """The error at a convolution's input, sent back through a kernel, its own or another."""
    size = kernel.shape[0]
    border = padded(np.zeros(shape), size, padding)
    height, width = delta.shape[1:3]
    for i in range(size):
        for j in range(size):
            border[:, i : i + height, j : j + width] += delta @ kernel[i, j].T
    before = (size - 1) // 2 if padding == "SAME" else 0
    return border[:, before : before + shape[1], before : before + shape[2]]


def max_pool(h, window, stride):
    """The pooled image, and the 0-1 mask `[..., places in the pooled image]` of where each maximum came from."""
    count = (h.shape[1] - window) // stride + 1
    pooled = np.zeros((len(h), count, count, h.shape[-1]))
    places = {}
    for y in range(count):
        for x in range(count):
            part = h[:, y * stride : y * stride + window, x * stride : x * stride + window]
            flat = part.reshape(len(h), -1, h.shape[-1])
            pooled[:, y, x] = flat.max(1)
            places[y, x] = flat.argmax(1)
    return pooled, places


def unpool(signal, places, shape, window, stride):
    """The signal put where the maxima were, summed up where windows overlap."""
    out = np.zeros(shape)
    for (y, x), chosen in places.items():
        for b in range(shape[0]):
            for c in range(shape[-1]):
                i, j = divmod(int(chosen[b, c]), window)
                out[b, y * stride + i, x * stride + j, c] += signal[b, y, x, c]
    return out
