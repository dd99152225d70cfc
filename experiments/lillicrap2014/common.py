"""What the three tasks share: names and colours of curves, published points, and the record of checks.

python -m experiments.lillicrap2014.common task1           prints the table of checks of a task, for the README
"""

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.common import read_rows, seconds
from fa_jax.records.reader import Run
from fa_jax.records.statistics import summarise
from fa_jax.reports.looks import PAPER, shade

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/lillicrap2014")
NAMES = {
    "bp": ("BP", PAPER["bp"]),
    "fa": ("FA", PAPER["fa"]),
    "shallow": ("shallow", PAPER["shallow"]),
    "node_perturbation": ("reinforcement (node perturbation)", PAPER["node_perturbation"]),
    "fa_sparse": ("sparse FA (50 %)", shade(PAPER["fa"], 0.2)),
    "bp3": ("BP, three layers", PAPER["bp"]),
    "fa3": ("FA, three layers", PAPER["fa"]),
    "shallow3": ("shallow", PAPER["shallow"]),
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
    seeds: int | str = ""
    low: str = ""
    high: str = ""
    """The 95 % interval of what was measured, over seeds; empty: none."""


def mean_check(
    row: str, name: str, target: str, values: np.ndarray, holds: Callable[[float], bool], form: str
) -> Check:
    """Returns a check of a mean over seeds, with its interval by Student's t.

    Args:
      row, name, target: as in `Check`, `name` for `check`.
      values: `[seeds]`.
      holds: whether the mean is what was expected.
      form: of the numbers, such as `.1f`.
    """
    summary = summarise(values.tolist())
    texts = [f"{value:{form}}" for value in (summary.mean, summary.low, summary.high)]
    return Check(row, name, target, texts[0], holds(summary.mean), len(values), *texts[1:])


def median_check(row: str, name: str, target: str, values: np.ndarray, holds: Callable[[float], bool]) -> Check:
    """Returns a check of a median over seeds, with its interval by order statistics; arguments as for `mean_check`."""
    ordered, n = np.sort(values), len(values)
    rank = int(stats.binom.ppf(0.025, n, 0.5))
    low, median, high = ordered[max(rank - 1, 0)], np.median(values), ordered[min(n - rank, n - 1)]
    return Check(row, name, target, f"{median:.2g}", holds(float(median)), n, f"{low:.2g}", f"{high:.2g}")


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
    rows = []
    for row in read_rows(HERE / f"measured_{name}.csv"):
        interval = f"{row['low']} to {row['high']}" if row.get("low") else ""
        cells = [row["row"], row["check"], row["target"], row["measured"], row.get("seeds", ""), interval]
        rows.append("| " + " | ".join([*cells, "yes" if row["holds"] == "True" else "**no**"]) + " |")
    head = (
        "| row | check | target | measured | n | 95 % interval | holds |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    return "\n".join([first.removeprefix("# "), "", head, *rows])


if __name__ == "__main__":
    print(markdown(sys.argv[1]))
