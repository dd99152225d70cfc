"""What may be done to training examples inside the compiled step: random shifts and flips, adversarial noise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, integer, number, switch
from fa_jax.core import Batch, LossFunction, PyTree
from fa_jax.network import Network


def augmentation(
    shape: tuple[int, ...], *, shift: int, flip: bool, contrast: list[float] | None
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns `(key, images) -> images`, `[batch, height, width, channels]`, each image changed by itself.

    None if none is asked for.

    Args:
      shape: of one image.
      shift: pixels by which an image is moved at most, up or down and left or right; what comes in is zero.
      flip: whether left and right are exchanged in half of the images.
      contrast: the least and the most by which the deviations of each channel from its mean are multiplied, at least 0;
        None: they are left as they are.

    Raises:
      BadOption: if an option is out of range, or the inputs are no images.
    """
    shift, flip = integer("augmentation.shift", shift, least=0), switch("augmentation.flip", flip)
    factors = _range("augmentation.contrast", contrast)
    if not (shift or flip or factors):
        return None
    if len(shape) != 3:
        raise BadOption(f"augmentation needs images; this task has inputs of shape {tuple(shape)}")
    if shift and shift >= min(shape[:2]):
        raise BadOption(f"augmentation.shift must be below the image's {shape[0]}x{shape[1]} pixels; got {shift}")

    def move(key, image):
        start = jax.random.randint(key, (2,), 0, 2 * shift + 1)
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        return jax.lax.dynamic_slice(padded, (*start, 0), image.shape)

    def augment(key, images):
        moving, flipping, contrasting = jax.random.split(key, 3)
        if shift:
            images = jax.vmap(move)(jax.random.split(moving, len(images)), images)
        if flip:
            chosen = jax.random.bernoulli(flipping, shape=(len(images), 1, 1, 1))
            images = jnp.where(chosen, images[:, :, ::-1], images)
        if factors:
            factor = jax.random.uniform(contrasting, (len(images), 1, 1, 1), minval=factors[0], maxval=factors[1])
            mean = images.mean((1, 2), keepdims=True)
            images = mean + factor * (images - mean)
        return images

    return augment


def _range(option: str, got: Any) -> tuple[float, float] | None:
    """Two numbers of at least 0, the first of them not the larger; or None."""
    if got is None:
        return None
    if not isinstance(got, list) or len(got) != 2:
        raise BadOption(f"{option} must be the least and the most, such as [0.2,1.8], or null; got {got!r}")
    least, most = (number(option, one, least=0) for one in got)
    if least > most:
        raise BadOption(f"{option} must not fall; got {got!r}")
    return least, most


def attack(network: Network, loss: LossFunction, params: PyTree, batch: Batch, epsilon: float) -> Batch:
    """Returns the batch with every input moved by `epsilon` in the direction that raises its loss, unclipped.

    The fast gradient sign method of Goodfellow, Shlens, Szegedy, arXiv 1412.6572, 2014, section 4. The gradient is the
    true one, whatever the rule: training on such examples is not free of weight transport.
    """

    def of(inputs):
        return loss(network.apply(params, inputs, key=batch.key), batch.targets)

    return batch._replace(inputs=batch.inputs + epsilon * jnp.sign(jax.grad(of)(batch.inputs)))


def masks(key: jax.Array, shape: tuple[int, ...], blurs: int) -> jax.Array:
    """Returns random masks of coherent regions, 0 and 1, of a shape `(count, height, width)`.

    Random bits, blurred `blurs` times by [1/4, 1/2, 1/4] in both directions, edges repeated, cut at 1/2: Hinton, "The
    Forward-Forward Algorithm", 2022, section 3.2, which does not say how often.
    """
    bits = jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)

    def blurred(_, image):
        for axis in (1, 2):
            pad = [(1, 1) if i == axis else (0, 0) for i in range(3)]
            wide = jnp.pad(image, pad, mode="edge")
            size = image.shape[axis]
            before, after = (jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in (0, 2))
            image = before / 4 + image / 2 + after / 4
        return image

    return (jax.lax.fori_loop(0, blurs, blurred, bits) > 0.5).astype(jnp.float32)


def hybrids(key: jax.Array, images: jax.Array, blurs: int) -> jax.Array:
    """Returns images `[batch, height, width, channels]` each made of two different ones of the batch, by `masks`.

    All of a batch are paired by one random shift along it. An image that is alone in its batch is left as it is.
    """
    of_mask, of_shift = jax.random.split(key)
    mask = masks(of_mask, images.shape[:3], blurs)[..., None]
    others = jnp.roll(images, jax.random.randint(of_shift, (), 1, max(2, len(images))), 0)
    return mask * images + (1 - mask) * others
