"""Curves of recorded runs on axes of Matplotlib: the mean over seeds, with its 95 % interval or with single seeds."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MultipleLocator

from fa_jax.records.columns import merged
from fa_jax.records.reader import Run
from fa_jax.records.statistics import band
from fa_jax.reports.flags import flagged
from fa_jax.reports.labels import Described, describe, labels
from fa_jax.reports.looks import Look, looks, over_logarithm
from fa_jax.reports.options import AXES
from fa_jax.user.text import printable

LONGEST_LABEL = 300
"""The most characters of a label that are drawn."""
FEWEST = 5
"""The fewest seeds with an interval; fewer are drawn one by one, since their interval would cover the panel."""
MANY = 12
"""The most curves of a rule with bands, and with a legend."""
LINE_WIDTH = 1.3
MARKED = 0.16
"""The distance of markers on a curve, as a share of the diagonal of the panel."""
LINES: dict[str, Any] = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
KEYS = {"examples": "examples", "epochs": "epoch"}
GREY = "#555555"
CROSS = "x"
"""The marker of values that are marked."""


class Curve(NamedTuple):
    """A run to be drawn among others."""

    run: Run
    name: str
    look: Look
    described: Described
    place: float
    """Where its first marker is, from 0 to 1, so that those of curves that coincide alternate."""


def curves_of(runs: Sequence[Run], names: Sequence[str] | None = None) -> list[Curve]:
    """Returns the curves of runs that are shown together; those without metrics are left out."""
    rules = sorted({run.choices["rule"] for run in runs})
    places = [rules.index(run.choices["rule"]) / len(rules) for run in runs]
    parts = zip(runs, names or labels(runs), looks(runs), describe(runs), places, strict=True)
    return [Curve(*of_run) for of_run in parts if of_run[0].metrics]


def draw_curves(axes: Axes, curves: Sequence[Curve], metric: str, axis: str = "examples") -> None:
    """Draws one line per curve that has the metric.

    A logarithmic metric gets a logarithmic axis, the geometric mean, and the interval of the logarithm.

    Args:
      axes: to draw on.
      curves: to be drawn.
      metric: a column.
      axis: one of `AXES`.
    """
    shown = [curve for curve in curves if metric in curve.run.metrics]
    columns = [curve.run.columns[metric] for curve in shown]
    logarithmic = any(column.logarithmic for column in columns)
    described = merged([curve.run.columns for curve in shown])[metric] if shown else None
    same_prediction = len({column.prediction for column in columns}) <= 1
    markers = len({curve.run.choices["rule"] for curve in shown}) > 1
    later: list[float] = []
    for curve, column in zip(shown, columns, strict=True):
        name = drawn(curve.name if same_prediction else column.qualified(curve.name))
        x, values = curve.run.curves(metric, KEYS[axis])
        diverged = len(curve.run.diverged)
        if not values.size:
            axes.plot([], [], color=curve.look.colour, label=f"{name} (all diverged)")
            continue
        label = f"{name}, n = {len(values)}" + (f", {diverged} diverged" if diverged else "")
        mean = _draw(axes, x, values, curve, label, logarithmic=logarithmic, markers=markers)
        _draw_marks(axes, curve, metric, x, mean)
        settled = mean[len(mean) // 10 + 1 :]
        later += settled[np.isfinite(settled)].tolist()
    if logarithmic:
        axes.set_yscale("log")
    elif later and max(later) > 0:
        # The range after the start; an interval of few seeds may exceed the possible values.
        bounds = [column.bounds[1] for column in columns]
        most = min(bound for bound in (*bounds, math.inf) if bound is not None)
        axes.set_ylim(0 if min(later) >= 0 else None, min(most, 1.25 * max(later)))
    _label_axis(axes, [curve.run for curve in curves], axis)
    axes.set_ylabel(drawn(described.axis if described else metric))


def draw_angles(axes: Axes, curves: Sequence[Curve], layer: int, axis: str = "examples") -> None:
    """Draws the angle of the learning signal of a hidden layer to backprop's, of all rules but backprop itself."""
    column = f"signal_angle_{layer}"
    shown = [curve for curve in curves if column in curve.run.metrics and curve.run.choices["rule"] != "bp"]
    if len(shown) > MANY:
        draw_many(axes, shown, column, axis)
    else:
        markers = len({curve.run.choices["rule"] for curve in shown}) > 1
        for curve in shown:
            x, values = curve.run.curves(column, KEYS[axis])
            if np.isfinite(values).any():
                mean = _draw(axes, x, values, curve, None, logarithmic=False, markers=markers)
                _draw_marks(axes, curve, column, x, mean)
    axes.axhline(90, color=GREY, linewidth=0.6)
    random = widest_random([curve.run for curve in shown], column)
    for half_width in random:
        axes.axhspan(90 - half_width, 90 + half_width, color=GREY, alpha=0.13, linewidth=0, zorder=0.4)
    highest = max((_highest(curve, column) for curve in shown), default=0.0)
    axes.set_ylim(0, min(180, 1.03 * max(97, highest, *(90 + half_width for half_width in random))))
    axes.yaxis.set_major_locator(MultipleLocator(30))
    _label_axis(axes, [curve.run for curve in curves], axis)
    axes.set_ylabel(f"angle to BP's signal,\nlayer {layer} (degrees)")


