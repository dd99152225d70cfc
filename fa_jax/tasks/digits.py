"""Classification of scikit-learn's 8x8 handwritten digits, which need no download."""

import gzip
import importlib.metadata

import numpy as np

from fa_jax.core import Task
from fa_jax.tasks.images import check, labelled


def digits(*, preprocessing: str, validation: int) -> Task:
    """Returns the task of classifying the 1797 digits of scikit-learn; chance level 90 % error.

    Every fifth digit, from the fifth on, is a test example: 1438 for training, 359 for testing.

    Args:
      preprocessing: one of `PREPROCESSINGS`; the pixels range from 0 to 16.
      validation: how many of the last training examples are held out.

    Returns:
      Inputs are stored as uint8 `[n, 8, 8, 1]` (float32 with `zca`), targets as int32 classes; prepared inputs are
      float32 of the same shape, encoded targets one-hot `[n, 10]`.

    Raises:
      BadOption: if an option is out of range.
    """
    check(preprocessing, validation)
    table = _table()
    images, classes = table[:, :-1].astype(np.uint8).reshape(-1, 8, 8, 1), table[:, -1].astype(np.int32)
    in_test = np.arange(len(images)) % 5 == 4
    return labelled(
        (images[~in_test], classes[~in_test]),
        (images[in_test], classes[in_test]),
        classes=10,
        top=16,
        preprocessing=preprocessing,
        validation=validation,
    )


def _table() -> np.ndarray:
    """Returns the pixels of the digits and their classes, `[1797, 65]`, as `sklearn.datasets.load_digits` reads them.

    Importing scikit-learn takes longer than a network learns on them, so its file is read without it.
    """
    path = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    with gzip.open(str(path), "rt") as file:
        return np.loadtxt(file, delimiter=",")
