"""Draws the tuned test errors of every rule on one architecture, with their 95 % intervals.

    python -m experiments.rules_by_architectures.draw mnist mlp

Reads `measured_<task>.csv`, and writes `<task>_<architecture>.png` beside it. The lines are the controls: `shallow`,
whose hidden layers do not learn, and `frozen_blocks`, of which the first does.
"""

import argparse

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.common import read_rows
from experiments.controlled import CONTROLS
from experiments.rules_by_architectures.compare import HERE
from fa_jax.reports.figures import STYLE
from fa_jax.reports.labels import NAMES
from fa_jax.reports.looks import OTHERS, PAPER


def figure(task: str, architecture: str) -> Figure:
    """Returns the figure of a task and an architecture, without rules of which all seeds diverged."""
    rows = [
        row
        for row in read_rows(HERE / f"measured_{task}.csv")
        if (row["architecture"], row["values"]) == (architecture, "tuned") and row["test error"]
    ]
    rows.sort(key=lambda row: float(row["test error"]), reverse=True)
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(6.4, 0.8 + 0.19 * len(rows)), layout="constrained")
        axes = drawn.add_subplot()
        for i, row in enumerate(rows):
            colour = PAPER[CONTROLS[1]] if row["rule"] in CONTROLS else PAPER.get(row["rule"], OTHERS[1])
            error, low, high = (float(row[column]) for column in ("test error", "low", "high"))
            axes.plot([max(low, 0), high], [i, i], color=colour, linewidth=1.4)
            axes.plot(error, i, "o", color=colour, markersize=4)
            if row["rule"] in CONTROLS:
                axes.axvline(error, color=colour, linewidth=0.7, linestyle=":")
        axes.set_yticks(range(len(rows)), [NAMES.get(row["rule"], row["rule"]) for row in rows], fontsize=7)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(left=0)
        axes.set_xlabel("test error (%): mean of 5 seeds, 95 % interval by Student's t")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("architecture")
    chosen = parser.parse_args()
    figure(chosen.task, chosen.architecture).savefig(HERE / f"{chosen.task}_{chosen.architecture}.png", dpi=150)


if __name__ == "__main__":
    main()
