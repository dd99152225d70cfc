"""The command line, `fa-jax [verb] ...`. A mistake costs one line."""

import contextlib
import datetime
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fa_jax import __version__
from fa_jax.checks import BadOption, choose

if TYPE_CHECKING:
    from rich.console import Console

    from fa_jax.reports.comparison import Comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `fa-jax` with the given words, those of the command line by default; returns the exit code.

    0: done; 1: a run of a sweep did not come to its end; 2: a mistake in what was asked for; 130: interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in ("-h", "--help") for word in words):
        words = ["help"]
    if "--version" in words:
        print(f"fa-jax {__version__}")
        return 0
    try:
        if words and "=" not in words[0] and not words[0].startswith(("-", "~")):
            return choose("the first word, unless it is an override such as seeds=20,", words[0], VERBS)(words[1:])
        return train(words)
    except BadOption as mistake:
        print(f"fa-jax: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        further = f"; fa-jax resume={stop.args[0]} goes on with it" if stop.args else ""
        print(f"fa-jax: interrupted; what was recorded stays, marked as interrupted{further}", file=sys.stderr)
        return 130


def train(words: Sequence[str]) -> int:
    """Trains what the overrides ask for: one run, or a sweep; or goes on with either, with `resume=`."""
    from fa_jax.cli import launch

    return launch.train(words)


def tune(words: Sequence[str]) -> int:
    """Seeks the best values of options by Optuna."""
    from fa_jax.cli import launch

    return launch.tune(words)


def compare(words: Sequence[str]) -> int:
    """Compares the runs in folders: tables, contrasts with intervals and p, a figure."""
    from fa_jax.reports import comparison

    found, output, console = _compared("compare", words)
    comparison.show(found, console)
    with _writing(output):
        comparison.write(found, output)
    console.print(f"tables and figure: {output}/comparison.*", highlight=False, soft_wrap=True)
    return 0


def report(words: Sequence[str]) -> int:
    """Writes the report of the runs in folders, a page to look at."""
    from fa_jax.reports.html import write_report

    found, output, console = _compared("report", words)
    with _writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_report(found, output / "report.html")
    console.print(f"report: {output}/report.html", highlight=False, soft_wrap=True)
    return 0


def status(words: Sequence[str]) -> int:
    """Prints how far the runs in folders have come."""
    from fa_jax.reports.status import status_sheet
    from fa_jax.reports.tables import terminal, wide_console

    sheet = status_sheet(_folders("status", words))
    if not sheet.rows:
        raise BadOption(f"status: no run is recorded in {' or '.join(words)}")
    console = wide_console()
    console.print(terminal(sheet, console.width))
    return 0


def show_list(words: Sequence[str]) -> int:
    """Prints the options of every config group, or of those named."""
    from fa_jax.cli import help as catalogue

    catalogue.print_list(words)
    return 0


def show_help(words: Sequence[str]) -> int:
    """Prints how to use `fa-jax`."""
    del words
    from fa_jax.cli import help as catalogue

    catalogue.print_help()
    return 0


VERBS = {
    "train": train,
    "tune": tune,
    "compare": compare,
    "report": report,
    "status": status,
    "list": show_list,
    "help": show_help,
}


def _compared(verb: str, words: Sequence[str]) -> "tuple[Comparison, Path, Console]":
    """Compares the runs in the folders that a verb is given, and says where the results go and are printed."""
    options = [word for word in words if "=" in word and not Path(word).is_dir()]
    own = dict(word.split("=", 1) for word in options)
    for option in own:
        choose(f"{verb}: an option", option, dict.fromkeys(("metric", "against", "contrasts", "output")))
    folders = _folders(verb, [word for word in words if word not in options])
    from fa_jax.records.reader import find_runs
    from fa_jax.reports.comparison import compare
    from fa_jax.reports.tables import wide_console

    runs = find_runs(*folders)
    if not runs:
        raise BadOption(f"{verb}: no run is recorded in {' or '.join(map(str, folders))}")
    found = compare(runs, metric=own.get("metric"), against=own.get("against"), wanted=own.get("contrasts"))
    return found, _output(own, folders), wide_console()


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turns what the disk says into a line."""
    try:
        yield
    except OSError as problem:
        raise BadOption(f"output={output}: it cannot be written: {problem.strerror}") from None


def _folders(verb: str, words: Sequence[str]) -> list[Path]:
    """The folders that a verb is to read."""
    if not words:
        raise BadOption(f"{verb} needs the folder of a run or a sweep, as in fa-jax {verb} outputs")
    for word in words:
        if not Path(word).is_dir():
            raise BadOption(f"{verb}: {word} is no folder")
    return [Path(word) for word in words]


def _output(own: Mapping[str, str], folders: Sequence[Path]) -> Path:
    """Where the results of reading folders go: the one that was asked for, the only folder read, or a new one."""
    if "output" in own:
        return Path(own["output"])
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    # What is asked for otherwise must not replace a sweep's own comparison.
    return folders[0] if len(folders) == 1 and not own else Path("outputs/comparisons") / now
