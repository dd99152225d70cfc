"""Task 2, figs. 2a, 2b and S1: trains missing runs in outputs/lillicrap2014, draws the figures, makes checks 17 to 20.

    python -m experiments.lillicrap2014.task2                      20 epochs, 3 seeds
    python -m experiments.lillicrap2014.task2 task2_300epochs      the paper's length

MNIST is read from `$TFDS_DATA_DIR`.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments import queue
from experiments.common import of_seed
from experiments.lillicrap2014.common import NAMES, OUTPUTS, Check, at, conclude, mean_check, published
from experiments.training import Row, runs_of, sweep_row
from fa_jax.cli.build import build
from fa_jax.records.reader import Run, read_checkpoint
from fa_jax.reports.figures import STYLE, save

CURVES = ("shallow", "bp", "fa", "fa_sparse")
PREFIX = "lillicrap2014/task2_"
EXPERIMENTS = "experiment=" + ",".join(f"{PREFIX}{name}" for name in CURVES)
PRINTED = {"bp": 2.4, "fa": 2.1, "fa_sparse": 2.4, "shallow": 7.2}
"""The mean test error in % of 20 runs after about 300 epochs, as the paper prints it."""


SHORT = ("task2", "task2_angle")
LONG = "task2_300epochs"


def rows(seeds: int | None = None) -> list[Row]:
    """Returns the rows of this task; seeds are those that were asked for."""
    angle = [f"experiment={PREFIX}fa", "architecture.init_scale=0.05,0.1"]
    angle += ["epochs=2.0833", "evaluations=10"]  # 125 000 examples
    length = ["epochs=300", "evaluations=100"]
    return [
        sweep_row("lillicrap2014/task2", OUTPUTS / "task2", [EXPERIMENTS], 0.45, seeds=seeds),
        sweep_row("lillicrap2014/task2_angle", OUTPUTS / "task2_angle", angle, 0.03, seeds=seeds),
        sweep_row(f"lillicrap2014/{LONG}", OUTPUTS / LONG, [EXPERIMENTS, *length], 4.7, seeds=seeds),
    ]


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Draws the figures and makes the checks from those of the `rows` of this task that are done."""
    short, angle, long = (runs_of(row) for row in chosen)
    with mpl.rc_context(STYLE):
        if short and angle:
            curves = by_curve(short)
            angles = {run.config["architecture"]["init_scale"]: run for run in angle}
            figure_2a(curves, into / "fig2a")
            figure_2b({"fa": curves["fa"], "fa_sparse": curves["fa_sparse"]}, into)
            figure_s1(curves, into)
            conclude("task2", checks_early(curves, angles), [*short, *angle], into)
        if long:
            curves = by_curve(long)
            figure_2a(curves, into / "fig2a_300epochs")
            conclude(LONG, checks_late(curves), long, into)


def by_curve(runs: Sequence[Run]) -> dict[str, Run]:
    """Returns the runs of a sweep by the names of their curves."""
    return {run.choices["experiment"].removeprefix(PREFIX): run for run in runs}


def figure_2a(runs: dict[str, Run], path: Path) -> None:
    figure = Figure(figsize=(5.2, 4), layout="constrained")
    axes = figure.subplots()
    points = published("fig2a")
    for name in CURVES:
        label, colour = NAMES[name]
        examples, error = runs[name].curves("test_error")
        axes.plot(examples[1:], error.mean(0)[1:], color=colour, label=f"{label}, n = {len(error)}")
        axes.fill_between(examples[1:], error.min(0)[1:], error.max(0)[1:], color=colour, alpha=0.2, linewidth=0)
        if name in points:
            within = points["examples"] <= examples[-1] * 1.05
            x, y = points["examples"][within], points[name][within]
            axes.plot(x, y, "o", markeredgecolor=colour, markerfacecolor="white", markersize=4)
    axes.plot([], [], "o", markeredgecolor="black", markerfacecolor="white", markersize=4, label="published, fig. 2a")
    axes.set(xlabel="training examples", ylabel="test error (%)", ylim=(0, 25))
    axes.legend(fontsize=7.5)
    axes.set_title(
        "Task 2, MNIST 784-1000-10. Line: mean over seeds; band: from the lowest to the highest", fontsize=7.5
    )
    save(figure, path)


