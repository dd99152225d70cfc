"""From the words of the command line to runs: composed by Hydra, checked, and trained, or gone on with."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import jax
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from rich.console import Console

from fa_jax import catalogue
from fa_jax.build import build
from fa_jax.mistakes import GROUPS, check_folder, check_tuned, first_line, one_line_errors, plain
from fa_jax.options import BadOption
from fa_jax.sweeps import compare

PASSED_ON = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
"""Flags with which Hydra shows something and trains nothing."""


def train(words: Sequence[str]) -> int:
    """Trains what the overrides ask for: one run, or a sweep; or goes on with a run, with `resume=`."""
    words = [re.sub(r"^tuned=(true|false)$", r"tuned='\1'", word) for word in words]  # to Hydra, a name and no switch
    if any(word.partition("=")[0] == "resume" for word in words):
        return _resume(words)
    _use_all_cores()
    with one_line_errors(words):
        if not any(word.partition("=")[0] in PASSED_ON for word in words):
            _check(words)
        signal.signal(signal.SIGTERM, _interrupt)
        command, sys.argv = sys.argv, [sys.argv[0], *words]
        try:
            # With this, Hydra hands its errors on instead of printing them over many lines.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            hydra.main(version_base="1.3", config_path=str(catalogue.CONF), config_name="config")(_job)()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            sys.argv = command
    return 0


def _resume(words: Sequence[str]) -> int:
    """Goes on with the run in a folder, or with the one that the same words began."""
    from fa_jax.resume import resume, unfinished

    own = dict(word.split("=", 1) for word in words if word.startswith(("resume=", "force=")))
    others = [word for word in words if not word.startswith(("resume=", "force="))]
    if own.get("force", "true") != "true":
        raise BadOption(f"force must be true, or left out; got {own['force']!r}")
    _use_all_cores()
    if own["resume"] != "auto":
        if others:
            raise BadOption(f"resume={own['resume']} takes all its options from that run; got also {' '.join(others)}")
        folder = Path(own["resume"])
    else:
        if "--multirun" in others or "-m" in others:
            raise BadOption("resume=auto goes on with one run; got also --multirun")
        with one_line_errors(others):
            with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
                config = _compose(others)
            choices = {group: config.hydra.runtime.choices[group] for group in (*GROUPS, "experiment")}
            if config.hydra.mode == RunMode.MULTIRUN:
                raise BadOption("resume=auto goes on with one run; these overrides are a sweep")
            placed = any(word.startswith("hydra.run.dir=") for word in others)
            outputs = Path(config.hydra.run.dir if placed else "outputs")
            with open_dict(config):
                del config["hydra"]
        cut_off = unfinished({"choices": choices, **plain(config)}, outputs)
        if cut_off is None:
            return train(others)
        folder = cut_off.folder
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    console.print(f"going on with {folder}", highlight=False, soft_wrap=True)
    with one_line_errors(others):
        _report(folder, resume(folder, force="force" in own), console)
    return 0


def _job(config: DictConfig) -> None:
    """One run, called by Hydra. In a sweep an error is recorded, and the other runs go on."""
    from fa_jax.run import run

    settings = HydraConfig.get()
    folder = Path(os.path.relpath(settings.runtime.output_dir))
    console = Console()
    choices = {group: settings.runtime.choices[group] for group in (*GROUPS, "experiment")}
    recorded = {"choices": choices, **plain(config)}
    sweeping = settings.mode == RunMode.MULTIRUN
    if sweeping:
        console.print(
            f"[bold]{folder.name}[/bold] {' '.join(settings.overrides.task)}", highlight=False, soft_wrap=True
        )
    try:
        summary = run(build(plain(config)), recorded, folder)
    except KeyboardInterrupt:
        if sweeping:
            compare(Path(settings.sweep.dir))
        raise
    except Exception as problem:
        if not sweeping:
            raise
        _record_failure(folder, recorded, problem)
        return
    if not sweeping:
        _report(folder, summary, console)


def _report(folder: Path, summary: dict[str, Any], console: Console) -> None:
    from fa_jax.records.reader import read_run  # keeps matplotlib out of the start
    from fa_jax.reports.figures import comparison_figure
    from fa_jax.reports.tables import run_table

    comparison_figure([read_run(folder)], folder / "curves")
    console.print(run_table(summary))
    console.print(f"recorded in {folder}", highlight=False, soft_wrap=True)


def _record_failure(folder: Path, config: dict[str, Any], problem: Exception) -> None:
    """Leaves a status in a sweep's job folder also where the run did not come so far as to make one."""
    import logging

    from fa_jax.records.writer import Writer

    logging.getLogger("fa_jax").exception("run failed", exc_info=problem)
    if not (folder / "status.json").exists():
        writer = Writer(folder, config)
        writer.status("failed", f"{type(problem).__name__}: {problem}".partition("\n")[0])
        writer.close()


def _check(words: Sequence[str]) -> None:
    """Composes and builds every run that the words ask for, before Hydra makes a folder for any of them."""
    flags = [word for word in words if word.startswith("-")]
    overrides = [word for word in words if not word.startswith("-")]
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        sweeping, jobs = _jobs(overrides, "--multirun" in flags or "-m" in flags)
        for job in jobs:
            config = _compose(job)
            if not sweeping:
                check_folder("hydra.run.dir", Path(config.hydra.run.dir))
            else:
                check_folder("hydra.sweep.dir", Path(config.hydra.sweep.dir), occupied="multirun.yaml")
            check_tuned(config.hydra.runtime.choices)
            with open_dict(config):
                del config["hydra"]
            build(plain(config))


def _jobs(overrides: list[str], multirun: bool) -> tuple[bool, list[list[str]]]:
    """Returns whether this is a sweep, and the overrides of each of its jobs."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    for word in overrides:
        try:
            parser.parse_override(word)
        except HydraException as problem:
            reason = first_line(problem)
            raise BadOption(f"{word} cannot be read as an override such as seeds=[3,5,8]: {reason}") from None
    fixed = [word for word in overrides if not parser.parse_override(word).is_sweep_override()]
    if not multirun and len(fixed) == len(overrides):
        settings = _compose(fixed).hydra
        if settings.mode != RunMode.MULTIRUN:
            return False, [fixed]
    elif not multirun:
        return False, [overrides]
    settings = _compose(fixed).hydra
    swept = [f"{key}={value}" for key, value in (settings.sweeper.params or {}).items()]
    batches = BasicSweeper.split_arguments(parser.parse_overrides([*swept, *overrides]), None)
    return True, [list(job) for batch in batches for job in batch]


def _compose(overrides: list[str]) -> DictConfig:
    try:
        return hydra.compose("config", overrides, return_hydra_config=True)
    except ValueError as problem:  # what Hydra says of rule=null, for one
        raise BadOption(f"{' '.join(overrides)}: {first_line(problem)}") from None


def _use_all_cores() -> None:
    """Makes each core a device of its own where there is no accelerator, so that they share the seeds."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # raised where JAX runs already, as in a test
        jax.config.update("jax_num_cpu_devices", cores)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
