"""Starting runs and sweeps, and going on with those that were cut off."""

import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import jax
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from experiments.common import is_trained
from fa_jax.checks import BadOption
from fa_jax.cli import help as catalogue
from fa_jax.cli.build import build
from fa_jax.cli.compose import Words, compose, recorded, tell_apart
from fa_jax.cli.errors import check_folder, one_line_errors, plain
from fa_jax.cli.resume import Sweep, resume, resume_sweep, unfinished, unfinished_sweep
from fa_jax.cli.sweep import compare
from fa_jax.records import locks
from fa_jax.records.reader import SWEEP
from fa_jax.records.writer import environment
from fa_jax.training import distributed as processes

PASSED_ON = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
"""Flags with which Hydra shows something and trains nothing."""


def train(words: Sequence[str]) -> int:
    """Trains what the words ask for: one run, or a sweep; or goes on with either, with `resume=`.

    Returns the exit code: 0, or 1 where a run of a sweep did not come to its end.
    """
    typed = tell_apart(words)
    _use_all_cores()
    joining = {name: value for name, value in typed.own.items() if name in processes.OPTIONS}
    if not joining:
        return _train(words, typed)
    with processes.joined(joining):
        here = environment()
        processes.check_same("code", [here["commit"], here["packages"]])
        return _train(words, typed)


def _train(words: Sequence[str], typed: Words) -> int:
    """Does what `train` says, as one of however many processes."""
    with one_line_errors(words):
        if any(word.partition("=")[0] in PASSED_ON for word in words):
            if typed.config_dir is not None:
                compose(typed)  # Hydra calls what the config says even where it only shows it
            return _hand_to_hydra([*typed.flags, *typed.overrides], _nothing)
        if "resume" in typed.own and typed.own["resume"] != "auto":
            return _go_on(Path(typed.own["resume"]), typed)
        sweeping, composed = compose(typed)
        processes.check_same("options", [one.recorded for one in composed])
        if "resume" in typed.own:
            outputs = _given(typed, "hydra.sweep.dir" if sweeping else "hydra.run.dir") or "outputs"
            configs = [one.recorded for one in composed]
            seek = unfinished_sweep if sweeping else lambda configs, below: unfinished(configs[0], below)
            cut_off = processes.told(lambda: str(seek(configs, Path(outputs)) or ""))
            if cut_off:
                trusted = [*typed.trusted, *([] if typed.config_dir is None else [typed.config_dir])]
                return _go_on(Path(cut_off), Words([], [], None, {**typed.own, "trust": ",".join(trusted)}))
        if sweeping:
            _check_no_sweep()
        option = "hydra.sweep.dir" if sweeping else "hydra.run.dir"
        place = Path(processes.told(lambda: str(_place(typed, option, composed[0].place))))
        if not processes.is_first():
            place = Path(tempfile.mkdtemp())  # for Hydra alone: nothing is recorded there
        command = ["fa-jax", *words]
        if sweeping:
            Sweep(list(typed.overrides), typed.config_dir, len(composed)).write(place)
        try:
            overrides = [word for word in typed.overrides if not word.startswith(f"{option}=")]
            task = _job(command, force=None)
            with _held(place if sweeping else None):
                return _hand_to_hydra([*typed.flags, *overrides, _override(option, place)], task)
        finally:
            with contextlib.suppress(OSError):
                place.rmdir() if processes.is_first() else shutil.rmtree(place)  # the first where nothing came of it


def tune(words: Sequence[str]) -> int:
    """Seeks the best values of options; returns the exit code."""
    from fa_jax.cli.tune import tune as seek

    _use_all_cores()
    signal.signal(signal.SIGTERM, _interrupt)
    with one_line_errors(words):
        seek(words)
    return 0


def _go_on(folder: Path, typed: Words) -> int:
    """Goes on with the run or the sweep in a folder."""
    if typed.overrides or typed.flags:
        got = " ".join([*typed.flags, *typed.overrides])
        raise BadOption(f"resume={folder} takes all its options from what is there; got also {got}")
    force, console = "force" in typed.own, Console()
    signal.signal(signal.SIGTERM, _interrupt)
    if processes.told((folder / SWEEP).exists):
        _check_no_sweep()
        sweep = resume_sweep(folder, force=force, trusted=typed.trusted)
        console.print(f"going on with {folder}", highlight=False, soft_wrap=True)
        words = [word for word in sweep.words() if not word.startswith("hydra.sweep.dir=")]
        task = _job(["fa-jax", *sweep.words()], force=force, trusted=typed.trusted)
        with _held(folder):
            return _hand_to_hydra([*words, _override("hydra.sweep.dir", folder)], task)
    console.print(f"going on with {folder}", highlight=False, soft_wrap=True)
    try:
        summary = resume(folder, force=force, trusted=typed.trusted)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*([folder] if processes.is_first() else [])) from None
    if processes.is_first():
        _report(folder, summary, console)
    return 0


