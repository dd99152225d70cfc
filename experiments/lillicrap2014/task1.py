"""Task 1, figs. 1d, 1e and 4: trains missing runs in outputs/lillicrap2014, draws the figures, makes checks 5 to 11.

    python -m experiments.lillicrap2014.task1
    python -m experiments.lillicrap2014.task1 --status      what is done, running and left

The published points are read from fig. 1d. Figs. 1e and 4 could not be read, so no points are drawn over their curves.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments import queue
from experiments.lillicrap2014.common import NAMES, OUTPUTS, Check, at, conclude, mean_check, median_check, published
from experiments.training import Row, runs_of, sweep_row
from fa_jax.records.reader import Run
from fa_jax.reports.figures import STYLE, save

ROUNDED = 1e-11
"""The test NSE below which float32 decides the direction of the error, and with it the angle: BP ends at 5e-14."""
WINDOW = 50
"""The number of examples over which the NSE of the training stream is averaged, geometrically."""


def rows(seeds: int | None = None) -> list[Row]:
    """Returns the rows of this task; seeds are those that were asked for."""
    return [
        sweep_row(f"lillicrap2014/{name}", OUTPUTS / name, [f"experiment=lillicrap2014/{name}"], 0.01, seeds=seeds)
        for name in ("task1", "fig4")
    ]


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Draws the figures and makes the checks from the `rows` of this task, if all are done."""
    all_runs = [runs_of(row) for row in chosen]
    if not all(all_runs):
        return
    curves = {run.choices["rule"]: run for run in all_runs[0]}
    scales = {run.config["architecture"]["init_scale"]: run for run in all_runs[1]}
    with mpl.rc_context(STYLE):
        figure_1d(curves, into)
        figure_1e(curves["fa"], into)
        figure_4(scales, into)
    conclude("task1", [*checks_1(curves), *checks_4(scales)], [*curves.values(), *scales.values()], into)


