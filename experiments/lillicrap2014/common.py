"""What the three tasks share: names and colours of curves, published points, and the record of checks.

python -m experiments.lillicrap2014.common task1           prints the table of checks of a task, for the README
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.common import read_rows, seconds
from fa_jax.records.reader import Run

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/lillicrap2014")
NAMES = {
    "bp": ("BP", "black"),
    "fa": ("FA", "#00A651"),
    "shallow": ("shallow", "#9A9A9A"),
    "node_perturbation": ("reinforcement (node perturbation)", "#4D4D4D"),
    "fa_sparse": ("sparse FA (50 %)", "#E69F00"),
    "bp3": ("BP, three layers", "black"),
    "fa3": ("FA, three layers", "#00A651"),
    "shallow3": ("shallow", "#9A9A9A"),
    "bp4": ("BP, four layers", "magenta"),
    "fa4": ("FA, four layers", "blue"),
}
"""The label of each curve, and its colour in the paper."""


class Check(NamedTuple):
    """A comparison of a measured value with a target; the targets were set before the measurement."""

    row: str
    """The number of the check in the list of targets."""
    check: str
    target: str
    measured: str
    holds: bool


def published(name: str) -> dict[str, np.ndarray]:
    """Returns the columns of `published/<name>.csv`; NaN where the paper's curve could not be read."""
    rows = read_rows(HERE / "published" / f"{name}.csv")
    return {column: np.array([float(row[column] or "nan") for row in rows]) for column in rows[0]}


def at(run: Run, metric: str, examples: float) -> np.ndarray:
    """Returns a metric at the evaluation nearest to a number of training examples, `[seeds]`."""
    x, values = run.curves(metric)
    return values[:, np.argmin(np.abs(x - examples))]


def conclude(name: str, checks: Sequence[Check], runs: Sequence[Run], into: Path) -> None:
    """Prints the checks, and writes them to `measured_<name>.csv` with the time, hardware and versions of the runs."""
    environment = runs[0].environment
    packages = environment["packages"]
    with (into / f"measured_{name}.csv").open("w", newline="") as file:
        machine = f"{environment['processor']}, {environment['cores']} cores"
        versions = f"jax {packages['jax']}, flax {packages['flax']}, commit {(environment['commit'] or 'unknown')[:8]}"
        file.write(f"# {environment['time']}, {machine}, {versions}, {sum(map(seconds, runs)):.0f} s in all\n")
        writer = csv.writer(file)
        writer.writerow(Check._fields)
        writer.writerows(checks)
    for check in checks:
        verdict = "holds" if check.holds else "FAILS"
        print(f"{verdict}  {check.row:>3}  {check.check}: {check.measured} (target {check.target})")


def markdown(name: str) -> str:
    """Returns the checks of `measured_<name>.csv` as a Markdown table, below a line with their provenance."""
    first, *_ = (HERE / f"measured_{name}.csv").read_text().splitlines()
    rows = [
        "| " + " | ".join([*list(row.values())[:-1], "yes" if row["holds"] == "True" else "**no**"]) + " |"
        for row in read_rows(HERE / f"measured_{name}.csv")
    ]
    head = "| row | check | target | measured | holds |\n| --- | --- | --- | --- | --- |"
    return "\n".join([first.removeprefix("# "), "", head, *rows])


if __name__ == "__main__":
    print(markdown(sys.argv[1]))