def _hand_to_hydra(words: Sequence[str], task: Callable[[DictConfig], None]) -> int:
    """Has Hydra do what words say, and returns the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    command, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        # With this, Hydra hands its errors on instead of printing them over many lines.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        hydra.main(version_base="1.3", config_path=str(catalogue.CONF), config_name="config")(task)()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = command
    return 0


def _nothing(config: DictConfig) -> None:
    """What Hydra runs where it only shows something."""
    del config


def _job(command: Sequence[str], *, force: bool | None, trusted: Sequence[str] = ()) -> Callable[[DictConfig], None]:
    """Returns what Hydra calls for one run. In a sweep an error is recorded, and the other runs go on.

    Args:
      command: what was typed, to be recorded.
      force: None for a new run; else this is gone on with if it is there already, though the code has changed if true.
      trusted: packages that the config of a run that is gone on with may call.
    """

    def job(config: DictConfig) -> None:
        from fa_jax.training.run import run

        settings = HydraConfig.get()
        _limit_threads(settings.launcher)
        folder = Path(os.path.relpath(settings.runtime.output_dir))
        console = Console()
        content = recorded(plain(config), settings.runtime.choices)
        sweeping = settings.mode == RunMode.MULTIRUN
        if sweeping:
            title = f"[bold]{folder.name}[/bold] {' '.join(settings.overrides.task)}"
            console.print(title, highlight=False, soft_wrap=True)
        try:
            if force is not None and (folder / "status.json").exists():
                if is_trained(folder):
                    console.print("has come to its end before")
                summary = resume(folder, force=force, trusted=trusted, again=True)
            else:
                summary = run(build(plain(config)), content, folder, command=command)
        except KeyboardInterrupt:
            if sweeping:
                compare(Path(settings.sweep.dir))
            further = [settings.sweep.dir if sweeping else folder] if processes.is_first() else []
            raise KeyboardInterrupt(*further) from None
        except Exception as problem:
            if not sweeping:
                raise
            _record_failure(folder, content, command, problem)
            console.print(f"{folder}: {problem}".partition("\n")[0], highlight=False, soft_wrap=True, markup=False)
            return
        if not sweeping and processes.is_first():
            _report(folder, summary, console)

    return job


def _report(folder: Path, summary: dict[str, Any], console: Console) -> None:
    from fa_jax.records.reader import read_run  # keeps matplotlib out of the start
    from fa_jax.reports.figures import comparison_figure
    from fa_jax.reports.tables import run_table

    comparison_figure([read_run(folder)], folder / "curves")
    console.print(run_table(summary))
    console.print(f"recorded in {folder}", highlight=False, soft_wrap=True)


def _record_failure(folder: Path, config: dict[str, Any], command: Sequence[str], problem: Exception) -> None:
    """Leaves a status in a sweep's job folder also where the run did not come so far as to make one."""
    import logging

    from fa_jax.records.writer import Writer

    logging.getLogger("fa_jax").exception("run failed", exc_info=problem)
    if not (folder / "status.json").exists():
        writer = Writer(folder, config, command=command)
        writer.status("failed", f"{type(problem).__name__}: {problem}".partition("\n")[0])
        writer.close()


def _check_no_sweep() -> None:
    if processes.several():
        raise BadOption("processes train one run, not a sweep; hydra/launcher=slurm has a cluster run its jobs")


def _place(typed: Words, option: str, place: Path) -> Path:
    """The folder for what begins now: the one that was asked for, or else one of its own."""
    if _given(typed, option) is not None:
        check_folder(option, place)
        return place
    check_folder(option, place.parent)
    return _claimed(place)


def _given(typed: Words, option: str) -> str | None:
    """The value that was typed for an option."""
    return next((word.partition("=")[2] for word in typed.overrides if word.startswith(f"{option}=")), None)


@contextlib.contextmanager
def _held(sweep: Path | None) -> Iterator[None]:
    """Keeps others out of a sweep's folder; None: there is no sweep."""
    if sweep is None:
        yield
        return
    lock = locks.take(sweep)
    try:
        yield
    finally:
        locks.give(lock)


def _override(option: str, place: Path) -> str:
    """An override that sets a folder, whatever signs its name has."""
    quoted = str(place).replace("\\", "\\\\").replace("'", "\\'")
    return f"{option}='{quoted}'"


def _claimed(place: Path) -> Path:
    """Makes a folder of its own for what begins now: where another has been begun within the second, with a number."""
    name = place.name
    for number in itertools.count(2):
        try:
            place.mkdir(parents=True)
            return place
        except FileExistsError:
            place = place.with_name(f"{name}_{number}")
    raise AssertionError


def _use_all_cores() -> None:
    """Makes each core a device of its own where there is no accelerator, so that they share the seeds.

    Whoever has told JAX another number of them has it.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    with contextlib.suppress(RuntimeError):  # raised where JAX runs already, as in a test
        jax.config.update("jax_num_cpu_devices", _cores())


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit_threads(launcher: DictConfig) -> None:
    """Gives a job its share of the cores where several run side by side, in processes of their own."""
    cores = _cores()
    jobs, share = launcher.get("n_jobs"), launcher.get("cpus_per_task")
    if jobs is not None:
        share = max(1, cores // (cores if jobs < 0 else jobs))
    if share is None and "submitit" in launcher.get("_target_", ""):
        share = 1
    if share is not None:
        os.environ["TERM"] = "dumb"  # bars of several runs would write over each other
        os.environ["NPROC"] = str(share)  # what XLA sizes its pool of threads by
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", share)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
