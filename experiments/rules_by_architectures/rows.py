"""The rows of the comparison of rules on architectures, for `python -m experiments.queue`; `compare` describes it.

python -m experiments.rules_by_architectures.rows --status      what is done, running and left
python -m experiments.rules_by_architectures.rows digits/mlp    every rule on one architecture
"""

from collections.abc import Sequence
from pathlib import Path

from experiments import queue
from experiments.common import write_table
from experiments.rules_by_architectures.case import SIZES, Case, case_of, default_scale, row_of, write_tuned
from experiments.rules_by_architectures.compare import HERE, results
from experiments.training import Row, next_of
from fa_jax.cli.groups import choices
from fa_jax.cli.tuned import TABLE

LENGTHS = {"digits": (None,), "mnist": (2, None)}
"""The epochs of each task; None: those of its config."""


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows, such as `rules_by_architectures/digits/mlp/fa`; seeds are those that were asked for."""
    return [
        row_of(Case(task, architecture, rule, epochs), seeds)
        for task, lengths in LENGTHS.items()
        for epochs in lengths
        for architecture in SIZES[task]
        for rule in choices("rule")
    ]


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Tabulates those of some rows that are done, and their tuned values: for this folder in `conf/tuned.csv`."""
    cases = [case_of(row) for row in chosen if next_of(row) is None]
    for task in SIZES:
        done = [(case, config) for case in cases if case.task == task and (config := case.config()) is not None]
        for case, config in done:
            tuned = case.tuned_row(case.tune(default_scale(config))[0], config["choices"]["optimizer"])
            write_tuned(tuned, TABLE if into == HERE else into / "tuned.csv")
        if tabulated := [result for case, _ in done for result in results(case)]:
            write_table(into / f"measured_{task}.csv", tabulated, "task", "architecture", "rule", "values")


if __name__ == "__main__":
    queue.main(__doc__, "rules_by_architectures")
