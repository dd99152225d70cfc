"""Measures what kills, full disks, signals and large or damaged records do to recorded results.

    python -m experiments.reliability.measure                     # everything; under Linux, disk as root
    python -m experiments.reliability.measure kills --times 100   # a section
    python -m experiments.reliability.measure --table

Each section adds its rows to `measured.csv` as soon as they are known, in place of those of before. Rows that are there
already are measured again only if their section is named. A failure is whatever should not happen: a file that is not
whole, a number that differs from that of an uninterrupted run, a traceback, a process that does not end.
"""

import argparse
import csv
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.common import add_output_options, read_rows, results_folder
from experiments.reliability import faults, kills, scale
from fa_jax.records.environment import cpuinfo, now
from fa_jax.records.sources import commit

HERE = Path(__file__).parent


class Row(NamedTuple):
    """One measurement."""

    section: str
    test: str
    n: str
    """How often, or of how many."""
    failures: str
    """How many of them, or empty if it is no count."""
    result: str
    """The result in words, with the first failure."""
    seconds: str
    date: str
    commit: str
    machine: str


Section = Callable[[Path, int], Iterator[tuple[str, int, int | None, str]]]
"""`(empty folder, times) -> (test, n, failures, result)` of each test, as soon as it is done."""
SECTIONS: dict[str, Section] = {
    "sweeps": kills.sweeps,
    "tune": kills.studies,
    "compare": kills.comparisons,
    "report": kills.reports,
    "disk": faults.full_disks,
    "disk_sweep": faults.full_disk_of_sweep,
    "disk_study": faults.full_disk_of_study,
    "processes": faults.two_processes,
    "signals": faults.signals,
    "clock": faults.clock_set_back,
    "files": faults.few_open_files,
    "seeds": scale.many_seeds,
    "runs": scale.many_runs,
    "metrics": scale.large_metrics,
    "records": scale.random_records,
}
"""The measurements; the first four are kills of a command."""


def add(row: Row, path: Path) -> None:
    """Writes a row to a table, in place of an earlier one of the same test."""
    rows = [Row(**kept) for kept in read_rows(path) if (kept["section"], kept["test"]) != row[:2]]
    order = list(SECTIONS)
    rows = sorted([*rows, row], key=lambda row: order.index(row.section))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def table(path: Path) -> str:
    """Returns a table in Markdown."""
    lines = ["| test | n | failures | result |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {row['test']} | {row['n']} | {row['failures']} | {row['result']} |" for row in read_rows(path)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"some of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--times", type=int, default=100, help="the number of kills of each command")
    add_output_options(parser)
    parser.add_argument("--table", action="store_true", help="print the table, and measure nothing")
    chosen = parser.parse_args()
    if unknown := [section for section in chosen.sections if section not in SECTIONS]:
        parser.error(f"a section must be one of {', '.join(SECTIONS)}; got {unknown[0]}")
    out = (chosen.out or HERE if chosen.table else results_folder(chosen, HERE)) / "measured.csv"
    measured = {row["section"] for row in read_rows(out)}
    for name in [] if chosen.table else chosen.sections or [name for name in SECTIONS if name not in measured]:
        folder, began = Path(tempfile.mkdtemp(prefix="reliability_")), time.monotonic()
        for test, n, failures, result in SECTIONS[name](folder, chosen.times):
            seconds, began = f"{time.monotonic() - began:.0f}", time.monotonic()
            failed = "" if failures is None else str(failures)
            where = (now()[:10], (commit() or "")[:8], cpuinfo("model name"))
            add(Row(name, test, str(n), failed, result, seconds, *where), out)
            print(f"{name}: {test}: {failed or 'no'} failures of {n}: {result}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(table(out))


if __name__ == "__main__":
    main()
