"""The figures and the table of the three tasks of YAGI's feedback_alignment repository; `rows` trains and draws them.

The figure has the two panels and the colours of the repository. `measured.csv` has its numbers, beside the published
ones. The repository plots the training loss of every batch, summed over the batch. Here a point is the mean of this
loss over the batches since the last evaluation, in task 3 since the last but one: over two times 250 steps, which is
the repository's moving average over 500 steps, drawn at every 250th.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import hydra
import matplotlib as mpl
import numpy as np
from hydra.errors import InstantiationException
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.common import read_rows, seconds
from fa_jax.core import Task
from fa_jax.records.reader import Run
from fa_jax.records.statistics import Summary, summarise
from fa_jax.reports.figures import STYLE, save

HERE = Path(__file__).parent
LAYOUT = (14, 5.5)
"""Inches."""
CURVES = {
    "bp": ("BP", "#000000"),
    "fa": ("FA", "#00AF00"),
    "bp2": ("BP-2, 30-20-10", "#000000"),
    "fa2": ("FA-2, 30-20-10", "#00AF00"),
    "bp3": ("BP-3, 30-20-10-10", "#FF00FF"),
    "fa3": ("FA-3, 30-20-10-10", "#0000FF"),
}
MARKERS = {"code": ("o", "its code, run (teacher of its own)"), "readme": ("D", "its README's plot")}
"""The marker and the label of each source of published values."""


class Plan(NamedTuple):
    """The curves of a command, and how they are shown."""

    title: str
    curves: tuple[str, ...]
    epochs: tuple[int, ...]
    """Epochs after which the test loss is tabulated; the last is the end of training."""
    teachers: tuple[int | None, ...]
    """Values of `task.seed`; the figure shows the first. None: the task has no teacher."""
    window: int
    """The number of evaluations that a training point averages over."""
    published: str
    """The name of the task in `published.csv`."""
    sources: tuple[str, ...] = tuple(MARKERS)
    """The sources of published values."""


PLANS = {
    "task1": Plan("Task (1) Linear function", ("bp", "fa"), (0, 50, 200, 500, 1000), (0, 1, 2), 1, "task1"),
    "task2": Plan("Task (2) MNIST", ("bp", "fa"), (0, 1, 5, 20), (None,), 1, "task2"),
    "task3": Plan(
        "Task (3) Nonlinear function, as coded", ("bp2", "fa2", "bp3", "fa3"), (0, 1, 10), (0, 1, 2), 2, "task3"
    ),
    "task3_readme": Plan(
        "Task (3) Nonlinear function, as its README says",
        ("bp2", "fa2", "bp3", "fa3"),
        (0, 1, 10),
        (0,),
        2,
        "task3",
        ("readme",),
    ),
}
Runs = dict[tuple[str, int | None], Run]
"""The run of each curve and teacher."""


def overrides(name: str) -> list[str]:
    """Returns the arguments of the sweep of a plan: its curves and teachers."""
    plan = PLANS[name]
    curves = "experiment=" + ",".join(f"yagi2022/{name}_{curve}" for curve in plan.curves)
    teachers = [f"task.seed={','.join(map(str, plan.teachers))}"] if plan.teachers != (None,) else []
    return [curves, *teachers]


def conclude(name: str, all_runs: Sequence[Run], into: Path) -> None:
    """Draws the figure of a plan, and writes its rows of `measured.csv`, to a folder."""
    plan, prefix = PLANS[name], f"yagi2022/{name}_"
    runs = {(run.choices["experiment"].removeprefix(prefix), run.config["task"].get("seed")): run for run in all_runs}
    baselines = {teacher: predictors(runs[plan.curves[0], teacher]) for teacher in plan.teachers}
    published = [
        row
        for row in read_rows(HERE / "published.csv")
        if row["task"] == plan.published and row["source"] in plan.sources
    ]
    draw(plan, runs, baselines, published, into / name)
    rows = tabulate(name, plan, runs, baselines, published)
    write_rows(into / "measured.csv", name, rows)
    for row in rows:
        print("  ".join(str(value) for value in row.values()))
    for (curve_name, teacher), run in runs.items():
        print(f"{name} {curve_name}, teacher {teacher}: {seconds(run):.0f} s for {len(run.seeds)} seeds")


def predictors(run: Run) -> dict[str, float]:
    """Returns the test loss of the best constant output and, in task 3, of the best affine map of the inputs."""
    try:
        task: Task = hydra.utils.instantiate(run.config["task"], _convert_="all")
    except InstantiationException as problem:
        raise SystemExit(str(problem.__cause__)) from None
    train, test = np.asarray(task.encode(task.train.targets)), np.asarray(task.encode(task.test.targets))
    losses = {"constant": half_squared_error(train.mean(0), test)}
    if run.choices["task"] == "nonlinear":
        x, x_test = (np.pad(np.asarray(s.inputs), ((0, 0), (0, 1)), constant_values=1) for s in (task.train, task.test))
        losses["affine"] = half_squared_error(x_test @ np.linalg.lstsq(x, train, rcond=None)[0], test)
    return losses


def half_squared_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns half the squared error of `[n, outputs]`: the sum over the outputs, the mean over the examples."""
    return 0.5 * float(np.mean(np.sum(np.square(outputs - targets), 1)))


