"""The page of all published results, and what was measured of each: the tables of experiments/README.md.

    python -m experiments.page

An experiment is on the page if it has a module `reproduced`, with the function `results` and a `TITLE`; its numbers
come from the CSVs of the experiment. Nothing is trained. A test holds the page to what this script writes.
"""

import functools
import importlib
from pathlib import Path
from typing import Protocol, cast

from experiments import queue
from experiments.common import hours_text
from experiments.reproduced import MEANING, NO, NOT_MEASURED, SHORTENED, Claim, Result

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
START, END = "<!-- Written by python -m experiments.page, from here -->", "<!-- to here. -->"
COLUMNS = {
    "result": "left",
    "published": "left",
    "known by": "left",
    "accepted": "left",
    "measured": "left",
    "n": "right",
    "95 % interval": "left",
    "verdict": "left",
    "hours, machine": "left",
    "left to run": "right",
    "row": "left",
}


class Reproduced(Protocol):
    """The module `reproduced` of an experiment."""

    TITLE: str

    def results(self) -> list[Result]:
        """Returns its published results in order."""
        ...

    def claims(self, row: str) -> list[Claim]:
        """Returns what is recorded of a row of `experiments.queue`, for `experiments.verify`."""
        ...


def modules() -> dict[str, Reproduced]:
    """Returns the experiments with published results, by the names of their folders."""
    names = sorted(path.parent.name for path in HERE.glob("*/reproduced.py"))
    return {name: cast(Reproduced, importlib.import_module(f"experiments.{name}.reproduced")) for name in names}


@functools.cache
def hours() -> dict[str, float | None]:
    """Returns the hours of every row on two cores of a CPU, measured or estimated; None: unknown."""
    return {row.name: row.hours for module in queue.experiments().values() for row in module.rows()}


def left_to_run(result: Result) -> str:
    """Returns the hours that a result would need which was not measured at its own length; empty: it was."""
    if result.verdict not in (NOT_MEASURED, SHORTENED):
        return ""
    return hours_text(hours()[result.row])


def table(results: list[Result]) -> str:
    """Returns the table of some results as Markdown."""
    lines = [
        [
            result.what,
            result.published,
            result.provenance,
            result.accepted,
            result.measured,
            result.seeds,
            result.interval,
            f"**{result.verdict}**" if result.verdict == NO else result.verdict,
            result.cost,
            left_to_run(result),
            f"`{result.row}`" if result.row else "",
        ]
        for result in results
    ]
    return _markdown(lines, COLUMNS)


def summary(by_name: dict[str, tuple[str, list[Result]]]) -> str:
    """Returns how many results of each experiment have each verdict, and in how many rows, as Markdown."""
    lines = []
    for name, (title, results) in by_name.items():
        remembered = sum(result.provenance.startswith("remembered") for result in results)
        by_verdict = [[result for result in results if result.verdict == verdict] for verdict in MEANING]
        lines.append([f"[{title}]({name})", _count(results), remembered or "", *map(_count, by_verdict)])
    return _markdown(lines, {"paper": "left", **dict.fromkeys(("results", "remembered", *MEANING), "right")})


def _count(results: list[Result]) -> str:
    """Returns the number of results, and in brackets the number of rows in which they were measured."""
    rows = {result.run or result.row for result in results if result.verdict != NOT_MEASURED}
    return f"{len(results)} ({len(rows)})" if rows else str(len(results) or "")


def _markdown(lines: list[list], columns: dict[str, str]) -> str:
    rules = ["---:" if side == "right" else "---" for side in columns.values()]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in (list(columns), rules, *lines))


def generated() -> str:
    """Returns the part of the page that this script writes."""
    by_name = {name: (module.TITLE, module.results()) for name, module in modules().items()}
    meaning = "\n".join(f"* **{verdict}**: {text}." for verdict, text in MEANING.items())
    parts = [summary(by_name), meaning]
    for name, (title, results) in by_name.items():
        parts += [f"### {title}", f"More in [{name}]({name}).", table(results)]
    return "\n\n".join(parts)


def written() -> str:
    """Returns the text of the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{generated()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written())
