"""Code of the user: its import, and its exceptions in one line with their own place."""

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LIBRARIES = ("flax", "hydra", "jax", "importlib", "fa_jax")
"""Packages of code that is not the user's."""
LONGEST = 300
"""The most characters of an exception's message that are shown."""


class _BesideFinder:
    """Finds modules in a folder, after all other finders: first those of certain names, then what these import."""

    def __init__(self, folder: Path, names: frozenset[str]):
        self._folder, self._names = folder, names
        files = [getattr(sys.modules.get(name), "__file__", None) for name in names]
        self._is_in_use = any(file is not None and Path(file).is_relative_to(folder) for file in files)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Returns where a module of the top level is; None: not in the folder."""
        del target
        if path is not None or not (self._is_in_use or name in self._names):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, [str(self._folder)])
        self._is_in_use = self._is_in_use or spec is not None
        return spec


@contextlib.contextmanager
def importable(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """While entered, modules of these names, and what they import, may lie in a folder, as beside a script.

    What is installed comes first. Other names are not looked for there: else a folder could stand in for a package
    that is not installed.

    Args:
      folder: the working folder.
      names: of packages or modules of the top level.
    """
    finder: Any = _BesideFinder(folder, frozenset(names))
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def is_found(name: str) -> bool:
    """Returns whether a module of the top level is installed or in the working folder; it is not imported."""
    try:
        beside = importlib.machinery.PathFinder.find_spec(name, [str(Path.cwd())])
        return name in sys.modules or beside is not None or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def imported(name: str) -> Any:
    """Returns the object of a dotted name, such as `mylab.nets.ViT`.

    Raises:
      ImportError: if there is no such module, or nothing of that name in it.
      Exception: whatever the import of a module raises.
    """
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ImportError(f"{name!r} is not the name of something in a module, such as mylab.nets.ViT")
    value: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 1):
        if not hasattr(value, part):
            path = ".".join(parts[: i + 1])
            try:
                importlib.import_module(path)
            except ModuleNotFoundError as problem:
                if problem.name != path:  # a module that this one imports
                    raise
                where = getattr(value, "__file__", None)
                place = f" ({where})" if where else ""
                raise ImportError(f"{'.'.join(parts[:i])}{place} has no {part}") from None
        value = getattr(value, part)
    return value


def place_of(problem: BaseException) -> str:
    """Returns an exception in one line, with the last place in the user's code that it came from."""
    reason = " ".join(str(problem).split())
    reason = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}..."
    text = f"{type(problem).__name__}: {reason}" if reason else type(problem).__name__
    if isinstance(problem, SyntaxError):  # which names its place
        return text
    frames = [
        frame
        for frame in traceback.extract_tb(problem.__traceback__)
        if Path(frame.filename).is_file() and not any(Path(frame.filename).is_relative_to(p) for p in _libraries())
    ]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


@functools.cache
def _libraries() -> list[Path]:
    """Returns the folders of the `LIBRARIES`, none of which is imported."""
    specs = (importlib.util.find_spec(package) for package in LIBRARIES)
    return [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]


@functools.cache
def site_packages() -> frozenset[Path]:
    """Returns the folders in which packages are installed."""
    return frozenset(Path(sysconfig.get_paths()[name]) for name in ("purelib", "platlib"))
