"""Resuming runs and sweeps that were interrupted."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fa_jax.checks import BadOption, is_folder
from fa_jax.cli import sweep
from fa_jax.cli.arguments import Arguments
from fa_jax.cli.build import build_recorded
from fa_jax.cli.compose import Composed, Composition, compose
from fa_jax.cli.given import check_given
from fa_jax.cli.single import report, resumable, run_logged
from fa_jax.cli.trust import Origin, check_config, check_folder, check_recorded_overrides
from fa_jax.records.checkpoints import Checkpoints
from fa_jax.records.environment import changes, environment
from fa_jax.records.files import remove_temporary
from fa_jax.records.locks import is_held
from fa_jax.records.options import options
from fa_jax.records.reader import SWEEP, Run, find_runs, jobs_of, read_run, read_sweep
from fa_jax.records.sources import own_packages
from fa_jax.training import distributed
from fa_jax.training.record import Request
from fa_jax.user.text import say

UNFINISHED = ("running", "interrupted", "failed")
"""The statuses of a run that did not reach its last step."""


def resume(folder: Path, *, force: bool, trusted: Sequence[str]) -> int:
    """Resumes the run or the sweep in a folder; returns the exit code.

    Args:
      folder: of the run or the sweep.
      force: whether to resume although code or packages changed.
      trusted: packages that its config may call, besides fa_jax and Optax.

    Raises:
      BadOption: if there is nothing to resume, or it may not be resumed.
    """
    console = Console()
    if not distributed.broadcast(lambda: is_folder(folder)):
        raise BadOption(f"resume={folder}: no run is recorded there; give the folder that holds its config.yaml")
    distributed.broadcast(lambda: check_folder(f"resume={folder}", folder))
    if distributed.broadcast((folder / SWEEP).exists):
        record, composition = _read_sweep(folder, force=force, trusted=trusted)
        say(console, f"resuming {folder}")
        command = ["fa-jax", "--multirun", *record.overrides]
        request = functools.partial(unfinished_job, force=force, trusted=tuple(trusted))
        return sweep.run(folder, composition, record, command, request)
    origin = _origin(folder, trusted)
    config = distributed.broadcast(lambda: _read_config(folder, origin, force=force))
    job = build_recorded(origin, config)
    say(console, f"resuming {folder}")
    with resumable(folder):
        run_logged(job, config, folder, resume=True)
    report(folder)
    return 0


def unfinished_job(
    composed: Composed, folder: Path, command: Sequence[str], *, force: bool, trusted: Sequence[str]
) -> Request | None:
    """Returns the request to train or resume a job of a sweep; None if it is finished."""
    if not (folder / "status.json").exists():
        return sweep.new_job(composed, folder, command)
    if read_run(folder).is_finished:
        _tidy(folder)
        say(Console(), "is finished already")
        return None
    origin = _origin(folder, trusted)
    config = _read_config(folder, origin, force=force)
    job = build_recorded(origin, config)
    return Request(job, config, folder, resume=True)


def _tidy(folder: Path) -> None:
    """Removes what a finished run left if its process was killed between its last actions."""
    Checkpoints(folder).close(delete=True)
    remove_temporary(folder)


def _origin(folder: Path, trusted: Sequence[str]) -> Origin:
    return Origin(f"resume={folder}: its config.yaml", tuple(trusted))


def _read_config(folder: Path, origin: Origin, *, force: bool) -> dict[str, Any]:
    """Returns the config of a run that may be resumed, which calls nothing but what its origin trusts."""
    option = f"resume={folder}"
    if not (folder / "config.yaml").exists() or not (folder / "status.json").exists():
        raise BadOption(f"{option}: no run is recorded there; give the folder that holds its config.yaml")
    try:
        recorded = read_run(folder)
    except (OSError, ValueError) as problem:
        raise BadOption(f"{option}: what is recorded there cannot be read: {problem}") from None
    if recorded.is_finished:
        _tidy(folder)
        raise BadOption(f"{option}: this run has {recorded.status['status']}; there is nothing left to do")
    if is_held(folder):
        raise BadOption(f"{option}: another process is running this")
    try:
        check_given(recorded.config, {})
    except BadOption as objects:
        raise BadOption(f"{option}: {objects}, but it cannot be resumed") from None
    check_config(recorded.config, origin)  # first: no message says that force=true resumes what is not trusted
    _check_unchanged(option, [recorded], force=force)
    return recorded.config


def find_unfinished(composition: Composition, below: Path) -> Path | None:
    """Returns the folder of the newest unfinished run or sweep below a folder that has these configs."""
    configs = [composed.config for composed in composition.runs]
    if not composition.is_sweep:
        runs = [run for run in find_runs(below) if run.config == configs[0] and run.status["status"] in UNFINISHED]
        newest = max(runs, key=lambda run: run.status["time"], default=None)
        return newest and newest.folder
    sweeps = []
    for record in below.rglob(SWEEP):
        runs = find_runs(record.parent)
        same = jobs_of(record.parent) == len(configs) and all(run.config in configs for run in runs)
        if runs and same and sum(run.is_finished for run in runs) < len(configs):
            sweeps.append((max(run.status["time"] for run in runs), record.parent))
    return max(sweeps)[1] if sweeps else None


def _read_sweep(folder: Path, *, force: bool, trusted: Sequence[str]) -> tuple[sweep.Record, Composition]:
    """Returns the sweep in a folder, if it may be resumed."""
    option = f"resume={folder}"
    try:
        recorded = read_sweep(folder)
    except (OSError, ValueError) as problem:
        raise BadOption(f"{option}: what is recorded there cannot be read: {problem}") from None
    record = sweep.Record(recorded["overrides"], recorded["config_dir"], recorded["jobs"])
    check_recorded_overrides(f"{option}: its {SWEEP}", record.overrides)
    config_dir = record.config_dir and _named(record.config_dir, trusted)
    if record.config_dir is not None and config_dir is None:
        raise BadOption(
            f"{option}: it uses configs from {record.config_dir}; --config-dir {record.config_dir} allows it, "
            "and trust=PACKAGE the functions that they call"
        )
    runs, origin = find_runs(folder), Origin(f"{option}: its {SWEEP}", tuple(trusted))
    given = {"trust": f"[{','.join(trusted)}]"}
    arguments = Arguments(record.overrides, given, multirun=True, config_dir=config_dir)
    composition = compose(arguments, origin=origin.name)
    for composed in composition.runs:
        check_config(composed.config, origin)  # before the next check, as in `_read_config`
    _check_unchanged(option, runs, force=force)
    composition.build()
    for recorded in runs:
        if recorded.config not in [composed.config for composed in composition.runs]:
            differing = min((_differing(recorded, composed) for composed in composition.runs), key=len)
            raise BadOption(f"{option}: {recorded.folder.name} has other options than the sweep now: {differing}")
    return record, composition


def _named(config_dir: str, trusted: Sequence[str]) -> str | None:
    """Returns the folder that the user named for a recorded one: it, or one of its name wherever that is now.

    What the sweep composes from it is compared with what each run recorded.
    """
    named = (folder for folder in trusted if Path(folder).name == Path(config_dir).name and Path(folder).is_dir())
    return next(named, None)


def _check_unchanged(option: str, runs: Sequence[Run], *, force: bool) -> None:
    """Checks that code and packages are those that the runs started with; else results might differ."""
    for recorded in [] if force else runs:
        user_packages = own_packages(recorded.config)
        current, packages = environment(user_packages=user_packages), recorded.environment["packages"]
        # Whether a package of the user that is not found may be called at all is decided when the job is built.
        unknown = {name for name in user_packages if name not in current["packages"]}
        before = {name: version for name, version in packages.items() if name not in unknown}
        differences = list(changes({**recorded.environment, "packages": before}, current))
        if differences:
            subject = "it" if len(runs) == 1 else recorded.folder.name
            reason = f"since {subject} started, {', '.join(differences)}"
            raise BadOption(f"{option}: {reason}, so its result might differ; force=true resumes it")


def _differing(recorded: Run, composed: Composed) -> str:
    """Returns the options in which a run differs from a job of its sweep."""
    before, now = options(recorded.config), options(composed.config)
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(f"{key} is {now.get(key)} now and was {before.get(key)}" for key in differing)
