"""Going on with a run that was cut off: what may be continued, and how it is found."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fa_jax.build import build
from fa_jax.options import BadOption
from fa_jax.records.reader import Run, find_runs, read_run
from fa_jax.records.writer import commit
from fa_jax.run import run

TRUSTED = ("fa_jax.", "optax.")
"""Where the functions live that a recorded config may call."""
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
    began = there.environment["commit"]
    if not force and began != commit():
        raise BadOption(
            f"{option}: the code was {began or 'no commit'} when it began and is {commit() or 'no commit'} now, so its "
            "end might not be its own; force=true goes on all the same"
        )
    stranger = next((t for t in _targets(there.config) if not t.startswith(TRUSTED)), None)
    if stranger is not None:
        raise BadOption(f"{option}: its config.yaml calls {stranger}, which is not of {' or '.join(TRUSTED)}*")
    config = {key: value for key, value in there.config.items() if key != "choices"}
    handler = logging.FileHandler(folder / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("fa_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return run(build(config), there.config, folder, resume=True)
    finally:
        logger.removeHandler(handler)
        handler.close()


def unfinished(config: Mapping[str, Any], below: Path) -> Run | None:
    """Returns the newest run below a folder that has this config, `choices` included, and did not come to its end."""
    runs = [run for run in find_runs(below) if run.config == config and run.status["status"] in CUT_OFF]
    return max(runs, key=lambda run: run.status["time"], default=None)


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
