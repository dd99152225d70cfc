"""Teacher-student tasks: inputs from a standard normal distribution, targets from a fixed teacher."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import integer
from fa_jax.core import Split, Stream, Task, stream
from fa_jax.initializers import QUICKLY_COMPILED
from fa_jax.metrics.scores import nse_metric, power


def teacher_student(
    teacher: Callable[[jax.Array, jax.Array], jax.Array],
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
      teacher: `(key, x) -> y`, of x `[n, inputs]` and y `[n, outputs]`; the key draws the teacher.
      key: of the task; its stream TEACHER draws the teacher, DATA the examples.
      inputs: the dimension of an input.
      input_scale: the standard deviation of its components.
      train_examples: the length of the training sequence.
      test_examples: the number of test examples.
      scale_to_unit: whether inputs and targets are each mapped linearly to [-1, 1], by the smallest and the largest
        component in both splits together.
    """
    train_examples = integer("train_examples", train_examples, least=1)
    test_examples = integer("test_examples", test_examples, least=1)

    def draw(key):
        x = jax.random.normal(stream(key, Stream.DATA), (train_examples + test_examples, inputs))
        x = input_scale * jax.lax.optimization_barrier(x)
        return x, teacher(stream(key, Stream.TEACHER), x)

    def split(x, y):
        train, test = Split(x[:train_examples], y[:train_examples]), Split(x[train_examples:], y[train_examples:])
        return train, test, power(train.targets)

    # Two programs: operation by operation, compiling takes longer than the training of small networks. They round as
    # single operations do: no factor is merged with those of `normal`, and `_to_unit` is in neither.
    options = QUICKLY_COMPILED if jax.default_backend() == "cpu" else None
    x, y = jax.jit(draw, compiler_options=options)(key)
    if scale_to_unit:
        x, y = _to_unit(x), _to_unit(y)
    train, test, of_train = jax.jit(split, compiler_options=options)(x, y)
    return Task(
        train=train,
        test=test,
        validation=None,
        prepare=lambda x: x,
        encode=lambda y: y,
        metrics=(nse_metric(of_train),),
        input_shape=(inputs,),
        outputs=train.targets.shape[1],
    )


def _to_unit(a: jax.Array) -> jax.Array:
    low, high = jnp.min(a), jnp.max(a)
    return 2 * (a - low) / (high - low) - 1