def curve(run: Run, metric: str, window: int = 1) -> tuple[np.ndarray, list[Summary]]:
    """Returns the epochs of the evaluations, and the summaries over seeds of `test_loss` or `train_loss_per_batch`.

    The second is the loss summed over a batch, averaged over the last `window` evaluations.
    """
    examples, values = run.curves("train_loss" if metric == "train_loss_per_batch" else metric)
    # An epoch has fewer examples than the data set: those that do not fill a batch are left out.
    epochs = examples / examples[-1] * run.config["epochs"]
    if metric == "train_loss_per_batch":
        # The first evaluation is before training, and has no training loss.
        means = np.lib.stride_tricks.sliding_window_view(values[:, 1:], window, axis=1).mean(-1)
        epochs, values = epochs[window:], means * run.config["batch_size"]
    return epochs, [summarise(column) for column in values.T]


def draw(
    plan: Plan, runs: Runs, baselines: dict[int | None, dict[str, float]], published: list[dict[str, str]], path: Path
) -> None:
    """Draws the two panels for the first teacher of a plan, and saves them as PNG and PDF."""
    teacher = plan.teachers[0]
    with mpl.rc_context({**STYLE, "font.size": 11, "savefig.dpi": 100}):
        figure = Figure(figsize=LAYOUT, layout="constrained")
        figure.suptitle(plan.title)
        left, right = figure.subplots(1, 2)
        late = {"train_loss_per_batch": [], "test_loss": list(baselines[teacher].values())}
        for panel, metric in ((left, "train_loss_per_batch"), (right, "test_loss")):
            for name in plan.curves:
                run = runs[name, teacher]
                epochs, points = curve(run, metric, plan.window)
                label, colour = CURVES[name]
                seeds = f", n = {points[-1].n}" if metric == "test_loss" else ""
                panel.plot(epochs, [p.mean for p in points], color=colour, label=label + seeds, linewidth=1.3)
                if points[-1].n > 1:
                    panel.fill_between(
                        epochs, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.2, linewidth=0
                    )
                late[metric] += [p.mean for epoch, p in zip(epochs, points, strict=True) if epoch >= 1]
            panel.set_xlabel("epoch")
            panel.set_xlim(-0.03 * plan.epochs[-1], 1.03 * plan.epochs[-1])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        for style, (name, loss) in zip(("--", ":"), baselines[teacher].items(), strict=False):
            right.axhline(loss, color="#777777", linestyle=style, linewidth=1, label=f"best {name} output")
        late["test_loss"] += draw_published(right, plan, published)
        for panel, metric in ((left, "train_loss_per_batch"), (right, "test_loss")):
            low, high = min(late[metric]), max(late[metric])
            panel.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        mean = f" (mean over {250 * plan.window} steps)" if plan.window > 1 else ""
        left.set_ylabel("training loss, summed over a batch" + mean)
        right.set_ylabel("test loss, per example")
        right.legend(fontsize=9)
        figure.set_layout_engine("constrained", rect=(0, 0.04, 1, 0.96))
        text = "axes: what comes after the first epoch"
        if any(point.n > 1 for point in points):
            text = f"lines: means over seeds; bands: 95 % intervals of those means (Student's t); {text}"
        figure.text(0.01, 0.01, text, fontsize=8, color="#555555")
        save(figure, path)


