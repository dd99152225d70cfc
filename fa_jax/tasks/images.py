"""Classification of images from TensorFlow Datasets, such as MNIST and CIFAR-10."""

import jax
import jax.numpy as jnp
import numpy as np

from fa_jax.checks import BadOption, choose, integer
from fa_jax.core import Split, Task
from fa_jax.metrics.scores import ERROR
from fa_jax.tasks import tfds
from fa_jax.tasks.decoded import Labelled
from fa_jax.tasks.preprocessing import PREPROCESSINGS

RESIZED_AT_ONCE = 10_000
"""The number of images that are resized at once, which bounds the memory for them as float32."""


def images(
    dataset: str,
    *,
    data_dir: str | None,
    preprocessing: str,
    validation: int,
    train_examples: int | None,
    test_examples: int | None,
    resize: int | None = None,
) -> Task:
    """Returns the task of classifying the images of a data set that TFDS has prepared.

    Args:
      dataset: its name, such as `mnist` or `svhn_cropped`, with the features `image` and `label`.
      data_dir: the TFDS data directory; None: `$TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.
      preprocessing: one of `PREPROCESSINGS`.
      validation: how many of the last training examples used are held out.
      train_examples: how many of the first training examples are used, validation included; None: all.
      test_examples: how many of the first test examples are used; None: all.
      resize: the height and width to which images are resized, as by `resized`; None: as they are.

    Returns:
      Inputs are stored as uint8 `[n, height, width, channels]` (float32 with `zca`), targets as int32 classes;
      prepared inputs are float32 of the same shape, encoded targets one-hot `[n, classes]`.

    Raises:
      BadOption: if an option is out of range, or the data set is missing or damaged.
    """
    for option, count in (("train_examples", train_examples), ("test_examples", test_examples), ("resize", resize)):
        if count is not None:
            integer(option, count, least=1)
    check(preprocessing, validation)
    form, splits = tfds.form_of(dataset, data_dir), tfds.read(dataset, data_dir)
    train = _first("train_examples", splits["train"], train_examples)
    test = _first("test_examples", splits["test"], test_examples)
    if resize is not None:
        train, test = ((resized(images, resize), classes) for images, classes in (train, test))
    return labelled(train, test, classes=form.classes, top=255, preprocessing=preprocessing, validation=validation)


def labelled(train: Labelled, test: Labelled, *, classes: int, top: int, preprocessing: str, validation: int) -> Task:
    """Returns the task of classifying images.

    Args:
      train: images, uint8 `[n, height, width, channels]`, and classes, int32 `[n]`.
      test: likewise.
      classes: the number of classes.
      top: the largest pixel value.
      preprocessing: one of `PREPROCESSINGS`; its statistics are those of the training examples that are not held out.
      validation: how many of the last training examples are held out.

    Raises:
      BadOption: if an option is out of range, or there are too few examples for `zca`.
    """
    check(preprocessing, validation)
    available = len(train[0])
    remaining = available - validation
    if remaining < 2:
        raise BadOption(f"must leave at least 2 of {available} training examples; got {validation}", "validation")
    numbers = train[0][0].size
    if preprocessing == "zca" and remaining <= numbers:
        raise BadOption(
            f"must not be zca unless there are more training examples than the {numbers} pixel values of an image: "
            f"it amplifies directions without variance; got {remaining} examples",
            "preprocessing",
        )
    scaling = PREPROCESSINGS[preprocessing](train[0][:remaining], top)

    def prepare(stored, augment=lambda images: images):
        return scaling.finish(augment(scaling.prepare(stored)))

    def split(examples: Labelled) -> Split:
        return Split(jnp.asarray(scaling.store(examples[0])), jnp.asarray(examples[1]))

    return Task(
        train=split((train[0][:remaining], train[1][:remaining])),
        test=split(test),
        validation=split((train[0][remaining:], train[1][remaining:])) if validation else None,
        prepare=prepare,
        encode=lambda stored: jax.nn.one_hot(stored, classes, dtype=jnp.float32),
        metrics=(ERROR,),
        input_shape=train[0].shape[1:],
        outputs=classes,
        black=scaling.black(train[0][0]),
    )


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Returns images interpolated linearly between the centres of pixels, and rounded to whole levels.

    Smaller images are averages over triangular windows, two of the new pixels wide.

    Args:
      images: uint8 `[n, height, width, channels]`.
      side: the new height and width, at least 1.
    """

    def weights(length: int) -> np.ndarray:
        return np.asarray(jax.image.resize(jnp.eye(length), (side, length), "linear"))

    rows, columns = weights(images.shape[1]), weights(images.shape[2])
    new = np.empty((len(images), side, side, images.shape[3]), np.uint8)
    for start in range(0, len(images), RESIZED_AT_ONCE):
        chunk = images[start : start + RESIZED_AT_ONCE].astype(np.float32)
        levels = np.einsum("ah,nhwc,bw->nabc", rows, chunk, columns, optimize=True)
        new[start : start + RESIZED_AT_ONCE] = np.rint(levels)
    return new


def check(preprocessing: str, validation: int) -> None:
    """Raises `BadOption` if these options are wrong for any data."""
    choose("preprocessing", preprocessing, PREPROCESSINGS)
    integer("validation", validation, least=0)


def _first(option: str, examples: Labelled, count: int | None) -> Labelled:
    if count is not None and count > len(examples[0]):
        raise BadOption(f"must be at most {len(examples[0])}, the number of examples, or null; got {count}", option)
    return examples[0][:count], examples[1][:count]
