"""Augmentation shifts, flips and changes the contrast of images, and nothing else."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.core import Split, Task
from fa_jax.tasks.augmentation import augmentation
from fa_jax.tasks.images import labelled
from fa_jax.tasks.preprocessing import PREPROCESSINGS, whitening

SHAPE = (6, 5, 2)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (64, *SHAPE)).astype(np.float32))
NONE = {"shift": 0, "border": None, "flip": False, "contrast": None}


def task_of(shape, black=None):
    """A task with inputs of a shape, and nothing else."""
    nothing = Split(jnp.zeros((0, *shape)), jnp.zeros(0))
    return Task(nothing, nothing, None, lambda x: x, lambda y: y, (), shape, 10, black)


def augment(**options):
    """Pairs of each image and its augmentation."""
    augmented = augmentation(task_of(SHAPE, jnp.zeros(SHAPE)), **{**NONE, **options})(jax.random.key(0), IMAGES)
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


def task_with(preprocessing):
    """A task of bright images, and its stored training images."""
    rng = np.random.default_rng(0)
    stored = rng.integers(40, 256, (80, *SHAPE)).astype(np.uint8)
    examples = stored, np.zeros(80, np.int32)
    return labelled(examples, examples, classes=10, top=255, preprocessing=preprocessing, validation=0), stored


@pytest.mark.parametrize("preprocessing", [name for name in PREPROCESSINGS if name != "zca"])
def test_augmented_images_are_the_preprocessing_of_stored_images_moved_over_black(preprocessing):
    task, stored = task_with(preprocessing)
    change = augmentation(task, **{**NONE, "shift": 2, "flip": True})
    augmented = task.prepare(task.train.inputs, lambda images: change(jax.random.key(0), images))
    shifts, flips = range(-2, 3), (False, True)
    candidates = []
    for down, right, flip in itertools.product(shifts, shifts, flips):
        moved = np.stack([shifted(image, down, right) for image in stored])
        candidates.append(task.prepare(jnp.asarray(moved[:, :, ::-1] if flip else moved)))
    distances = np.abs(np.stack(candidates) - augmented).max((2, 3, 4))
    assert distances.min(0).max() < 1e-5
    assert len(set(distances.argmin(0))) > 25


def test_what_comes_into_whitened_images_is_a_black_image_s():
    task, stored = task_with("zca")
    mean, matrix = whitening(stored)
    black = (-mean @ matrix).reshape(SHAPE)
    change = augmentation(task, **{**NONE, "shift": 1})
    augmented = np.asarray(change(jax.random.key(0), task.train.inputs))
    assert np.abs(black).min() > 1e-3
    equal = np.isclose(augmented, black, atol=1e-5).all(-1)  # [n, height, width]
    edges = [equal[:, 0].all(1), equal[:, -1].all(1), equal[:, :, 0].all(1), equal[:, :, -1].all(1)]
    for edge in edges:
        assert 10 < edge.sum() < 45


def test_a_zero_border_is_0_after_preprocessing():
    task, _ = task_with("centred")
    change = augmentation(task, **{**NONE, "shift": 1, "border": "zero"})
    inputs = np.asarray(task.prepare(task.train.inputs))
    for image, augmented in zip(inputs, np.asarray(change(jax.random.key(0), inputs)), strict=True):
        assert any(np.array_equal(shifted(image, *by), augmented) for by in itertools.product((-1, 0, 1), repeat=2))


def test_without_any_change_there_is_no_augmentation():
    assert augmentation(task_of((30,)), **NONE) is None


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((30,), {"shift": 1}, r"^needs images; this task has inputs of shape \(30,\)"),
        ((8, 8, 1), {"shift": 8}, "^shift must be below the image's 8x8 pixels; got 8"),
        ((8, 8, 1), {"shift": 1}, "^border must be zero: this task does not say what black becomes; got black"),
        ((8, 8, 1), {"border": "zero"}, "^border must be null without shift and flip; got 'zero'"),
        ((8, 8, 1), {"contrast": [1, 2], "border": "black"}, "^border must be null without shift and flip"),
        ((8, 8, 1), {"shift": 1, "border": False}, "^border must be one of black, zero; got False"),
        ((8, 8, 1), {"shift": 1, "border": "grey"}, "^border must be one of black, zero; got 'grey'"),
        ((8, 8, 1), {"shift": -1}, "^shift must be an integer of at least 0; got -1"),
        ((8, 8, 1), {"shift": 1, "flip": 1}, "^flip must be true or false; got 1"),
        ((8, 8, 1), {"contrast": 2}, "^contrast must be the smallest and the largest factor, .*; got 2"),
        ((8, 8, 1), {"contrast": [2, 1]}, r"^contrast must not descend; got \[2, 1\]"),
        ((8, 8, 1), {"contrast": [-1, 1]}, "^contrast must be a finite number at least 0; got -1"),
    ],
)
def test_bad_options_are_named(shape, options, message):
    with pytest.raises(BadOption, match=message):
        augmentation(task_of(shape), **{**NONE, **options})
