"""Going on with a run that was cut off: what may be continued, and how it is found."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra.utils

from fa_jax.build import build
from fa_jax.options import BadOption
from fa_jax.records.reader import Run, find_runs, read_run
from fa_jax.records.writer import environment
from fa_jax.run import run

TRUSTED = ("fa_jax", "optax")
"""Packages whose own functions a recorded config may call."""
CUT_OFF = ("running", "interrupted", "failed")
"""The statuses of a run that did not come to its end."""


def resume(folder: Path, *, force: bool) -> dict[str, Any]:
    """Goes on with the run in a folder to its end, and returns its summary.

    Args:
      folder: the run's.
      force: whether to go on though the code is not that of the run's beginning.

    Raises:
      BadOption: if there is no run, or none that may be continued.
    """
    option = f"resume={folder}"
    if not (folder / "config.yaml").exists() or not (folder / "status.json").exists():
        raise BadOption(f"{option}: no run is recorded there; give the folder that holds its config.yaml")
    there = read_run(folder)
    if there.status["status"] in ("finished", "diverged"):
        raise BadOption(f"{option}: this run has {there.status['status']}; there is nothing left to do")
    if there.status["status"] == "running" and _is_alive(there.status["pid"]):
        raise BadOption(f"{option}: this run is still going on, in process {there.status['pid']}")
    changes = [] if force else list(_changes(there.environment, environment()))
    if changes:
        raise BadOption(
            f"{option}: since it began, {', '.join(changes)}, so its end might not be its own; "
            "force=true goes on all the same"
        )
    stranger = next((target for target in _targets(there.config) if not _is_trusted(target)), None)
    if stranger is not None:
        raise BadOption(f"{option}: its config.yaml calls {stranger}, which is not of {' or '.join(TRUSTED)}")
    config = {key: value for key, value in there.config.items() if key != "choices"}
    handler = logging.FileHandler(folder / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("fa_jax")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        return run(build(config), there.config, folder, resume=True)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


def unfinished(config: Mapping[str, Any], below: Path) -> Run | None:
    """Returns the newest run below a folder that has this config, `choices` included, and did not come to its end."""
    runs = [run for run in find_runs(below) if run.config == config and run.status["status"] in CUT_OFF]
    return max(runs, key=lambda run: run.status["time"], default=None)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What numbers depend on and is not as it was, in words."""
    if before["commit"] != now["commit"]:
        yield f"the code went from {before['commit'] or 'no commit'} to {now['commit'] or 'no commit'}"
    for package in before["packages"].keys() | now["packages"].keys():
        was, here = before["packages"].get(package), now["packages"].get(package)
        if was != here:
            yield f"{package} went from {was} to {here}"


def _is_trusted(target: Any) -> bool:
    """Whether a target is a function that a trusted package defines, not merely one that it imports."""
    try:
        return hydra.utils.get_object(target).__module__.partition(".")[0] in TRUSTED
    except Exception:  # whatever a name that leads nowhere raises
        return False


def _targets(config: Any) -> Iterator[str]:
    """Every function that a config calls."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_":
                yield value
            else:
                yield from _targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from _targets(value)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
