"""One run: all seeds of a job trained to the end, with records and progress."""

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

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.loggers.logger import RunLogger
from fa_jax.records import locks
from fa_jax.records.checkpoints import Checkpoint, Checkpoints
from fa_jax.records.columns import Declared
from fa_jax.records.writer import Writer
from fa_jax.training import distributed
from fa_jax.training.compile import Cost, compiled
from fa_jax.training.evaluation import measured_metrics, score_metrics
from fa_jax.training.job import Job
from fa_jax.training.loop import Program
from fa_jax.training.memory import is_out_of_memory
from fa_jax.training.progress import Progress

log = logging.getLogger(__name__)

Watch = Callable[[int, Mapping[str, np.ndarray]], None]
"""`(step, metrics)`, each an array over the seeds of a group by column; called after each evaluation."""
SLICE = 0.5
"""Training runs in slices of 1 to 2 times this many seconds, between which signals and the clock are checked."""


class Stopped(Exception):
    """Raised by a `Watch` to stop a run; its message is recorded as the reason."""


def declared_metrics(job: Job) -> Declared:
    """Returns the metrics that a job records."""
    measured = measured_metrics(job.rule, job.training.measures) if job.training.probe_size else ()
    return Declared(score_metrics(job.task), measured, job.rule.extras.train_predict_label)


def run(
    job: Job,
    config: Mapping[str, Any],
    folder: Path,
    *,
    command: Sequence[str] | None = None,
    resume: bool = False,
    watch: Watch | None = None,
    make_progress: Callable[..., Progress] = Progress,
) -> dict[str, Any]:
    """Trains a job, records it in a folder, and returns its summary.

    Whatever ends it, an interrupt or an error, is recorded in `status.json` before it is raised. Of several processes,
    only process 0 records.

    Args:
      job: what is trained.
      config: the config that it was built from, with `choices`.
      folder: where it is recorded.
      command: what was typed, to be recorded; None: the arguments of this process.
      resume: whether to resume the run in the folder from its last checkpoints. Its result is bit for bit that of an
        uninterrupted run.
      watch: is called after each evaluation; may raise `Stopped`.
      make_progress: makes what shows the progress; arguments as for `Progress`.

    Raises:
      BadOption: if the folder holds a run that is not to be resumed, or another process runs it.
      Stopped: if `watch` raised it.
      BadOption: if there is too little memory.
      PeerLost: if another process of this run is lost.
    """
    if not distributed.is_main():
        with tempfile.TemporaryDirectory() as temporary:
            return _run(job, config, Path(temporary), command, watch, make_progress, resume=resume)
    folder.mkdir(parents=True, exist_ok=True)
    lock = locks.acquire(folder)
    try:
        return _run(job, config, folder, command, watch, make_progress, resume=resume)
    finally:
        locks.release(lock)


def _run(
    job: Job,
    config: Mapping[str, Any],
    folder: Path,
    command: Sequence[str] | None,
    watch: Watch | None,
    make_progress: Callable[..., Progress],
    *,
    resume: bool,
) -> dict[str, Any]:
    checkpoints = Checkpoints(folder)
    resumed = _usable(checkpoints, job) if resume else []
    if resume and not resumed:
        log.warning("no checkpoint: the run starts again from step 0")
    reached = {seed: checkpoint.step for checkpoint, seeds in zip(resumed, job.groups, strict=False) for seed in seeds}
    resumed_steps = reached if resume and distributed.is_main() else None
    declared = declared_metrics(job)
    writer = Writer(folder, config, declared, command=command, resumed_steps=resumed_steps)
    cost = Cost(**resumed[-1].cost) if resumed else Cost()
    steps = job.evaluations[-1] * sum(map(len, job.groups))
    logger = None
    if job.open_logger and distributed.is_main():
        logger = RunLogger(job.open_logger, folder, config, job.groups, declared)
    finished = False
    try:
        with make_progress(steps, job.task.metrics, done=sum(reached.values())) as progress:
            program = functools.cache(lambda size: compiled(job, size, cost))
            finals = []
            for group, seeds in enumerate(job.groups):
                start = resumed[group] if group < len(resumed) else None
                saver = _Saver(checkpoints, group, job.checkpoint_every, writer, cost)
                observers = _Observers(writer, logger, watch, progress)
                finals.append(_train_group(job, seeds, program(len(seeds)), start, saver, observers))
        checkpoints.wait()
        if job.checkpoint and distributed.is_main():
            writer.checkpoint(jax.tree.map(lambda *parts: np.concatenate(parts), *finals))
        summary = writer.summary(cost.report(steps, job))
        all_diverged = len(writer.diverged) == len(summary["seeds"])
        writer.status("diverged" if all_diverged else "finished", "every seed diverged" if all_diverged else None)
        finished = True
        return summary
    except BaseException as problem:
        writer.summary(cost.report(progress.done, job))
        writer.status(*_failure(problem))
        if distributed.is_peer_error(problem):
            log.error("a transfer between processes failed", exc_info=problem)
            advice = f"; the run in {folder} can be resumed" if distributed.is_main() else ""
            raise distributed.PeerLost(f"{distributed.describe_peer_error(problem)}{advice}") from problem
        if is_out_of_memory(problem):
            reason = str(problem).partition("\n")[0]
            raise BadOption(f"{reason}; a smaller seeds_per_batch needs less memory") from problem
        raise
    finally:
        writer.close()
        checkpoints.close(delete=finished)
        if logger:
            logger.close(finished)


