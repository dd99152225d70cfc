"""Files that are written whole: at every moment, also after a kill, a reader finds the old content or the new."""

import contextlib
import json
import math
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Yields a temporary file beside `path`, which takes its place at the end; an exception leaves the old one.

    The temporary file is new: nothing that lies in the folder is opened. A symbolic link at `path` is replaced, and
    what it points to is left alone.
    """
    temporary, file = _new_temporary(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_temporary(folder: Path) -> None:
    """Removes the files that killed writes left in a folder; a file that a process is still writing is left alone."""
    for path in folder.iterdir():
        if is_temporary(path.name) and path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):  # it is being written, is gone by now, or may not be removed
                _remove_unlocked(path)


def _new_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """Returns a new file beside `path`, open and locked, so that `remove_temporary` leaves it alone."""
    while True:
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # as `is_temporary` knows it
        file = temporary.open("xb")
        if sys.platform == "win32":  # where an open file cannot be removed
            return temporary, file
        with contextlib.suppress(OSError):  # of a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # else it was removed before it was locked
            return temporary, file
        file.close()


def _remove_unlocked(path: Path) -> None:
    """Removes a file; raises an `OSError` if a process has it open and locked."""
    if sys.platform == "win32":
        path.unlink()
        return
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def is_temporary(name: str) -> bool:
    """Returns whether a file of this name is left from a write that was killed."""
    return re.fullmatch(r"\.[0-9a-f]{16}\.tmp", name) is not None


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 whole."""
    with whole(path) as file:
        file.write(_encodable(text).encode())


def write_json(path: Path, content: Any) -> None:
    """Writes a file of JSON whole; numbers that are not finite become null."""
    write_text(path, json.dumps(_storable(content), indent=1) + "\n")


def _storable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_storable(key): _storable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(v) for v in value]
    if isinstance(value, str):
        return _encodable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encodable(text: str) -> str:
    """Returns text without surrogates, which stand for bytes of an argument that the locale cannot decode."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
