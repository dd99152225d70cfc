"""Teacher-student tasks: inputs from a standard normal distribution, targets from a fixed teacher."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import integer
from fa_jax.core import Split, Stream, Task, stream
from fa_jax.metrics.scores import nse_metric


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

    Args:
    teacher: `[n, inputs] -> [n, outputs]`.
    key: of the task; its stream DATA draws the examples.
    inputs: the dimension of an input.
    input_scale: the standard deviation of its components.
    train_examples: the length of the training sequence.
    test_examples: the number of test examples.
    scale_to_unit: whether inputs and targets are each mapped linearly to [-1, 1], by the smallest and the largest
      component in both splits together.
    """
    train_examples = integer("train_examples", train_examples, least=1)
    test_examples = integer("test_examples", test_examples, least=1)
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
        metrics=(nse_metric(y[:train_examples]),),
        input_shape=(inputs,),
        outputs=y.shape[1],
    )


def _to_unit(a: jax.Array) -> jax.Array:
    low, high = jnp.min(a), jnp.max(a)
    return 2 * (a - low) / (high - low) - 1
