"""Which process has a run in hand: it holds a lock in the run's folder, which falls when the process ends, however."""

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from fa_jax.checks import BadOption

NAME = ".lock"


def take(folder: Path) -> BaseFileLock:
    """Takes a run's folder in hand until the lock is given back by `give`, or the process ends.

    Raises:
      BadOption: if another process has it.
    """
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadOption(f"{folder}: this is still going on, in another process") from None
    return lock


def give(lock: BaseFileLock) -> None:
    """Gives a lock back, and takes its file away."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def is_taken(folder: Path) -> bool:
    """Whether a process has a run in hand."""
    if not (folder / NAME).exists():
        return False
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
