"""The rows of the published tables: trains those that are missing, and tabulates them.

    python -m experiments.tables.rows frenkel2021                 a whole table
    python -m experiments.tables.rows kao_hariharan2024/mnist     the rows of one data set and network
    python -m experiments.tables.rows frenkel2021/500/fa          one row
    python -m experiments.tables.rows frenkel2021 --status        what is done, running and left, with hours
    python -m experiments.tables.rows '*' --collect --update        writes the committed tables anew, trains nothing

The data are read from `$TFDS_DATA_DIR`. Values that a recipe does not print are first searched on validation examples,
briefly. With `--update`, the results go to `measured.csv` and the README in this folder.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments import queue
from experiments.common import write_table
from experiments.tables import results, row
from experiments.tables.search import choice, sweep_of
from experiments.tables.tables import TABLES
from experiments.training import Row, Training, next_of


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows, such as `tables/frenkel2021/500/fa`; seeds are those that were asked for."""
    declared = {name_of(one): one for table in TABLES.values() for one in table.rows}
    return [
        Row(name, one.folder, lambda one=one: trainings(one, seeds), one.hours + one.search_hours)
        for name, one in declared.items()
    ]


def name_of(one: row.Row) -> str:
    """Returns the name of a row; rows that are one rule share it."""
    return f"tables/{one.folder.relative_to(row.OUTPUTS).as_posix()}"


def trainings(one: row.Row, seeds: int | None = None) -> Iterator[Training]:
    """Yields the search of a row if it needs one, and its run."""
    chosen = ()
    if one.search:
        sweep = sweep_of(one)
        yield sweep
        chosen = choice(one, sweep.runs()).arguments
    given = [argument for argument in one.arguments if seeds is None or not argument.startswith("seeds=")]
    asked = () if seeds is None else (f"seeds={seeds}",)
    yield Training(one.folder, (*given, *chosen, *asked))


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Tabulates those of some rows that are done: in this folder in the README, too."""
    done = {one.name: list(one.trainings()) for one in chosen if next_of(one) is None}
    for table in TABLES.values():
        lines = []
        for one in table.rows:
            if name_of(one) in done:
                *searched, last = done[name_of(one)]
                (run,) = last.runs()
                found = choice(one, searched[0].runs()) if searched else None
                lines.append((results.measured(table, one, run, found), [run]))
        if lines:
            write_table(into / results.MEASURED, lines, "table", "row")
    results.write(into)


if __name__ == "__main__":
    queue.main(__doc__, "tables")
