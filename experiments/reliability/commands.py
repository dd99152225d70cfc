"""What the measurements of reliability share: commands in processes of their own, and files that have to be whole."""

import csv
import functools
import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import yaml

from fa_jax.records.files import is_temporary
from fa_jax.records.reader import Run, read_checkpoint, read_run

ENDINGS = {".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF", ".html": b"</html>"}
"""The last bytes of whole files."""
QUICK = ["task=digits", "seeds=2", "probe=4", "architecture.hidden=[20]"]
"""Overrides of a run that takes a moment."""
IMPORTED = ("fa_jax.cli.launch", "fa_jax.cli.tune", "fa_jax.cli.resume", "fa_jax.cli.read", "fa_jax.cli.results")
IMPORTED += ("fa_jax.reports.html", "fa_jax.reports.figures", "fa_jax.reports.rates_figure", "jinja2", "scipy.stats")
IMPORTED += ("optuna", "sqlalchemy", "orbax.checkpoint", "matplotlib.backends.backend_agg")
IMPORTED += ("matplotlib.backends.backend_pdf",)
"""What the commands import, directly or when it is needed."""


def start(words: Sequence[str], folder: Path, **options) -> subprocess.Popen:
    """Starts `fa-jax` in a folder; what it prints is captured unless options say otherwise."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
    return subprocess.Popen([sys.executable, "-m", "fa_jax", *words], cwd=folder, **options)


def run(words: Sequence[str], folder: Path, **options) -> tuple[int, str]:
    """Runs `fa-jax` in a folder to its end; returns the exit code and what it printed."""
    process = start(words, folder, **options)
    printed, _ = process.communicate(timeout=1200)
    return process.returncode, printed


def killed(words: Sequence[str], folder: Path, delay: float | None) -> int | None:
    """Kills a command after a delay; returns its exit code if it had ended before, else None.

    The command runs in a fork of a process that has imported what it needs, so that it works from its first moment on.

    Args:
      words: the arguments of `fa-jax`.
      folder: the working folder.
      delay: in seconds; None: it is not killed.
    """
    process = _forks().Process(target=_command, args=(list(words), folder))
    process.start()
    process.join(delay)
    code = process.exitcode
    process.kill()
    process.join()
    return code


@functools.cache
def _forks() -> ForkServerContext:
    """Returns the context of the process that is forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _command(words: list[str], folder: Path) -> None:
    """Runs `fa-jax` in this process, and drops what it prints."""
    from fa_jax.__main__ import run

    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.argv = ["fa-jax", *words]
    try:
        run()
    except SystemExit as end:
        os._exit(int(end.code or 0))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> bool:
    """Waits until a condition holds, for at most so many seconds; returns whether it does."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    return condition()


def delays(name: str, times: int, longest: float) -> list[float]:
    """Returns random delays in seconds, the same ones for the same name."""
    draw = random.Random(name)
    return [draw.uniform(0.02 * longest, longest) for _ in range(times)]


def not_whole(folder: Path) -> Iterator[str]:
    """Yields what is wrong with files below a folder; temporary ones and those of Orbax do not count."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if not path.is_file() or is_temporary(path.name) or "checkpoint" in inside or "resume" in inside[:-1]:
            continue
        try:
            problem = _problem(path)
        except (OSError, ValueError, yaml.YAMLError, sqlite3.Error) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            yield f"{path.relative_to(folder)}: {problem}"


def _problem(path: Path) -> str:
    """Returns why a file is not whole, or an empty text."""
    content, problem = path.read_bytes(), ""
    if path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".yaml" and not isinstance(yaml.safe_load(content), dict):
        problem = "holds no mapping"
    elif path.suffix == ".db":
        database = sqlite3.connect(path)
        (answer,) = database.execute("PRAGMA integrity_check").fetchone()
        database.close()
        problem = "" if answer == "ok" else answer
    elif path.suffix == ".csv":
        is_growing = path.name == "metrics.csv"  # its last line may be cut
        complete = content.decode().rpartition("\n")[0].splitlines()
        problem = "rows of several lengths" if len({len(row) for row in csv.reader(complete)}) > 1 else ""
        problem = problem if is_growing or content.endswith(b"\n") else "is cut"
    elif not content.rstrip().endswith(ENDINGS.get(path.suffix, b"")):
        problem = "is cut"
    return problem


def left_over(folder: Path) -> list[str]:
    """Returns the files below a folder that only a run in progress has."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return [name for name in names if is_temporary(Path(name).name) or name.endswith(("resume", ".lock", "-journal"))]


def difference(whole: Path, other: Path) -> str:
    """Returns in what the results of two finished runs differ, the cost aside; empty: in no bit."""
    runs = [read_run(folder) for folder in (whole, other)]
    if not all(run.is_finished for run in runs):
        return f"{other.name} is {runs[1].status['status']}"
    if (whole / "metrics.csv").read_bytes() != (other / "metrics.csv").read_bytes():
        return f"{other.name}/metrics.csv differs"
    if _final(runs[0]) != _final(runs[1]):
        return f"{other.name}/summary.json differs"
    if not (whole / "checkpoint").exists():
        return ""
    trees = [read_checkpoint(run) for run in runs]
    same = all(np.array_equal(a, b) for a, b in zip(*map(_leaves, trees), strict=True))
    return "" if same else f"{other.name}/checkpoint differs"


def _final(run: Run):
    return {name: value for name, value in (run.summary or {}).items() if name != "cost"}


def _leaves(tree):
    return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])] if isinstance(tree, dict) else [tree]


def in_words(failures: Sequence[str], otherwise: str) -> str:
    """Returns the first failure, or else what is true."""
    return f"failed: {' '.join(failures[0].split())[:300]}" if failures else otherwise


def environment(**variables: str) -> dict[str, str]:
    """Returns the environment of this process with other variables."""
    return {**os.environ, **variables}
