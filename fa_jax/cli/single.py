"""Training one run: its log, its interrupts, and the table and figure at its end."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fa_jax.cli import results
from fa_jax.cli.compose import Composed
from fa_jax.training import distributed
from fa_jax.training.job import Job
from fa_jax.training.record import Request
from fa_jax.training.run import run, run_together


class Interrupted(KeyboardInterrupt):
    """An interrupt of a run or sweep that can be resumed from a folder."""

    def __init__(self, folder: Path | None):
        super().__init__()
        self.folder = folder


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Adds the folder to resume from to an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(folder if distributed.is_main() else None) from None


def train(composed: Composed, folder: Path, command: Sequence[str]) -> None:
    """Trains a new run in a folder, and prints its results."""
    with resumable(folder):
        run_logged(composed.job, composed.config, folder, command=command)
    report(folder)


def run_logged(job: Job, config: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    """Calls `training.run.run` with the log messages of fa_jax in the `run.log` of the folder."""
    with logged(folder):
        return run(job, config, folder, **options)


def run_together_logged(requests: Sequence[Request], *arguments: Any) -> list[dict[str, Any] | Exception]:
    """Calls `training.run.run_together` with the log messages of each run in the `run.log` of its folder."""
    with contextlib.ExitStack() as stack:
        for request in requests:
            stack.enter_context(logged(request.folder))
        return run_together(requests, *arguments)


class _LogFile(logging.FileHandler):
    """A log to which nothing more is added while the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """While entered, log messages of fa_jax go to `run.log` in a folder, except for those that name another folder.

    Of several processes, those of process 0 are written.
    """
    if distributed.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(folder / "run.log", encoding="utf-8")
    else:
        handler = logging.NullHandler()  # without a handler, Python would print errors to stderr
    handler.addFilter(lambda record: getattr(record, "folder", folder) == folder)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("fa_jax")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Orbax's imports give the root logger a handler that writes to the terminal
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        with contextlib.suppress(OSError):  # the disk is full
            handler.close()


def report(folder: Path) -> None:
    """Prints the table of a finished run, and draws its curves."""
    if distributed.is_main():
        results.show("run", folder)
