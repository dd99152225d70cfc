"""The floating-point operations of a step of training."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from fa_jax.core import Batch
from fa_jax.training.job import Job


def operations(job: Job) -> float | None:
    """Returns an estimate of the floating-point operations of one step of one seed, without the optimizer's.

    It is XLA's, which counts one iteration of a loop. Of all further ones, the matrix products and convolutions count
    whose operands change from one iteration to the next, two operations for a product and its addition. None if a loop
    has a number of iterations that depends on the data.
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
    jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # as XLA leaves out what no result needs
    if _has(jaxpr, "while"):
        return None
    estimate = jax.jit(step).lower(*arguments).compile().cost_analysis()
    return None if estimate is None else estimate["flops"] + further_products(jaxpr, [0] * len(jaxpr.invars), [])


def further_products(jaxpr: Any, depths: Sequence[int], lengths: Sequence[int]) -> float:
    """Returns the operations of matrix products and convolutions in further iterations of the loops of a jaxpr.

    Args:
      jaxpr: to count in.
      depths: of its arguments: how many of the loops around it, from the outermost on, an argument depends on; XLA
        computes what does not depend on a loop outside of it.
      lengths: the numbers of iterations of the loops around it, from the outermost on.
    """
    depth_of = dict(zip(jaxpr.invars, depths, strict=True))
    total = 0.0
    for equation in jaxpr.eqns:
        operands = [0 if isinstance(v, jax.extend.core.Literal) else depth_of.get(v, 0) for v in equation.invars]
        deepest = max(operands, default=0)
        depth_of.update(dict.fromkeys(equation.outvars, deepest))
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            within, around = operands, list(lengths)
            if equation.primitive.name == "scan":
                constants = equation.params["num_consts"]
                around.append(equation.params["length"])
                within = [*operands[:constants], *[len(around)] * (len(operands) - constants)]
            if len(within) != len(inner.invars):  # such as of a branch, which does not receive its index
                within = [deepest] * len(inner.invars)
            total += further_products(inner, within, around)
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            iterations = math.prod(lengths[:deepest])
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * _summed(equation) * (iterations - 1)
    return total


def _has(jaxpr: Any, primitive: str) -> bool:
    """Returns whether a jaxpr, or one inside it, has a primitive."""
    return any(
        equation.primitive.name == primitive
        or any(_has(inner, primitive) for inner in jax.extend.core.jaxprs_in_params(equation.params))
        for equation in jaxpr.eqns
    )


def _summed(equation: Any) -> int:
    """Returns how many products each output of a matrix product or a convolution is the sum of."""
    _, kernel = (variable.aval.shape for variable in equation.invars[:2])
    dimensions = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (_, contracted), _ = dimensions
        return math.prod(kernel[axis] for axis in contracted)
    _, *others = dimensions.rhs_spec  # the outputs' axis first, then that of a group's inputs, then those of positions
    return math.prod(kernel[axis] for axis in others)
