"""Runs: all seeds of a job, or of several jobs that differ in numbers alone, trained to the end and recorded.

Read `_train_group` first: it draws the states of a group of seeds, trains and evaluates them in turn, and saves
checkpoints. The rest starts and ends records, trains in halves what does not fit into memory, and handles signals.
"""

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fa_jax.core import PyTree
from fa_jax.records import locks
from fa_jax.training import distributed
from fa_jax.training.compile import Cost, compiled
from fa_jax.training.interrupts import Interrupts
from fa_jax.training.job import Job
from fa_jax.training.loop import Program, State
from fa_jax.training.memory import TooLittleMemory
from fa_jax.training.progress import Progress
from fa_jax.training.record import Record, Request

SLICE_SECONDS = 0.5
"""Training runs in slices of 1 to 2 times this many seconds, or of one step if that takes longer, between which signals
and the clock are checked."""


def run(
    job: Job,
    config: Mapping[str, Any],
    folder: Path,
    *,
    make_progress: Callable[..., Progress] = Progress,
    **options: Any,
) -> dict[str, Any]:
    """Trains a job, records it in a folder, and returns its summary; arguments as in `Request` and `run_together`.

    Whatever ends it, an interrupt or an error, is recorded in `status.json` before it is raised. Of several processes,
    only process 0 records.

    Raises:
      BadOption: if the folder holds a run that is not to be resumed, another process runs it, or there is too little
        memory.
      Stopped: if `watch` raised it.
      PeerLost: if another process of this run is lost.
    """
    (outcome,) = run_together([Request(job, config, folder, **options)], make_progress)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def run_together(
    requests: Sequence[Request], make_progress: Callable[..., Progress] = Progress
) -> list[dict[str, Any] | Exception]:
    """Trains runs that differ in numbers alone by one program, and returns the summary of each, or what ended it.

    An error in one run does not affect the others. Resumed runs whose checkpoints are of different steps are trained
    apart, and so are runs that need more memory together than is free.

    Args:
      requests: they have the same seeds and the same names of `numbers`.
      make_progress: makes what shows the progress; arguments as for `Progress`.

    Raises:
      KeyboardInterrupt: if it is interrupted; all runs that are not finished are recorded as interrupted.
    """
    records: list[Record | Exception] = []
    with contextlib.ExitStack() as stack:
        try:
            for request in requests:
                records.append(_started(request, stack))
            apart: dict[tuple[int, ...], list[Record]] = {}
            for record in records:
                if isinstance(record, Record):
                    apart.setdefault(tuple(checkpoint.step for checkpoint in record.resumed), []).append(record)
            for alike in apart.values():
                _train(alike, make_progress)
        except BaseException as problem:
            for record in records:
                if isinstance(record, Record) and record.outcome is None:
                    record.end(problem, sum(record.reached.values()))
            raise
    return [record.outcome if isinstance(record, Record) else record for record in records]


def _started(request: Request, stack: contextlib.ExitStack) -> Record | Exception:
    """Returns the record of a run, whose lock the stack releases, or what kept it from being started."""
    try:
        return stack.enter_context(_recording(request))
    except Exception as problem:
        return problem


@contextlib.contextmanager
def _recording(request: Request) -> Iterator[Record]:
    """Yields the record of a run, in its folder, which is locked; of several processes, process 0 has it."""
    if not distributed.is_main():
        with tempfile.TemporaryDirectory() as temporary:
            yield Record(dataclasses.replace(request, folder=Path(temporary)))
        return
    request.folder.mkdir(parents=True, exist_ok=True)
    lock = locks.acquire(request.folder)
    try:
        yield Record(request)
    finally:
        locks.release(lock)


