"""The teacher-student tasks follow their papers; targets and metric are written out in numpy."""

import inspect
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.core import Stream, stream
from fa_jax.tasks.linear import linear
from fa_jax.tasks.nonlinear import nonlinear

LINEAR = {"seed": 3, "train_examples": 4000, "test_examples": 50, "teacher_scale": 2.0, "scale_to_unit": False}
NONLINEAR = {
    "seed": 3,
    "train_examples": 300,
    "test_examples": 50,
    "teacher_scales": [0.1, 0.3, 0.5],
    "teacher_bias": 0.3,
    "teacher_bias_distribution": "constant",
    "input_scale": 0.5,
    "scale_to_unit": False,
}


def test_linear_targets_are_a_uniform_matrix_times_white_inputs():
    task = linear(**LINEAR)
    x, y = np.asarray(task.train.inputs), np.asarray(task.train.targets)
    teacher = np.linalg.lstsq(x, y)[0]
    np.testing.assert_allclose(x @ teacher, y, atol=1e-4)
    assert teacher.shape == (30, 10)
    assert 1.8 < np.abs(teacher).max() <= 2.0
    np.testing.assert_allclose(teacher.std(), 2 / np.sqrt(3), rtol=0.1)
    np.testing.assert_allclose(np.cov(x.T), np.eye(30), atol=0.12)  # 5 standard errors of a variance


def test_the_teacher_depends_on_the_seed_and_not_on_the_number_of_examples():
    few, many = linear(**LINEAR), linear(**{**LINEAR, "train_examples": 5000})
    teachers = [
        np.linalg.lstsq(np.asarray(task.train.inputs), np.asarray(task.train.targets))[0] for task in (few, many)
    ]
    np.testing.assert_allclose(*teachers, atol=1e-4)
    other = linear(**{**LINEAR, "seed": 4})
    assert np.abs(np.asarray(other.train.inputs) - np.asarray(few.train.inputs)).max() > 1


def test_training_and_test_examples_are_disjoint():
    task = linear(**LINEAR)
    assert not (np.asarray(task.test.inputs)[:, None, 0] == np.asarray(task.train.inputs)[None, :, 0]).any()


def test_nonlinear_targets_are_the_outputs_of_a_30_20_10_10_network():
    task = nonlinear(**NONLINEAR)
    keys = jax.random.split(stream(jax.random.key(3), Stream.TEACHER), (3, 2))
    h = np.asarray(task.train.inputs, np.float64)
    np.testing.assert_allclose(h.std(), 0.5, rtol=0.03)
    for i, (scale, shape) in enumerate(zip([0.1, 0.3, 0.5], [(30, 20), (20, 10), (10, 10)], strict=True)):
        weights = np.asarray(jax.random.uniform(keys[i][0], shape, minval=-scale, maxval=scale), np.float64)
        a = h @ weights + 0.3
        h = np.tanh(a) if i < 2 else a
    np.testing.assert_allclose(task.train.targets, h, atol=1e-5)


def test_scaling_maps_the_extremes_of_both_splits_to_plus_and_minus_1():
    task = linear(**{**LINEAR, "scale_to_unit": True})
    for field in ("inputs", "targets"):
        both = np.concatenate([np.asarray(getattr(split, field)) for split in (task.train, task.test)])
        np.testing.assert_allclose([both.min(), both.max()], [-1, 1], rtol=1e-6)


@pytest.mark.parametrize("make", [linear, nonlinear])
def test_the_nse_is_the_main_metric_and_1_for_the_zero_output(make):
    task = make(**(LINEAR if make is linear else NONLINEAR))
    (nse,) = task.metrics
    targets = task.train.targets
    assert (nse.name, nse.better, nse.logarithmic) == ("nse", "lower", True)
    np.testing.assert_allclose(nse.score(jnp.zeros_like(targets), targets), 1, rtol=1e-6)
    np.testing.assert_allclose(nse.score(0.9 * targets, targets), 0.01, rtol=1e-4)


def test_the_nse_over_training_batches_is_a_geometric_mean():
    task = linear(**LINEAR)
    (nse,) = task.metrics
    targets = task.train.targets
    outputs = [0.9 * targets[:1], 0.5 * targets[1:2]]
    batch_scores = [nse.batch_score(y, targets[i : i + 1]) for i, y in enumerate(outputs)]
    power = np.mean(np.square(targets))
    shares = [0.01 * np.mean(np.square(targets[0])) / power, 0.25 * np.mean(np.square(targets[1])) / power]
    np.testing.assert_allclose(nse.from_batches(sum(batch_scores) / 2), np.sqrt(np.prod(shares)), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        (linear, "train_examples", 0),
        (linear, "test_examples", 0),
        (linear, "seed", -1),
        (linear, "teacher_scale", 0.0),
        (linear, "scale_to_unit", "yes"),
        (nonlinear, "teacher_scales", [0.1, 0.2]),
        (nonlinear, "teacher_bias", -1),
        (nonlinear, "teacher_bias_distribution", "cauchy"),
        (nonlinear, "input_scale", float("nan")),
    ],
)
def test_the_message_about_a_wrong_option_starts_with_its_name(make, option, value):
    valid = LINEAR if make is linear else NONLINEAR
    assert option in inspect.signature(make).parameters
    with pytest.raises(BadOption, match=f"^{option} must be "):
        make(**{**valid, option: value})


SINGLE_OPERATIONS = """
import jax
import jax.numpy as jnp
import numpy as np
from fa_jax.core import Stream, stream
from fa_jax.tasks.teacher_student import teacher_student

def teacher(key, x):
    return jnp.tanh(x @ jax.random.uniform(key, (30, 10), minval=-0.4, maxval=0.4))

def to_unit(a):
    return 2 * (a - a.min()) / (a.max() - a.min()) - 1

key = jax.random.key(3)
for scale, unit in ((1.0, False), (0.7, False), (0.7, True)):
    sizes = {"inputs": 30, "train_examples": 20, "test_examples": 10}
    task = teacher_student(teacher, key, **sizes, input_scale=scale, scale_to_unit=unit)
    x = scale * jax.random.normal(stream(key, Stream.DATA), (30, 30))
    y = teacher(stream(key, Stream.TEACHER), x)
    x, y = (to_unit(x), to_unit(y)) if unit else (x, y)
    for drawn, single in ((task.train.inputs, x[:20]), (task.train.targets, y[:20]), (task.test.targets, y[20:])):
        np.testing.assert_array_equal(drawn, single)
"""


@pytest.mark.slow
def test_data_are_drawn_bit_for_bit_as_by_single_operations():
    # In a process of its own, with XLA as users have it.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", SINGLE_OPERATIONS], check=True, env=environment)
