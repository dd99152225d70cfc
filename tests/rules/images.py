"""Convolution, pooling and their backward passes, in numpy with loops over the window: float64, no autodiff.

Images are `[batch, height, width, channels]`, kernels `[height, width, in, out]`; strides are 1.
"""

import numpy as np


def border_before(window, padding):
    """Returns the number of zeros that the padding adds above and to the left."""
    return (window - 1) // 2 if padding == "SAME" else 0


def pad(x, window, padding):
    """Returns the image with a border of zeros; with the padding SAME, a convolution then keeps its size."""
    before = border_before(window, padding)
    after = window - 1 - before if padding == "SAME" else 0
    return np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))


def windows(x, kernel, padding):
    """Yields each position in the window, with the slice of the padded image that the kernel meets there."""
    size = kernel.shape[0]
    padded = pad(x, size, padding)
    reach = padded.shape[1] - size + 1
    for i in range(size):
        for j in range(size):
            yield i, j, padded[:, i : i + reach, j : j + reach]


def convolve(x, kernel, bias, padding):
    """Returns the output of a convolution."""
    return bias + sum(part @ kernel[i, j] for i, j, part in windows(x, kernel, padding))


def kernel_update(x, delta, kernel, padding):
    """Returns the gradient of a convolution's kernel, given the error at its output."""
    update = np.zeros_like(kernel)
    for i, j, part in windows(x, kernel, padding):
        update[i, j] = np.einsum("byxc,byxd->cd", part, delta)
    return update


def input_signal(delta, kernel, padding, shape):
    """Returns the signal at a convolution's input, given the error at its output and the backward kernel."""
    size = kernel.shape[0]
    padded = pad(np.zeros(shape), size, padding)
    height, width = delta.shape[1:3]
    for i in range(size):
        for j in range(size):
            padded[:, i : i + height, j : j + width] += delta @ kernel[i, j].T
    before = border_before(size, padding)
    return padded[:, before : before + shape[1], before : before + shape[2]]


def max_pool(h, window, stride):
    """Returns the pooled image, and by position in it the index of the maximum in its window, `[batch, channels]`."""
    count = (h.shape[1] - window) // stride + 1
    pooled = np.zeros((len(h), count, count, h.shape[-1]))
    maxima = {}
    for y in range(count):
        for x in range(count):
            part = h[:, y * stride : y * stride + window, x * stride : x * stride + window]
            flat = part.reshape(len(h), -1, h.shape[-1])
            pooled[:, y, x] = flat.max(1)
            maxima[y, x] = flat.argmax(1)
    return pooled, maxima


def unpool(signal, maxima, shape, window, stride):
    """Returns the signal at the positions of the maxima, summed where windows overlap, and 0 elsewhere."""
    unpooled = np.zeros(shape)
    for (y, x), indices in maxima.items():
        for b in range(shape[0]):
            for c in range(shape[-1]):
                i, j = divmod(int(indices[b, c]), window)
                unpooled[b, y * stride + i, x * stride + j, c] += signal[b, y, x, c]
    return unpooled
