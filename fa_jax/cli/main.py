"""The command line, `fa-jax [verb] ...`. A mistake prints one line."""

import importlib
import io
import sys
from collections.abc import Sequence

from fa_jax import __version__
from fa_jax.checks import BadOption, choose
from fa_jax.cli.terminal import second_signal_ends, tolerant_output
from fa_jax.text import printable

VERBS = {
    "train": "launch.train",
    "tune": "tune.tune",
    "compare": "read.compare",
    "report": "read.report",
    "status": "read.status",
    "list": "help.print_list",
    "help": "help.print_help",
}
"""Verbs, each with the function of `fa_jax.cli` that takes its arguments; imported when it is used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `fa-jax` with arguments, by default those of the process; returns the exit code.

    0: done; 1: a run of a sweep is not finished; 2: a mistake in the arguments; 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack characters of a folder's name
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    with tolerant_output(), second_signal_ends():
        return _run(words)


def _run(words: list[str]) -> int:
    if any(word in ("-h", "--help") for word in words):
        words = ["help"]
    if "--version" in words:
        print(f"fa-jax {__version__}")
        return 0
    verb = "train"
    if words and "=" not in words[0] and not words[0].startswith(("-", "~")):
        verb, *words = words
    try:
        module, _, function = choose("the verb", verb, VERBS).partition(".")
        return getattr(importlib.import_module(f"fa_jax.cli.{module}"), function)(words) or 0
    except BadOption as mistake:
        print(f"fa-jax: {printable(mistake)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        folder = getattr(stop, "folder", None)
        advice = f"; fa-jax resume={printable(folder)} resumes it" if folder is not None else ""
        print(f"fa-jax: interrupted; what was recorded stays, marked as interrupted{advice}", file=sys.stderr)
        return 130
