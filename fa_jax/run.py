"""One run: all seeds of a job trained to the end, recorded and shown while they go."""

import dataclasses
import functools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fa_jax.build import Job
from fa_jax.progress import Progress
from fa_jax.records.writer import Writer
from fa_jax.training import Program, make_program

log = logging.getLogger(__name__)

SLICE = 0.5
"""Seconds of training between two looks at the clock, at most twice as many."""


@dataclasses.dataclass
class Cost:
    """Seconds spent, added up over the groups of seeds."""

    compiling: float = 0.0
    training: float = 0.0
    evaluating: float = 0.0
    memory: int = 0
    """Bytes that the training program needs at once, by its own account: arguments, results and temporaries."""

    def report(self, seed_steps: int) -> dict[str, float]:
        """Returns the cost as it stands in `summary.json`."""
        return {
            "compile_seconds": self.compiling,
            "train_seconds": self.training,
            "evaluation_seconds": self.evaluating,
            "seed_steps_per_second": seed_steps / self.training if self.training else 0.0,
            "memory_bytes": self.memory,
        }


def run(job: Job, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Trains a job, records it in `folder`, and returns its summary.

    Whatever stops it, an interrupt or an error, is set down in `status.json` before it goes on its way.
    """
    writer = Writer(folder, config)
    cost = Cost()
    steps = job.evaluations[-1] * sum(map(len, job.groups))
    try:
        with Progress(steps) as progress:
            compiled = functools.cache(lambda size: _compiled(job, size, cost))
            finals = [_train_group(job, seeds, compiled(len(seeds)), writer, progress, cost) for seeds in job.groups]
        if job.checkpoint:
            writer.checkpoint(jax.tree.map(lambda *parts: np.concatenate(parts), *finals))
        summary = writer.summary(cost.report(steps))
        every = len(writer.diverged) == len(summary["seeds"])
        writer.status("diverged" if every else "finished", "every seed diverged" if every else None)
        return summary
    except BaseException as problem:
        writer.summary(cost.report(progress.done))
        interrupted = isinstance(problem, KeyboardInterrupt | SystemExit)
        reason = "interrupted" if interrupted else f"{type(problem).__name__}: {problem}".partition("\n")[0]
        writer.status("interrupted" if interrupted else "failed", reason)
        raise
    finally:
        writer.close()


def _train_group(
    job: Job, seeds: tuple[int, ...], program: Program, writer: Writer, progress: Progress, cost: Cost
) -> dict[str, Any]:
    """Trains a group of seeds at once; returns their params and feedback on the host."""
    numbers = jnp.asarray(seeds, jnp.int32)
    data = program.data
    states, fixed = program.start(numbers)
    last, stride = 0, 64
    for step in job.evaluations:
        while last < step:
            # In slices that grow to about a second, so that the bar moves and an interrupt is heard.
            began = time.perf_counter()
            end = min(last + stride, step)
            advanced = program.advance(states, fixed, numbers, jnp.int32(last), jnp.int32(end), data)
            states = jax.block_until_ready(advanced)
            taken = time.perf_counter() - began
            cost.training += taken
            progress.advance((end - last) * len(seeds), end * job.training.batch_size)
            last, stride = end, stride * 2 if taken < SLICE and end - last == stride else stride
        began = time.perf_counter()
        measured, states = program.measure(states, fixed, numbers, jnp.int32(step), data)
        metrics = jax.device_get(measured)
        cost.evaluating += time.perf_counter() - began
        examples = step * job.training.batch_size
        writer.evaluation(seeds, step, examples, examples / len(job.task.train.inputs), metrics)
        log.info("seeds %s: %s", list(seeds), progress.show(examples, metrics))
    feedback = states.learned[0] if job.rule.learn else fixed
    final = {"params": states.params, "feedback": feedback}
    return jax.tree.map(np.asarray, final)


def make_program_of(job: Job, seeds: int) -> Program:
    """Returns the program of a job for so many seeds.

    It runs on the most devices that the seeds can be shared out to evenly. What is left of a CPU then is not idle:
    large matrix products spread over its cores by themselves.
    """
    share = max(n for n in range(1, len(job.devices) + 1) if seeds % n == 0)
    devices = list(job.devices[:share])
    optimizers = job.optimizer, job.feedback_optimizer
    return make_program(job.rule, job.network, job.loss, job.task, job.training, *optimizers, devices)


def _compiled(job: Job, seeds: int, cost: Cost) -> Program:
    """Compiles all three functions for so many seeds before the first step, so that its time is known apart."""
    began = time.perf_counter()
    program = make_program_of(job, seeds)
    numbers, number = jax.ShapeDtypeStruct((seeds,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    states, fixed = jax.eval_shape(program.start, numbers)
    start = program.start.lower(numbers).compile()
    advance = program.advance.lower(states, fixed, numbers, number, number, program.data).compile()
    measure = program.measure.lower(states, fixed, numbers, number, program.data).compile()
    cost.compiling += time.perf_counter() - began
    log.info("compiled for %d seeds at a time on %d devices", seeds, len(job.devices))
    memory = advance.memory_analysis()
    if memory is not None:
        needs = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        cost.memory = max(cost.memory, needs - memory.alias_size_in_bytes)
    return Program(program.data, start, advance, measure)