def figure_2b(runs: dict[str, Run], into: Path) -> None:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, run in runs.items():
        label, colour = NAMES[name]
        examples, angles = run.curves("signal_angle_0")
        axes.plot(examples, angles.mean(0), color=colour, label=f"{label}, n = {len(angles)}")
        axes.fill_between(examples, angles.min(0), angles.max(0), color=colour, alpha=0.2, linewidth=0)
    axes.axhline(90, color="#555555", linewidth=0.6)
    axes.set(xlabel="training examples", ylabel="angle of FA's signal to BP's (degrees)", ylim=(0, 100))
    axes.legend(fontsize=7.5)
    axes.set_title("Task 2. Line: mean over seeds; band: from the lowest to the highest", fontsize=7.5)
    save(figure, into / "fig2b")


def figure_s1(runs: dict[str, Run], into: Path) -> None:
    """Draws the change of the weights into 100 hidden units of the first seed over training."""
    chosen = ("bp", "fa", "fa_sparse")
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), chosen, strict=True):
        final = of_seed(read_checkpoint(runs[name])["params"], 0)
        initial, _ = build(runs[name].config).rule.init(jax.random.key(0))
        end, start = (np.asarray(params["stages_0"]["linear"]["kernel"]) for params in (final, initial))
        fields = (end - start)[:, :100].T.reshape(10, 10, 28, 28)
        tiles = np.pad(fields, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        picture = tiles.transpose(0, 2, 1, 3).reshape(300, 300)
        limit = np.nanquantile(abs(picture), 0.995)
        image = axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(f"{NAMES[name][0]}, learnt part of the weights", fontsize=8)
        axes.set_axis_off()
        figure.colorbar(image, ax=axes, shrink=0.7).ax.tick_params(labelsize=6)
    save(figure, into / "figS1")


def level(row: str, name: str, run: Run, examples: int, target: str, low: float, high: float) -> Check:
    what = f"{name}, test error (%) after {examples} examples"
    return mean_check(row, what, target, at(run, "test_error", examples), lambda mean: low <= mean <= high, ".2f")


def checks_early(runs: dict[str, Run], angles: dict[float, Run]) -> list[Check]:
    return [
        level("17", "BP", runs["bp"], 125000, "paper 7.6 %; 6.5 to 10.5 %", 6.5, 10.5),
        level("17", "FA", runs["fa"], 125000, "paper 8.8 %; 6.5 to 10.5 %", 6.5, 10.5),
        *(
            mean_check(
                "18",
                f"FA, angle after 125000 examples, omega {scale}",
                f"{target} ± 8",
                at(angles[scale], "signal_angle_0", 125000),
                lambda mean, target=target: abs(mean - target) <= 8,
                ".1f",
            )
            for scale, target in ((0.05, 29), (0.1, 45))
        ),
        level("19", "BP", runs["bp"], 1200000, "paper 4.2 ± 0.8 %", 3.4, 5.0),
        level("19", "FA", runs["fa"], 1200000, "paper 4.3 ± 0.8 %", 3.5, 5.1),
    ]


def checks_late(runs: dict[str, Run]) -> list[Check]:
    margins = {"bp": 0.4, "fa": 0.4, "fa_sparse": 0.4, "shallow": 0.7}
    last = {name: run.curves("test_error")[1][:, -1] for name, run in runs.items()}
    apart = last["fa"] - last["bp"] if len(last["fa"]) == len(last["bp"]) else last["fa"] - last["bp"].mean()
    return [
        *(
            mean_check(
                "20",
                f"{NAMES[name][0]}, final test error (%)",
                f"paper {target} ± {margins[name]} %",
                last[name],
                lambda mean, target=target, margin=margins[name]: abs(mean - target) <= margin,
                ".2f",
            )
            for name, target in PRINTED.items()
        ),
        mean_check("20", "FA and BP", "at most 0.5 points apart", apart, lambda mean: abs(mean) <= 0.5, "+.2f"),
    ]


if __name__ == "__main__":
    queue.main(__doc__, "lillicrap2014", SHORT)
