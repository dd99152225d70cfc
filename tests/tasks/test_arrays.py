"""Tasks of arrays: from memory, `.npz` and CSV; what does not fit is refused with the name of the array."""

import re
import zipfile

import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.tasks.arrays import from_arrays
from fa_jax.tasks.files import arrays, csv

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 3)).astype(np.float32)
CLASSES = np.arange(20) % 4
IMAGES = RANDOM.integers(0, 256, (20, 6, 5), np.uint8)


def make(x=X, y=CLASSES, preprocessing=None, validation=0, **further):
    return from_arrays({"x": x, "y": y, **further}, preprocessing=preprocessing, validation=validation)


def test_vectors_with_classes_and_every_fifth_example_for_testing():
    task = make()
    assert (task.input_shape, task.outputs, task.black) == ((3,), 4, None)
    np.testing.assert_array_equal(task.test.inputs, X[4::5])
    np.testing.assert_array_equal(task.test.targets, CLASSES[4::5])
    np.testing.assert_array_equal(task.train.inputs, np.delete(X, np.s_[4::5], 0))
    np.testing.assert_array_equal(task.encode(task.test.targets), np.eye(4)[CLASSES[4::5]])
    np.testing.assert_array_equal(task.prepare(task.test.inputs), X[4::5])
    assert task.metrics[0].name == "error"


def test_given_test_examples_and_held_out_ones():
    task = make(x_test=X[:3] + 1, y_test=CLASSES[:3], validation=5)
    np.testing.assert_array_equal(task.test.inputs, X[:3] + 1)
    np.testing.assert_array_equal(task.train.inputs, X[:15])
    np.testing.assert_array_equal(task.validation.inputs, X[15:])
    np.testing.assert_array_equal(task.validation.targets, CLASSES[15:])


def test_images_are_scaled_and_numbers_standardised_by_the_training_examples():
    task = make(IMAGES, CLASSES, x_test=IMAGES[:2], y_test=CLASSES[:2])
    assert task.input_shape == (6, 5, 1)
    assert task.train.inputs.dtype == np.uint8
    np.testing.assert_allclose(task.prepare(task.test.inputs)[..., 0], IMAGES[:2] / 255, rtol=1e-6)
    np.testing.assert_array_equal(task.black, np.zeros((6, 5, 1)))
    task = make(3 * X + 7, preprocessing="standardised", validation=4)
    prepared = np.asarray(task.prepare(task.train.inputs))
    assert len(prepared) == 12
    np.testing.assert_allclose(prepared.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(prepared.std(0), 1, rtol=1e-5)


@pytest.mark.parametrize("y", [X[:, 0], X[:, :1], X[:, :2], CLASSES[:, None] * np.ones((1, 2), int)])
def test_real_targets_are_judged_by_the_squared_error(y):
    task = make(X, y)
    assert task.metrics[0].name == "nse"
    assert task.outputs == y.reshape(20, -1).shape[1]
    np.testing.assert_array_equal(task.encode(task.test.targets), np.float32(y.reshape(20, -1)[4::5]))


@pytest.mark.parametrize("y", [CLASSES[:, None], np.eye(4)[CLASSES], np.eye(4, dtype=int)[CLASSES], CLASSES == 1])
def test_columns_one_hot_targets_and_booleans_are_classes(y):
    task = make(X, y)
    assert task.metrics[0].name == "error"
    assert task.outputs == (2 if y.dtype == bool else 4)
    np.testing.assert_array_equal(task.test.targets, (CLASSES == 1 if y.dtype == bool else CLASSES)[4::5])


WRONG = {
    "has 20 examples in x and 19 in y": {"y": CLASSES[1:]},
    "has 20 examples in x_test and 3 in y_test": {"x_test": X, "y_test": CLASSES[:3]},
    "needs both x_test and y_test, or neither": {"x_test": X},
    "has 1 numbers in x that are not finite": {"x": np.where(np.arange(60).reshape(20, 3) == 7, np.nan, X)},
    "needs numbers in y; got an array of type <U1": {"y": np.array(list("ab" * 10))},
    "needs x of shape [examples, ...]; got [20]": {"x": X[:, 0]},
    "has examples of [3] float32 in x, and of [2] float32 in x_test": {"x_test": X[:, :2], "y_test": CLASSES},
    "has examples of [6, 5] uint8 in x, and of [6, 5] float": {
        "x": IMAGES,
        "x_test": IMAGES / 255,
        "y_test": CLASSES,
    },
    "needs classes from 0 in y; got -1": {"y": CLASSES - 1},
    "needs classes 0, 1, ... in y, each at least once; got numbers up to 4, without class 0; real": {"y": CLASSES + 1},
    "needs classes 0, 1, ... in y, each at least once; got numbers up to 0; real": {"y": 0 * CLASSES},
    "has class 4 in y_test, and classes 0 to 3 in y": {"x_test": X, "y_test": CLASSES + 1},
    "has targets of [] in y, and of [2] in y_test": {"x_test": X, "y_test": X[:, :2]},
    "needs y of classes [examples], or of numbers [examples, outputs]; got [20, 1, 1]": {"y": X[:, :1, None]},
    "has too few examples: 16 for training, of which 16 held out, 4 for testing": {"validation": 16},
    "preprocessing must be one of none, standardised; got 'unit'": {"preprocessing": "unit"},
    "preprocessing must be one of unit, symmetric": {"x": IMAGES, "preprocessing": "none"},
    "preprocessing must not be zca with 16 examples of 30 pixel values": {"x": IMAGES, "preprocessing": "zca"},
}


@pytest.mark.parametrize("message", WRONG)
def test_arrays_that_do_not_fit_are_refused(message):
    with pytest.raises(BadOption, match=f"^{re.escape(message)}"):
        make(**WRONG[message])


def test_an_npz_file_is_its_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=CLASSES, x_test=X[:2], y_test=CLASSES[:2], names=["other"])
    task = arrays(path=str(tmp_path / "a.npz"), preprocessing=None, validation=0)
    np.testing.assert_array_equal(task.train.inputs, X)
    np.testing.assert_array_equal(task.test.targets, CLASSES[:2])