def _usable(checkpoints: Checkpoints, job: Job) -> list[Checkpoint]:
    """Returns the checkpoints to resume from, as process 0 finds them."""
    fields = distributed.broadcast(
        lambda: [[str(checkpoint.path), *checkpoint[1:]] for checkpoint in checkpoints.usable(job.evaluations[-1])]
    )
    return [Checkpoint(Path(path), *rest) for path, *rest in fields]


def _failure(problem: BaseException) -> tuple[str, str]:
    """Returns the status of a run that an exception ended, and the reason in one line."""
    if distributed.is_peer_error(problem):
        return "interrupted", distributed.describe_peer_error(problem)
    if isinstance(problem, Stopped):
        return "interrupted", str(problem)
    if isinstance(problem, KeyboardInterrupt | SystemExit):
        return "interrupted", "interrupted"
    return "failed", f"{type(problem).__name__}: {problem}".partition("\n")[0]


class _Interrupts:
    """While entered, a first SIGINT or SIGTERM is noted for the next check, and a second one interrupts at once."""

    def __init__(self) -> None:
        self.noted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_Interrupts":
        # Only the main thread receives signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True


@dataclasses.dataclass
class _Observers:
    """Everything that receives evaluations."""

    writer: Writer
    logger: RunLogger | None
    watch: Watch | None
    progress: Progress

    def evaluation(self, job: Job, seeds: Sequence[int], step: int, metrics: Mapping[str, np.ndarray]) -> None:
        examples = step * job.training.batch_size
        self.writer.evaluation(seeds, step, examples, examples / len(job.task.train.inputs), metrics)
        if self.logger:
            self.logger.evaluation(seeds, examples, metrics)
        if self.watch:
            self.watch(step, metrics)
        log.info("seeds %s: %s", list(seeds), self.progress.show(examples, metrics))


class _Saver:
    """Saves checkpoints of one group of seeds at an interval, and when the run is interrupted."""

    def __init__(self, checkpoints: Checkpoints, group: int, interval: float | None, writer: Writer, cost: Cost):
        self.checkpoints, self.group, self.interval, self.writer, self.cost = checkpoints, group, interval, writer, cost
        self._last_time = time.monotonic()
        self.last_step = -1

    def check(self, interrupts: _Interrupts, step: int, tree: PyTree, *, quick: bool = False) -> bool:
        """Saves a checkpoint if one is due; returns `quick`.

        If the run is interrupted, saves a checkpoint and raises `KeyboardInterrupt`.

        Several processes agree: they do what process 0 would, and are interrupted if any of them is.
        """
        due = self.interval is not None and time.monotonic() - self._last_time >= self.interval
        interrupted = interrupts.noted
        if distributed.active():
            flags = distributed.all_gather(interrupted, due, quick)
            interrupted, (_, due, quick) = flags[:, 0].any(), flags[0]
        if due or (interrupted and self.interval is not None):
            self.save(step, tree)
        if interrupted:
            self.checkpoints.wait()
            raise KeyboardInterrupt
        return quick

    def save(self, step: int, tree: PyTree) -> None:
        """Saves a checkpoint, after all rows before it are on disk."""
        self.writer.flush()
        self.checkpoints.save(self.group, step, tree, dataclasses.asdict(self.cost))
        self._last_time, self.last_step = time.monotonic(), step


def _train_group(
    job: Job,
    seeds: tuple[int, ...],
    program: Program,
    start: Checkpoint | None,
    saver: _Saver,
    observers: _Observers,
) -> dict[str, Any]:
    """Trains a group of seeds, from a checkpoint if there is one; returns params and feedback on the host."""
    seed_numbers, cost = distributed.device_put(np.asarray(seeds, np.int32), program.seed_sharding), saver.cost
    states = program.start(seed_numbers)
    step, slice_steps = 0, 64
    if start is not None:
        states = _restore(saver.checkpoints, start, states)
        step = start.step
    with _Interrupts() as interrupts:
        for evaluation in job.evaluations:
            if start is not None and evaluation <= start.step:
                continue
            while step < evaluation:
                began, end = time.perf_counter(), min(step + slice_steps, evaluation)
                states = program.advance(states, seed_numbers, np.int32(step), np.int32(end), program.data)
                states = jax.block_until_ready(states)
                seconds = time.perf_counter() - began
                cost.training += seconds
                observers.progress.advance((end - step) * len(seeds), end * job.training.batch_size)
                complete, step = end - step == slice_steps, end
                if step < evaluation:
                    quick = saver.check(interrupts, step, states, quick=seconds < SLICE)
                    slice_steps *= 2 if quick and complete else 1
            began = time.perf_counter()
            evaluated, states = program.evaluate(states, seed_numbers, np.int32(evaluation), program.data)
            metrics = distributed.gather_to_host(evaluated).with_nan()
            cost.evaluating += time.perf_counter() - began
            observers.evaluation(job, seeds, evaluation, metrics)
            saver.check(interrupts, evaluation, states)
    saved = step in (saver.last_step, start and start.step)
    if len(job.groups) > 1 and saver.interval is not None and not saved:
        saver.save(step, states)
    return distributed.gather_to_host({"params": states.params, "feedback": states.feedback})


def _restore(checkpoints: Checkpoints, start: Checkpoint, like: PyTree) -> PyTree:
    """Returns the arrays of a checkpoint, on the devices of `like`."""
    loaded = distributed.broadcast_arrays(lambda: checkpoints.load(start, like), like)
    return distributed.device_put(loaded, jax.tree.map(lambda a: a.sharding, like))
