"""Augmentation of training images inside the compiled step: random shifts, flips and contrast."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, switch, unused
from fa_jax.core import Task


def augmentation(
    task: Task, *, shift: int, border: str | None, flip: bool, contrast: list[float] | None
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns `(key, images) -> images`, `[batch, height, width, channels]`, which changes each image independently.

    Pixels are displaced and mirrored as differences from the border's value at their place. So with a black border, the
    result is the preprocessing of a stored image that was displaced and mirrored over black, unless the preprocessing
    mixes pixels, as `zca` does; there too, a place that nothing covers is as in a black image.

    Args:
      task: whose images are augmented, between `Task.prepare`'s scaling and its standardisation of each image.
      shift: the largest displacement in pixels, in each direction.
      border: what comes in from outside: `black`, the value of a stored 0 after preprocessing; or `zero`, 0 after
        preprocessing, which is the mean image where the mean was subtracted; None: black.
      flip: whether half of the images are mirrored, left to right.
      contrast: the smallest and the largest factor, at least 0, of the deviations of each channel from its mean; None:
        no change.

    Returns:
      None if nothing is to be changed.

    Raises:
      BadOption: if an option is out of range or has no effect, or inputs are not images.
    """
    shape = task.input_shape
    shift, flip = integer("shift", shift, least=0), switch("flip", flip)
    if not (shift or flip):
        unused("border", border, "without shift and flip")
    outside = choose("border", "black" if border is None else border, {"black": task.black, "zero": jnp.zeros(shape)})
    factors = _range("contrast", contrast)
    if not (shift or flip or factors):
        return None
    if len(shape) != 3:
        raise BadOption(f"needs images; this task has inputs of shape {tuple(shape)}")
    if shift and shift >= min(shape[:2]):
        raise BadOption(f"must be below the image's {shape[0]}x{shape[1]} pixels; got {shift}", "shift")
    if shift and outside is None:
        raise BadOption("must be zero: this task does not say what black becomes; got black", "border")
    origin = 0.0 if outside is None else outside

    def move(key, image):
        start = jax.random.randint(key, (2,), 0, 2 * shift + 1)
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        return jax.lax.dynamic_slice(padded, (*start, 0), image.shape)

    def moved(shift_key, flip_key, images):
        if shift:
            images = jax.vmap(move)(jax.random.split(shift_key, len(images)), images)
        if flip:
            flipped = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
            images = jnp.where(flipped, images[:, :, ::-1], images)
        return images

    def augment(key, images):
        shift_key, flip_key, contrast_key = jax.random.split(key, 3)
        if shift or flip:
            images = origin + moved(shift_key, flip_key, images - origin)
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
