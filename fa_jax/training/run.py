"""One run: all seeds of a job trained to the end, recorded and shown while they go."""

import dataclasses
import functools
import logging
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fa_jax.cli.build import Job
from fa_jax.core import PyTree
from fa_jax.loggers.logger import Tracking
from fa_jax.records import locks
from fa_jax.records.checkpoints import Checkpoint, Checkpoints
from fa_jax.records.writer import Writer
from fa_jax.training import distributed as processes
from fa_jax.training.compile import Cost, compiled
from fa_jax.training.loop import Program
from fa_jax.training.progress import Progress

log = logging.getLogger(__name__)

Watch = Callable[[int, Mapping[str, np.ndarray]], None]
SLICE = 0.5
"""Seconds of training between two looks at the clock, at most twice as many."""


class Stopped(Exception):
    """Raised by who watches a run, to stop it there; its one line is the reason that is recorded."""


def run(
    job: Job,
    config: Mapping[str, Any],
    folder: Path,
    *,
    command: Sequence[str] | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Trains a job, records it in `folder`, and returns its summary.

    Whatever stops it, an interrupt or an error, is set down in `status.json` before it goes on its way. Of several
    processes only the first one records; what the others would is thrown away.

    Args:
      job: what is trained.
      config: the config it was built from, with `choices`.
      folder: where it is recorded; no other process may have it in hand.
      command: what was typed, to be recorded; None: what this process was started with.
      resume: whether to go on with the run that the folder holds, from its last checkpoints; the end is bit for bit
        that of a run never cut off.
      watch: called after each evaluation with its step and metrics, one number a seed by name; it may raise `Stopped`.

    Raises:
      BadOption: if the folder holds a run that is not to be resumed, or one that another process has in hand.
      Stopped: if `watch` did.
      Gone: if another process of this run is.
    """
    if not processes.is_first():
        with tempfile.TemporaryDirectory() as nowhere:
            return _run(job, config, Path(nowhere), command, watch, resume=resume)
    folder.mkdir(parents=True, exist_ok=True)
    lock = locks.take(folder)
    try:
        return _run(job, config, folder, command, watch, resume=resume)
    finally:
        locks.give(lock)


def _run(
    job: Job,
    config: Mapping[str, Any],
    folder: Path,
    command: Sequence[str] | None,
    watch: Watch | None,
    *,
    resume: bool,
) -> dict[str, Any]:
    checkpoints = Checkpoints(folder)
    found = []
    if resume:
        rows = processes.told(lambda: [[str(one.path), *one[1:]] for one in checkpoints.found(job.evaluations[-1])])
        found = [Checkpoint(Path(path), *rest) for path, *rest in rows]
    if resume and not found:
        log.warning("no checkpoint: the run begins again")
    reached = {seed: one.step for one, seeds in zip(found, job.groups, strict=False) for seed in seeds}
    recorded = reached if resume and processes.is_first() else None
    writer = Writer(folder, config, command=command, reached=recorded)
    cost = Cost(**found[-1].cost) if found else Cost()
    steps = job.evaluations[-1] * sum(map(len, job.groups))
    tracked = job.tracker if processes.is_first() else None
    tracking = tracked and Tracking(tracked, folder, config, job.groups)
    finished = False
    try:
        with Progress(steps, done=sum(reached.values())) as progress:
            program = functools.cache(lambda size: compiled(job, size, cost))
            finals = []
            for group, seeds in enumerate(job.groups):
                start = found[group] if group < len(found) else None
                keeper = _Keeper(checkpoints, group, job.checkpoint_every, writer, cost, tracking, watch)
                finals.append(_train_group(job, seeds, program(len(seeds)), start, keeper, progress))
        checkpoints.wait()
        if job.checkpoint and processes.is_first():
            writer.checkpoint(jax.tree.map(lambda *parts: np.concatenate(parts), *finals))
        summary = writer.summary(cost.report(steps, job))
        every = len(writer.diverged) == len(summary["seeds"])
        writer.status("diverged" if every else "finished", "every seed diverged" if every else None)
        finished = True
        return summary
    except BaseException as problem:
        gone = processes.has_lost_one(problem)
        writer.summary(cost.report(progress.done, job))
        interrupted = gone or isinstance(problem, KeyboardInterrupt | SystemExit | Stopped)
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        if interrupted:
            reason = str(problem) if isinstance(problem, Stopped) else "interrupted"
        if gone:
            log.error("a transfer between processes failed", exc_info=problem)
            reason = processes.what_is_lost(problem)
        writer.status("interrupted" if interrupted else "failed", reason)
        if gone:
            further = f"; fa-jax resume={folder} goes on with it" if processes.is_first() else ""
            raise processes.Gone(f"{reason}{further}") from problem
        raise
    finally:
        writer.close()
        checkpoints.close(delete=finished)
        if tracking:
            tracking.close(finished)


class _Interrupts:
    """While entered, a first SIGINT or SIGTERM is noted for the next look, and a second one interrupts at once."""

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Interrupts":
        # Only the main thread hears signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True


class _Keeper:
    """Saves checkpoints of one group of seeds as often as was asked for."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        group: int,
        every: float | None,
        writer: Writer,
        cost: Cost,
        tracking: Tracking | None,
        watch: Watch | None,
    ):
        self.checkpoints, self.group, self.every, self.writer, self.cost = checkpoints, group, every, writer, cost
        self.tracking, self.watch = tracking, watch
        self._saved = time.monotonic()
        self.step = -1
        """Of the last checkpoint."""

    def look(self, interrupts: _Interrupts, step: int, tree: PyTree, *, quick: bool = False) -> bool:
        """Saves and interrupts if an interrupt has been noted, or saves if the time has come; returns `quick`.

        Several processes do as the first one would, and are interrupted if any of them is.
        """
        due = self.every is not None and time.monotonic() - self._saved >= self.every
        noted = interrupts.noted
        if processes.several():
            said = processes.votes(noted, due, quick)
            noted, (_, due, quick) = said[:, 0].any(), said[0]
        if due or (noted and self.every is not None):
            self.save(step, tree)
        if noted:
            self.checkpoints.wait()
            raise KeyboardInterrupt
        return quick

    def save(self, step: int, tree: PyTree) -> None:
        """Saves; the rows of the evaluations before are on the disk first."""
        self.writer.flush()
        self.checkpoints.save(self.group, step, tree, dataclasses.asdict(self.cost))
        self._saved, self.step = time.monotonic(), step


