"""Augmentation shifts, flips and changes the contrast of images, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.tasks.augmentation import augmentation

SHAPE = (6, 5, 2)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (64, *SHAPE)).astype(np.float32))
NONE = {"shift": 0, "flip": False, "contrast": None}


def augment(**options):
    """Pairs of each image and its augmentation."""
    augmented = augmentation(SHAPE, **{**NONE, **options})(jax.random.key(0), IMAGES)
    return list(zip(np.asarray(IMAGES), np.asarray(augmented), strict=True))


def shifted(image, down, right):
    """The image shifted over zeros, by loops."""
    result = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if 0 <= y - down < image.shape[0] and 0 <= x - right < image.shape[1]:
                result[y, x] = image[y - down, x - right]
    return result


def test_each_image_has_an_independent_shift_and_all_shifts_occur():
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    occurred = set()
    for image, augmented in augment(shift=1):
        matching = [shift for shift in shifts if np.array_equal(shifted(image, *shift), augmented)]
        assert len(matching) == 1
        occurred.update(matching)
    assert len(occurred) == 9


def test_about_half_of_the_images_are_flipped():
    pairs = augment(flip=True)
    flipped = sum(np.array_equal(augmented, image[:, ::-1]) for image, augmented in pairs)
    unchanged = sum(np.array_equal(augmented, image) for image, augmented in pairs)
    assert flipped + unchanged == 64
    assert 16 < flipped < 48


def test_contrast_changes_by_one_factor_per_image_about_the_mean_of_each_channel():
    factors = []
    for image, augmented in augment(contrast=[0.2, 1.8]):
        means = image.mean((0, 1))
        factors.append(augmented[..., 0].std() / image[..., 0].std())
        np.testing.assert_allclose(augmented, means + factors[-1] * (image - means), rtol=1e-5)
    assert 0.2 <= min(factors) < 0.4
    assert 1.6 < max(factors) <= 1.8


def test_without_any_change_there_is_no_augmentation():
    assert augmentation((30,), **NONE) is None


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((30,), {"shift": 1}, r"^needs images; this task has inputs of shape \(30,\)"),
        ((8, 8, 1), {"shift": 8}, "^shift must be below the image's 8x8 pixels; got 8"),
        ((8, 8, 1), {"shift": -1}, "^shift must be an integer of at least 0; got -1"),
        ((8, 8, 1), {"shift": 1, "flip": 1}, "^flip must be true or false; got 1"),
        ((8, 8, 1), {"contrast": 2}, "^contrast must be the smallest and the largest factor, .*; got 2"),
        ((8, 8, 1), {"contrast": [2, 1]}, r"^contrast must not descend; got \[2, 1\]"),
        ((8, 8, 1), {"contrast": [-1, 1]}, "^contrast must be a finite number at least 0; got -1"),
    ],
)
def test_bad_options_are_named(shape, options, message):
    with pytest.raises(BadOption, match=message):
        augmentation(shape, **{**NONE, **options})
