"""The figure of a sweep of one number: the metric at its end against that number, one line per rule."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import SubFigure

from fa_jax.records.conditions import Condition
from fa_jax.records.statistics import Summary
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.curves import FEWEST, LINE_WIDTH, LINES, drawn
from fa_jax.reports.decimals import summary_of
from fa_jax.reports.figures import DEFAULT, Drawing, add_notes, in_rows, styled, wrapped
from fa_jax.reports.looks import Look, is_wide
from fa_jax.reports.options import FigureOptions
from fa_jax.reports.panels import TOGETHER, grid, legend
from fa_jax.reports.rates import Line, Rates, line_looks

ROOM = 1.25
"""The upper end of the axis over the largest mean."""


class Points(NamedTuple):
    """What is drawn of one line."""

    line: Line
    look: Look
    summaries: dict[float, Summary]
    """The summary at each value with a finite mean."""
    samples: dict[float, list[float]]
    """The metric of each seed at these values."""
    diverged: list[float]
    """The values with which every seed diverged."""


def rates_figure(conditions: Sequence[Condition], rates: Sequence[Rates], options: FigureOptions = DEFAULT) -> Drawing:
    """Returns the figure of sweeps, at least one: of each, one panel, or one per line if there are many.

    Args:
      conditions: of which the sweeps have indices.
      rates: the sweeps.
      options: how it is drawn.
    """
    with styled(options):
        sizes = [_size(sweep) for sweep in rates]
        below = 0.3 * options.font_size / 9
        figure, parts = in_rows(sizes, below, options)
        width = figure.get_figwidth()
        counts: set[int] = set()
        diverged = False
        for part, sweep in zip(parts, rates, strict=True):
            points = [
                _points(conditions, sweep, *pair)
                for pair in zip(sweep.lines, line_looks(conditions, sweep), strict=True)
            ]
            diverged |= any(of_line.diverged for of_line in points)
            counts |= {summary.n for of_line in points for summary in of_line.summaries.values()}
            if len(rates) > 1:
                part.suptitle(drawn(sweep.task), fontsize=options.font_size)
            _draw(part, conditions, sweep, points, options, width)
        notes = ["mean over seeds"]
        notes += ["bars: 95 % interval of that mean (Student's t)"] * any(n >= FEWEST for n in counts)
        notes += [f"dots: single seeds, where there are fewer than {FEWEST}"] * any(1 < n < FEWEST for n in counts)
        notes += ["ring: chosen on validation examples"] * any(sweep.validation for sweep in rates)
        notes += ["of tied values the lowest"] * any(line.tied for sweep in rates for line in sweep.lines)
        notes += ["cross: every seed diverged"] * diverged
        add_notes(figure, wrapped(["; ".join(notes)], width, options), options)
    return figure


def _size(rates: Rates) -> tuple[float, float]:
    if len(rates.lines) <= TOGETHER:
        return 5.0, 3.4 + 0.16 * (2 + len(rates.lines) // 4)
    rows, columns = grid(len(rates.lines))
    return 2.1 * columns + 0.5, 1.6 * rows + 0.8


def _points(conditions: Sequence[Condition], rates: Rates, line: Line, look: Look) -> Points:
    column = columns_of(conditions)[rates.metric]
    summaries = {value: summary_of(conditions[i], rates.metric, column) for value, i in line.conditions.items()}
    known = {value: summary for value, summary in summaries.items() if math.isfinite(summary.mean)}
    samples = {value: list(conditions[line.conditions[value]].run.at_end(rates.metric).values()) for value in known}
    diverged = [value for value in summaries if value not in known and conditions[line.conditions[value]].run.diverged]
    return Points(line, look, known, samples, diverged)


def _draw(
    part: SubFigure,
    conditions: Sequence[Condition],
    rates: Rates,
    points: Sequence[Points],
    options: FigureOptions,
    width: float,
) -> None:
    """Draws one sweep."""
    column = columns_of(conditions)[rates.metric]
    together = len(points) <= TOGETHER
    rows, columns = (1, 1) if together else grid(len(points))
    panels = part.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for i, of_line in enumerate(points):
        axes = panels[0 if together else i]
        _draw_line(axes, of_line)
        if not together:
            axes.set_title(drawn(of_line.line.name), fontsize=options.font_size, color=of_line.look.colour)
            others = [_curve(other) for other in points if other is not of_line]
            axes.add_collection(LineCollection(others, colors="#CCCCCC", linewidths=0.6, zorder=0.5), autolim=False)
    means = [summary.mean for of_line in points for summary in of_line.summaries.values()]
    first = panels[0]
    if column.logarithmic:
        first.set_yscale("log")
    elif means and min(means) >= 0:
        first.set_ylim(0, min(math.inf if column.bounds[1] is None else column.bounds[1], ROOM * max(means)))
    if is_wide(rates.values):
        first.set_xscale("log")
    top = first.get_ylim()[1]
    for i, of_line in enumerate(points):
        style = {"marker": "x", "linestyle": "", "color": of_line.look.colour, "markersize": 5, "clip_on": False}
        if of_line.diverged:
            panels[0 if together else i].plot(of_line.diverged, [top] * len(of_line.diverged), **style)
    xlabel, ylabel = drawn(rates.short), drawn(column.axis)
    if together:
        first.set(xlabel=xlabel, ylabel=ylabel)
    else:
        part.supxlabel(xlabel, fontsize=options.font_size)
        part.supylabel(ylabel, fontsize=options.font_size)
        for i, axes in enumerate(panels):
            axes.tick_params(labelbottom=i + columns >= len(points))  # where there is no panel below
            axes.set_axis_on() if i < len(points) else axes.set_axis_off()
    if together:
        handles, names = first.get_legend_handles_labels()
        legend(part, handles, names, options, width)


def _draw_line(axes: Axes, points: Points) -> None:
    """Draws the means of a line with their spread over seeds, and rings the chosen value."""
    line, look, summaries, samples, _ = points
    style = {"linestyle": LINES[look.dash], "marker": look.marker[0], "markersize": 4, "linewidth": LINE_WIDTH}
    axes.plot(*_curve(points).T, color=look.colour, label=drawn(line.name), **style)
    bars = [(value, summary.low, summary.high) for value, summary in summaries.items() if summary.n >= FEWEST]
    dots = [(value, v) for value, summary in summaries.items() if 1 < summary.n < FEWEST for v in samples[value]]
    if bars:
        axes.vlines(*np.transpose(bars), color=look.colour, linewidth=0.8)
    if dots:
        axes.plot(*np.transpose(dots), ".", color=look.colour, markersize=2.5, alpha=0.6)
    if line.chosen is not None:
        ring = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.2}
        axes.plot(line.chosen, summaries[line.chosen].mean, "o", color=look.colour, **ring)


def _curve(points: Points) -> np.ndarray:
    """Returns the values and the means `[points, 2]`."""
    return np.array([(value, summary.mean) for value, summary in points.summaries.items()]).reshape(-1, 2)