def _train_group(
    job: Job, seeds: tuple[int, ...], program: Program, start: Checkpoint | None, keeper: _Keeper, progress: Progress
) -> dict[str, Any]:
    """Trains a group of seeds at once, from a checkpoint if there is one; returns params and feedback on the host."""
    numbers, cost = processes.placed(np.asarray(seeds, np.int32), program.over_seeds), keeper.cost
    states, fixed = program.start(numbers)
    last, stride = 0, 64
    if start is not None:
        states, fixed = _restored(keeper.checkpoints, start, (states, fixed))
        last = start.step
    with _Interrupts() as interrupts:
        for step in job.evaluations:
            if start is not None and step <= start.step:
                continue
            while last < step:
                # In slices that grow to about a second, so that the bar moves and an interrupt is heard.
                began = time.perf_counter()
                end = min(last + stride, step)
                advanced = program.advance(states, fixed, numbers, np.int32(last), np.int32(end), program.data)
                states = jax.block_until_ready(advanced)
                taken = time.perf_counter() - began
                cost.training += taken
                progress.advance((end - last) * len(seeds), end * job.training.batch_size)
                whole_slice, last = end - last == stride, end
                if last < step and keeper.look(interrupts, last, (states, fixed), quick=taken < SLICE) and whole_slice:
                    stride *= 2
            began = time.perf_counter()
            measured, states = program.measure(states, fixed, numbers, np.int32(step), program.data)
            metrics = processes.whole(measured)
            cost.evaluating += time.perf_counter() - began
            examples = step * job.training.batch_size
            keeper.writer.evaluation(seeds, step, examples, examples / len(job.task.train.inputs), metrics)
            if keeper.tracking:
                keeper.tracking.evaluation(seeds, examples, metrics)
            if keeper.watch:
                keeper.watch(step, metrics)
            log.info("seeds %s: %s", list(seeds), progress.show(examples, metrics))
            keeper.look(interrupts, step, (states, fixed))
    if len(job.groups) > 1 and keeper.every is not None and last not in (keeper.step, start and start.step):
        keeper.save(last, (states, fixed))
    feedback = states.learned[0] if job.rule.learn else fixed
    return processes.whole({"params": states.params, "feedback": feedback})


def _restored(checkpoints: Checkpoints, start: Checkpoint, like: PyTree) -> PyTree:
    """The arrays of a checkpoint, on the devices that have those of `like`."""
    loaded = processes.shared(lambda: checkpoints.load(start, like), like)
    return processes.placed(loaded, jax.tree.map(lambda a: a.sharding, like))
