"""What the teacher-student tasks share: inputs drawn from a standard normal, targets given by a fixed teacher."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import integer
from fa_jax.core import Running, Split, Stream, Task, stream
from fa_jax.metrics.scores import nse


def teacher_student(
    teacher: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    *,
    inputs: int,
    input_scale: float,
    train_examples: int,
    test_examples: int,
    scale_to_unit: bool,
) -> Task:
    """Returns the `Task` of imitating a teacher on standard normal inputs; the metric is `nse`.

    Over the training stream, where one example changes it by an order of magnitude, the NSE is a geometric mean.

    Args:
      teacher: `[n, inputs] -> [n, outputs]`.
      key: the task's; the examples come from its stream DATA.
      inputs: components of an input.
      input_scale: their standard deviation.
      train_examples: length of the training sequence.
      test_examples: held-out examples.
      scale_to_unit: whether every input and every target component is mapped linearly to [-1, 1] by the smallest and
        the largest number in all inputs, or all targets, of both splits together.
    """
    train_examples = integer("task.train_examples", train_examples, least=1)
    test_examples = integer("task.test_examples", test_examples, least=1)
    x = input_scale * jax.random.normal(stream(key, Stream.DATA), (train_examples + test_examples, inputs))
    y = teacher(x)
    if scale_to_unit:
        x, y = _to_unit(x), _to_unit(y)
    return Task(
        train=Split(x[:train_examples], y[:train_examples]),
        test=Split(x[train_examples:], y[train_examples:]),
        validation=None,
        prepare=lambda x: x,
        encode=lambda y: y,
        metrics={"nse": nse},
        running={"nse": _geometric_nse(y[:train_examples])},
        input_shape=(inputs,),
        outputs=y.shape[1],
    )


def _geometric_nse(targets: jax.Array) -> Running:
    power = jnp.mean(jnp.square(targets))
    return Running(lambda y, t: jnp.log(jnp.mean(jnp.square(y - t)) / power), jnp.exp)


def _to_unit(a: jax.Array) -> jax.Array:
    low, high = jnp.min(a), jnp.max(a)
    return 2 * (a - low) / (high - low) - 1
