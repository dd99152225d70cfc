"""The floating-point operations of a step of training."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.extend.core
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from fa_jax.core import Batch
from fa_jax.training.job import Job


def operations(job: Job) -> float | None:
    """Returns an estimate of the floating-point operations of one step of one seed, without the optimizer's.

    It is XLA's, which counts one iteration of a loop. Of all further ones, the matrix products and convolutions count,
    two operations for a product and its addition. None if a loop has a number of iterations that depends on the data.
    """
    task, size = job.task, job.training.batch_size

    def step(params, feedback, inputs, targets, key):
        batch = Batch(inputs, targets, key)
        updates = job.rule.updates(params, feedback, batch)
        return updates, None if job.rule.learn is None else job.rule.learn(params, feedback, batch, updates)

    key = jax.eval_shape(lambda: jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((size, *task.input_shape), np.float32)
    targets = jax.ShapeDtypeStruct((size, task.outputs), np.float32)
    arguments = *jax.eval_shape(job.rule.init, key), inputs, targets, key
    jaxpr = jax.make_jaxpr(step)(*arguments).jaxpr
    if _has(jaxpr, "while"):
        return None
    jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # as XLA leaves out what no result needs
    estimate = jax.jit(step).lower(*arguments).compile().cost_analysis()
    return None if estimate is None else estimate["flops"] + _products(jaxpr, all_of=True) - _products(jaxpr)


def _has(jaxpr: Any, primitive: str) -> bool:
    """Returns whether a jaxpr, or one inside it, has a primitive."""
    return any(
        equation.primitive.name == primitive or any(_has(inner, primitive) for inner in _inside(equation))
        for equation in jaxpr.eqns
    )


def _products(jaxpr: Any, *, all_of: bool = False) -> float:
    """Returns the operations of the matrix products and convolutions of a jaxpr, and of those inside it.

    Args:
      jaxpr: to count.
      all_of: whether all iterations of its loops count, and not only one.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        iterations = equation.params["length"] if all_of and equation.primitive.name == "scan" else 1
        total += iterations * sum(_products(inner, all_of=all_of) for inner in _inside(equation))
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * _summed(equation)
    return total


def _summed(equation: Any) -> int:
    """Returns how many products each output of a matrix product or a convolution is the sum of."""
    _, kernel = (variable.aval.shape for variable in equation.invars[:2])
    dimensions = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (_, contracted), _ = dimensions
        return math.prod(kernel[axis] for axis in contracted)
    _, *others = dimensions.rhs_spec  # the outputs' axis first, then that of a group's inputs, then those of positions
    return math.prod(kernel[axis] for axis in others)


def _inside(equation: Any) -> Iterator[Any]:
    """Returns the jaxprs in the parameters of an equation."""
    return jax.extend.core.jaxprs_in_params(equation.params)
