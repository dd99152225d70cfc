"""Figures of recorded runs: the mean over seeds with its 95 % interval, as PNG and PDF."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fa_jax.records.columns import merged
from fa_jax.records.files import whole
from fa_jax.records.reader import Run
from fa_jax.records.statistics import DIVERGED, band
from fa_jax.reports.labels import OTHERS, colours, labels
from fa_jax.text import printable

LONGEST_LABEL = 300
"""The most characters of a label that are drawn."""
STYLE: Any = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
}


def draw_curves(axes: Axes, runs: Sequence[Run], metric: str, names: Sequence[str] | None = None) -> None:
    """Draws one curve per run over training examples: the mean over seeds and a band of its 95 % interval.

    A logarithmic metric gets a logarithmic axis, the geometric mean, and the interval of the logarithm.
    """
    with_metric = [run for run in runs if metric in run.metrics]
    logarithmic = any(run.columns[metric].logarithmic for run in with_metric)
    described = merged([run.columns for run in with_metric])[metric] if with_metric else None
    same_prediction = len({run.columns[metric].prediction for run in with_metric}) <= 1
    later: list[float] = []
    for run, recorded_name, colour in zip(runs, names or labels(runs), colours(runs), strict=True):
        name = _drawn(recorded_name)
        if metric not in run.metrics:
            continue
        examples, values = run.curves(metric)
        shown = name if same_prediction else run.columns[metric].qualified(name)
        if not values.size:
            axes.plot([], [], color=colour, label=f"{shown} (all diverged)")
            continue
        mean, low, high = band(values, logarithmic=logarithmic)
        settled = mean[len(mean) // 10 + 1 :]
        later += settled[np.isfinite(settled)].tolist()
        diverged = len(run.diverged)
        label = f"{shown}, n = {len(values)}" + (f", {diverged} diverged" if diverged else "")
        # Thin with markers, since some equal a rule of the paper and would hide it.
        marked: dict[str, Any] = {"marker": "o", "markevery": 0.08, "markersize": 3} if colour in OTHERS else {}
        axes.plot(examples, mean, color=colour, label=label, linewidth=0.7 if marked else 1.4, **marked)
        axes.fill_between(examples, low, high, color=colour, alpha=0.2, linewidth=0)
    if logarithmic:
        axes.set_yscale("log")
    elif later and max(later) > 0:
        # The range after the start; an interval of few seeds may exceed the possible values.
        bounds = [run.columns[metric].bounds[1] for run in with_metric]
        most = min(bound for bound in (*bounds, math.inf) if bound is not None)
        axes.set_ylim(0 if min(later) >= 0 else None, min(most, 1.25 * max(later)))
    if any(run.config["spacing"] == "log" for run in runs):
        axes.set_xscale("log")
    axes.set_xlabel("training examples")
    axes.set_ylabel(_drawn(described.axis if described else metric))


def explain_band(axes: Axes, *, logarithmic: bool, diverged: bool = False) -> None:
    """Explains lines and bands under a figure, and what diverged means if it is said of seeds there."""
    mean = "geometric mean" if logarithmic else "mean"
    text = f"line: {mean} over seeds; band: 95 % interval of that mean (Student's t)"
    text += f"\n{textwrap.fill(DIVERGED, 100)}" if diverged else ""
    axes.figure.text(0.01, 0.005, text, fontsize=6.5, color="#555555", ha="left", va="bottom")


def comparison_figure(runs: Sequence[Run], path: Path, metric: str | None = None) -> None:
    """Saves the learning curves of several runs, and beside them the angles of their signals to backprop's.

    Args:
      runs: those without metrics are left out; if none has any, nothing is drawn.
      path: of the figure, without `.png` and `.pdf`.
      metric: a column; None: the main metric of the first run.
    """
    drawn = [run for run in runs if run.metrics]
    if not drawn:
        return
    metric = metric or drawn[0].main_metric
    columns = [column for run in drawn for column in run.columns.values() if column.metric == "signal_angle"]
    layers = sorted({column.layer for column in columns if column.layer is not None})
    with mpl.rc_context(STYLE):
        diverged = any(run.diverged for run in drawn)
        below = 0.14 if diverged else 0.05  # of the height, for the explanation
        layout = ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below))
        figure = Figure(figsize=(9 if layers else 5, 4.2), layout=layout)
        panels = figure.subplots(1, 2 if layers else 1, squeeze=False)[0]
        draw_curves(panels[0], drawn, metric)
        handles, names = panels[0].get_legend_handles_labels()
        legend_columns = max(1, min(4, (130 if layers else 70) // (8 + max(map(len, names)))))
        figure.set_figheight(4 + 0.14 * math.ceil(len(names) / legend_columns))
        figure.legend(handles, names, loc="outside upper center", ncols=legend_columns, fontsize=6.5)
        if layers:
            draw_angles(panels[1], drawn, layers)
        explain_band(panels[0], logarithmic=panels[0].get_yscale() == "log", diverged=diverged)
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Saves a figure as `path.png` and `path.pdf`."""
    for suffix in (".png", ".pdf"):
        with whole(path.with_name(path.name + suffix)) as file:
            figure.savefig(file, format=suffix[1:])


def _drawn(text: str) -> str:
    r"""Returns recorded text that Matplotlib draws as it is: a `$` begins no formula, and a `_` hides no label."""
    shown = printable(text)
    shown = shown if len(shown) <= LONGEST_LABEL else f"{shown[:LONGEST_LABEL]}..."
    return (f" {shown}" if shown.startswith("_") else shown).replace("$", r"\$")


def draw_angles(axes: Axes, runs: Sequence[Run], layers: Sequence[int]) -> None:
    """Draws the angles of the learning signals, one line style per hidden layer: the first three and the last."""
    chosen = list(layers) if len(layers) <= 4 else [*layers[:3], layers[-1]]
    styles = dict(zip(chosen, ("-", "--", ":", "-."), strict=False))
    for run, colour in zip(runs, colours(runs), strict=True):
        if run.choices["rule"] == "bp":
            continue
        for layer, line in styles.items():
            column = f"signal_angle_{layer}"
            if column not in run.metrics:
                continue
            examples, values = run.curves(column)
            if not np.isfinite(values).any():
                continue
            mean, low, high = band(values, logarithmic=False)
            axes.plot(examples, mean, line, color=colour, linewidth=1.4)
            axes.fill_between(examples, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(90, color="#555555", linewidth=0.6)
    axes.set_ylim(0, min(180, max(100, axes.get_ylim()[1])))
    axes.set_yticks(np.arange(0, axes.get_ylim()[1], 30))
    if any(run.config["spacing"] == "log" for run in runs):
        axes.set_xscale("log")
    axes.set_xlabel("training examples")
    axes.set_ylabel("angle of the signal to BP's (degrees)")
    if len(chosen) > 1:
        for layer, line in styles.items():
            axes.plot([], [], line, color="#555555", label=f"hidden layer {layer}")
        axes.legend(fontsize=6.5, loc="best")
