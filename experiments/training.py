"""Rows of experiments, how far each has come, and training of what is missing: the mechanism that all scripts share.

A row is what an experiment trains under one name: one run or one sweep of `fa-jax`, or several in turn. Nothing is
recorded but the runs themselves, so that training continues where it was cut off, whatever ended it.
"""

import dataclasses
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.common import without_cache
from fa_jax.cli.trust import VARIABLE as TRUST
from fa_jax.records.locks import is_held
from fa_jax.records.reader import SWEEP, Run, find_runs, read_run, read_sweep
from fa_jax.reports.status import progress
from fa_jax.user.text import printable

LEAST_FREE = 2**30
"""The bytes that must be free on the disk before anything is trained."""
POLL = 0.5
"""The seconds between two looks at the processes."""
DONE, RUNNING, CUT_OFF, NOT_STARTED, UNUSABLE = "done", "running", "cut off", "not started", "unusable"
"""The states of a training; one that was cut off resumes."""
INTERRUPTED = (130, -signal.SIGINT, -signal.SIGTERM)
"""The exit codes of a training that its user stopped."""


@dataclasses.dataclass(frozen=True)
class Training:
    """One run or one sweep of `fa-jax`."""

    folder: Path
    arguments: tuple[str, ...]
    """The arguments of `fa-jax`, without the folder."""
    defaults: tuple[str, ...] = ()
    """Arguments of a new run; what is recorded may have other values of the same options."""
    is_sweep: bool = False

    @property
    def option(self) -> str:
        """The option of `fa-jax` that names the folder of a new run."""
        return "hydra.sweep.dir" if self.is_sweep else "hydra.run.dir"

    def runs(self) -> list[Run]:
        """Returns the runs in the folder that can be read."""
        return find_runs(self.folder) if self.is_sweep else [read_run(self.folder)]


@dataclasses.dataclass(frozen=True)
class Row:
    """What an experiment trains under one name."""

    name: str
    """Such as `hinton2022/large`."""
    folder: Path
    """The folder of all that it trains."""
    trainings: Callable[[], Iterable[Training]]
    """Yields what is to be trained, in order. Each may depend on the results of those before it, and so is taken only
    when they are done."""
    hours: float | None = None
    """Measured or estimated, on two cores of a CPU; None: unknown."""
    is_sweep: bool = False
    """Whether it is one sweep."""


class State(NamedTuple):
    """How far a training has come."""

    kind: str
    """`DONE`, `RUNNING`, `CUT_OFF`, `NOT_STARTED` or `UNUSABLE`."""
    share: float = 0.0
    """The share of the steps that are done, from 0 to 1."""
    why: str = ""
    """Why it is unusable."""


def run_row(
    name: str, folder: Path, arguments: Sequence[str], hours: float | None, *, seeds: int | None, default: int = 1
) -> Row:
    """Returns a row of one run.

    Args:
      name, hours: as in `Row`.
      folder, arguments: as in `Training`, without the seeds.
      seeds: that were asked for; None: as recorded, or `default` for a new run.
      default: the number of seeds that the hours are for.
    """
    asked, defaults = ((f"seeds={seeds}",), ()) if seeds is not None else ((), (f"seeds={default}",))
    training = Training(folder, (*arguments, *asked), defaults)
    return Row(name, folder, lambda: (training,), hours if hours is None or seeds is None else hours * seeds / default)


def sweep_row(name: str, folder: Path, arguments: Sequence[str], hours: float | None, *, seeds: int | None) -> Row:
    """Returns a row of one sweep; arguments as for `run_row`. If no seeds are asked for, those of the config."""
    asked = () if seeds is None else (f"seeds={seeds}",)
    return Row(name, folder, lambda: (Training(folder, (*arguments, *asked), is_sweep=True),), hours, is_sweep=True)


def state(training: Training) -> State:
    """Returns how far a training has come; what cannot be read, or has other options, is unusable."""
    folder = training.folder
    if not (folder / (SWEEP if training.is_sweep else "status.json")).exists():
        return State(RUNNING if is_held(folder) else NOT_STARTED)
    try:
        if training.is_sweep:
            record = read_sweep(folder)
            overrides, jobs, runs = record["overrides"], record["jobs"], find_runs(folder)
        else:
            runs, jobs = [read_run(folder)], 1
            overrides = runs[0].environment["command"][1:]
    except (OSError, ValueError) as problem:
        return State(UNUSABLE, why=f"{printable(problem)}; move it away to train it again")
    if different := _different(training, overrides):
        return State(
            UNUSABLE, why=f"{folder} was trained with other options ({different}); move it away to train again"
        )
    share = sum(map(progress, runs)) / jobs
    if jobs and sum(run.is_finished for run in runs) == jobs:
        return State(DONE, 1.0)
    held = is_held(folder) or any(run.state == "running" for run in runs)
    return State(RUNNING if held else CUT_OFF, share)


def _different(training: Training, recorded: Sequence[str]) -> str:
    """Returns the arguments in which what is recorded differs from a training."""
    before = {argument for argument in recorded if not argument.startswith((f"{training.option}=", "--"))}
    free = {argument.partition("=")[0] for argument in training.defaults}
    before = {argument for argument in before if argument.partition("=")[0] not in free}
    return " ".join(sorted(before ^ set(training.arguments)))


