"""Classification of images from TensorFlow Datasets: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100."""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer
from fa_jax.core import Running, Split, Task
from fa_jax.metrics import scores
from fa_jax.tasks import tfds as store
from fa_jax.tasks.preprocessing import PREPROCESSINGS
from fa_jax.tasks.tfds import Labelled


def images(
    dataset: str,
    *,
    data_dir: str | None,
    preprocessing: str,
    validation: int,
    train_examples: int | None,
    test_examples: int | None,
) -> Task:
    """Makes the task of classifying the images of a data set that TFDS has prepared.

    Args:
      dataset: `mnist`, `fashion_mnist`, `cifar10` or `cifar100`.
      data_dir: the TFDS data directory; None: `$TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.
      preprocessing: one of `PREPROCESSINGS`.
      validation: how many of the last training examples used are held out.
      train_examples: how many training examples are used, the first ones, validation included; None: all.
      test_examples: how many test examples are used, the first ones; None: all.

    Returns:
      A task whose inputs are kept as uint8 `[n, height, width, channels]` (float32 under `zca`) and its targets as
      int32 classes; prepared inputs are float32 of the same shape, encoded targets one-hot `[n, classes]`.

    Raises:
      BadOption: if an option is out of range, or the data set missing or damaged.
    """
    form = choose("task.dataset", dataset, store.FORMS)
    for option, count in (("task.train_examples", train_examples), ("task.test_examples", test_examples)):
        if count is not None:
            integer(option, count, least=1)
    check(preprocessing, validation)
    found = store.read(dataset, data_dir)
    train = _first("task.train_examples", found["train"], train_examples)
    test = _first("task.test_examples", found["test"], test_examples)
    return labelled(train, test, classes=form.classes, top=255, preprocessing=preprocessing, validation=validation)


def labelled(train: Labelled, test: Labelled, *, classes: int, top: int, preprocessing: str, validation: int) -> Task:
    """Makes the task of classifying images that are at hand.

    Args:
      train: images, uint8 `[n, height, width, channels]`, and classes, int32 `[n]`.
      test: the same, with another n.
      classes: the number of classes.
      top: the value of a white pixel.
      preprocessing: one of `PREPROCESSINGS`, with the statistics of the training examples that are not held out.
      validation: how many of the last training examples are held out.

    Raises:
      BadOption: if an option is out of range, or there are too few examples for `zca`.
    """
    check(preprocessing, validation)
    available = len(train[0])
    kept = available - validation
    if kept < 2:
        raise BadOption(f"task.validation must leave at least 2 of {available} training examples; got {validation}")
    numbers = train[0][0].size
    if preprocessing == "zca" and kept <= numbers:
        raise BadOption(
            f"task.preprocessing=zca needs more training examples than the {numbers} numbers of an image, since it "
            f"blows up the directions in which they do not vary; got {kept}"
        )
    scaling = PREPROCESSINGS[preprocessing](train[0][:kept], top)

    def prepare(stored, augment=lambda images: images):
        return scaling.finish(augment(scaling.prepare(stored)))

    def split(examples: Labelled) -> Split:
        return Split(jnp.asarray(scaling.store(examples[0])), jnp.asarray(examples[1]))

    return Task(
        train=split((train[0][:kept], train[1][:kept])),
        test=split(test),
        validation=split((train[0][kept:], train[1][kept:])) if validation else None,
        prepare=prepare,
        encode=lambda stored: jax.nn.one_hot(stored, classes, dtype=jnp.float32),
        metrics={"error": scores.error},
        running={"error": Running(scores.error)},
        input_shape=train[0].shape[1:],
        outputs=classes,
    )


def check(preprocessing: str, validation: int) -> None:
    """Refuses these two options if they are wrong whatever the data are."""
    choose("task.preprocessing", preprocessing, PREPROCESSINGS)
    integer("task.validation", validation, least=0)


def _first(option: str, examples: Labelled, count: int | None) -> Labelled:
    if count is not None and count > len(examples[0]):
        raise BadOption(f"{option} must be at most {len(examples[0])}, as many as there are, or null; got {count}")
    return examples[0][:count], examples[1][:count]