def windows(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of the windows and the geometric mean of the training NSE in each, `[seeds, windows]`."""
    examples, values = run.curves("train_nse")
    size = round(WINDOW / (examples[2] - examples[1]))
    logs = np.log(np.maximum(values[:, 1:], 1e-45))
    means = np.stack([logs[:, i : i + size].mean(1) for i in range(0, logs.shape[1], size)], 1)
    return examples[size::size], np.exp(means)


def figure_1d(curves: dict[str, Run], into: Path) -> None:
    figure = Figure(figsize=(5.2, 4), layout="constrained")
    axes = figure.subplots()
    points = published("fig1d")
    for rule, (name, colour) in NAMES.items():
        if rule not in curves:
            continue
        x, nse = windows(curves[rule])
        axes.plot(x - WINDOW / 2, np.median(nse, 0), color=colour, label=f"{name}, n = {len(nse)}")
        axes.fill_between(x - WINDOW / 2, *np.quantile(nse, [0.25, 0.75], axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(points["examples"], points[rule], "o", markeredgecolor=colour, markerfacecolor="white", markersize=4)
    axes.plot([], [], "o", markeredgecolor="black", markerfacecolor="white", markersize=4, label="published, fig. 1d")
    axes.set_yscale("log")
    axes.set_xlabel("training examples")
    axes.set_ylabel("NSE of the training stream")
    axes.legend(fontsize=7.5, loc="lower left")
    axes.set_title("Task 1, linear 30-20-10. Line: median over seeds of windows of 50; band: quartiles", fontsize=7.5)
    save(figure, into / "fig1d")


def figure_1e(run: Run, into: Path) -> None:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    examples, angles = run.curves("signal_angle_0")
    mean, sd = angles.mean(0), angles.std(0, ddof=1)
    axes.plot(examples, mean, color=NAMES["fa"][1])
    axes.fill_between(examples, mean - sd, mean + sd, color=NAMES["fa"][1], alpha=0.2, linewidth=0)
    axes.axhline(90, color="#555555", linewidth=0.6)
    axes.set(xlabel="training examples", ylabel="angle of FA's signal to BP's (degrees)", ylim=(0, 105))
    axes.set_title(f"Task 1, n = {len(angles)}. Line: mean over seeds; band: one standard deviation", fontsize=7.5)
    save(figure, into / "fig1e")


def figure_4(scales: dict[float, Run], into: Path) -> None:
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(scales)))
    for (scale, run), shade in zip(sorted(scales.items()), shades, strict=True):
        for axes, metric in zip(panels, ("test_nse", "signal_angle_0", "pseudobackprop_angle"), strict=True):
            examples, values = run.curves(metric)
            middle = np.exp(np.log(values).mean(0)) if metric == "test_nse" else values.mean(0)
            axes.plot(examples, middle, color=shade, label=f"{scale:g}", linewidth=1.1)
    panels[0].set(yscale="log", ylabel="test NSE (geometric mean)")
    panels[1].set(ylabel="angle of FA to BP (degrees)", ylim=(0, 95))
    panels[2].set(ylabel="angle of FA to pseudobackprop (degrees)", ylim=(0, 95))
    for axes in panels:
        axes.set_xlabel("training examples")
    panels[0].legend(title=f"initial weights U[-w, w], n = {len(values)}", fontsize=6.5, title_fontsize=6.5, ncols=2)
    save(figure, into / "fig4")


def checks_1(curves: dict[str, Run]) -> list[Check]:
    nse = {}
    for rule, run in curves.items():
        ends, values = windows(run)
        # Interpolated between the middles of the windows, in logarithms.
        middles = ends - WINDOW / 2
        nse[rule] = lambda n, m=middles, v=values: np.exp([np.interp(n, m, np.log(curve)) for curve in v])

    def level(row, rule, name, targets):
        return [
            median_check(
                row,
                f"{name} at {n}",
                f"{target:g} within a factor {factor:g}",
                nse[rule](n),
                lambda median, target=target, factor=factor: 1 / factor <= median / target <= factor,
            )
            for n, target, factor in targets
        ]

    fa, bp = nse["fa"], nse["bp"]
    final = {rule: float(np.median(windows(curves[rule])[1][:, -1])) for rule in curves}
    angles = curves["fa"].curves("signal_angle_0")
    below = np.array([angles[0][np.argmax(curve < 45)] for curve in angles[1]])
    exact = at(curves["fa"], "test_nse", 1950) > ROUNDED
    shallow = np.mean([at(curves["shallow"], "test_nse", n) for n in range(1500, 2001, 50)], 0)
    lead = int(np.sum(fa(200) < bp(200)))
    seeds = len(fa(200))
    return [
        *level(
            "5",
            "fa",
            "FA, eta 0.008, median NSE",
            [(200, 2.4e-2, 2), (500, 1.8e-4, 2), (1000, 2.5e-7, 5), (1975, 9e-13, 30)],
        ),
        *level("6", "bp", "BP, eta 0.010, median NSE", [(200, 0.20, 1.5), (500, 3.4e-4, 3), (1000, 1.1e-8, 10)]),
        median_check("6", "BP, final median NSE", "below 1e-11", windows(curves["bp"])[1][:, -1], lambda m: m < 1e-11),
        Check("7", "FA below BP at 200", "in every seed", f"in {lead} of {seeds}", lead == seeds),
        Check(
            "7",
            "FA below BP at 500, medians",
            "FA / BP < 1",
            f"{np.median(fa(500)) / np.median(bp(500)):.2g}",
            bool(np.median(fa(500)) < np.median(bp(500))),
        ),
        Check(
            "7",
            "both final medians",
            "below 1e-9",
            f"{final['fa']:.2g}, {final['bp']:.2g}",
            max(final["fa"], final["bp"]) < 1e-9,
        ),
        median_check(
            "8",
            "angle below 45 degrees for the first time, median example",
            "30 to 70",
            below,
            lambda median: 30 <= median <= 70,
        ),
        *(
            mean_check(
                "8",
                f"angle at {n}{where}, mean",
                f"{target} ± 5",
                at(curves["fa"], "signal_angle_0", n)[seeds_there],
                lambda mean, target=target: abs(mean - target) <= 5,
                ".1f",
            )
            for n, target, where, seeds_there in (
                (100, 36, "", slice(None)),
                (1000, 25, "", slice(None)),
                (1950, 23, f" where the NSE is above {ROUNDED:g}", exact),
            )
        ),
        mean_check(
            "8",
            "angle at 1950, mean of all seeds",
            "23 ± 5, and up to 5 more by rounding",
            at(curves["fa"], "signal_angle_0", 1950),
            lambda mean: 18 <= mean <= 33,
            ".1f",
        ),
        *level(
            "9",
            "node_perturbation",
            "node perturbation, median NSE",
            [(500, 0.27, 1.5), (1000, 5e-2, 2), (1975, 5e-3, 2)],
        ),
        mean_check(
            "10",
            "shallow, mean test NSE of the last 500 examples",
            "at least 1/3",
            shallow,
            lambda mean: mean >= 1 / 3,
            ".3f",
        ),
        mean_check(
            "10",
            "shallow, mean test NSE at 1975",
            "0.39 ± 0.05",
            at(curves["shallow"], "test_nse", 1975),
            lambda mean: abs(mean - 0.39) <= 0.05,
            ".3f",
        ),
    ]


def checks_4(scales: dict[float, Run]) -> list[Check]:
    run = scales[0.01]
    examples, to_bp = run.curves("signal_angle_0")
    _, to_pseudo = run.curves("pseudobackprop_angle")
    crossing = float(examples[1:][np.argmax((to_pseudo.mean(0) < to_bp.mean(0))[1:])])
    ends = [float(scales[scale].curves("pseudobackprop_angle")[1][:, -1].mean()) for scale in sorted(scales)]
    return [
        *(
            mean_check(
                "11",
                f"omega 0.01, FA to {name} at 2000",
                f"{target} ± 5",
                at(run, metric, 2000),
                lambda mean, target=target: abs(mean - target) <= 5,
                ".1f",
            )
            for name, metric, target in (
                ("BP", "signal_angle_0", 32),
                ("pseudobackprop", "pseudobackprop_angle", 15),
            )
        ),
        Check(
            "11",
            "omega 0.01, the second angle gets the smaller one at",
            "500 to 1000",
            f"{crossing:.0f}",
            500 <= crossing <= 1000,
        ),
        Check(
            "11",
            "final angle to pseudobackprop, omega 0.0001 / 0.1 / 0.25",
            "grows",
            " / ".join(f"{ends[i]:.0f}" for i in (0, 4, 8)),
            ends[0] < ends[4] < ends[8],
        ),
    ]


if __name__ == "__main__":
    queue.main(__doc__, "lillicrap2014", ("task1", "fig4"))
