"""Going on with what was cut off, a run or a sweep: what may be continued, and how it is found."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fa_jax.checks import BadOption
from fa_jax.cli.build import build
from fa_jax.cli.compose import Composed, compose, tell_apart
from fa_jax.cli.trust import check_trusted
from fa_jax.records.conditions import ENDED
from fa_jax.records.locks import is_taken
from fa_jax.records.reader import SWEEP, Run, find_runs, jobs_of, read_run
from fa_jax.records.writer import environment, write_json
from fa_jax.training import distributed as processes
from fa_jax.training.run import run

CUT_OFF = ("running", "interrupted", "failed")
"""The statuses of a run that did not come to its end."""


OF_LAUNCHERS = ("n_jobs", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
OF_HYDRA = ("hydra/launcher", "hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir")
OF_HYDRA += tuple(f"hydra.launcher.{name}" for name in OF_LAUNCHERS)
"""What a sweep's record may set of Hydra's own."""


class Sweep(NamedTuple):
    """A sweep as its folder keeps it, in `sweep.json`."""

    overrides: list[str]
    """As they were typed."""
    config_dir: str | None
    jobs: int
    """How many runs it has."""

    def words(self) -> list[str]:
        """Returns the words that begin it once more."""
        further = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        return ["--multirun", *further, *self.overrides]

    def write(self, folder: Path) -> None:
        """Writes it into the sweep's folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SWEEP, self._asdict())


def resume(folder: Path, *, force: bool, trusted: Sequence[str] = (), again: bool = False) -> dict[str, Any]:
    """Goes on with the run in a folder to its end, and returns its summary.

    Args:
      folder: the run's.
      force: whether to go on though the code is not that of the run's beginning.
      trusted: packages whose functions its config may call, besides fa_jax's and Optax's.
      again: whether a run that has come to its end is as good as one that comes to it now.

    Raises:
      BadOption: if there is no run, or none that may be continued.
    """
    config, summary = processes.told(lambda: _what_is_left(folder, force=force, trusted=trusted, again=again))
    if summary is not None:
        return summary
    job = build({key: value for key, value in config.items() if key != "choices"})
    with _logging(folder) if processes.is_first() else contextlib.nullcontext():
        return run(job, config, folder, resume=True)


