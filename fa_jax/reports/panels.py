"""The panels of a figure: up to `TOGETHER` curves in one panel, or of more curves, a panel for each rule."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from fa_jax.reports.curves import (
    LINE_WIDTH,
    LINES,
    MANY,
    Curve,
    draw_angles,
    draw_background,
    draw_curves,
    draw_many,
    drawn,
)
from fa_jax.reports.labels import setting_text, short_value
from fa_jax.reports.looks import of_setting, positions
from fa_jax.reports.options import AXES, FigureOptions

TOGETHER = 8
"""The most curves in one panel; of more, each rule has a panel."""
LETTERS = 120
"""The number of characters in a row of a legend, for a figure of 9 inches with letters of 9 points."""
SMALL = 0.78
"""The size of letters in legends, relative to the others."""
NEUTRAL = "#333333"
"""The colour that shows settings of any rule in a legend."""


class Block(NamedTuple):
    """What is drawn of some curves: a metric, or the angle of a layer."""

    curves: list[Curve]
    column: str
    layer: int | None = None
    """The layer of the angle; None: a metric."""

    @property
    def by_rule(self) -> bool:
        """Whether each rule has a panel."""
        return len(self.curves) > TOGETHER

    @property
    def rules(self) -> dict[str, list[Curve]]:
        """The curves of each rule."""
        by_rule: dict[str, list[Curve]] = {}
        for curve in self.curves:
            by_rule.setdefault(curve.described.rule, []).append(curve)
        return by_rule

    def draw(self, axes: Axes, curves: Sequence[Curve], axis: str) -> None:
        """Draws some of the curves."""
        if self.layer is not None:
            draw_angles(axes, curves, self.layer, axis)
        else:
            (draw_curves if len(curves) <= MANY else draw_many)(axes, curves, self.column, axis)


def angle_block(curves: Sequence[Curve], layer: int) -> Block | None:
    """Returns the angles of a layer, of rules other than backprop, if some are recorded."""
    column = f"signal_angle_{layer}"
    shown = [
        curve
        for curve in curves
        if curve.run.choices["rule"] != "bp"
        and column in curve.run.metrics
        and np.isfinite(curve.run.curves(column)[1]).any()
    ]
    return Block(shown, column, layer) if shown else None


def size_of(blocks: Sequence[Block]) -> tuple[float, float]:
    """Returns the width and the height of the panels of a group with their legend, in inches."""
    if not blocks[0].by_rule:
        rows = len(blocks[0].curves) if max(len(curve.name) for curve in blocks[0].curves) > 30 else 2
        return (5.0, 6.5, 8.5)[min(len(blocks), 3) - 1] + 2.2 * max(len(blocks) - 3, 0), 3.1 + 0.16 * rows
    grids = [grid(len(block.rules)) for block in blocks]
    return max(2.1 * columns + 0.5 for _, columns in grids), sum(1.6 * rows + 0.45 for rows, _ in grids) + 0.4


def grid(panels: int) -> tuple[int, int]:
    """Returns the rows and columns of so many panels."""
    columns = panels if panels <= 4 else min((3, 4, 5), key=lambda n: -panels % n) if panels <= 15 else 6
    return math.ceil(panels / columns), columns


def draw_group(part: SubFigure, blocks: Sequence[Block], task: str, options: FigureOptions, width: float) -> None:
    """Draws the blocks of one task and metric.

    Args:
      part: of the figure.
      blocks: at least one.
      task: a title; may be empty.
      options: how the figure is drawn.
      width: of the figure, in inches.
    """
    if task:
        part.suptitle(drawn(task), fontsize=options.font_size)
    if blocks[0].by_rule:
        # The first has the legend.
        heights = [1.6 * grid(len(block.rules))[0] + (0.45 if i else 0.85) for i, block in enumerate(blocks)]
        rows = part.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
        for i, (row, block) in enumerate(zip(rows, blocks, strict=True)):
            _draw_by_rule(row, block, options, width, with_legend=i == 0)
        return
    panels = part.subplots(1, len(blocks), squeeze=False)[0]
    for axes, block in zip(panels, blocks, strict=True):
        block.draw(axes, block.curves, options.axis)
    handles, names = panels[0].get_legend_handles_labels()
    if not names:
        handles, names = [_handle(curve) for curve in blocks[0].curves], [drawn(c.name) for c in blocks[0].curves]
    legend(part, handles, names, options, width)


def legend(
    part: Any, handles: Sequence[Line2D], names: Sequence[str], options: FigureOptions, width: float, title: str = ""
) -> None:
    """Adds a legend above the panels, in as few rows as fit."""
    letters = LETTERS * width / options.font_size
    columns = max(1, min(6, len(names), int(letters / (max(map(len, names)) + 5))))
    small = SMALL * options.font_size
    style = {"ncols": columns, "fontsize": small, "title": drawn(title) or None, "title_fontsize": small}
    part.legend(handles, names, loc="outside upper center", **style)


def _draw_by_rule(part: SubFigure, block: Block, options: FigureOptions, width: float, *, with_legend: bool) -> None:
    """Draws a panel for each rule, and a legend of the settings."""
    rules = block.rules
    rows, columns = grid(len(rules))
    panels = part.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    families = {tuple(key for key, _ in curve.described.setting) for curve in block.curves} - {()}
    lowest, highest = math.inf, -math.inf
    for axes, (rule, curves) in zip(panels, rules.items(), strict=False):
        if len(curves) == 1:
            draw_background(axes, [c for c in block.curves if c is not curves[0]], block.column, options.axis)
        block.draw(axes, curves, options.axis)
        lowest, highest = min(lowest, axes.get_ylim()[0]), max(highest, axes.get_ylim()[1])
        axes.set_title(drawn(rule), fontsize=options.font_size, color=curves[-1].look.colour)
        _name_diverged(axes, curves, block.column, options)
        if len(families) > 1 and len(curves) > 1:
            _name_settings(axes, curves, options)
    panels[0].set_ylim(lowest, highest)
    part.supylabel(panels[0].get_ylabel(), fontsize=options.font_size)
    part.supxlabel(AXES[options.axis], fontsize=options.font_size)
    for i, axes in enumerate(panels):
        axes.set(xlabel="", ylabel="")
        axes.tick_params(labelbottom=i + columns >= len(rules))  # where there is no panel below
        axes.set_axis_on() if i < len(rules) else axes.set_axis_off()
    if len(families) == 1 and with_legend:
        _legend_of_settings(part, block.curves, options, width)


def _legend_of_settings(part: SubFigure, curves: Sequence[Curve], options: FigureOptions, width: float) -> None:
    """Adds a legend of the settings, in grey since each rule has its colour."""
    by_position: dict[int, Curve] = {}
    for curve, (position, _) in zip(curves, positions([c.described for c in curves]), strict=True):
        if curve.described.setting:
            by_position.setdefault(position, curve)
    ordered = [by_position[position] for position in sorted(by_position)]
    name = ", ".join(key.rpartition(".")[2] for key, _ in ordered[0].described.setting)
    texts = [" ".join(short_value(value) for _, value in curve.described.setting) for curve in ordered]
    if len(ordered) > MANY:
        text = f"from light to dark: {name} from {texts[0]} to {texts[-1]}, {len(ordered)} values"
        part.suptitle(drawn(text), fontsize=SMALL * options.font_size)
        return
    looks = [of_setting(NEUTRAL, i, len(ordered)) for i in range(len(ordered))]
    handles = [Line2D([], [], linewidth=LINE_WIDTH, color=colour, linestyle=LINES[dash]) for colour, dash in looks]
    legend(part, handles, [drawn(text) for text in texts], options, width, name)


def _name_settings(axes: Axes, curves: Sequence[Curve], options: FigureOptions) -> None:
    """Names the settings of one rule, of many the first and the last."""
    order = [position for position, _ in positions([curve.described for curve in curves])]
    ordered = [curve for _, curve in sorted(zip(order, curves, strict=True), key=lambda pair: pair[0])]
    absent = "no " + ", ".join(key.rpartition(".")[2] for key, _ in ordered[0].described.setting)
    texts = [drawn(setting_text(curve.described.setting) or absent) for curve in ordered]
    if len(curves) > MANY // 2:
        style = {
            "ha": "right",
            "va": "bottom",
            "transform": axes.transAxes,
            "fontsize": 0.8 * SMALL * options.font_size,
        }
        axes.text(0.98, 0.02, f"light to dark, {len(curves)} settings:\n{texts[0]} to\n{texts[-1]}", **style)
    else:
        handles = [Line2D([], [], color=c.look.colour, linestyle=LINES[c.look.dash]) for c in ordered]
        style = {"frameon": True, "framealpha": 0.8, "edgecolor": "none"}
        axes.legend(handles, texts, fontsize=0.8 * SMALL * options.font_size, **style)


def _name_diverged(axes: Axes, curves: Sequence[Curve], column: str, options: FigureOptions) -> None:
    """Names the settings of which no curve can be drawn."""
    diverged = [curve for curve in curves if not curve.run.curves(column)[1].size]
    if diverged:
        texts = [" ".join(short_value(v) for _, v in curve.described.setting) or "all seeds" for curve in diverged[:4]]
        more = f" and {len(diverged) - 4} more" if len(diverged) > 4 else ""
        where = {"ha": "right", "va": "top", "transform": axes.transAxes, "fontsize": SMALL * options.font_size}
        axes.text(0.98, 0.97, drawn(f"diverged: {', '.join(texts)}{more}"), **where)


def _handle(curve: Curve) -> Line2D:
    look = curve.look
    style: dict[str, Any] = {"linestyle": LINES[look.dash], "marker": look.marker[0], "markersize": 3.2}
    return Line2D([], [], color=look.colour, linewidth=LINE_WIDTH, **style)
