"""Augmentation of training images inside the compiled step: random shifts, flips and contrast."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, integer, number, switch


def augmentation(
    shape: tuple[int, ...], *, shift: int, flip: bool, contrast: list[float] | None
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns `(key, images) -> images`, `[batch, height, width, channels]`, which changes each image independently.

    Args:
      shape: of one image.
      shift: the largest displacement in pixels, in each direction; zeros come in from outside.
      flip: whether half of the images are mirrored, left to right.
      contrast: the smallest and the largest factor, at least 0, of the deviations of each channel from its mean; None:
        no change.

    Returns:
      None if nothing is to be changed.

    Raises:
      BadOption: if an option is out of range, or inputs are not images.
    """
    shift, flip = integer("shift", shift, least=0), switch("flip", flip)
    factors = _range("contrast", contrast)
    if not (shift or flip or factors):
        return None
    if len(shape) != 3:
        raise BadOption(f"needs images; this task has inputs of shape {tuple(shape)}")
    if shift and shift >= min(shape[:2]):
        raise BadOption(f"must be below the image's {shape[0]}x{shape[1]} pixels; got {shift}", "shift")

    def move(key, image):
        start = jax.random.randint(key, (2,), 0, 2 * shift + 1)
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        return jax.lax.dynamic_slice(padded, (*start, 0), image.shape)

    def augment(key, images):
        shift_key, flip_key, contrast_key = jax.random.split(key, 3)
        if shift:
            images = jax.vmap(move)(jax.random.split(shift_key, len(images)), images)
        if flip:
            flipped = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
            images = jnp.where(flipped, images[:, :, ::-1], images)
        if factors:
            factor = jax.random.uniform(contrast_key, (len(images), 1, 1, 1), minval=factors[0], maxval=factors[1])
            mean = images.mean((1, 2), keepdims=True)
            images = mean + factor * (images - mean)
        return images

    return augment


def _range(option: str, got: Any) -> tuple[float, float] | None:
    """Returns two numbers of at least 0 in ascending order, or None."""
    if got is None:
        return None
    if not isinstance(got, list) or len(got) != 2:
        raise BadOption(f"must be the smallest and the largest factor, such as [0.2,1.8], or null; got {got!r}", option)
    smallest, largest = (number(option, factor, least=0) for factor in got)
    if smallest > largest:
        raise BadOption(f"must not descend; got {got!r}", option)
    return smallest, largest
