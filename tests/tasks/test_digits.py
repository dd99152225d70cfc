"""scikit-learn's digits as a task."""

import hydra.utils
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from fa_jax.checks import BadOption
from fa_jax.cli.groups import CONF
from fa_jax.tasks.digits import digits

YAML = CONF / "task" / "digits.yaml"


def test_every_fifth_digit_is_a_test_example():
    task = digits(preprocessing="unit", validation=0)
    data = load_digits()
    index = np.arange(1797)
    for split, chosen in ((task.train, index % 5 != 4), (task.test, index % 5 == 4)):
        np.testing.assert_array_equal(split.inputs[..., 0], data.images[chosen])
        np.testing.assert_array_equal(split.targets, data.target[chosen])
    assert (len(task.train.inputs), len(task.test.inputs)) == (1438, 359)
    assert (task.input_shape, task.outputs, task.validation) == ((8, 8, 1), 10, None)


def test_digits_are_stored_as_uint8_and_prepared_to_0_1():
    task = digits(preprocessing="unit", validation=0)
    prepared = task.prepare(task.train.inputs)
    assert (task.train.inputs.dtype, prepared.dtype) == (jnp.uint8, jnp.float32)
    assert (prepared.min(), prepared.max()) == (0, 1)
    np.testing.assert_array_equal(prepared * 16, task.train.inputs)


def test_every_class_is_in_both_splits():
    task = digits(preprocessing="unit", validation=0)
    assert np.bincount(task.test.targets, minlength=10).min() >= 20
    assert np.bincount(task.train.targets, minlength=10).min() >= 100


def test_the_last_training_examples_are_held_out_for_validation():
    whole, task = digits(preprocessing="unit", validation=0), digits(preprocessing="unit", validation=300)
    np.testing.assert_array_equal(task.train.inputs, whole.train.inputs[:1138])
    np.testing.assert_array_equal(task.validation.inputs, whole.train.inputs[1138:])
    np.testing.assert_array_equal(task.validation.targets, whole.train.targets[1138:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1437}, "validation must leave at least 2 of 1438 training examples; got 1437"),
        ({"validation": True}, "validation must be an integer of at least 0; got True"),
        (
            {"preprocessing": None},
            "preprocessing must be one of unit, symmetric, centred, standardised, per_image, zca; got None",
        ),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(BadOption) as caught:
        digits(**{"preprocessing": "unit", "validation": 0, **options})
    assert str(caught.value) == message


def test_the_yaml_makes_the_task_that_its_first_line_describes():
    task = hydra.utils.instantiate(yaml.safe_load(YAML.read_text())["task"])
    assert f"{len(task.train.inputs)} train, {len(task.test.inputs)} test" in YAML.read_text()
    assert f"{task.input_shape[0]}x{task.input_shape[1]}x1, {task.outputs} classes" in YAML.read_text()