DAMAGED = ("huge", "long", "deep", "encrypted", "method")
"""Files whose header or archive numpy and zipfile refuse, each with an exception of its own."""


def test_a_file_that_is_no_npz_of_numbers_is_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([{}]), y=[1])
    np.savez(tmp_path / "other.npz", inputs=X)
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "objects.npz").read_bytes()[:200])
    for name, header in (("huge", b"(4000000000000, 2)"), ("long", b"(99999999999999999999, 2)"), ("deep", b"((4,), ")):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as file:
            described = b"{'descr': '<f8', 'fortran_order': False, 'shape': %s}" % header
            file.writestr("x.npy", b"\x93NUMPY\x01\x00\x76\x00" + described.ljust(117) + b"\n")
    packed = bytearray((tmp_path / "huge.npz").read_bytes())
    for name, flag, value in (("encrypted", 6, 1), ("method", 8, 99)):
        changed, directory = packed.copy(), packed.find(b"PK\x01\x02")
        changed[flag] = changed[directory + flag + 2] = value
        (tmp_path / f"{name}.npz").write_bytes(changed)
    for name, message in (
        ("nowhere.npz", f"path must be the path of a file; {tmp_path}/nowhere.npz is none"),
        ("objects.npz", "path must be an .npz file of numbers; "),
        ("text.npz", "path must be an .npz file of numbers; "),
        ("cut.npz", "path must be an .npz file of numbers; "),
        *((f"{name}.npz", "path must be an .npz file of numbers; ") for name in DAMAGED),
        ("a" * 300, "path must be the path of a file; [Errno 36] File name too long"),
        ("one.npy", "path must hold the arrays x and y, as of np.savez(path, x=x, y=y); "),
        (
            "other.npz",
            f"path must hold the arrays x and y, as of np.savez(path, x=x, y=y); {tmp_path}/other.npz has inp",
        ),
    ):
        with pytest.raises(BadOption, match=f"^{re.escape(message)}"):
            arrays(path=str(tmp_path / name), preprocessing=None, validation=0)
    with pytest.raises(BadOption, match=r"^path must be the path of a file; got None"):
        arrays(path=None, preprocessing=None, validation=0)  # type: ignore


def from_csv(path, text, *, test_text=None, target=None):
    path.write_text(text)
    test_path = None
    if test_text is not None:
        test_path = str(path.with_name("test.csv"))
        path.with_name("test.csv").write_text(test_text)
    return csv(path=str(path), target=target, test_path=test_path, preprocessing="none", validation=0)


def test_a_csv_file_predicts_one_column_from_the_others(tmp_path):
    rows = "1,red,2\n3,blue,4\n5,red,6\n"
    task = from_csv(tmp_path / "a.csv", f"a,colour,b\n{rows}", test_text="a,colour,b\n7,blue,8\n", target="colour")
    np.testing.assert_array_equal(task.train.inputs, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(task.train.targets, [1, 0, 1])  # blue, red
    np.testing.assert_array_equal(task.test.inputs, [[7, 8]])
    numbers = from_csv(tmp_path / "b.csv", "a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(10)))
    assert numbers.outputs == 3
    real = from_csv(tmp_path / "c.csv", "a,b\n" + "".join(f"{i},{i / 4}\n" for i in range(10)))
    np.testing.assert_array_equal(real.train.targets[:2], [[0], [0.25]])
    both = from_csv(tmp_path / "d.csv", "a,b,c\n" + "1,2,3\n" * 10, target=["a", "c"])
    np.testing.assert_array_equal(both.train.targets[0], [1, 3])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n", {"target": "c"}, "target must be one of a, b; got 'c'"),
        ("a,b\nx,2\n1,0.5\n", {}, "path needs numbers in the column a; row 2 has 'x'"),
        ("a,b\n1,2,3\n", {}, "path has 2 columns in its first row and 3 in row 2"),
        ("a,b\n", {}, "path must have a row of names and rows of examples"),
        ("a,b\n1,2\n", {"test_text": "a,c\n1,2\n"}, "test_path must have the columns of path, a, b; got a, c"),
    ],
)
def test_a_csv_file_that_does_not_fit_is_refused(tmp_path, text, options, message):
    with pytest.raises(BadOption, match=f"^{re.escape(message)}"):
        from_csv(tmp_path / "a.csv", text, **options)
