"""A queue of trainings: the rows of any experiment, those that are missing, the shortest first.

    python -m experiments.queue hinton2022/large nokland2016/300epochs     trains rows; a folder names all rows below it
    python -m experiments.queue hinton2022 --at-once 2                     two at a time, each on its share of the cores
    python -m experiments.queue hinton2022/large --seeds 3                 with another number of seeds
    python -m experiments.queue hinton2022 --status                        what is done, running and left, with hours
    python -m experiments.queue --status                                   of all rows that were started

After a kill, a reboot or a full disk, the same command continues: runs that were cut off resume, and finished ones are
not trained again. The tables of an experiment are written whenever one of its rows is done, to its folder
outputs/<experiment>/results, or with `--out FOLDER` to FOLDER/<experiment>; `--update` replaces the committed ones.
"""

import argparse
import fnmatch
import importlib
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from tabulate import tabulate

from experiments.common import add_output_options, results_folder
from experiments.training import DONE, NOT_STARTED, Row, next_of, train
from fa_jax.checks import BadOption, nearest
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.cli.errors import one_line_errors
from fa_jax.tasks import tfds

HERE = Path(__file__).parent
SHOWN = 12
"""The most names that a message lists."""


class Experiment(Protocol):
    """The module `rows` of an experiment."""

    def rows(self, seeds: int | None = None) -> list[Row]:
        """Returns its rows; seeds are those that were asked for, None: as recorded, or the number of each row."""
        ...

    def collect(self, into: Path, rows: Sequence[Row]) -> None:
        """Writes the tables of those of these rows that are done to a folder, into the tables that are there."""
        ...


class Standing(NamedTuple):
    """How far a row has come."""

    kind: str
    share: float
    left: float | None
    """Hours; None: unknown."""


def experiments() -> dict[str, Experiment]:
    """Returns the experiments that have rows, by the names of their folders."""
    names = sorted(path.parent.name for path in HERE.glob("*/rows.py"))
    return {name: cast(Experiment, importlib.import_module(f"experiments.{name}.rows")) for name in names}


def select(rows: Sequence[Row], names: Iterable[str]) -> list[Row]:
    """Returns the rows of these names, in order, each once.

    Args:
      rows: to choose from.
      names: of rows, of folders of rows, or patterns such as `kao2019/*_al`.

    Raises:
      BadOption: if a name fits none.
    """
    chosen: dict[str, Row] = {}
    for name in names:
        wanted = name.strip("/")
        fitting = [row for row in rows if row.name == wanted or row.name.startswith(f"{wanted}/")]
        fitting = fitting or [row for row in rows if fnmatch.fnmatchcase(row.name, wanted)]
        if not fitting:
            near = nearest(wanted, [row.name for row in rows])
            top = list(dict.fromkeys(row.name.rpartition("/")[0] or row.name for row in rows))
            if len({name.partition("/")[0] for name in top}) > 1:
                top = list(dict.fromkeys(name.partition("/")[0] for name in top))
            valid = "" if near else f"; rows lie in {', '.join(top[:SHOWN])}{' and so on' if len(top) > SHOWN else ''}"
            raise BadOption(f"no row is named {name!r}{near}{valid}")
        chosen |= {row.name: row for row in fitting}
    return list(chosen.values())


def standing(row: Row) -> Standing:
    """Returns how far a row has come."""
    if not row.folder.exists():
        return Standing(NOT_STARTED, 0.0, row.hours)
    following = next_of(row)
    if following is None:
        return Standing(DONE, 1.0, 0.0)
    state = following[1]
    return Standing(state.kind, state.share, None if row.hours is None else row.hours * (1 - state.share))


def status(rows: Sequence[Row]) -> str:
    """Returns a table of rows, how far each has come, and the hours that are left."""
    if not rows:
        return "no row was started"
    standings = [standing(row) for row in rows]
    lines = [
        [row.name, now.kind, f"{now.share:.0%}", _hours(row.hours), _hours(now.left)]
        for row, now in zip(rows, standings, strict=True)
    ]
    counts = Counter(now.kind for now in standings)
    unknown = sum(now.left is None for now in standings)
    text = ", ".join(f"{n} {kind}" for kind, n in counts.items())
    text += f"; {_hours(sum(now.left or 0.0 for now in standings))} hours left on two cores of a CPU"
    text += f", and {unknown} rows of unknown length" if unknown else ""
    return f"{tabulate(lines, ['row', 'state', 'done', 'hours', 'left'], 'simple', disable_numparse=True)}\n\n{text}"


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:.2f}" if hours < 1 else f"{hours:.1f}"