def _what_is_left(
    folder: Path, *, force: bool, trusted: Sequence[str], again: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The config of the run to go on with, and its summary if nothing is left to do, see `resume`."""
    option = f"resume={folder}"
    if not (folder / "config.yaml").exists() or not (folder / "status.json").exists():
        raise BadOption(f"{option}: no run is recorded there; give the folder that holds its config.yaml")
    there = _read(option, folder)
    if there.status["status"] in ENDED:
        if again and there.summary is not None:
            return there.config, there.summary
        raise BadOption(f"{option}: this run has {there.status['status']}; there is nothing left to do")
    if is_taken(folder):
        raise BadOption(f"{option}: this run is still going on, in another process")
    _check_unchanged(option, [there], force=force)
    check_trusted(f"{option}: its config.yaml", there.config, added=trusted)
    return there.config, None


@contextlib.contextmanager
def _logging(folder: Path) -> Iterator[None]:
    """While entered, what is logged goes to the run's log too."""
    handler = logging.FileHandler(folder / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("fa_jax")
    logger.addHandler(handler)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Orbax's imports give the root a handler that writes to the terminal
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.close()


def unfinished(config: Mapping[str, Any], below: Path) -> Path | None:
    """Returns the folder of the newest run below a folder that has this config and did not come to its end."""
    runs = [run for run in find_runs(below) if run.config == config and run.status["status"] in CUT_OFF]
    newest = max(runs, key=lambda run: run.status["time"], default=None)
    return newest and newest.folder


def unfinished_sweep(configs: Sequence[Mapping[str, Any]], below: Path) -> Path | None:
    """Returns the folder of the newest sweep below a folder that has these configs and did not come to its end."""
    found = []
    for record in below.rglob(SWEEP):
        runs = find_runs(record.parent)
        ended = sum(run.status["status"] in ENDED for run in runs)
        if (
            runs
            and jobs_of(record.parent) == len(configs)
            and ended < len(configs)
            and all(run.config in configs for run in runs)
        ):
            found.append((max(run.status["time"] for run in runs), record.parent))
    return max(found)[1] if found else None


def resume_sweep(folder: Path, *, force: bool, trusted: Sequence[str]) -> Sweep:
    """Returns the sweep in a folder if it may be gone on with.

    Raises:
      BadOption: if it may not: its record cannot be read, the code or the configs have changed since, or it calls what
        is not trusted.
    """
    option = f"resume={folder}"
    try:
        sweep = Sweep(**json.loads((folder / SWEEP).read_text()))
        typed = tell_apart([*sweep.words(), f"trust=[{','.join(trusted)}]"])
    except (OSError, ValueError, TypeError) as problem:
        raise BadOption(f"{option}: its {SWEEP} cannot be read: {problem}") from None
    if typed.config_dir is not None and typed.config_dir not in trusted:
        raise BadOption(f"{option}: it takes configs from {typed.config_dir}; trust={typed.config_dir} allows that")
    _check_words(option, sweep.overrides)
    runs = find_runs(folder)
    _check_unchanged(option, runs, force=force)
    composed = compose(typed, elsewhere=f"{option}: its {SWEEP}")[1]
    for one in runs:
        if one.config not in [job.recorded for job in composed]:
            raise BadOption(f"{option}: {one.folder.name} has a config that {_difference(one, composed)}")
    return sweep


def _check_words(option: str, overrides: Sequence[str]) -> None:
    """Refuses overrides with which a sweep's record could have anything called: only the command line may say those."""
    for word in overrides:
        own = word.partition("=")[0].lstrip("+~")
        of_hydra = re.split(r"[./@]", own)[0] == "hydra"
        if word.startswith("-") or "_target_" in word or "${" in word or (of_hydra and own not in OF_HYDRA):
            raise BadOption(f"{option}: its {SWEEP} has {word}, which only the command line may say")


def _read(option: str, folder: Path) -> Run:
    try:
        return read_run(folder)
    except Exception as problem:  # whatever a damaged file raises
        reason = str(problem).partition("\n")[0]
        raise BadOption(f"{option}: what is recorded there cannot be read: {reason}") from None


def _check_unchanged(option: str, runs: Sequence[Run], *, force: bool) -> None:
    """Refuses to go on with code that is not that of the beginning, whose end might be another."""
    now = environment()
    for one in [] if force else runs:
        changes = list(_changes(one.environment, now))
        if changes:
            raise BadOption(
                f"{option}: since {'it' if len(runs) == 1 else one.folder.name} began, {', '.join(changes)}, "
                "so its end might not be its own; force=true goes on all the same"
            )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What numbers depend on and is not as it was, in words."""
    was, here = (one["commit"] or "" for one in (before, now))
    if was != here and was.partition("+")[0] == here.partition("+")[0] != "":
        yield f"the code was changed beside its commit {was[:8]}"
    elif was != here:
        yield f"the code went from {before['commit'] or 'no commit'} to {now['commit'] or 'no commit'}"
    for package in sorted(before["packages"].keys() | now["packages"].keys()):
        was, here = before["packages"].get(package), now["packages"].get(package)
        if was != here:
            yield f"{package} went from {was} to {here}"


def _difference(run: Run, composed: Sequence[Composed]) -> str:
    """In what a run's config differs from the one it is closest to of those that its words give now."""
    from fa_jax.records.conditions import options

    ours = options(run.config)
    kin = [options(job.recorded) for job in composed if job.recorded["choices"] == run.config["choices"]]
    if not kin:
        return "none of the overrides of this sweep gives now"
    gaps = [{key for key in ours.keys() | other.keys() if ours.get(key) != other.get(key)} for other in kin]
    fewest, other = min(zip(gaps, kin, strict=True), key=lambda pair: len(pair[0]))
    changes = ", ".join(f"{key} is {other.get(key)} now and was {ours.get(key)}" for key in sorted(fewest))
    return f"its overrides do not give now: {changes or 'seeds differ'}"
