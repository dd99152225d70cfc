"""Task 3, fig. 2d: trains missing runs in outputs/lillicrap2014, draws the figure, makes checks 13 to 16.

    python -m experiments.lillicrap2014.task3

There are five curves of 20 trials with 400 000 examples each.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments import queue
from experiments.lillicrap2014.common import NAMES, OUTPUTS, Check, at, conclude, mean_check, published
from experiments.training import Row, runs_of, sweep_row
from fa_jax.records.reader import Run
from fa_jax.reports.figures import STYLE, save

CURVES = ("shallow3", "bp3", "fa3", "bp4", "fa4")


def rows(seeds: int | None = None) -> list[Row]:
    """Returns the row of this task; seeds are those that were asked for."""
    experiments = ",".join(f"lillicrap2014/task3_{name}" for name in CURVES)
    return [sweep_row("lillicrap2014/task3", OUTPUTS / "task3", [f"experiment={experiments}"], 0.02, seeds=seeds)]


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Draws the figure and makes the checks from the row of this task, if it is done."""
    for row in chosen:
        if runs := by_curve(runs_of(row)):
            with mpl.rc_context(STYLE):
                figure_2d(runs, into)
            conclude("task3", checks(runs), list(runs.values()), into)


def by_curve(runs: Sequence[Run]) -> dict[str, Run]:
    """Returns the runs of the sweep by the names of their curves."""
    return {run.choices["experiment"].rpartition("_")[2]: run for run in runs}


def figure_2d(runs: dict[str, Run], into: Path) -> None:
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    points = published("fig2d")
    for name in CURVES:
        label, colour = NAMES[name]
        examples, nse = runs[name].curves("test_nse")
        mean, reach = nse.mean(0), stats.t.ppf(0.975, len(nse) - 1) * stats.sem(nse, axis=0)
        axes.plot(examples, mean, color=colour, label=f"{label}, n = {len(nse)}")
        axes.fill_between(examples, mean - reach, mean + reach, color=colour, alpha=0.2, linewidth=0)
        axes.plot(points["examples"], points[name], "o", markeredgecolor=colour, markerfacecolor="white", markersize=4)
    axes.plot([], [], "o", markeredgecolor="black", markerfacecolor="white", markersize=4, label="published, fig. 2d")
    axes.set(xscale="log", yscale="log", xlim=(4e2, 4.5e5), xlabel="training examples", ylabel="test NSE")
    axes.legend(fontsize=7)
    axes.set_title("Task 3, nonlinear 30-20-10-10. Line: mean over trials; band: its 95 % interval", fontsize=7.5)
    save(figure, into / "fig2d")


def checks(runs: dict[str, Run]) -> list[Check]:
    last = {name: run.curves("test_nse")[1][:, -1] for name, run in runs.items()}

    def level(row, name, examples, target, factor):
        # Between two evaluations, in logarithms of both.
        x, values = runs[name].curves("test_nse")
        nse = np.array([np.exp(np.interp(np.log(examples), np.log(x[1:]), np.log(seed[1:]))) for seed in values])
        wanted, what = f"paper {target:.1e} within a factor {factor}", f"{NAMES[name][0]} at {examples}"
        return mean_check(row, what, wanted, nse, lambda mean: 1 / factor <= mean / target <= factor, ".2e")

    def depth(row, deep, flat, most):
        ratio = float(last[deep].mean() / last[flat].mean())
        p = float(stats.ttest_rel(last[deep], last[flat]).pvalue)
        target = f"ratio at most {most}, p < 0.01"
        name = f"{NAMES[deep][0]} over {NAMES[flat][0]}, at 400000, paired t over seeds"
        seeds = len(last[deep])
        return Check(row, name, target, f"{ratio:.2f}, p = {p:.1e}", bool(ratio <= most and p < 0.01), seeds)

    return [
        level("13", "bp3", 10000, 4.6e-3, 1.5),
        level("13", "bp3", 100000, 3.2e-3, 1.5),
        mean_check(
            "14",
            "shallow at 400000",
            "paper 0.13; 0.09 to 0.20",
            at(runs["shallow3"], "test_nse", 400000),
            lambda mean: 0.09 <= mean <= 0.20,
            ".3f",
        ),
        depth("15", "bp4", "bp3", 0.8),
        depth("16", "fa4", "fa3", 1.0),
        level("-", "bp3", 400000, 2.1e-3, 1.5),
        level("-", "fa3", 400000, 2.0e-3, 1.5),
        level("-", "bp4", 400000, 1.08e-3, 1.5),
        level("-", "fa4", 400000, 8.8e-4, 1.5),
    ]


if __name__ == "__main__":
    queue.main(__doc__, "lillicrap2014", ("task3",))