def refusal(row: Row) -> str | None:
    """Returns why a row that was not started cannot be: a wrong argument, or data that are missing."""
    following = next_of(row)
    if following is None or following[1].kind != NOT_STARTED:
        return None
    arguments = [*following[0].arguments, *following[0].defaults]
    try:
        with one_line_errors():
            for run in compose(parse([*(["--multirun"] if following[0].is_sweep else []), *arguments])).runs:
                if "dataset" in run.config["task"]:
                    tfds.find(run.config["task"]["dataset"], run.config["task"].get("data_dir"))
    except BadOption as problem:
        return f"{row.name}: {problem}"
    return None


def main(description: str | None = __doc__, experiment: str | None = None, default: Sequence[str] = ()) -> None:
    """Trains and collects the rows that the command line names, or says how far they have come.

    Args:
      description: of the command.
      experiment: whose rows the command is for; None: all.
      default: rows of the experiment, if the command line names none.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows, of folders of rows, or patterns")
    add_options(parser)
    chosen = parser.parse_args()
    names = [f"{experiment}/{name}" if experiment else name for name in chosen.rows or default]
    follow(parser, chosen, names, experiment)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a command that trains rows: `follow` reads them."""
    parser.add_argument("--seeds", type=int, help="default: the number of each row")
    parser.add_argument("--at-once", type=int, default=1, help="how many processes train at once")
    parser.add_argument("--force", action="store_true", help="resume what an earlier version of the code started")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--status", action="store_true", help="say how far the rows have come, and train nothing")
    doing.add_argument("--collect", action="store_true", help="tabulate the rows that are done, and train nothing")
    add_output_options(parser)


def parsed(parser: argparse.ArgumentParser, tables: Callable[[argparse.Namespace], str]) -> argparse.Namespace:
    """Returns what was typed, with `add_options`; `--table` prints the recorded tables and ends the process.

    Args:
      parser: with the other arguments of the command.
      tables: returns the tables, given what was typed.
    """
    parser.add_argument("--table", action="store_true", help="print the tables as Markdown, and train nothing")
    add_options(parser)
    chosen = parser.parse_args()
    if chosen.table:
        print(tables(chosen))
        parser.exit()
    return chosen


def follow(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    names: Sequence[str],
    experiment: str | None = None,
    more: Sequence[Row] = (),
) -> None:
    """Does what options ask for with the rows of these names, and ends the process with its exit code.

    Args:
      parser: that reports mistakes.
      options: those of `add_options`, as from `parsed`.
      names: of rows, as for `select`.
      experiment: whose rows they are; None: all.
      more: rows besides those that the experiment declares.
    """
    if options.at_once < 1 or (options.seeds is not None and options.seeds < 1):
        parser.error("--at-once and --seeds must be at least 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = run(names, options, experiment, more)
    except BadOption as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        code = 130
    sys.exit(code)


def run(
    names: Sequence[str], options: argparse.Namespace, experiment: str | None = None, more: Sequence[Row] = ()
) -> int:
    """Does what options ask for; returns the exit code, 1 if a row is not done. The arguments are those of `follow`."""
    modules = experiments()
    modules = {experiment: modules[experiment]} if experiment else modules
    every = [row for module in modules.values() for row in module.rows(options.seeds)]
    declared = {row.name for row in every}
    rows = select([*every, *(row for row in more if row.name not in declared)], names)
    if options.status:
        print(status(rows if names else [row for row in every if row.folder.exists()]))
        return 0
    if not rows:
        raise BadOption("name the rows to train; --status lists those that were started")

    def collect(selected: Sequence[Row]) -> None:
        for name, module in modules.items():
            if of_module := [row for row in selected if row.name.startswith(f"{name}/")]:
                out = options.out / name if options.out and not experiment else options.out
                here = results_folder(argparse.Namespace(update=options.update, out=out), HERE / name)
                module.collect(here, of_module)

    if options.collect:
        collect(rows)
        return 0
    refused = {row.name: problem for row in rows if (problem := refusal(row))}
    for problem in refused.values():
        print(problem, file=sys.stderr)

    collected = set()

    def finished(row: Row) -> None:
        collect([row])
        collected.add(row.name)
        left = [standing(other) for other in rows if other.name not in refused]
        print(f"{row.name}: done; {_hours(sum(now.left or 0 for now in left))} hours left", flush=True)

    problems = train([row for row in rows if row.name not in refused], options.at_once, finished, force=options.force)
    collect([row for row in rows if row.name not in collected])
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems or refused else 0


if __name__ == "__main__":
    main()
