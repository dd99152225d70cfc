"""Task 1 of Lillicrap et al. (arXiv 1411.0247, 2014): imitate a random linear map of 30 inputs to 10 outputs."""

import jax

from fa_jax.checks import integer, number, switch
from fa_jax.core import Task
from fa_jax.tasks.teacher_student import teacher_student


def linear(*, seed: int, train_examples: int, test_examples: int, teacher_scale: float, scale_to_unit: bool) -> Task:
    """Returns the `Task` `y* = T x`: x from N(0, I_30), T `[10, 30]` with entries from U[-s, s].

    Teacher and data are the same for all seeds of a run. Inputs are float32 `[n, 30]`, targets float32 `[n, 10]`. The
    zero output has NSE 1.

    Args:
      seed: draws the teacher and the data.
      train_examples, test_examples: their numbers.
      teacher_scale: s, above 0.
      scale_to_unit: whether inputs and targets are mapped to [-1, 1] (see `teacher_student`).
    """
    key = jax.random.key(integer("seed", seed, least=0))
    scale = number("teacher_scale", teacher_scale, above=0)

    def teacher(key, x):
        return x @ jax.random.uniform(key, (30, 10), minval=-scale, maxval=scale)

    return teacher_student(
        teacher,
        key,
        inputs=30,
        input_scale=1.0,
        train_examples=train_examples,
        test_examples=test_examples,
        scale_to_unit=switch("scale_to_unit", scale_to_unit),
    )
