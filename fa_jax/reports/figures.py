"""Figures of recorded runs: the mean over seeds with its 95 % interval, as PNG to look at and PDF to print."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fa_jax.records.reader import Run
from fa_jax.records.statistics import band, is_logarithmic
from fa_jax.reports.labels import OTHERS, colours, labels

AXES = {
    "nse": "NSE",
    "error": "error (%)",
    "loss": "loss",
    "angle": "angle (degrees)",
}
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
    """Draws one curve a run: the mean over seeds and a band of its 95 % interval, over training examples.

    A metric that ranges over decades gets a logarithmic axis, its geometric mean, and an interval of its logarithm.
    """
    logarithmic = is_logarithmic(metric)
    later: list[float] = []
    for run, name, colour in zip(runs, names or labels(runs), colours(runs), strict=True):
        if metric not in run.metrics:
            continue
        examples, values = run.curves(metric)
        if not values.size:
            axes.plot([], [], color=colour, label=f"{name} (all diverged)")
            continue
        mean, low, high = band(values, logarithmic=logarithmic)
        settled = mean[len(mean) // 10 + 1 :]
        later += settled[np.isfinite(settled)].tolist()
        lost = len(run.diverged)
        label = f"{name}, n = {len(values)}" + (f", {lost} diverged" if lost else "")
        # Thin with dots, since some are the same algorithm as one of the paper's and would hide it.
        marked: dict[str, Any] = {"marker": "o", "markevery": 0.08, "markersize": 3} if colour in OTHERS else {}
        axes.plot(examples, mean, color=colour, label=label, linewidth=0.7 if marked else 1.4, **marked)
        axes.fill_between(examples, low, high, color=colour, alpha=0.2, linewidth=0)
    if logarithmic:
        axes.set_yscale("log")
    elif later:
        # What the networks come to, not where they start; an interval of few seeds may reach beyond what there is.
        most = 100.0 if metric.endswith("_error") else np.inf
        axes.set_ylim(0 if min(later) >= 0 else None, min(most, 1.25 * max(later)) if max(later) > 0 else None)
    if any(run.config["spacing"] == "log" for run in runs):
        axes.set_xscale("log")
    axes.set_xlabel("training examples")
    split, _, rest = metric.partition("_")
    axes.set_ylabel(f"{split} {AXES.get(rest, rest)}" if split in ("train", "validation", "test") else metric)


def explain_band(axes: Axes, metric: str) -> None:
    """Says under a figure what its lines and bands are."""
    mean = "geometric mean" if is_logarithmic(metric) else "mean"
    text = f"line: {mean} over seeds; band: 95 % interval of that mean (Student's t)"
    axes.figure.text(0.01, 0.005, text, fontsize=6.5, color="#555555", ha="left", va="bottom")


def comparison_figure(runs: Sequence[Run], path: Path, metric: str | None = None) -> None:
    """Saves the learning curves of several runs, and beside them the angles of their signals to backprop's.

    Args:
      runs: those without any metrics are left out; where none has any, nothing is drawn.
      path: of the figure, without `.png` and `.pdf`.
      metric: what is drawn; None: the main metric of the first.
    """
    drawn = [run for run in runs if run.metrics]
    if not drawn:
        return
    metric = metric or drawn[0].main_metric
    layers = sorted({name for run in drawn for name in run.metrics if name.startswith("signal_angle_")}, key=_layer)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9 if layers else 5, 4.2), layout=ConstrainedLayoutEngine(rect=(0, 0.05, 1, 0.95)))
        panels = figure.subplots(1, 2 if layers else 1, squeeze=False)[0]
        draw_curves(panels[0], drawn, metric)
        handles, names = panels[0].get_legend_handles_labels()
        columns = max(1, min(4, (130 if layers else 70) // (8 + max(map(len, names)))))
        figure.set_figheight(4 + 0.14 * math.ceil(len(names) / columns))
        figure.legend(handles, names, loc="outside upper center", ncols=columns, fontsize=6.5)
        if layers:
            _draw_angles(panels[1], drawn, layers)
        explain_band(panels[0], metric)
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Saves a figure as `path.png` and `path.pdf`."""
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_name(path.name + suffix))


def _draw_angles(axes: Axes, runs: Sequence[Run], layers: Sequence[str]) -> None:
    """Angles of the learning signals, a line style a hidden layer; at most the first three and the last."""
    chosen = list(layers) if len(layers) <= 4 else [*layers[:3], layers[-1]]
    styles = dict(zip(chosen, ("-", "--", ":", "-."), strict=False))
    for run, colour in zip(runs, colours(runs), strict=True):
        if run.choices["rule"] == "bp":
            continue
        for layer, line in styles.items():
            if layer not in run.metrics:
                continue
            examples, values = run.curves(layer)
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
            axes.plot([], [], line, color="#555555", label=f"hidden layer {_layer(layer)}")
        axes.legend(fontsize=6.5, loc="best")


def _layer(name: str) -> int:
    return int(name.rpartition("_")[2])
