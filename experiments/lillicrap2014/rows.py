"""The rows of the three tasks of Lillicrap et al., for `python -m experiments.queue`.

python -m experiments.lillicrap2014.rows --status       what is done, running and left of all tasks
"""

from collections.abc import Sequence
from pathlib import Path

from experiments import queue
from experiments.lillicrap2014 import task1, task2, task3
from experiments.training import Row

TASKS = (task1, task2, task3)


def rows(seeds: int | None = None) -> list[Row]:
    """Returns the rows of all tasks; seeds are those that were asked for, None: those of the configs."""
    return [row for task in TASKS for row in task.rows(seeds)]


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Draws the figures and makes the checks of the tasks of some rows, as far as their runs are done."""
    for task in TASKS:
        needed = {row.name: row for row in task.rows()}
        asked = {row.name: row for row in chosen if row.name in needed}
        if asked:  # a figure may need several rows, of which some may not be among those that were chosen
            task.collect(into, list((needed | asked).values()))


if __name__ == "__main__":
    queue.main(__doc__, "lillicrap2014", [row.name.partition("/")[2] for row in rows()])
