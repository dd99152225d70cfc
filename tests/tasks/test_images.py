"""Image tasks: their examples, targets, metric and preprocessing."""

import os
from pathlib import Path

import hydra.errors
import hydra.utils
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.cli.groups import CONF
from fa_jax.core import Split
from fa_jax.tasks import tfds
from fa_jax.tasks.images import images, labelled, resized
from fa_jax.tasks.preprocessing import PREPROCESSINGS, moments, whitening
from tests.conftest import CUT_MNIST

DEFAULTS = {"preprocessing": "unit", "validation": 0, "train_examples": None, "test_examples": None}


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """One cache for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def raw(cache):
    """The examples as `tfds.read` returns them."""
    return tfds.read("mnist", str(CUT_MNIST))


def mnist(**options):
    return images("mnist", data_dir=str(CUT_MNIST), **{**DEFAULTS, **options})


def random_images(n, shape=(4, 3, 2), seed=0):
    """Images with correlated pixels and a different spread in each channel, and random classes."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(n, *shape)).cumsum(axis=1) * [12, 25] + 128
    return smooth.clip(0, 255).astype(np.uint8), rng.integers(0, 10, n).astype(np.int32)


def make_task(train, test, preprocessing, validation=0, top=255):
    return labelled(train, test, classes=10, top=top, preprocessing=preprocessing, validation=validation)


# Examples


def test_images_are_interpolated_between_the_centres_of_pixels():
    image = np.array([[0, 100], [0, 200]], np.uint8)[None, ..., None]
    expected = np.outer([1, 1, 1, 1], [0, 25, 75, 100]) + np.outer([0, 0.25, 0.75, 1], [0, 25, 75, 100])
    np.testing.assert_array_equal(resized(image, 4)[0, ..., 0], np.rint(expected))
    constant = np.full((3, 5, 7, 2), 37, np.uint8)
    np.testing.assert_array_equal(resized(constant, 3), np.full((3, 3, 3, 2), 37))


def test_resized_examples_are_those_of_the_task(raw):
    task = mnist(resize=32, validation=30)
    assert task.input_shape == (32, 32, 1)
    np.testing.assert_array_equal(task.validation.inputs, resized(raw["train"][0][130:], 32))
    np.testing.assert_array_equal(task.test.inputs, resized(raw["test"][0], 32))


def test_a_task_has_the_examples_as_they_are_stored(raw):
    task = mnist()
    for split in ("train", "test"):
        examples = getattr(task, split)
        assert isinstance(examples, Split)
        assert (examples.inputs.dtype, examples.targets.dtype) == (jnp.uint8, jnp.int32)
        np.testing.assert_array_equal(examples.inputs, raw[split][0])
        np.testing.assert_array_equal(examples.targets, raw[split][1])
    assert task.validation is None
    assert (task.input_shape, task.outputs) == ((28, 28, 1), 10)


def test_the_last_training_examples_are_held_out_for_validation(raw):
    task = mnist(validation=30)
    np.testing.assert_array_equal(task.train.inputs, raw["train"][0][:130])
    np.testing.assert_array_equal(task.validation.inputs, raw["train"][0][130:])
    np.testing.assert_array_equal(task.train.targets, raw["train"][1][:130])
    np.testing.assert_array_equal(task.validation.targets, raw["train"][1][130:])
    np.testing.assert_array_equal(task.test.inputs, raw["test"][0])


def test_the_first_examples_are_used_if_fewer_are_requested(raw):
    task = mnist(train_examples=50, test_examples=20, validation=10)
    np.testing.assert_array_equal(task.train.inputs, raw["train"][0][:40])
    np.testing.assert_array_equal(task.validation.inputs, raw["train"][0][40:50])
    np.testing.assert_array_equal(task.test.targets, raw["test"][1][:20])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": -1}, "validation must be an integer of at least 0; got -1"),
        ({"validation": 0.2}, "validation must be an integer of at least 0; got 0.2"),
        ({"validation": 159}, "validation must leave at least 2 of 160 training examples; got 159"),
        ({"validation": 999}, "validation must leave at least 2 of 160 training examples; got 999"),
        ({"train_examples": 0}, "train_examples must be an integer of at least 1; got 0"),
        ({"train_examples": 161}, "train_examples must be at most 160, the number of examples, or null; got 161"),
        ({"resize": 0}, "resize must be an integer of at least 1; got 0"),
        ({"test_examples": 129}, "test_examples must be at most 128, the number of examples, or null; got 129"),
        ({"test_examples": "all"}, "test_examples must be an integer of at least 1; got 'all'"),
        (
            {"preprocessing": "zac"},
            "preprocessing must be one of unit, symmetric, centred, standardised, per_image, zca; got 'zac'; did "
            "you mean 'zca'?",
        ),
        (
            {"preprocessing": "zca"},
            "preprocessing must not be zca unless there are more training examples than the 784 pixel values of an "
            "image: it amplifies directions without variance; got 160 examples",
        ),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(BadOption) as caught:
        mnist(**options)
    assert str(caught.value) == message


