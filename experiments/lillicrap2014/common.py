"""What the three tasks share: training what is missing, reading it back, and setting down what was measured.

python -m experiments.lillicrap2014.common task1           prints the table of a task for the README
"""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fa_jax.records.reader import Run, find_runs

HERE = Path(__file__).parent
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
"""Curve -> its label and its colour in the paper."""


class Check(NamedTuple):
    """One row of the acceptance list, and what became of it."""

    row: str
    check: str
    target: str
    measured: str
    holds: bool


def sweep(folder: Path, *overrides: str) -> list[Run]:
    """Returns the runs of a sweep, trained first where the folder does not exist yet."""
    if not folder.exists():
        words = ["--multirun", *overrides, f"hydra.sweep.dir={folder}"]
        subprocess.run([sys.executable, "-m", "fa_jax", *words], check=True)
    return find_runs(folder)


def published(name: str) -> dict[str, np.ndarray]:
    """Returns the columns of `published/<name>.csv`; NaN where the paper's curve could not be read."""
    lines = [line for line in (HERE / "published" / f"{name}.csv").read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    return {column: np.array([float(row[column] or "nan") for row in rows]) for column in rows[0]}


def at(run: Run, metric: str, examples: float) -> np.ndarray:
    """Returns a metric of each seed at the evaluation nearest to so many examples, `[seeds]`."""
    x, values = run.curves(metric)
    return values[:, np.argmin(np.abs(x - examples))]


def conclude(name: str, checks: Sequence[Check], runs: Sequence[Run]) -> None:
    """Prints the checks, and writes them to `measured_<name>.csv` with the runs' time, hardware and versions."""
    environment = json.loads((runs[0].folder / "environment.json").read_text())
    parts = ("compile_seconds", "train_seconds", "evaluation_seconds")
    seconds = sum(run.summary["cost"][part] for run in runs for part in parts)
    packages = environment["packages"]
    with (HERE / f"measured_{name}.csv").open("w", newline="") as file:
        machine = f"{environment['processor']}, {environment['cores']} cores"
        versions = f"jax {packages['jax']}, flax {packages['flax']}, commit {(environment['commit'] or 'unknown')[:8]}"
        file.write(f"# {environment['time']}, {machine}, {versions}, {seconds:.0f} s in all\n")
        writer = csv.writer(file)
        writer.writerow(Check._fields)
        writer.writerows(checks)
    for check in checks:
        verdict = "holds" if check.holds else "FAILS"
        print(f"{verdict}  {check.row:>3}  {check.check}: {check.measured} (target {check.target})")


def markdown(name: str) -> str:
    """Returns the checks of `measured_<name>.csv` as a Markdown table, under the line that says how they were made."""
    first, *lines = (HERE / f"measured_{name}.csv").read_text().splitlines()
    rows = [
        "| " + " | ".join([*list(row.values())[:-1], "yes" if row["holds"] == "True" else "**no**"]) + " |"
        for row in csv.DictReader(lines)
    ]
    head = "| row | check | target | measured | holds |\n| --- | --- | --- | --- | --- |"
    return "\n".join([first.removeprefix("# "), "", head, *rows])


if __name__ == "__main__":
    print(markdown(sys.argv[1]))
