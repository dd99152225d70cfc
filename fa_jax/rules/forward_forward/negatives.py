"""Positive and negative data of Forward-Forward: labels written into inputs, and hybrid images.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022, sections 3.2 and 3.3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import integer, unused
from fa_jax.core import Batch
from fa_jax.network import Network

BLUR_STEPS = 6
"""Of the masks of hybrid images, by default; the paper does not say how many it takes."""


def with_label(x: jax.Array, label: jax.Array) -> jax.Array:
    """Returns inputs `[batch, ...]` whose first components are replaced by a label `[batch, classes]`."""
    flat = x.reshape(len(x), -1)
    return jnp.concatenate([label, flat[:, label.shape[-1] :]], -1).reshape(x.shape)


def with_neutral_label(x: jax.Array, classes: int) -> jax.Array:
    """Returns inputs `[batch, ...]` whose first components are replaced by equal probabilities of all classes."""
    return with_label(x, jnp.full((len(x), classes), 1 / classes))


def wrong_labels(logits: jax.Array, batch: Batch) -> jax.Array:
    """Returns a wrong one-hot label for each example, drawn by the softmax of logits `[batch, classes]`."""
    drawn = jax.random.categorical(batch.key, jnp.where(batch.targets > 0, -jnp.inf, logits))
    return jax.nn.one_hot(drawn, batch.targets.shape[-1], dtype=batch.inputs.dtype)


def masks(key: jax.Array, shape: tuple[int, ...], blur_steps: int) -> jax.Array:
    """Returns random binary masks with large connected regions, of shape `(count, height, width)`.

    Random bits are blurred `blur_steps` times by [1/4, 1/2, 1/4] in both directions, with edges repeated, and
    thresholded at 1/2 (section 3.2).
    """
    bits = jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)

    def blur(_, image):
        for axis in (1, 2):
            pad = [(1, 1) if i == axis else (0, 0) for i in range(3)]
            wide = jnp.pad(image, pad, mode="edge")
            size = image.shape[axis]
            before, after = (jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in (0, 2))
            image = before / 4 + image / 2 + after / 4
        return image

    return (jax.lax.fori_loop(0, blur_steps, blur, bits) > 0.5).astype(jnp.float32)


def hybrids(key: jax.Array, images: jax.Array, blur_steps: int) -> jax.Array:
    """Returns images `[batch, height, width, channels]`, each combined by a mask from two different ones of the batch.

    All images are paired by one random shift along the batch. With a batch of one, the image is unchanged.
    """
    mask_key, shift_key = jax.random.split(key)
    mask = masks(mask_key, images.shape[:3], blur_steps)[..., None]
    others = jnp.roll(images, jax.random.randint(shift_key, (), 1, max(2, len(images))), 0)
    return mask * images + (1 - mask) * others


def data_of(ff: Network, negatives: str, blur_steps: int | None) -> tuple[Callable, Callable]:
    """Returns `batch -> positive data` and `(params, batch) -> negative data`, both `[batch, *input_shape]`.

    Args:
      ff: its readouts draw hard negatives.
      negatives: `hard`, `uniform` or `hybrid`, as for `forward_forward`.
      blur_steps: likewise.

    Raises:
      BadOption: if `blur_steps` is out of range or has no effect.
    """
    if negatives != "hybrid":
        unused("blur_steps", blur_steps, "without negatives=hybrid")
    blurs = integer("blur_steps", BLUR_STEPS if blur_steps is None else blur_steps, least=0)

    def positive_data(batch):
        return batch.inputs if negatives == "hybrid" else with_label(batch.inputs, batch.targets)

    def negative_data(params, batch):
        if negatives == "hybrid":
            return hybrids(batch.key, batch.inputs, blurs)
        logits = ff.apply(params, batch.inputs) if negatives == "hard" else jnp.zeros_like(batch.targets)
        return with_label(batch.inputs, wrong_labels(logits, batch))

    return positive_data, negative_data