def test_a_wrong_option_is_refused_before_the_data_are_read(monkeypatch):
    monkeypatch.setattr(tfds, "read", lambda *arguments: pytest.fail("read the data"))
    for wrong in ({"validation": -1}, {"train_examples": 0}, {"preprocessing": "none"}):
        with pytest.raises(BadOption):
            mnist(**wrong)


# Targets and metric


def test_targets_are_one_hot(raw):
    task = mnist()
    encoded = task.encode(task.test.targets)
    assert encoded.dtype == jnp.float32
    np.testing.assert_array_equal(encoded, np.eye(10)[raw["test"][1]])


def test_the_main_metric_is_the_percentage_of_misclassified_examples():
    task = mnist()
    (error,) = task.metrics
    targets = task.encode(task.test.targets)
    wrong = targets.at[:32].set(jnp.roll(targets[:32], 1, axis=1))
    assert (error.name, error.unit, error.better, error.bounds) == ("error", "%", "lower", (0, 100))
    assert error.score(targets, targets) == 0
    assert error.score(wrong, targets) == 25
    assert error.batch_score is None
    assert error.from_batches(25) == 25


# Preprocessing


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
def test_prepared_inputs_are_float32_of_the_input_shape_with_and_without_jit(preprocessing):
    task = make_task(random_images(100), random_images(20, seed=1), preprocessing)
    batch = task.test.inputs[:7]
    for prepare in (task.prepare, jax.jit(task.prepare)):
        assert prepare(batch).dtype == jnp.float32
        assert prepare(batch).shape == (7, *task.input_shape)
        assert np.isfinite(prepare(batch)).all()
    np.testing.assert_allclose(jax.jit(task.prepare)(batch), task.prepare(batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("preprocessing", ["unit", "symmetric", "centred", "standardised"])
def test_images_are_stored_as_uint8(preprocessing):
    assert mnist(preprocessing=preprocessing).train.inputs.dtype == jnp.uint8


@pytest.mark.parametrize("top", [16, 255])
@pytest.mark.parametrize(("preprocessing", "low"), [("unit", 0), ("symmetric", -1)])
def test_black_and_white_become_the_ends_of_the_range(preprocessing, low, top):
    pixels = np.array([0, top], np.uint8).reshape(2, 1, 1, 1)
    examples = (pixels, np.zeros(2, np.int32))
    task = make_task(examples, examples, preprocessing, top=top)
    np.testing.assert_array_equal(task.prepare(task.train.inputs).ravel(), [low, 1])


def test_standardised_training_channels_have_mean_0_and_deviation_1():
    train, test = random_images(2300), random_images(50, seed=1)
    task = make_task(train, test, "standardised")
    prepared = np.asarray(task.prepare(task.train.inputs), np.float64)
    np.testing.assert_allclose(prepared.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(prepared.std(axis=(0, 1, 2)), 1, atol=1e-6)
    mean, std = train[0].mean(axis=(0, 1, 2)), train[0].std(axis=(0, 1, 2))
    np.testing.assert_allclose(task.prepare(task.test.inputs), (test[0] - mean) / std, rtol=1e-4, atol=1e-5)


def test_moments_match_numpy():
    pixels = random_images(2300)[0]
    mean, std = moments(pixels)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_becomes_0():
    examples = (np.full((5, 2, 2, 1), 7, np.uint8), np.zeros(5, np.int32))
    task = make_task(examples, examples, "standardised")
    np.testing.assert_array_equal(task.prepare(task.train.inputs), 0)


def test_whitened_training_images_have_identity_covariance():
    pixels = random_images(2300)[0].reshape(2300, -1)
    mean, matrix = whitening(pixels)
    white = (pixels - mean) @ matrix
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(white, rowvar=False, ddof=1), np.eye(24), atol=1e-5)


def test_whitening_matches_a_numpy_reference():
    pixels = random_images(2300)[0]
    mean, matrix = whitening(pixels)
    flat = pixels.reshape(2300, -1).astype(np.float64)
    vectors, values, _ = np.linalg.svd(np.cov(flat, rowvar=False, ddof=1))
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(matrix, vectors @ np.diag((values + 1e-5) ** -0.5) @ vectors.T, atol=1e-10)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-14)


def test_centred_images_have_zero_mean_at_each_pixel():
    train, test = random_images(300), random_images(50, seed=1)
    task = make_task(train, test, "centred")
    mean = train[0].mean(0, dtype=np.float64)
    np.testing.assert_allclose(task.prepare(task.test.inputs), (test[0] - mean) / 255, atol=1e-6)


def test_each_image_is_standardised_by_itself_after_augmentation():
    train, test = random_images(300), random_images(50, seed=1)
    task = make_task(train, test, "per_image")
    centred = (test[0] - train[0].mean(0, dtype=np.float64)) / 255

    def standardised(images):
        deviation = np.maximum(images.std((1, 2, 3), keepdims=True), images[0].size ** -0.5)
        return (images - images.mean((1, 2, 3), keepdims=True)) / deviation

    np.testing.assert_allclose(task.prepare(task.test.inputs), standardised(centred), atol=1e-5)

    def shift_down(images):
        return jnp.concatenate([jnp.zeros_like(images[:, :1]), images[:, :-1]], 1)

    # Shifts bring in zeros: the mean of all images at that pixel, before each is standardised.
    shifted = np.concatenate([0 * centred[:, :1], centred[:, :-1]], 1)
    np.testing.assert_allclose(task.prepare(task.test.inputs, shift_down), standardised(shifted), atol=1e-5)


def test_constant_pixels_are_whitened_to_0():
    train, test = random_images(100), random_images(100, seed=1)
    train[0][:, 0, 0, 0] = test[0][:, 0, 0, 0] = 9
    white = make_task(train, test, "zca")
    np.testing.assert_allclose(white.train.inputs[:, 0, 0, 0], 0, atol=1e-4)
    np.testing.assert_allclose(white.test.inputs[:, 0, 0, 0], 0, atol=1e-4)


def test_stored_zca_images_match_a_float64_reference():
    train, test = random_images(2300), random_images(1100, seed=1)
    task = make_task(train, test, "zca")
    mean, matrix = whitening(train[0])
    expected = ((test[0].reshape(1100, -1) - mean) @ matrix).reshape(test[0].shape)
    assert task.test.inputs.dtype == jnp.float32
    np.testing.assert_allclose(task.test.inputs, expected, atol=1e-4)


@pytest.mark.parametrize("preprocessing", ["centred", "standardised", "zca"])
def test_statistics_are_those_of_the_training_examples_alone(preprocessing):
    pixels, classes = random_images(300)
    held_out = pixels.copy()
    held_out[200:] = 255 - held_out[200:]
    task = make_task((pixels, classes), (pixels[:50], classes[:50]), preprocessing, validation=100)
    other = make_task((held_out, classes), (held_out[250:], classes[250:]), preprocessing, validation=100)
    np.testing.assert_array_equal(task.prepare(task.train.inputs), other.prepare(other.train.inputs))
    assert not np.array_equal(task.prepare(task.validation.inputs), other.prepare(other.validation.inputs))


# The configuration


def task_node(dataset):
    """The node `task` of the config of a data set."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", [f"task={dataset}", f"task.data_dir={CUT_MNIST}"]).task


@pytest.mark.parametrize("dataset", tfds.DATASETS)
def test_the_yaml_of_a_data_set_makes_its_task(dataset):
    node = task_node(dataset)
    assert node.dataset == dataset
    if dataset == "mnist":
        assert hydra.utils.instantiate(node).train.inputs.shape == (160, 28, 28, 1)
    else:
        with pytest.raises(hydra.errors.InstantiationException, match=f"{dataset}, which is not in {CUT_MNIST}"):
            hydra.utils.instantiate(node)


WHOLE = os.environ.get("TFDS_DATA_DIR", "")


@pytest.mark.slow
@pytest.mark.skipif(not (WHOLE and Path(WHOLE, "mnist").is_dir()), reason="TFDS_DATA_DIR names no folder with mnist")
def test_the_moments_of_all_of_mnist_are_the_published_ones():
    mean, std = moments(tfds.read("mnist", WHOLE)["train"][0])
    np.testing.assert_allclose([mean / 255, std / 255], [[0.1307], [0.3081]], atol=5e-5)
