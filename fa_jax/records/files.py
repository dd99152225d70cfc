"""Files that are written whole: at every moment, also after a kill, a reader finds the old content or the new."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Yields a temporary file beside `path`, which takes its place at the end; an exception leaves the old one.

    The temporary file is new: nothing that lies in the folder is opened. A symbolic link at `path` is replaced, and
    what it points to is left alone.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    file = temporary.open("xb")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 whole."""
    with whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes a file of JSON whole; numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(content), indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
