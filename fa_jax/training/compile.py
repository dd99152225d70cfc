"""Compiling the program of a job, and its cost."""

import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fa_jax.core import Rule
from fa_jax.initializers import QUICKLY_COMPILED
from fa_jax.network import Network, parameter_count
from fa_jax.training import cache, distributed
from fa_jax.training.job import Job
from fa_jax.training.loop import Program, make_program
from fa_jax.training.memory import bytes_at_once, bytes_of, require_memory

log = logging.getLogger(__name__)

VMAP_MAX_BYTES = 2**21
"""The size of one seed's params, in bytes, up to which a CPU trains the seeds of a device vmapped, if all layers are
dense. Larger ones would evict each other from its caches at every step, and train faster sequentially."""


@dataclasses.dataclass
class Cost:
    """Time and memory, over all groups of seeds."""

    compiling: float = 0.0
    """Seconds."""
    training: float = 0.0
    evaluating: float = 0.0
    memory: float = 0
    """XLA's estimate of the bytes that the training program needs at once: arguments, results and temporaries."""

    def __add__(self, other: "Cost") -> "Cost":
        """Returns the cost of both; of their memory the larger."""
        seconds = (getattr(self, part) + getattr(other, part) for part in ("compiling", "training", "evaluating"))
        return Cost(*seconds, memory=max(self.memory, other.memory))

    def divided(self, runs: int) -> "Cost":
        """Returns the share of one of several runs that were trained together: of the time, not of the memory."""
        return Cost(self.compiling / runs, self.training / runs, self.evaluating / runs, self.memory)

    def report(self, seed_steps: int, job: Job) -> dict[str, float]:
        """Returns the cost as it is recorded in `summary.json`."""
        return {
            **sizes(job),
            "compile_seconds": self.compiling,
            "train_seconds": self.training,
            "evaluation_seconds": self.evaluating,
            "seed_steps_per_second": seed_steps / self.training if self.training else 0.0,
            "memory_bytes": self.memory,
        }


def sizes(job: Job) -> dict[str, int]:
    """Returns the parameter counts of a seed.

    `effective_params`: those used to predict; `affiliated_params`: those that serve training alone;
    `feedback_weights`: the feedback, fixed or learned.
    """
    params, feedback = jax.eval_shape(job.rule.init, jax.random.key(0))
    effective = parameter_count(job.network, jax.eval_shape(job.network.init, jax.random.key(0)))
    return {
        "effective_params": effective,
        "affiliated_params": parameter_count(job.network, params) - effective,
        "feedback_weights": sum(leaf.size for leaf in jax.tree.leaves(feedback)),
    }


def make_program_of(job: Job, seeds: int, *, with_numbers: bool = False) -> Program:
    """Returns the program of a job for a number of seeds, on the most devices that can share them evenly.

    CPU cores that are no such device still help: XLA spreads large matrix products over all cores.

    Args:
      job: what is trained.
      seeds: how many are trained at once, those of all values of the numbers together.
      with_numbers: whether the program takes numbers.
    """
    devices = distributed.devices_for(job.devices, seeds, job.batch_devices)
    vmapped = is_vmapped(job.rule, job.network, devices[0])
    make_learner = job.make_learner if with_numbers else lambda numbers: job.learner
    return make_program(make_learner, job.task, devices, job.batch_devices, vmapped)


def is_vmapped(rule: Rule, network: Network, device: jax.Device) -> bool:
    """Returns whether the seeds on a device train faster vmapped than sequentially."""
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    small = bytes_of(params) <= VMAP_MAX_BYTES
    # Vmapped over their weights, convolutions become grouped convolutions, which are slow on a CPU.
    dense = all(len(kernel.shape) == 2 for kernel in network.kernel_shapes.values())
    return device.platform != "cpu" or (small and dense)


def _compiled_parts(
    parts: Sequence[tuple[Callable[[], jax.stages.Lowered], dict[str, Any] | None]], *, at_once: bool
) -> list[Any]:
    """Traces and compiles functions of a program.

    Args:
      parts: for each function, what traces it, and options of XLA.
      at_once: whether they are compiled at once, each on a core, while the next one is traced; else in turn.
    """
    if not at_once:
        return [trace().compile(options) for trace, options in parts]
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        return [part.result() for part in [pool.submit(trace().compile, options) for trace, options in parts]]


def compiled(job: Job, seeds: int, names: Sequence[str], cost: Cost) -> Program:
    """Returns the program with all functions compiled, and adds the time and memory to the cost.

    Args:
      job: what is trained.
      seeds: how many are trained at once.
      names: of the numbers that the program takes.
      cost: to add to.

    Raises:
      TooLittleMemory: if there is too little memory for it.
    """
    began = time.perf_counter()
    program = make_program_of(job, seeds, with_numbers=bool(names))
    devices = list(program.seed_sharding.device_set)
    # The cores of a CPU share its memory; the memory of other devices is their own.
    sharing = len(devices) if devices[0].platform == "cpu" else 1
    seeds_shape = jax.ShapeDtypeStruct((seeds,), np.int32, sharding=program.seed_sharding)
    numbers = {name: jax.ShapeDtypeStruct((seeds,), np.float32, sharding=program.seed_sharding) for name in names}
    step = jax.ShapeDtypeStruct((), np.int32)
    states = jax.eval_shape(program.init, seeds_shape, numbers)
    require_memory(bytes_of(states) * sharing // len(devices), devices[0], seeds, "the state")
    data, on_cpu = program.data(), devices[0].platform == "cpu"
    parts = [
        (lambda: program.evaluate.lower(states, seeds_shape, step, data), None),
        (lambda: program.train.lower(states, seeds_shape, step, step, data), None),
        (lambda: program.init.lower(seeds_shape, numbers), QUICKLY_COMPILED if on_cpu else None),
    ]
    with cache.reported():
        # An accelerator would measure kernels of several at once, and several processes must compile in the same order.
        evaluate, train, init = _compiled_parts(parts, at_once=on_cpu and not distributed.active())
    cost.compiling += time.perf_counter() - began
    # One process may compile for longer than the first transfer of training would wait for it.
    distributed.broadcast(lambda: None)
    log.info("compiled for %d seeds at a time", seeds)
    cost.memory = max(cost.memory, bytes_at_once(train))
    needed = max(bytes_at_once(init), *(bytes_at_once(part) - bytes_of(data) for part in (train, evaluate)))
    require_memory(needed * sharing, devices[0], seeds, "training")
    return program._replace(init=init, train=train, evaluate=evaluate)
