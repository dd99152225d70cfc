"""The request to train a run, and the record of its progress: files, checkpoints and the logger."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.loggers.logger import RunLogger
from fa_jax.records.checkpoints import Checkpoint, Checkpoints
from fa_jax.records.columns import Declared
from fa_jax.records.writer import Writer
from fa_jax.training import distributed
from fa_jax.training.compile import Cost
from fa_jax.training.evaluation import measured_metrics, score_metrics
from fa_jax.training.job import Job
from fa_jax.training.memory import is_out_of_memory
from fa_jax.training.progress import scores_text

log = logging.getLogger(__name__)

Watch = Callable[[int, Mapping[str, np.ndarray]], None]
"""`(step, metrics)`, each an array over the seeds of a group by column; called after each evaluation."""


class Stopped(Exception):
    """Raised by a `Watch` to stop a run; its message is recorded as the reason."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A run to be trained, and how it is recorded."""

    job: Job
    config: Mapping[str, Any]
    """The config that the job was built from, with `choices`."""
    folder: Path
    """Where it is recorded."""
    command: Sequence[str] | None = None
    """What was typed, to be recorded; None: the arguments of this process."""
    resume: bool = False
    """Whether to resume the run in the folder from its last checkpoints. Its result is bit for bit that of an
    uninterrupted run, or up to rounding if other runs are trained together with it now."""
    watch: Watch | None = None
    """Is called after each evaluation; may raise `Stopped`."""
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The values of the options in which it differs from runs that are trained together with it."""


def declared_metrics(job: Job) -> Declared:
    """Returns the metrics that a job records."""
    examples = min(job.training.probe_size, len(job.task.test.inputs))
    measured = measured_metrics(job.rule, job.training.measures) if examples else ()
    units = tuple(math.prod(h.shape) for h in job.network.hidden_shapes.values() for _ in range(math.prod(h.stack)))
    return Declared(score_metrics(job.task), measured, job.rule.extras.train_predict_label, units, examples)


class Record:
    """The record of a run in progress: everything that receives its evaluations, and its checkpoints."""

    def __init__(self, request: Request):
        self.request, job = request, request.job
        self._log = logging.LoggerAdapter(log, {"folder": request.folder})
        self.checkpoints = Checkpoints(request.folder)
        self.resumed = _usable(self.checkpoints, job) if request.resume else []
        if request.resume and not self.resumed:
            self._log.warning("no checkpoint: the run starts again from step 0")
        groups = zip(self.resumed, job.groups, strict=False)
        self.reached = {seed: checkpoint.step for checkpoint, seeds in groups for seed in seeds}
        self._cost_before = Cost(**self.resumed[-1].cost) if self.resumed else Cost()
        self.share: Callable[[], Cost] = Cost
        """Returns the share of this run in the cost since it was started."""
        declared = declared_metrics(job)
        steps = self.reached if request.resume and distributed.is_main() else None
        self.writer = Writer(request.folder, request.config, declared, command=request.command, resumed_steps=steps)
        self.outcome: Any = None
        """At the end, the summary or the exception that ended the run."""
        self._logger = None
        if job.open_logger and distributed.is_main():
            self._logger = RunLogger(job.open_logger, request.folder, request.config, job.groups, declared)

    @property
    def cost(self) -> Cost:
        """The cost so far, that before a resume included."""
        return self._cost_before + self.share()

    def evaluation(self, seeds: Sequence[int], step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Records an evaluation of a group of seeds; nothing if the run has ended."""
        if self.outcome is not None:
            return
        job = self.request.job
        examples = step * job.training.batch_size
        self.writer.evaluation(seeds, step, examples, examples / len(job.task.train.inputs), metrics)
        if self._logger:
            self._logger.evaluation(seeds, examples, metrics)
        if self.request.watch:
            self.request.watch(step, metrics)
        text = f"{examples} examples  {scores_text(job.task.metrics, metrics)}"
        self._log.info("seeds %s: %s", list(seeds), text)

    def save(self, group: int, step: int, states: PyTree) -> None:
        """Saves a checkpoint of a group of seeds, after all rows before it are on disk."""
        self.writer.flush()
        self.checkpoints.save(group, step, states, dataclasses.asdict(self.cost))

    def finish(self, finals: Sequence[PyTree]) -> None:
        """Records the end, given final params and feedback of each group of seeds; nothing if the run has ended."""
        if self.outcome is not None:
            return
        job = self.request.job
        self.checkpoints.wait()
        if job.checkpoint and distributed.is_main():
            self.writer.checkpoint(jax.tree.map(lambda *parts: np.concatenate(parts), *finals))
        seed_steps = job.evaluations[-1] * sum(map(len, job.groups))
        summary = self.writer.summary(self.cost.report(seed_steps, job))
        all_diverged = len(self.writer.diverged) == len(summary["seeds"])
        self.writer.status("diverged" if all_diverged else "finished", "every seed diverged" if all_diverged else None)
        self.writer.close()  # before the checkpoints are deleted: it fails if a row cannot be written
        self.outcome = summary
        self._close(finished=True)

    def end(self, problem: BaseException, seed_steps: int) -> None:
        """Records what ended the run, after a number of seed-steps; if even that fails, logs why."""
        self.outcome = self._explained(problem)
        try:
            try:
                self.writer.summary(self.cost.report(seed_steps, self.request.job))
                self.writer.status(*_failure(problem))
            finally:
                self._close(finished=False)
        except OSError as failure:
            self._log.error("the end of the run was not recorded: %s", failure)

    def _explained(self, problem: BaseException) -> BaseException:
        """Returns the exception that tells the user of a problem."""
        explained = problem
        if distributed.is_peer_error(problem):
            self._log.error("a transfer between processes failed", exc_info=problem)
            folder = self.request.folder
            advice = f"; the run in {folder} can be resumed" if distributed.is_main() else ""
            explained = distributed.PeerLost(f"{distributed.describe_peer_error(problem)}{advice}")
        elif is_out_of_memory(problem):
            reason = str(problem).partition("\n")[0]
            explained = BadOption(f"{reason}; a smaller seeds_per_batch needs less memory")
        if explained is not problem:
            explained.__cause__ = problem
        return explained

    def _close(self, *, finished: bool) -> None:
        """Closes everything, also if the disk is full: else a checkpoint that is being written would be waited for."""
        with contextlib.ExitStack() as stack:
            if self._logger:
                stack.callback(self._logger.close, finished)
            stack.callback(self.checkpoints.close, delete=finished)
            stack.callback(self.writer.close)


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
