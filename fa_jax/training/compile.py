"""The compiled program of a job, and what it costs."""

import dataclasses
import logging
import re
import time

import jax
import numpy as np

from fa_jax.cli.build import Job
from fa_jax.core import Batch
from fa_jax.network import count
from fa_jax.training import distributed as processes
from fa_jax.training.loop import Program, make_program

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Cost:
    """Seconds spent, added up over the groups of seeds."""

    compiling: float = 0.0
    training: float = 0.0
    evaluating: float = 0.0
    memory: float = 0
    """Bytes that the training program needs at once, by its own account: arguments, results and temporaries."""

    def report(self, seed_steps: int, job: Job) -> dict[str, float]:
        """Returns the cost as it stands in `summary.json`."""
        return {
            **sizes(job),
            "compile_seconds": self.compiling,
            "train_seconds": self.training,
            "evaluation_seconds": self.evaluating,
            "seed_steps_per_second": seed_steps / self.training if self.training else 0.0,
            "memory_bytes": self.memory,
        }


def sizes(job: Job) -> dict[str, int]:
    """Returns how many numbers a seed learns and keeps.

    `effective_params`: those that it predicts with; `affiliated_params`: those that serve training alone;
    `feedback_weights`: the feedback, fixed or learned.
    """
    params, feedback = jax.eval_shape(job.rule.init, jax.random.key(0))
    effective = count(job.network, jax.eval_shape(job.network.init, jax.random.key(0)))
    return {
        "effective_params": effective,
        "affiliated_params": count(job.network, params) - effective,
        "feedback_weights": sum(leaf.size for leaf in jax.tree.leaves(feedback)),
    }


def operations(job: Job) -> float | None:
    """Returns how many floating-point operations a seed's step takes, by the compiled step's own account.

    Of the rule alone: what its updates and those of its feedback take, without the optimizer's. None where there is a
    loop in it, as over iterations or scanned layers, of which the account has one turn only.
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
    if re.search(r"= (scan|while)\[", str(jax.make_jaxpr(step)(*arguments))):
        return None
    account = jax.jit(step).lower(*arguments).compile().cost_analysis()
    return None if account is None else account["flops"]


def make_program_of(job: Job, seeds: int) -> Program:
    """Returns the program of a job for so many seeds.

    It runs on the most devices that the seeds can be shared out to evenly. What is left of a CPU then is not idle:
    large matrix products spread over its cores by themselves.
    """
    devices = processes.shared_out(job.devices, seeds, job.batch_devices)
    optimizers = job.optimizer, job.feedback_optimizer
    return make_program(
        job.rule, job.network, job.loss, job.task, job.training, *optimizers, devices, job.batch_devices
    )


def compiled(job: Job, seeds: int, cost: Cost) -> Program:
    """Compiles all three functions for so many seeds before the first step, so that its time is known apart."""
    began = time.perf_counter()
    program = make_program_of(job, seeds)
    numbers = jax.ShapeDtypeStruct((seeds,), np.int32, sharding=program.over_seeds)
    number = jax.ShapeDtypeStruct((), np.int32)
    states, fixed = jax.eval_shape(program.start, numbers)
    start = program.start.lower(numbers).compile()
    advance = program.advance.lower(states, fixed, numbers, number, number, program.data).compile()
    measure = program.measure.lower(states, fixed, numbers, number, program.data).compile()
    cost.compiling += time.perf_counter() - began
    # Where the first transfers of training would be waited for less long than one may take to compile after another.
    processes.told(lambda: None)
    log.info("compiled for %d seeds at a time", seeds)
    memory = advance.memory_analysis()
    if memory is not None:
        needs = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        cost.memory = max(cost.memory, needs - memory.alias_size_in_bytes)
    return program._replace(start=start, advance=advance, measure=measure)
