"""Positive and negative data of Forward-Forward: labels in inputs, wrong labels, masks and hybrid images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.rules.forward_forward.negatives import hybrids, masks, with_label, with_neutral_label, wrong_labels
from tests.conftest import random_batch


def test_label_replaces_the_first_components_of_the_inputs():
    batch = random_batch((3, 2, 2))
    labelled = np.asarray(with_label(batch.inputs, batch.targets))
    assert labelled.shape == (7, 3, 2, 2)
    np.testing.assert_array_equal(labelled.reshape(7, -1)[:, :4], batch.targets)
    np.testing.assert_array_equal(labelled.reshape(7, -1)[:, 4:], batch.inputs.reshape(7, -1)[:, 4:])
    neutral = with_label(batch.inputs, jnp.full((7, 4), 0.25))
    np.testing.assert_array_equal(with_neutral_label(batch.inputs, 4), neutral)


def test_wrong_labels_are_never_right_and_follow_the_probabilities():
    batch = random_batch(size=1)
    (true_class,) = np.argmax(batch.targets, 1)
    repeated = batch._replace(inputs=jnp.zeros((20_000, 12)), targets=jnp.repeat(batch.targets, 20_000, 0))
    logits = np.asarray([0.5, -1.0, 2.0, 0.0])
    labels = np.asarray(wrong_labels(jnp.tile(jnp.asarray(logits), (20_000, 1)), repeated))
    np.testing.assert_array_equal(labels.sum(1), 1)
    expected = np.exp(logits) * (np.arange(4) != true_class)
    assert not labels[:, true_class].any()
    np.testing.assert_allclose(labels.mean(0), expected / expected.sum(), atol=0.02)


@pytest.mark.parametrize("blur_steps", [0, 1, 6])
def test_masks_are_random_bits_blurred_in_both_directions(blur_steps):
    key = jax.random.key(3)
    image = np.asarray(masks(key, (4, 9, 7), 0), float)
    for _ in range(blur_steps):
        for axis in (1, 2):
            padded = np.pad(image, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
            image = np.apply_along_axis(lambda row: np.convolve(row, [0.25, 0.5, 0.25], "valid"), axis, padded)
    np.testing.assert_array_equal(masks(key, (4, 9, 7), blur_steps), image > 0.5)


def test_blurred_masks_have_large_regions_of_both_values():
    blurred = np.asarray(masks(jax.random.key(0), (200, 28, 28), 6))
    assert abs(blurred.mean() - 0.5) < 0.03
    assert np.mean(blurred[:, :, 1:] == blurred[:, :, :-1]) > 0.85
    bits = np.asarray(masks(jax.random.key(0), (200, 28, 28), 0))
    assert abs(np.mean(bits[:, :, 1:] == bits[:, :, :-1]) - 0.5) < 0.02


def test_hybrids_combine_two_different_images():
    images = jnp.arange(5.0)[:, None, None, None] * jnp.ones((5, 28, 28, 2))
    for number, hybrid in enumerate(np.asarray(hybrids(jax.random.key(1), images, 6))):
        assert len(np.unique(hybrid)) == 2
        assert number in hybrid
