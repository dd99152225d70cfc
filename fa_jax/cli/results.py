"""The results of a run or a sweep at its end: tables and figures.

What they need takes a second to import. Where there are several cores, a process imports it while another one trains,
and then prints and draws.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from fa_jax.cli.terminal import cores, tolerant_output
from fa_jax.user.text import say

DRAWING = ("fa_jax.records.reader", "fa_jax.reports.run_table", "fa_jax.reports.figures", "scipy.special")
DRAWING += ("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "fontTools.subset")
IMPORTED = {"run": DRAWING, "sweep": ("fa_jax.reports.comparison", "scipy.stats", *DRAWING)}
"""What is imported ahead for the results of a run, and of a sweep."""


class _Ahead:
    """The process that imports ahead."""

    is_allowed = False
    process: subprocess.Popen | None = None


def allow_ahead() -> None:
    """Allows a process that imports ahead: this one is `fa-jax` itself, and nobody else reads what it prints."""
    _Ahead.is_allowed = True


@contextlib.contextmanager
def ahead(kind: str) -> Iterator[None]:
    """While entered, a process has what the results of a `run` or a `sweep` need, if there is a core for it."""
    if not _Ahead.is_allowed or cores() == 1:
        yield
        return
    # It runs this very code, and (-P) imports nothing from the working folder, which may come from anyone.
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "fa_jax.cli.results", kind]
    _Ahead.process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    try:
        yield
    finally:
        if _Ahead.process is not None:  # there is nothing to show
            _Ahead.process.kill()
            _Ahead.process.communicate()
            _Ahead.process = None


def show(kind: str, folder: Path) -> None:
    """Prints the tables of a `run` or a `sweep` in a folder, and draws its figure there."""
    process, _Ahead.process = _Ahead.process, None
    if process is not None:
        sys.stdout.flush()
        with contextlib.suppress(OSError):  # it was killed
            process.communicate(json.dumps(str(folder)).encode())
        if process.returncode == 0:
            return
    SHOWN[kind](folder)  # if the process failed, this one does too, and says why


def show_run(folder: Path) -> None:
    """Prints the table of a finished run, and draws its curves."""
    from fa_jax.records.reader import read_run
    from fa_jax.reports.figures import comparison_figure  # imports matplotlib, which is slow
    from fa_jax.reports.run_table import run_table

    console, recorded = Console(), read_run(folder)
    comparison_figure([recorded], folder / "curves")
    console.print(run_table(recorded))
    say(console, f"recorded in {folder}")


def show_sweep(folder: Path) -> None:
    """Prints and writes the comparison of a sweep."""
    from fa_jax.records.reader import find_runs
    from fa_jax.reports import comparison  # slow to import
    from fa_jax.reports.tables import wide_console

    runs = find_runs(folder)
    if not runs:
        return
    console, compared = wide_console(), comparison.compare(runs)
    comparison.show(compared, console)
    comparison.write(compared, folder)
    figure = f"  figure: {folder}/comparison.png" if (folder / "comparison.png").exists() else ""
    say(console, f"tables: {folder}/comparison.csv, .md, .tex{figure}")


SHOWN = {"run": show_run, "sweep": show_sweep}


def main(kind: str) -> None:
    """Imports what results need, waits for the folder, and shows them; an interrupt is left to the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = lambda *_: None  # the other process tries again, and says what is wrong
    for module in IMPORTED[kind]:
        importlib.import_module(module)
    asked = sys.stdin.readline()  # empty if the other process has ended
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if asked:
        with tolerant_output():
            SHOWN[kind](Path(json.loads(asked)))


if __name__ == "__main__":
    main(sys.argv[1])