def _train(records: Sequence[Record], make_progress: Callable[..., Progress]) -> None:
    """Trains runs that start at the same step, together if memory allows, else in halves; each then has its outcome."""
    if not _train_at_once(records, make_progress):
        for half in (records[: len(records) // 2], records[len(records) // 2 :]):
            _train(half, make_progress)


def _train_at_once(records: Sequence[Record], make_progress: Callable[..., Progress]) -> bool:
    """Trains runs together; returns False, with nothing done, if several need more memory than is free."""
    job, done = records[0].request.job, sum(records[0].reached.values())
    names, cost, finals = list(records[0].request.numbers), Cost(), []
    for record in records:
        record.share = lambda: cost.divided(len(records))
    seed_steps = job.evaluations[-1] * sum(map(len, job.groups))
    progress = make_progress(seed_steps * len(records), job.task.metrics, done=done * len(records))
    try:
        with progress:
            program = functools.cache(lambda size: compiled(job, size * len(records), names, cost))
            for group, seeds in enumerate(job.groups):
                with progress.preparing(f"compiling for {len(seeds) * len(records)} seeds"):
                    of_size = program(len(seeds))
                finals.append(_train_group(records, group, of_size, cost, progress))
                if all(record.outcome is not None for record in records):
                    return True
        for i, record in enumerate(records):
            with _ended_by_problems(record, progress, len(records)):
                record.finish([of_runs[i] for of_runs in finals])
    except BaseException as problem:
        if isinstance(problem, TooLittleMemory) and len(records) > 1 and not finals:  # nothing is trained yet
            return False
        for record in records:
            if record.outcome is None:
                record.end(problem, progress.done // len(records))
        if not isinstance(problem, Exception):
            raise
    return True


@contextlib.contextmanager
def _ended_by_problems(record: Record, progress: Progress, runs: int) -> Iterator[None]:
    """While entered, an exception ends one of several runs that are trained together, and leaves the others."""
    try:
        yield
    except Exception as problem:
        record.end(problem, progress.done // runs)


class _Saver:
    """Saves checkpoints of one group of seeds at an interval, and when the runs are interrupted."""

    def __init__(self, records: Sequence[Record], group: int, progress: Progress):
        self._records, self._group, self._progress = records, group, progress
        self._interval = records[0].request.job.checkpoint_every
        self._last_time = time.monotonic()
        self._last_step = records[0].resumed[group].step if group < len(records[0].resumed) else -1

    def check(self, interrupts: Interrupts, step: int, states: State, *, quick: bool = False) -> bool:
        """Saves a checkpoint if one is due.

        If the run is interrupted, saves a checkpoint and raises `KeyboardInterrupt`.

        Several processes agree: they do what process 0 would, and are interrupted if any of them is.

        Args:
          interrupts, step, states: of the run.
          quick: whether the last slice of training was shorter than `SLICE_SECONDS`.

        Returns:
          `quick` of process 0, so that all processes train equal slices.
        """
        due = self._interval is not None and time.monotonic() - self._last_time >= self._interval
        interrupted = interrupts.noted
        if distributed.active():
            flags = distributed.all_gather(interrupted, due, quick)
            interrupted, (_, due, quick) = flags[:, 0].any(), flags[0]
        if due or interrupted:
            self.save(step, states)
        if interrupted:
            for record in self._records:
                record.checkpoints.wait()
            raise KeyboardInterrupt
        return quick

    def save(self, step: int, states: State) -> None:
        """Saves a checkpoint of each run that has not ended, unless none are written or this one is."""
        if self._interval is None or step == self._last_step:
            return
        parts = _split(states._replace(numbers={}), len(self._records))
        for record, of_run in zip(self._records, parts, strict=True):
            if record.outcome is None:
                with _ended_by_problems(record, self._progress, len(self._records)):
                    record.save(self._group, step, of_run)
        self._last_time, self._last_step = time.monotonic(), step


def _train_group(
    records: Sequence[Record], group: int, program: Program, cost: Cost, progress: Progress
) -> list[dict[str, PyTree]]:
    """Trains a group of seeds of all runs, from their checkpoints if there are any.

    Returns params and feedback of each run, on the host.
    """
    job, runs = records[0].request.job, len(records)
    seeds, saver = job.groups[group], _Saver(records, group, progress)
    numbers = {
        name: np.repeat(np.array([record.request.numbers[name] for record in records], np.float32), len(seeds))
        for name in records[0].request.numbers
    }
    seeds_on_devices, numbers = distributed.device_put(
        (np.tile(np.asarray(seeds, np.int32), runs), numbers), program.seed_sharding
    )
    states = program.init(seeds_on_devices, numbers)
    step, resumed_step, slice_steps = 0, -1, 1
    if group < len(records[0].resumed):
        states = _restore(records, group, states)
        step = resumed_step = records[0].resumed[group].step
    with Interrupts() as interrupts:
        for evaluation in job.evaluations:
            if evaluation <= resumed_step:
                continue
            while step < evaluation:
                began, end = time.perf_counter(), min(step + slice_steps, evaluation)
                states = program.train(states, seeds_on_devices, np.int32(step), np.int32(end), program.data())
                states = jax.block_until_ready(states)
                if jax.config.jax_debug_nans:  # pyright: ignore[reportAttributeAccessIssue]
                    _require_no_nan(states)  # JAX itself looks into the first call of a function alone
                seconds = time.perf_counter() - began
                cost.training += seconds
                progress.advance((end - step) * len(seeds) * runs, end * job.training.batch_size)
                complete, step = end - step == slice_steps, end
                if step < evaluation:
                    quick = saver.check(interrupts, step, states, quick=seconds < SLICE_SECONDS)
                    slice_steps *= 2 if quick and complete else 1
            began = time.perf_counter()
            evaluated, states = program.evaluate(states, seeds_on_devices, np.int32(evaluation), program.data())
            metrics = _split(distributed.gather_to_host(evaluated).with_nan(), runs)
            cost.evaluating += time.perf_counter() - began
            for record, of_run in zip(records, metrics, strict=True):
                with _ended_by_problems(record, progress, runs):
                    record.evaluation(seeds, evaluation, of_run)
            progress.show(evaluation * job.training.batch_size, metrics)
            if all(record.outcome is not None for record in records):
                return []
            saver.check(interrupts, evaluation, states)
    if len(job.groups) > 1:  # else the run is finished, and needs no checkpoint to resume from
        saver.save(step, states)
    return _split(distributed.gather_to_host({"params": states.params, "feedback": states.feedback}), runs)


def _restore(records: Sequence[Record], group: int, states: State) -> State:
    """Returns the arrays of the runs' checkpoints, on the devices of states with the same numbers."""
    runs, like = len(records), states._replace(numbers={})
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((len(a) // runs, *a.shape[1:]), a.dtype), like)
    loaded = [
        distributed.broadcast_arrays(lambda record=record: record.checkpoints.load(record.resumed[group], shapes), like)
        for record in records
    ]
    joined = loaded[0] if runs == 1 else jax.tree.map(lambda *parts: np.concatenate(parts), *loaded)
    return distributed.device_put(joined, jax.tree.map(lambda a: a.sharding, like))._replace(numbers=states.numbers)


def _require_no_nan(states: State) -> None:
    """Raises `FloatingPointError` if an array of the states has a NaN."""
    for path, leaf in jax.tree.leaves_with_path(states):
        if np.issubdtype(leaf.dtype, np.floating) and np.isnan(np.asarray(leaf)).any():
            raise FloatingPointError(f"NaN in {jax.tree_util.keystr(path)} after training")


def _split(tree: PyTree, runs: int) -> list[PyTree]:
    """Returns the part of each run, given a tree of arrays with an axis of runs times seeds in front."""
    if runs == 1:
        return [tree]
    leaves, structure = jax.tree.flatten(tree)
    by_leaf = [np.split(np.asarray(leaf), runs) for leaf in leaves]
    return [structure.unflatten(parts) for parts in zip(*by_leaf, strict=True)]