def draw_published(axes: Axes, plan: Plan, published: list[dict[str, str]]) -> list[float]:
    """Draws the published test losses of the first teacher of each source, and returns them."""
    drawn = []
    for source, (marker, label) in MARKERS.items():
        rows = [
            row
            for row in published
            if (row["source"], row["measure"]) == (source, "test_loss")
            and row["draw"] in ("seed 0", "unknown")
            and row["curve"] in CURVES
        ]
        for row in rows:
            axes.plot(
                float(row["epoch"]),
                float(row["value"]),
                marker,
                markerfacecolor="white",
                markeredgecolor=CURVES[row["curve"]][1],
                markersize=6,
                zorder=5,
                clip_on=False,
            )
            drawn.append(float(row["value"]))
        if rows:
            axes.plot([], [], marker, markerfacecolor="white", markeredgecolor="black", label=label)
    return drawn


def tabulate(
    name: str,
    plan: Plan,
    runs: Runs,
    baselines: dict[int | None, dict[str, float]],
    published: list[dict[str, str]],
) -> list[dict[str, object]]:
    """Returns the rows of `measured.csv`: test losses and the last training loss of each curve and teacher."""
    rows = []
    for teacher in plan.teachers:
        task = {"task": name, "teacher": "" if teacher is None else teacher}
        points = [(e, "test_loss") for e in plan.epochs] + [(plan.epochs[-1], "train_loss_per_batch")]
        for curve_name in plan.curves:
            for epoch, metric in points:
                epochs, summaries = curve(runs[curve_name, teacher], metric, plan.window)
                summary = summaries[int(np.argmin(np.abs(epochs - epoch)))]
                point = task | {"curve": curve_name, "epoch": epoch, "measure": metric}
                values = numbers(summary.mean, summary.low, summary.high, summary.n)
                rows.append(point | values | published_values(point, published))
        for predictor, loss in baselines[teacher].items():
            point = task | {"curve": f"best {predictor}", "epoch": "", "measure": "test_loss"}
            rows.append(point | numbers(loss) | published_values(point, published))
    return rows


def numbers(mean: float, low: float = np.nan, high: float = np.nan, seeds: int | str = "") -> dict[str, object]:
    """Returns the columns of a rounded number; an interval that does not exist is empty."""
    ends = {"low": low, "high": high}
    return {"mean": f"{mean:.4g}", **{k: f"{v:.4g}" if np.isfinite(v) else "" for k, v in ends.items()}, "seeds": seeds}


def published_values(point: Mapping[str, object], published: Iterable[dict[str, str]]) -> dict[str, str]:
    """Returns the columns of the published values, one for each source; values of several runs share a cell."""
    same = [row for row in published if all(row[k] == str(point[k]) for k in ("curve", "epoch", "measure"))]
    return {source: " ".join(row["value"] for row in same if row["source"] == source) for source in MARKERS}


def write_rows(path: Path, name: str, rows: Sequence[dict[str, object]]) -> None:
    """Writes the rows of a task to the table, in place of its old ones."""
    others = [row for row in read_rows(path) if row["task"] != name]
    order = list(PLANS)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*others, *rows], key=lambda row: order.index(row["task"])))
