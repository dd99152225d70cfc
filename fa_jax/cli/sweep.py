"""Sweeps: several runs, trained together, in turn or in parallel by a launcher of Hydra, and their comparison."""

import contextlib
import dataclasses
import functools
import logging
import os
import secrets
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig
from rich.console import Console

from fa_jax.checks import BadOption
from fa_jax.cli import results
from fa_jax.cli.compose import Composed, Composition
from fa_jax.cli.hydra_context import initialized
from fa_jax.cli.rule_options import notes
from fa_jax.cli.single import logged, resumable, run_together_logged
from fa_jax.cli.terminal import cores
from fa_jax.cli.together import FINDING_OUT, alike
from fa_jax.records import locks, schema
from fa_jax.records.files import write_json
from fa_jax.records.reader import FINISHED, SWEEP, jobs_of
from fa_jax.records.sources import own_packages
from fa_jax.records.writer import Writer
from fa_jax.training import cache, distributed
from fa_jax.training.announce import announced
from fa_jax.training.record import Request
from fa_jax.user.code import importable
from fa_jax.user.text import say

RequestJob = Callable[[Composed, Path, Sequence[str]], Request | None]
"""Returns the request to train one run of a sweep in its folder, given what was typed; None: it is finished."""


class Record(NamedTuple):
    """A sweep as its folder records it, in `sweep.json`."""

    overrides: list[str]
    """The overrides as typed."""
    config_dir: str | None
    jobs: int
    """The number of runs."""


def new_job(composed: Composed, folder: Path, command: Sequence[str]) -> Request:
    """Returns the request to train a new job of a sweep."""
    return Request(composed.job, composed.config, folder, command)


def run(
    folder: Path, composition: Composition, record: Record, command: Sequence[str], request: RequestJob = new_job
) -> int:
    """Runs a sweep in a folder and compares its runs; returns the exit code, 1 if a run is not finished.

    Runs that differ in numbers alone are trained together by one program. An error ends one run, is recorded, and
    leaves the others.

    Args:
      folder: of the sweep.
      composition: its runs.
      record: to be written to the folder.
      command: what was typed.
      request: returns what is to be trained for a job.
    """
    check_one_process()
    launcher = composition.master.hydra.launcher
    jobs = launcher.get("n_jobs")
    if jobs is not None and (not isinstance(jobs, int) or jobs == 0):
        raise BadOption(f"must be how many run at once, or -1, one per core; got {jobs!r}", "hydra.launcher.n_jobs")
    folder.mkdir(parents=True, exist_ok=True)
    lock = locks.acquire(folder)
    try:
        write_json(folder / SWEEP, record._asdict())
        for note in notes(composition.runs):
            say(Console(), note)
        with resumable(folder):
            try:
                if launcher["_target_"].endswith("BasicLauncher"):
                    with announced(FINDING_OUT):
                        programs = list(alike(composition.runs))
                    for indices, numbers in programs:
                        _run_jobs([composition.runs[i] for i in indices], numbers, folder, command, request)
                else:
                    _launch_in_parallel(folder, composition, command, request)
            finally:
                results.show("sweep", folder)
    finally:
        locks.release(lock)
    return 1 if _finished(folder) < jobs_of(folder) else 0


def _finished(folder: Path) -> int:
    """Returns how many runs of a sweep are finished."""
    statuses = []
    for path in folder.rglob("status.json"):
        with contextlib.suppress(OSError, ValueError):
            statuses.append(schema.read_json(path, schema.Status)["status"])
    return sum(status in FINISHED for status in statuses)


def _run_jobs(
    jobs: Sequence[Composed],
    numbers: Sequence[dict[str, float]],
    folder: Path,
    command: Sequence[str],
    request: RequestJob,
) -> None:
    """Trains jobs that differ in numbers alone; errors are recorded and printed."""
    requests = []
    for composed, of_job in zip(jobs, numbers, strict=True):
        say(Console(), f"{composed.folder}  {shlex.join(composed.overrides)}", style="bold")
        try:
            requested = request(composed, folder / composed.folder, command)
        except Exception as problem:
            _record_failure(composed, folder / composed.folder, command, problem)
        else:
            requests += [] if requested is None else [(composed, dataclasses.replace(requested, numbers=of_job))]
    outcomes = run_together_logged([requested for _, requested in requests])
    for (composed, requested), outcome in zip(requests, outcomes, strict=True):
        if isinstance(outcome, Exception):
            _record_failure(composed, requested.folder, command, outcome)


def _record_failure(composed: Composed, path: Path, command: Sequence[str], problem: Exception) -> None:
    """Records and prints what ended a job, or kept it from being started."""
    with logged(path):
        logging.getLogger("fa_jax").exception("run failed", exc_info=problem)
    if not (path / "status.json").exists():  # the run did not come so far as to record it
        writer = Writer(path, composed.config, command=command)
        writer.status("failed", f"{type(problem).__name__}: {problem}".partition("\n")[0])
        writer.close()
    say(Console(), f"{path}: {problem}".partition("\n")[0])


class _NoCallbacks:
    """Stands for Hydra's callbacks, of which a sweep has none."""

    def __getattr__(self, name: str) -> Callable:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda **_: None


def _launch_in_parallel(folder: Path, composition: Composition, command: Sequence[str], request: RequestJob) -> None:
    """Runs the jobs by the launcher that `hydra/launcher` chose.

    The launcher composes each job's config for its own use; the run starts from the one that is checked already.
    """
    master = composition.master.copy()
    master.hydra.sweep.dir = str(folder)
    if "submitit_folder" in master.hydra.launcher:
        # Submitit unpickles the results of jobs, by their numbers: in a new folder, those that it wrote itself alone.
        master.hydra.launcher.submitit_folder = str(folder / ".submitit" / secrets.token_hex(8) / "%j")
    # A job holds functions, which cannot be sent to another process: a copy without it is, and builds it there.
    runs = [dataclasses.replace(composed) for composed in composition.runs]
    task = functools.partial(_parallel_job, runs=runs, folder=folder, command=list(command), request=request)
    with initialized():
        loader, callbacks = GlobalHydra.instance().config_loader(), _NoCallbacks()
        context = HydraContext(config_loader=loader, callbacks=callbacks)  # type: ignore
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=master)
        launcher.launch([composed.overrides for composed in runs], initial_job_idx=0)


def _parallel_job(
    config: DictConfig, *, runs: Sequence[Composed], folder: Path, command: Sequence[str], request: RequestJob
) -> None:
    """Runs one job, in a process of the launcher, on its share of the cores."""
    del config
    hydra_config = HydraConfig.get()
    jobs, share = hydra_config.launcher.get("n_jobs"), hydra_config.launcher.get("cpus_per_task")
    if jobs is not None:
        share = max(1, cores() // (cores() if jobs < 0 else jobs))
    if share is None and "submitit" in hydra_config.launcher["_target_"]:
        share = 1
    if share is not None:
        os.environ["TERM"] = "dumb"  # progress bars of several runs would overwrite each other
        os.environ["NPROC"] = str(share)  # the size of XLA's thread pool
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", share)
    cache.enable()
    composed = runs[hydra_config.job.num]
    with importable(Path.cwd(), own_packages(composed.config)):
        _run_jobs([composed], [{}], folder, command, request)


def check_one_process() -> None:
    """Raises `BadOption` if a sweep is started by several processes."""
    if distributed.active():
        raise BadOption("train one run, not a sweep; hydra/launcher=slurm runs its jobs on a cluster", "processes")
