"""The persistent compilation cache of JAX: a program that was compiled by one command is read from disk by the next."""

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import platformdirs
from filelock import FileLock, Timeout
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from fa_jax.records.environment import cpuinfo
from fa_jax.user.text import say

VARIABLE = "FA_JAX_COMPILATION_CACHE"
"""The environment variable with the folder of the cache, or `off`."""
MAX_BYTES = 2**28
"""The size of the cache, at which it drops the programs that were not used for longest."""
LOCK = ".lockfile"
"""The file in the folder that JAX locks."""
OF_CACHE = "persistent compilation cache"
"""Part of each warning of JAX about the cache; those have no type of their own."""


def enable() -> None:
    """Turns the cache on, unless it is turned off or JAX has one already; if it cannot be used, prints why."""
    chosen = os.environ.get(VARIABLE)
    if chosen == "off" or jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("fa_jax") / "programs"
    try:
        _make_private(folder)
        folder = folder / _processor()  # a program that was compiled for another processor may not run on this one
        folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        _warn(f"{folder} cannot be used ({problem.strerror or problem})")
        return
    # Reading and writing failures are reported where the large programs are compiled, see `reported`.
    warnings.filterwarnings("ignore", message=f".*{OF_CACHE}")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """While entered, a failure of the cache prints one line, empties it, and turns it off for this process.

    A process that is killed while it writes leaves a damaged program. A cache that JAX had already is left to JAX.
    """
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is None or Path(folder).name != _processor():
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    failures = [str(warning.message) for warning in caught if OF_CACHE in str(warning.message)]
    for warning in caught:
        if str(warning.message) not in failures:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if failures and jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # else JAX would not look at its setting again
        cause = failures[0].rpartition(": ")[2]
        remedy = "it was emptied, to be built anew" if _emptied(Path(folder)) else "delete it to build it anew"
        _warn(f"{folder} is damaged or cannot be written ({cause}); {remedy}")


def _emptied(folder: Path) -> bool:
    """Deletes the programs in a folder, since JAX never replaces one; returns whether that was possible."""
    try:
        with FileLock(folder / LOCK, timeout=1):
            for path in (*folder.glob("*-cache"), *folder.glob("*-atime")):
                path.unlink()
    except (OSError, Timeout):
        return False
    return True


def _warn(reason: str) -> None:
    say(Console(stderr=True), f"compilation cache not used: {reason}; {VARIABLE}=off turns it off")


def _make_private(folder: Path) -> None:
    """Makes a folder for this user alone: programs in it run with the rights of whoever reads them.

    Raises:
      OSError: if that is impossible, or others may write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":
        return
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise OSError("other users may write to it")


def _processor() -> str:
    """Returns a digest of the kind of processor and its instructions."""
    description = platform.machine() + platform.processor() + cpuinfo("flags", "Features")
    return hashlib.sha256(description.encode()).hexdigest()[:16]
