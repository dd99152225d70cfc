"""Augmentation moves and mirrors images and nothing else; an attack raises the loss, by the sign of its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.rules.dfa import dfa
from fa_jax.tasks.augmentation import attack, augmentation, hybrids, masks
from tests.conftest import random_batch
from tests.rules.test_contract import MLP
from tests.training.test_loop import task_of, train

LOSS = cross_entropy().value
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (64, 6, 5, 2)).astype(np.float32))


def moved(image, down, right):
    """The image moved over zeros, by loops."""
    out = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if 0 <= y - down < image.shape[0] and 0 <= x - right < image.shape[1]:
                out[y, x] = image[y - down, x - right]
    return out


def test_each_image_is_moved_by_a_shift_of_its_own_and_all_shifts_come_up():
    got = np.asarray(augmentation((6, 5, 2), shift=1, flip=False, contrast=None)(jax.random.key(0), IMAGES))
    seen = set()
    for image, result in zip(np.asarray(IMAGES), got, strict=True):
        found = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if np.array_equal(moved(image, d, r), result)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 9


def test_about_half_of_the_images_are_mirrored():
    got = np.asarray(augmentation((6, 5, 2), shift=0, flip=True, contrast=None)(jax.random.key(0), IMAGES))
    mirrored = [np.array_equal(result, image[:, ::-1]) for image, result in zip(np.asarray(IMAGES), got, strict=True)]
    same = [np.array_equal(result, image) for image, result in zip(np.asarray(IMAGES), got, strict=True)]
    assert sum(mirrored) + sum(same) == 64
    assert 16 < sum(mirrored) < 48


def test_contrast_is_changed_by_one_factor_an_image_about_each_channel_s_mean():
    got = np.asarray(augmentation((6, 5, 2), shift=0, flip=False, contrast=[0.2, 1.8])(jax.random.key(0), IMAGES))
    factors = []
    for image, result in zip(np.asarray(IMAGES), got, strict=True):
        means = image.mean((0, 1))
        factors.append(result[..., 0].std() / image[..., 0].std())
        np.testing.assert_allclose(result, means + factors[-1] * (image - means), rtol=1e-5)
    assert 0.2 <= min(factors) < 0.4
    assert 1.6 < max(factors) <= 1.8


def test_an_attack_moves_every_input_by_epsilon_and_raises_the_loss():
    network = mlp((12,), 4, hidden=[9], dropout=0.0, **MLP)
    params, batch = network.init(jax.random.key(0)), random_batch()
    attacked = attack(network, LOSS, params, batch, 0.08)
    np.testing.assert_allclose(np.abs(attacked.inputs - batch.inputs), 0.08, rtol=1e-4)
    base = LOSS(network.apply(params, batch.inputs), batch.targets)
    assert LOSS(network.apply(params, attacked.inputs), batch.targets) > base + 0.01
    # The direction is that of finite differences, taken one input at a time.
    for i in (0, 7):
        step = jnp.zeros_like(batch.inputs).at[2, i].set(1e-2)
        slope = LOSS(network.apply(params, batch.inputs + step), batch.targets) - base
        assert np.sign(slope) == np.sign(attacked.inputs - batch.inputs)[2, i]


def test_training_on_attacked_examples_is_the_rule_on_the_attacked_batch():
    options = {"distribution": "uniform", "scale": 0.5, "kept": 1.0}
    _, plain, _ = train([0], [1], rule=dfa, options=options, shuffle=False)
    _, states, feedback = train([0], [1], rule=dfa, options=options, shuffle=False, adversarial=0.1)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (plain.params, states.params)), strict=True))
    from tests.training.test_loop import LOSS as SQUARED
    from tests.training.test_loop import network_of

    network, task = network_of(), task_of()
    rule = dfa(network, SQUARED.value, **options)
    params, _ = rule.init(jax.random.key(0))
    batch = random_batch()._replace(inputs=task.prepare(task.train.inputs[:6]), targets=task.train.targets[:6])
    updates = rule.updates(
        params, jax.tree.map(lambda b: b[0], feedback), attack(network, SQUARED.value, params, batch, 0.1)
    )
    expected = jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)
    for ours, truth in zip(jax.tree.leaves(states.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours[0], truth, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((30,), {"shift": 1, "flip": False, "contrast": None}, "augmentation needs images"),
        (
            (8, 8, 1),
            {"shift": 8, "flip": False, "contrast": None},
            "augmentation.shift must be below the image's 8x8 pixels; got 8",
        ),
        (
            (8, 8, 1),
            {"shift": -1, "flip": False, "contrast": None},
            "augmentation.shift must be an integer of at least 0; got -1",
        ),
        ((8, 8, 1), {"shift": 1, "flip": 1, "contrast": None}, "augmentation.flip must be true or false; got 1"),
        ((8, 8, 1), {"shift": 0, "flip": False, "contrast": 2}, "augmentation.contrast must be the least and the most"),
        (
            (8, 8, 1),
            {"shift": 0, "flip": False, "contrast": [2, 1]},
            r"augmentation.contrast must not fall; got \[2, 1\]",
        ),
    ],
)
def test_bad_options_are_named(shape, options, message):
    with pytest.raises(BadOption, match=message):
        augmentation(shape, **options)


def test_what_augments_stands_between_the_data_and_the_step():
    _, start, _ = train([0], [0])
    _, end, _ = train([0], [5], augment=lambda key, inputs: 0 * inputs)
    before, after = (np.asarray(s.params["stages_0"]["linear"]["kernel"]) for s in (start, end))
    np.testing.assert_array_equal(before, after)
    assert np.any(np.asarray(start.params["readout"]["bias"]) != np.asarray(end.params["readout"]["bias"]))


@pytest.mark.parametrize("blurs", [0, 1, 6])
def test_masks_are_random_bits_blurred_in_both_directions(blurs):
    key = jax.random.key(3)
    image = np.asarray(masks(key, (4, 9, 7), 0), float)
    for _ in range(blurs):
        for axis in (1, 2):
            wide = np.pad(image, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
            image = np.apply_along_axis(lambda row: np.convolve(row, [0.25, 0.5, 0.25], "valid"), axis, wide)
    np.testing.assert_array_equal(masks(key, (4, 9, 7), blurs), image > 0.5)


def test_blurred_masks_have_large_regions_of_both_kinds():
    mask = np.asarray(masks(jax.random.key(0), (200, 28, 28), 6))
    assert abs(mask.mean() - 0.5) < 0.03
    assert np.mean(mask[:, :, 1:] == mask[:, :, :-1]) > 0.85
    rough = np.asarray(masks(jax.random.key(0), (200, 28, 28), 0))
    assert abs(np.mean(rough[:, :, 1:] == rough[:, :, :-1]) - 0.5) < 0.02


def test_a_hybrid_is_made_of_two_different_images():
    images = jnp.arange(5.0)[:, None, None, None] * jnp.ones((5, 28, 28, 2))
    made = np.asarray(hybrids(jax.random.key(1), images, 6))
    for own, image in enumerate(made):
        assert len(np.unique(image)) == 2
        assert own in image
