"""The three tasks of YAGI's feedback_alignment repository: trains missing runs, draws the figure, tabulates the losses.

    python -m experiments.yagi2022.rows task1        also task2, task3 and task3_readme
    python -m experiments.yagi2022.rows --status     what is done, running and left

MNIST, for task 2, is read from `$TFDS_DATA_DIR`. The runs are in outputs/yagi2022/<task>; figures and `measured.csv` go
to outputs/yagi2022/results, or with `--update` beside this file.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments import queue
from experiments.training import Row, runs_of, sweep_row
from experiments.yagi2022 import figures

OUTPUTS = Path("outputs/yagi2022")
HOURS = {"task1": 0.5, "task2": 0.1, "task3": 0.2, "task3_readme": 0.1}


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows, such as `yagi2022/task1`; seeds are those that were asked for."""
    return [
        sweep_row(f"yagi2022/{name}", OUTPUTS / name, figures.overrides(name), HOURS[name], seeds=seeds)
        for name in figures.PLANS
    ]


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Draws the figures and tabulates the losses of those of some rows that are done."""
    for row in chosen:
        if runs := runs_of(row):
            figures.conclude(row.name.partition("/")[2], runs, into)


if __name__ == "__main__":
    queue.main(__doc__, "yagi2022", list(figures.PLANS))