def next_of(row: Row) -> tuple[Training, State] | None:
    """Returns the first training of a row that is not done, and its state; None if all are."""
    for training in row.trainings():
        standing = state(training)
        if standing.kind != DONE:
            return training, standing
    return None


def trained(row: Row) -> list[Run]:
    """Returns the runs of a row, after training those that are not finished.

    Raises:
      SystemExit: with one line, if they are not finished then.
    """
    if problems := train([row]):
        raise SystemExit(problems[0])
    return runs_of(row)


def runs_of(row: Row) -> list[Run]:
    """Returns the runs of the last training of a row if it is done; none if it is not."""
    if next_of(row) is not None:
        return []
    trainings = list(row.trainings())
    return trainings[-1].runs() if trainings else []


def train(
    rows: Iterable[Row], at_once: int = 1, finished: Callable[[Row], None] = lambda row: None, *, force: bool = False
) -> list[str]:
    """Trains what is missing of rows, the shortest first; returns a line for each row that is not done in the end.

    A row that fails leaves the others. An interrupt is passed on to what is running, which saves its state.

    Args:
      rows: to be trained.
      at_once: how many processes train at once, each on its share of the cores.
      finished: called with every row whose last training has ended now.
      force: whether to resume what other code or packages started.

    Raises:
      SystemExit: with one line, if the disk is almost full.
      KeyboardInterrupt: if a training was interrupted.
    """
    waiting = sorted(rows, key=lambda row: math.inf if row.hours is None else row.hours)
    running: dict[int, tuple[Row, Training, subprocess.Popen | None]] = {}
    problems, begun = [], set()
    try:
        while waiting or running:
            for slot in set(range(at_once)) - running.keys():
                if waiting and (started := _start(waiting.pop(0), slot, at_once, problems, begun, finished, force)):
                    running[slot] = started
            for slot, (row, training, process) in list(running.items()):
                # Without a process of its own, another one trains it.
                if state(training).kind != RUNNING if process is None else process.poll() is not None:
                    del running[slot]
                    if _went_wrong(row, training, process, problems):
                        continue
                    waiting.insert(0, row)
            if running:
                time.sleep(POLL)
    finally:
        stop([process for _, _, process in running.values() if process is not None])
    return problems


def _start(
    row: Row,
    slot: int,
    at_once: int,
    problems: list[str],
    begun: set[str],
    finished: Callable[[Row], None],
    force: bool,
) -> tuple[Row, Training, subprocess.Popen | None] | None:
    """Starts the next training of a row; returns None if there is none that can be started."""
    following = next_of(row)
    if following is None:
        if row.name in begun:
            finished(row)
        return None
    training, now = following
    if now.kind == UNUSABLE:
        problems.append(f"{row.name}: {now.why}")
        return None
    begun.add(row.name)
    if now.kind == RUNNING:
        print(f"{row.name}: another process trains it", flush=True)
        return row, training, None
    check_disk(training.folder)
    return row, training, start(training, now, slot, at_once, force=force)


def start(training: Training, now: State, slot: int = 0, at_once: int = 1, *, force: bool = False) -> subprocess.Popen:
    """Starts the process of a training in this state, on its share of the cores; arguments as for `train`.

    One that calls functions of `experiments` trusts them, without which it could not be resumed.
    """
    words = [f"resume={training.folder}", *(["force=true"] if force else [])]
    if now.kind == NOT_STARTED:
        flags = ["--multirun"] if training.is_sweep else []
        words = [*flags, *training.arguments, *training.defaults, f"{training.option}={training.folder}"]
    print("fa-jax", shlex.join(words), flush=True)
    # In a session of its own, Ctrl-C does not reach it: it is told once, by `stop`.
    environment = without_cache()
    if any("_target_=experiments." in argument for argument in training.arguments):
        environment[TRUST] = ",".join(filter(None, (environment.get(TRUST), "experiments")))
    process = subprocess.Popen([sys.executable, "-m", "fa_jax", *words], env=environment, start_new_session=True)
    if at_once > 1 and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process.pid, cores[slot::at_once] or cores)
    return process


def _went_wrong(row: Row, training: Training, process: subprocess.Popen | None, problems: list[str]) -> bool:
    """Returns whether a training that ended is not done, and notes why."""
    code = 0 if process is None else process.returncode
    if code in INTERRUPTED:
        raise KeyboardInterrupt
    if (now := state(training)).kind == DONE or process is None:
        return False
    if code:
        check_disk(training.folder)  # which may be why
    share = f"at {now.share:.0%}, " if now.share else ""
    problems.append(f"{row.name}: ended {share}with exit code {code}; the same command resumes; see {training.folder}")
    print(problems[-1], flush=True)
    return True


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Interrupts processes, and waits until each has saved its state."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()


def check_disk(folder: Path) -> None:
    """Checks that the disk of a folder, which may be missing, is not almost full.

    Raises:
      SystemExit: if it is, with one line.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    if shutil.disk_usage(existing).free < LEAST_FREE:
        raise SystemExit(
            f"less than {LEAST_FREE >> 20} MiB are free on the disk of {existing}: nothing more is trained, what is "
            "recorded stays, and the same command continues when there is room"
        )
