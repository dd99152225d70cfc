"""Code of the user: its import, and its exceptions in one line with their own place."""

import importlib
import traceback
from pathlib import Path
from typing import Any

import flax
import hydra
import jax

LIBRARIES = [Path(package.__file__ or "").parent for package in (flax, hydra, jax, importlib)]
LIBRARIES.append(Path(__file__).parent)
"""Folders of code that is not the user's."""
LONGEST = 300
"""The most characters of an exception's message that are shown."""


def imported(name: str) -> Any:
    """Returns the object of a dotted name, such as `mylab.nets.ViT`.

    Raises:
      ImportError: if there is no such module, or nothing of that name in it.
      Exception: whatever the import of a module raises.
    """
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ImportError(f"{name!r} is not the name of something in a module, such as mylab.nets.ViT")
    found: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 1):
        if not hasattr(found, part):
            path = ".".join(parts[: i + 1])
            try:
                importlib.import_module(path)
            except ModuleNotFoundError as problem:
                if problem.name != path:  # a module that this one imports
                    raise
                where = getattr(found, "__file__", None)
                place = f" ({where})" if where else ""
                raise ImportError(f"{'.'.join(parts[:i])}{place} has no {part}") from None
        found = getattr(found, part)
    return found


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
        if Path(frame.filename).is_file() and not any(Path(frame.filename).is_relative_to(p) for p in LIBRARIES)
    ]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text
