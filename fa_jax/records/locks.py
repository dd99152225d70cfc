"""A lock file per run: held by the process that trains it, and released when that process exits, however it does."""

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from fa_jax.checks import BadOption
from fa_jax.records.files import remove_temporary

NAME = ".lock"


def acquire(folder: Path) -> BaseFileLock:
    """Returns the lock of a folder, held until `release` or the end of the process.

    What killed writes left in the folder is removed.

    Raises:
      BadOption: if another process holds it.
    """
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadOption(f"{folder}: another process is running this") from None
    remove_temporary(folder)
    return lock


def release(lock: BaseFileLock) -> None:
    """Releases a lock and deletes its file."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def is_held(folder: Path) -> bool:
    """Returns whether a process holds the lock of a folder."""
    path = folder / NAME
    if path.is_symlink() or not path.is_file():  # a link is not ours, and is not followed
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
