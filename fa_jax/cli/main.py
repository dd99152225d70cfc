"""The command line, `fa-jax [verb] ...`. A mistake prints one line."""

import contextlib
import importlib
import io
import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import fa_jax
from fa_jax.checks import BadOption, is_folder
from fa_jax.cli.groups import take_config_dir
from fa_jax.cli.help import HELP_FLAGS, choose_verb
from fa_jax.cli.terminal import end_if_orbax_waits, second_signal_ends, tolerant_output
from fa_jax.user.text import printable

VERBS = {
    "train": "launch.train",
    "tune": "tune.tune",
    "compare": "read.compare",
    "report": "read.report",
    "status": "read.status",
    "list": "help.print_list",
    "new": "new.new",
    "check": "check.check",
    "help": "help.print_help",
}
"""Verbs, each with the function of `fa_jax.cli` that takes its arguments; imported when it is used."""
BUILDING = ("train", "tune", "check")
"""The verbs that build what a config names, modules of the user's own among it."""
READING = ("compare", "report", "status", "list")
"""The verbs that call nothing of what a record or a config names, so that `trust=` changes nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `fa-jax` with arguments, by default those of the process; returns the exit code.

    0: done; 1: a run of a sweep is not finished; 2: a mistake in the arguments; 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack characters of a folder's name
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    with tolerant_output(), second_signal_ends():
        code = _run(words)
        if arguments is None:
            end_if_orbax_waits(code)
        return code


def _run(words: list[str]) -> int:
    if any(word in HELP_FLAGS for word in words):
        words = ["help", *words]
    if "--version" in words:
        print(f"fa-jax {fa_jax.__version__}")
        return 0
    try:
        config_dir, words = take_config_dir(words)
        verb = "train"
        trust = list(itertools.takewhile(lambda word: word.startswith("trust="), words))
        words = [*words[len(trust) :], *trust]  # may stand before the verb, like --config-dir
        if words and "=" not in words[0] and not words[0].startswith(("-", "~")):
            verb, *words = words
        if config_dir is not None:
            words = [*words, "--config-dir", config_dir]
        module, _, function = VERBS[choose_verb(verb, VERBS)].partition(".")
        if verb in READING:
            words = [word for word in words if not word.startswith("trust=")]
        with _own_modules(words) if verb in BUILDING else contextlib.nullcontext():
            return getattr(importlib.import_module(f"fa_jax.cli.{module}"), function)(words) or 0
    except BadOption as mistake:
        print(f"fa-jax: {printable(mistake)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        folder = getattr(stop, "folder", None)
        advice = f"; {printable(_resumption(words, folder))} resumes it" if folder is not None else ""
        print(f"fa-jax: interrupted; what was recorded stays, marked as interrupted{advice}", file=sys.stderr)
        return 130


def _resumption(words: Sequence[str], folder: Path) -> str:
    """Returns the command that resumes what was started with these words, which allows what they name."""
    from fa_jax.cli.trust import named_modules

    config_dir, others = take_config_dir(words)
    packages = sorted(named_modules(others, _trusted(others)) - {"fa_jax"})
    config_option = [] if config_dir is None else ["--config-dir", config_dir]
    return shlex.join(
        ["fa-jax", f"resume={folder}", *config_option, *([f"trust={','.join(packages)}"] if packages else [])]
    )


def _trusted(words: Sequence[str]) -> list[str]:
    return next((word.partition("=")[2].strip("[]").split(",") for word in words if word.startswith("trust=")), [])


@contextlib.contextmanager
def _own_modules(words: Sequence[str]) -> Iterator[None]:
    """While entered, the modules that arguments name may lie in the working folder.

    A working folder that holds a run, or lies in one that is opened, is not searched: it may come from anyone.
    """
    folder = Path.cwd()
    trusted = _trusted(words)
    opened = [Path(word.removeprefix("resume=")).absolute() for word in words]
    foreign = any((folder / file).exists() for file in ("status.json", "sweep.json"))
    if foreign or any(is_folder(path) and folder.is_relative_to(path.resolve()) for path in opened):
        yield
        return
    from fa_jax.cli.trust import named_modules
    from fa_jax.user.code import importable

    with importable(folder, named_modules(words, trusted)):
        yield
