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
from experiments.tables.search import sweeps, trials
from experiments.tables.tables import TABLES
from experiments.training import Row, Training, next_of


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows, such as `tables/frenkel2021/500/fa`; seeds are those that were asked for."""
    declared = {name_of(declared_row): declared_row for table in TABLES.values() for declared_row in table.rows}
    return [
        Row(
            name,
            declared_row.folder,
            lambda declared_row=declared_row: trainings(declared_row, seeds),
            declared_row.hours_on_two_cores,
        )
        for name, declared_row in declared.items()
    ]


def name_of(declared_row: row.Row) -> str:
    """Returns the name of a row; rows that are one rule share it."""
    return f"tables/{declared_row.folder.relative_to(row.OUTPUTS).as_posix()}"


def trainings(declared_row: row.Row, seeds: int | None = None) -> Iterator[Training]:
    """Yields the search of a row if it needs one, and its run."""
    chosen = ()
    if declared_row.search:
        done = []
        for sweep in sweeps(declared_row):
            yield sweep
            done.append(sweep)
        chosen = trials(declared_row, done).chosen
    given = [argument for argument in declared_row.arguments if seeds is None or not argument.startswith("seeds=")]
    asked = () if seeds is None else (f"seeds={seeds}",)
    yield Training(declared_row.folder, (*given, *chosen, *asked))


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Tabulates those of some rows that are done: in this folder in the README, too."""
    done = {
        declared_row.name: list(declared_row.trainings()) for declared_row in chosen if next_of(declared_row) is None
    }
    for table in TABLES.values():
        lines = []
        for declared_row in table.rows:
            if name_of(declared_row) in done:
                *searched, last = done[name_of(declared_row)]
                (run,) = last.runs()
                search = trials(declared_row, searched) if searched else None
                lines.append((results.measured(table, declared_row, run, search), [run]))
        if lines:
            write_table(into / results.MEASURED, lines, "table", "row")
    results.write(into)


if __name__ == "__main__":
    queue.main(__doc__, "tables")
