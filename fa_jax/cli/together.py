"""Which runs of a sweep can be trained by one program: those that differ in numbers alone."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fa_jax.cli.compose import Composed
from fa_jax.training.compile import make_program_of
from fa_jax.training.job import Job
from fa_jax.training.loop import Data
from fa_jax.training.memory import available_bytes, bytes_of

PLACES = ("optimizer", "feedback_optimizer", "rule", "feedback", "architecture", "loss", "adversarial")
"""The parts of a config whose numbers a program may take as arguments."""
WITHOUT = {"density": 1}
"""Numbers that stand for nothing at all, by the last part of their name, where it is not 0."""
LEFT_OUT = "a number"
"""What stands for a number that a program may take, where two configs are compared."""
FINDING_OUT = "finding out which runs one program can train"
"""What is said while `alike` takes its time."""
OPTIMIZERS = ("optimizer.", "feedback_optimizer.")
MEMORY_SHARE = 0.25
"""The share of the free memory that the states of runs trained together may take."""
MOST = 32
"""The most runs that are trained together."""
FILES_OF_RUN, OTHER_FILES = 6, 64
"""The files that a run has open, three and more while it saves a checkpoint, and those of the rest of the process."""


class Alike(NamedTuple):
    """Runs that one program can train."""

    indices: list[int]
    """The indices of the runs, in order."""
    numbers: list[dict[str, float]]
    """The values of the options in which the runs differ, by dotted name, for each run."""


def alike(runs: Sequence[Composed]) -> Iterator[Alike]:
    """Yields runs that one program can train, each run once, up to `MOST` together, as memory allows."""
    numbers = [dict(_numbers(composed.config)) for composed in runs]
    # Whole numbers count something, such as layers, unless another run has a fraction there.
    fractions = {name for of_run in numbers for name, value in of_run.items() if isinstance(value, float)}
    numbers = [{name: of_run[name] for name in of_run.keys() & fractions} for of_run in numbers]
    for indices in _grouped(range(len(runs)), lambda i: _without(runs[i].config, numbers[i])):
        yield from _traceable(runs, numbers, indices)


def _traceable(runs: Sequence[Composed], numbers: Sequence[dict[str, float]], indices: list[int]) -> Iterator[Alike]:
    """Yields those of some runs that differ in numbers which their program can take as arguments."""
    names = sorted({name for i in indices for name in numbers[i] if len({numbers[j][name] for j in indices}) > 1})
    job = runs[indices[0]].job
    if names and not _takes(job, names):
        names = [name for name in names if _takes(job, [name])]
        names = names if _takes(job, names) else []
    at_once = _at_once(job) if len(indices) > 1 else 1
    for same in _grouped(indices, lambda i: {name: numbers[i][name] for name in numbers[i].keys() - set(names)}):
        for first in range(0, len(same), at_once):
            chosen = same[first : first + at_once]
            differing = [name for name in names if len({numbers[i][name] for i in chosen}) > 1]
            yield Alike(chosen, [{name: numbers[i][name] for name in differing} for i in chosen])


def _grouped(indices: Iterable[int], key: Callable[[int], Any]) -> list[list[int]]:
    """Returns indices in groups of equal keys."""
    groups: dict[str, list[int]] = {}
    for i in indices:
        groups.setdefault(json.dumps(key(i), sort_keys=True, default=repr), []).append(i)
    return list(groups.values())


def _numbers(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Yields the numbers of a config that a program might take, by dotted name, but for those of `WITHOUT`."""
    if isinstance(config, dict):
        for key, value in config.items():
            if path or key in PLACES:
                yield from _numbers(value, (*path, str(key)))
    elif isinstance(config, bool) or not isinstance(config, int | float) or not np.isfinite(config):
        return
    elif config != WITHOUT.get(path[-1], 0):
        yield ".".join(path), config


def _without(config: dict[str, Any], names: Collection[str]) -> Any:
    """Returns a config in which the value of some options is left out; an option that is null is not one of these."""

    def pruned(node, path=()):
        if not isinstance(node, dict):
            return LEFT_OUT if ".".join(path) in names else node
        return {key: pruned(value, (*path, str(key))) for key, value in node.items()}

    return pruned(config)


def _takes(job: Job, names: Sequence[str]) -> bool:
    """Returns whether the program of a job can take some options as arguments: none of them decides what it does."""
    program = make_program_of(job, 1, with_numbers=True)
    seeds, step = jax.ShapeDtypeStruct((1,), np.int32), jax.ShapeDtypeStruct((), np.int32)
    data = Data(job.task.train, job.task.test, job.task.validation)
    numbers = {name: jax.ShapeDtypeStruct((1,), np.float32) for name in names}
    try:
        states = jax.eval_shape(program.init, seeds, numbers)
        jax.eval_shape(program.train, states, seeds, step, step, data)
        if not all(name.startswith(OPTIMIZERS) for name in names):  # evaluating uses no optimizer, and is slow to trace
            jax.eval_shape(program.evaluate, states, seeds, step, data)
    except Exception:  # whatever asks for its value fails in its own way
        return False
    return True


def _at_once(job: Job) -> int:
    """Returns how many runs may be trained at once, as memory and the open files of a process allow."""
    seeds = max(map(len, job.groups))
    size = bytes_of(jax.eval_shape(make_program_of(job, 1).init, jax.ShapeDtypeStruct((1,), np.int32), {}))
    free = available_bytes(job.devices[0])
    fitting = int(MEMORY_SHARE * free / (size * seeds)) if free else 1
    return max(1, min(MOST, fitting, (_open_files() - OTHER_FILES) // FILES_OF_RUN))


def _open_files() -> int:
    """Returns how many files this process may have open."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