def draw_background(axes: Axes, curves: Sequence[Curve], metric: str, axis: str = "examples") -> None:
    """Draws the means of curves thin and grey."""
    lines = []
    for curve in curves:
        if metric in curve.run.metrics:
            x, values = curve.run.curves(metric, KEYS[axis])
            if values.size:
                mean, _, _ = band(values, logarithmic=curve.run.columns[metric].logarithmic)
                lines.append(np.column_stack([x, mean]))
    axes.add_collection(LineCollection(lines, colors="#CCCCCC", linewidths=0.6, zorder=0.5), autolim=False)


def draw_many(axes: Axes, curves: Sequence[Curve], metric: str, axis: str = "examples") -> None:
    """Draws the means of many curves, for which lines, bands and markers of their own would be slow and unreadable."""
    shown = [curve for curve in curves if metric in curve.run.metrics and curve.run.curves(metric)[1].size]
    lines = []
    for curve in shown:
        x, values = curve.run.curves(metric, KEYS[axis])
        lines.append(np.column_stack([x, band(values, logarithmic=curve.run.columns[metric].logarithmic)[0]]))
        _draw_marks(axes, curve, metric, *lines[-1].T)
    axes.add_collection(LineCollection(lines, colors=[curve.look.colour for curve in shown], linewidths=0.8))
    if any(curve.run.columns[metric].logarithmic for curve in shown):
        axes.set_yscale("log")
    axes.autoscale_view()
    if lines and axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0 if min(np.nanmin(line[:, 1]) for line in lines) >= 0 else None)
    _label_axis(axes, [curve.run for curve in curves], axis)
    column = merged([curve.run.columns for curve in shown]).get(metric)
    axes.set_ylabel(drawn(column.axis if column else metric))


def widest_random(runs: Sequence[Run], name: str) -> tuple[float, ...]:
    """Returns the standard deviations of a column for random signals, of an example and of the mean, where largest."""
    bands = [random for run in runs if name in run.columns and (random := run.columns[name].random) is not None]
    return tuple(map(max, zip(*((random.of_one, random.of_mean) for random in bands), strict=True)))


def drawn(text: str) -> str:
    r"""Returns recorded text that Matplotlib draws as it is: a `$` begins no formula, and a `_` hides no label."""
    shown = printable(text)
    shown = shown if len(shown) <= LONGEST_LABEL else f"{shown[:LONGEST_LABEL]}..."
    return (f" {shown}" if shown.startswith("_") else shown).replace("$", r"\$")


def _draw(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    curve: Curve,
    label: str | None,
    *,
    logarithmic: bool,
    markers: bool,
) -> np.ndarray:
    """Draws the mean of `[seeds, points]`, and its interval or the single seeds; returns the mean."""
    mean, low, high = band(values, logarithmic=logarithmic)
    colour, line = curve.look.colour, LINES[curve.look.dash]
    style: dict[str, Any] = {"color": colour, "label": label, "linewidth": LINE_WIDTH, "linestyle": line}
    if markers:
        every = (MARKED * curve.place, MARKED)
        style |= {"marker": curve.look.marker[0], "markersize": 3.2, "markevery": every, "markeredgewidth": 0}
    axes.plot(x, mean, **style)
    if len(values) >= FEWEST:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    elif len(values) > 1:
        seeds = [np.column_stack([x, row]) for row in values]
        axes.add_collection(LineCollection(seeds, colors=colour, linewidths=0.5, alpha=0.5), autolim=False)
    return mean


def _highest(curve: Curve, column: str) -> float:
    """Returns the largest value that is drawn of a curve: of its band, or of a seed where these are drawn."""
    _, values = curve.run.curves(column)
    drawn_values = band(values, logarithmic=False)[2] if len(values) >= FEWEST else values
    return float(np.nanmax(drawn_values)) if np.isfinite(drawn_values).any() else 0.0


def _draw_marks(axes: Axes, curve: Curve, metric: str, x: np.ndarray, mean: np.ndarray) -> None:
    """Draws a cross where the value of a seed is marked."""
    marked = flagged(curve.run, metric).any(0)
    if marked.any():
        axes.plot(x[marked], mean[marked], CROSS, color=curve.look.colour, markersize=5)


def _label_axis(axes: Axes, runs: Sequence[Run], axis: str) -> None:
    if over_logarithm(runs, KEYS[axis]):
        axes.set_xscale("log", nonpositive="mask")
    axes.set_xlabel(AXES[axis])
