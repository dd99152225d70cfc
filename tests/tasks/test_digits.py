"""scikit-learn's digits as a task."""

from pathlib import Path

import hydra
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from fa_jax.checks import BadOption
from fa_jax.tasks.digits import digits

CONF = Path(__file__).parents[2] / "conf" / "task" / "digits.yaml"


def test_every_fifth_digit_is_tested_and_the_rest_are_trained():
    task = digits(preprocessing="unit", validation=0)
    found = load_digits()
    index = np.arange(1797)
    for split, chosen in ((task.train, index % 5 != 4), (task.test, index % 5 == 4)):
        np.testing.assert_array_equal(split.inputs[..., 0], found.images[chosen])
        np.testing.assert_array_equal(split.targets, found.target[chosen])
    assert (len(task.train.inputs), len(task.test.inputs)) == (1438, 359)
    assert (task.input_shape, task.outputs, task.validation) == ((8, 8, 1), 10, None)


def test_digits_are_uint8_and_prepared_from_0_to_1():
    task = digits(preprocessing="unit", validation=0)
    prepared = task.prepare(task.train.inputs)
    assert (task.train.inputs.dtype, prepared.dtype) == (jnp.uint8, jnp.float32)
    assert (prepared.min(), prepared.max()) == (0, 1)
    np.testing.assert_array_equal(prepared * 16, task.train.inputs)


def test_every_class_is_tested_and_trained():
    task = digits(preprocessing="unit", validation=0)
    assert np.bincount(task.test.targets, minlength=10).min() >= 20
    assert np.bincount(task.train.targets, minlength=10).min() >= 100


def test_validation_digits_are_the_last_of_the_training_ones():
    whole, task = digits(preprocessing="unit", validation=0), digits(preprocessing="unit", validation=300)
    np.testing.assert_array_equal(task.train.inputs, whole.train.inputs[:1138])
    np.testing.assert_array_equal(task.validation.inputs, whole.train.inputs[1138:])
    np.testing.assert_array_equal(task.validation.targets, whole.train.targets[1138:])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"validation": 1437}, "task.validation must leave at least 2 of 1438 training examples; got 1437"),
        ({"validation": True}, "task.validation must be an integer of at least 0; got True"),
        (
            {"preprocessing": None},
            "task.preprocessing must be one of unit, symmetric, centred, standardised, per_image, zca; got None",
        ),
    ],
)
def test_a_wrong_option_is_one_line(options, line):
    with pytest.raises(BadOption) as caught:
        digits(**{"preprocessing": "unit", "validation": 0, **options})
    assert str(caught.value).startswith(line)


def test_the_yaml_makes_the_task_its_first_lines_promise():
    task = hydra.utils.instantiate(yaml.safe_load(CONF.read_text())["task"])
    assert f"{len(task.train.inputs)} train, {len(task.test.inputs)} test" in CONF.read_text()
