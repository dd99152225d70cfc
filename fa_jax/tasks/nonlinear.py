"""Task 3 of Lillicrap et al. (arXiv 1411.0247, 2014): imitate a random tanh network with two hidden layers."""

import itertools

import jax
import jax.numpy as jnp

from fa_jax.checks import choose, integer, number, per_layer, switch
from fa_jax.core import Task
from fa_jax.initializers import BIAS_DISTRIBUTIONS, uniform
from fa_jax.tasks.teacher_student import teacher_student

WIDTHS = (30, 20, 10, 10)


def nonlinear(
    *,
    seed: int,
    train_examples: int,
    test_examples: int,
    teacher_scales: list[float],
    teacher_bias: float,
    teacher_bias_distribution: str,
    input_scale: float,
    scale_to_unit: bool,
) -> Task:
    """Returns the `Task` of imitating a 30-20-10-10 network: tanh, tanh, linear, with biases.

    Teacher and data are the same for all seeds of a run. Inputs are float32 `[n, 30]`, targets float32 `[n, 10]`. The
    zero output has NSE 1.

    Args:
      seed: draws the teacher and the data.
      train_examples, test_examples: their numbers.
      teacher_scales: bounds of the uniform distribution of the teacher's weights, one per layer, above 0.
      teacher_bias: the teacher's biases: the constant, or the bound of the uniform distribution.
      teacher_bias_distribution: `constant`, `uniform` or `normal`.
      input_scale: standard deviation of the inputs, above 0.
      scale_to_unit: whether inputs and targets are mapped to [-1, 1] (see `teacher_student`).
    """
    key = jax.random.key(integer("seed", seed, least=0))
    scales = per_layer("teacher_scales", teacher_scales, 3, lambda option, got: number(option, got, above=0))
    bias = number("teacher_bias", teacher_bias, least=0)
    draw_bias = choose("teacher_bias_distribution", teacher_bias_distribution, BIAS_DISTRIBUTIONS)
    input_scale = number("input_scale", input_scale, above=0)

    def teacher(key, x):
        keys = jax.random.split(key, (3, 2))
        shapes = itertools.pairwise(WIDTHS)
        weights = [uniform(k[0], shape, 1, s) for k, shape, s in zip(keys, shapes, scales, strict=True)]
        biases = [draw_bias(k[1], (width,), 1, bias) for k, width in zip(keys, WIDTHS[1:], strict=True)]
        h = jnp.tanh(x @ weights[0] + biases[0])
        h = jnp.tanh(h @ weights[1] + biases[1])
        return h @ weights[2] + biases[2]

    return teacher_student(
        teacher,
        key,
        inputs=WIDTHS[0],
        input_scale=input_scale,
        train_examples=train_examples,
        test_examples=test_examples,
        scale_to_unit=switch("scale_to_unit", scale_to_unit),
    )
