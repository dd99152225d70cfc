"""Preprocessing of images.

Each is a function of the training images, `(images, top) -> Scaling`, with images uint8 `[n, height, width, channels]`
and `top` the largest pixel value. Validation and test images are scaled by the statistics of the training images.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 1000  # images converted to floats at once


class Scaling(NamedTuple):
    """A preprocessing with its statistics."""

    store: Callable[[np.ndarray], np.ndarray]
    """Maps images, uint8 `[n, ...]`, to the arrays stored on the device, `[n, ...]`; called once."""
    prepare: Callable[..., jax.Array]
    """Maps a batch of stored arrays to float32 of the same shape, which may be augmented; called in every step. Of an
    array of NumPy it makes one of NumPy."""
    finish: Callable[[jax.Array], jax.Array] = lambda images: images
    """Maps augmented images to network inputs, each image individually."""

    def black(self, image: np.ndarray) -> jax.Array:
        """Returns what `prepare` makes of a black image, shaped like another image."""
        # In NumPy, which compiles nothing.
        return jnp.asarray(self.prepare(self.store(np.zeros_like(image[None])))[0])


def unit(images: np.ndarray, top: int) -> Scaling:
    """Scales pixels to [0, 1]."""
    del images
    return Scaling(_unchanged, lambda stored: stored.astype(jnp.float32) / top)


def symmetric(images: np.ndarray, top: int) -> Scaling:
    """Scales pixels to [-1, 1]."""
    del images
    return Scaling(_unchanged, lambda stored: stored.astype(jnp.float32) * (2 / top) - 1)


def centred(images: np.ndarray, top: int) -> Scaling:
    """Scales pixels to [0, 1] and subtracts the mean training image."""
    mean = np.float32(images.mean(0, dtype=np.float64))
    return Scaling(_unchanged, lambda stored: (stored.astype(jnp.float32) - mean) / top)


def standardised(images: np.ndarray, top: int) -> Scaling:
    """Scales each channel to zero mean and unit standard deviation over all training images and positions.

    A constant channel becomes 0.
    """
    del top
    mean, std = moments(images)
    shift, scale = np.float32(mean), np.float32(np.where(std > 0, std, 1))
    return Scaling(_unchanged, lambda stored: (stored.astype(jnp.float32) - shift) / scale)


def per_image(images: np.ndarray, top: int) -> Scaling:
    """Subtracts the mean training image, then standardises every image by itself."""
    mean = np.float32(images.mean(0, dtype=np.float64))
    return Scaling(_unchanged, lambda stored: (stored.astype(jnp.float32) - mean) / top, standardise)


def standardise(images: jax.Array) -> jax.Array:
    """Returns images `[batch, ...]`, each with mean 0 and standard deviation 1.

    The divisor is at least 1/sqrt(n) for images of n components, as in TensorFlow.
    """
    axes = tuple(range(1, images.ndim))
    least = images[0].size ** -0.5
    deviation = jnp.maximum(images.std(axes, keepdims=True), least)
    return (images - images.mean(axes, keepdims=True)) / deviation


def zca(images: np.ndarray, top: int) -> Scaling:
    """Whitens the images: `(x - mean) P` with the `P` of `whitening`, kept as float32.

    Reference: the published code of Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks",
    NeurIPS 2016: the constants are from there.
    """
    del top
    mean, matrix = whitening(images)
    matrix = matrix.astype(np.float32)

    def store(raw: np.ndarray) -> np.ndarray:
        white = np.empty(raw.shape, np.float32)
        for start in range(0, len(raw), _BLOCK):
            block = raw[start : start + _BLOCK]
            centred = (block.reshape(len(block), -1) - mean).astype(np.float32)
            white[start : start + _BLOCK] = (centred @ matrix).reshape(block.shape)
        return white

    return Scaling(store, lambda stored: stored)


PREPROCESSINGS = {
    "unit": unit,
    "symmetric": symmetric,
    "centred": centred,
    "standardised": standardised,
    "per_image": per_image,
    "zca": zca,
}


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation (divided by N) of each channel, float64 `[channels]`."""
    counts = np.zeros((images.shape[-1], 256))
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    share, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256)
    mean = share @ values
    return mean, np.sqrt(np.sum(share * np.square(values - mean[:, None]), axis=1))


def whitening(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of images and the symmetric matrix that turns their covariance into the identity.

    Args:
      images: uint8 `[n, ...]`, n at least 2; the raw pixels are flattened to `d` numbers.

    Returns:
      The mean, `[d]`, and `P = V (Λ + 1e-5)^(-1/2) V^T`, `[d, d]`, both float64, where `V Λ V^T` is the covariance,
      divided by N-1. A direction in which the images do not vary stays at 0.
    """
    n, d = len(images), images[0].size
    flat = images.reshape(n, d)
    mean = flat.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, _BLOCK):
        centred = flat[start : start + _BLOCK] - mean
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance / (n - 1))
    # Rounding can leave a vanishing eigenvalue below zero.
    return mean, (vectors / np.sqrt(np.maximum(values, 0) + 1e-5)) @ vectors.T


def _unchanged(images: np.ndarray) -> np.ndarray:
    return images
