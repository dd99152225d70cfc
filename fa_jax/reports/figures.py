"""Figures of recorded runs: learning curves and angles, as PNG and PDF or in other formats."""

import io
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fa_jax.checks import BadOption
from fa_jax.records.files import whole
from fa_jax.records.reader import Run
from fa_jax.records.statistics import DIVERGED
from fa_jax.reports.curves import CROSS, FEWEST, GREY, MANY, Curve, curves_of, drawn, widest_random
from fa_jax.reports.flags import meanings
from fa_jax.reports.options import FigureOptions
from fa_jax.reports.panels import Block, angle_block, draw_group, size_of

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
DEFAULT = FigureOptions()
CURVES, ANGLES = "curves", "angles"
LETTERS = 200
"""The number of characters of notes in a line of an inch, times the size of letters in points."""


class Drawing(Figure):
    """A figure that a notebook shows, also if nothing has imported pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def styled(options: FigureOptions) -> AbstractContextManager[None]:
    """Returns the context to draw in. No `matplotlibrc` changes it: one in the working folder may come from anyone."""
    return style.context(["default", {**STYLE, "font.size": options.font_size}])


def in_rows(sizes: Sequence[tuple[float, float]], below: float, options: FigureOptions) -> tuple[Drawing, Any]:
    """Returns a figure with its title, and its parts, one below the other.

    Args:
      sizes: width and height of each part, in inches.
      below: the height of the notes at the lower end, in inches, if there are to be any.
      options: the size of the figure, if it is given, and the title.
    """
    below = below if options.notes else 0.0
    width, height = options.size or (
        max(width for width, _ in sizes),
        sum(height for _, height in sizes) + below + 0.3 * bool(options.title),
    )
    layout = ConstrainedLayoutEngine(rect=(0, below / height, 1, 1 - below / height))
    figure = Drawing(figsize=(width, height), layout=layout)
    if options.title:
        figure.suptitle(drawn(options.title))
    return figure, figure.subfigures(len(sizes), 1, squeeze=False, height_ratios=[height for _, height in sizes])[:, 0]


def wrapped(notes: Sequence[str], width: float, options: FigureOptions) -> str:
    """Returns notes in lines that fit a figure of a width in inches."""
    letters = int(LETTERS * width / options.font_size)
    return "\n".join(textwrap.fill(note, letters) for note in notes)


def add_notes(figure: Figure, notes: str, options: FigureOptions) -> None:
    """Writes notes at the lower end of a figure, unless they are to be left out."""
    if options.notes:
        style = {"fontsize": 0.72 * options.font_size, "color": GREY, "ha": "left", "va": "bottom"}
        figure.text(0.01, 0.005, notes, **style)


def comparison_figure(
    runs: Sequence[Run],
    path: Path,
    metric: str | None = None,
    options: FigureOptions = DEFAULT,
    *,
    names: Sequence[str] | None = None,
    formats: Sequence[str] = ("png", "pdf"),
) -> None:
    """Saves the learning curves of several runs, and beside them the angles of their signals to backprop's.

    If there are so many curves that each rule has a panel, the angles are a figure of their own, `angles`.

    Args:
      runs: those without metrics are left out; if none has any, nothing is drawn.
      path: of the figure, without its ending.
      metric: a column; None: the main metric of each run.
      options: how it is drawn.
      names: the labels of the runs; None: of what distinguishes them.
      formats: of the files.

    Raises:
      BadOption: if no angles of the chosen layers are recorded.
    """
    groups = _groups(runs, metric, names)
    if not groups:
        return
    layers = _layers(groups, options)
    if not any(Block(curves, "").by_rule for curves in groups.values()):
        save(_figure(groups, options, layers, (CURVES, ANGLES)), path, formats, options)
        return
    save(_figure(groups, options, [], (CURVES,)), path, formats, options)
    if layers:
        save(_figure(groups, options, layers, (ANGLES,)), path.with_name("angles"), formats, options)


def curves_figure(
    runs: Sequence[Run],
    metric: str | None = None,
    options: FigureOptions = DEFAULT,
    names: Sequence[str] | None = None,
) -> Drawing:
    """Returns the figure of learning curves; arguments as for `comparison_figure`.

    Each task, and each metric, has panels of its own.

    Raises:
      BadOption: if nothing is evaluated.
    """
    groups = _groups(runs, metric, names)
    if not groups:
        raise BadOption("nothing is evaluated in these runs")
    return _figure(groups, options, [], (CURVES,))


def angles_figure(runs: Sequence[Run], options: FigureOptions = DEFAULT, names: Sequence[str] | None = None) -> Drawing:
    """Returns the figure of the angles of learning signals to backprop's, with a panel for each layer.

    Raises:
      BadOption: if none are recorded, or not of the chosen layers.
    """
    groups = _groups(runs, None, names)
    layers = _layers(groups, options)
    if not layers:
        raise BadOption("no angles of learning signals are recorded in these runs; probe=100 measures them")
    return _figure(groups, options, layers, (ANGLES,))


def save(figure: Figure, path: Path, formats: Sequence[str] = ("png", "pdf"), options: FigureOptions = DEFAULT) -> None:
    """Saves a figure as `path.png` and `path.pdf`, or in other formats."""
    with styled(options):
        for suffix in formats:
            with whole(path.with_name(f"{path.name}.{suffix}")) as file:
                figure.savefig(file, format=suffix)
            figure.set_layout_engine("none")  # the places are found, which takes most of the time


def _groups(runs: Sequence[Run], metric: str | None, names: Sequence[str] | None) -> dict[tuple[str, str], list[Curve]]:
    """Returns the curves of each task and metric."""
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves_of(runs, names):
        chosen = metric or curve.run.main_metric
        if chosen in curve.run.metrics:
            groups.setdefault((curve.run.choices["task"], chosen), []).append(curve)
    return groups


def _layers(groups: dict[tuple[str, str], list[Curve]], options: FigureOptions) -> list[int]:
    """Returns the layers whose angles are drawn: by default the first and the last."""
    curves = [curve for of_group in groups.values() for curve in of_group]
    columns = {name: column for curve in curves for name, column in curve.run.columns.items()}.values()
    recorded = sorted({c.layer for c in columns if c.metric == "signal_angle" and c.layer is not None})
    recorded = [layer for layer in recorded if angle_block(curves, layer)]
    if options.layers is None:
        return list(dict.fromkeys([*recorded[:1], *recorded[-1:]]))
    for layer in options.layers:
        if layer not in recorded:
            valid = ", ".join(map(str, recorded)) or "none; probe=100 measures angles"
            raise BadOption(f"must be of those whose angles are recorded, {valid}; got {layer}", "layers")
    return list(options.layers)


def _figure(
    groups: dict[tuple[str, str], list[Curve]], options: FigureOptions, layers: Sequence[int], of: Sequence[str]
) -> Drawing:
    """Returns the figure of the curves of each task and metric, of their angles, or of both."""
    blocks: dict[str, list[Block]] = {}
    tasks = {task for task, _ in groups}
    for (task, metric), curves in groups.items():
        angles = [block for layer in layers if (block := angle_block(curves, layer))]
        title = task if len(tasks) == len(groups) else f"{task}, {metric}"
        blocks[title] = [*([Block(curves, metric)] if CURVES in of else []), *angles]
    blocks = {title: of_group for title, of_group in blocks.items() if of_group}
    with styled(options):
        with_spread = any(
            len(curves) <= MANY for part in blocks.values() for panel in part for curves in panel.rules.values()
        )
        sizes = [size_of(of_group) for of_group in blocks.values()]
        notes = _explanation([curve.run for curves in groups.values() for curve in curves], with_spread=with_spread)
        notes += _explained([block for of_group in blocks.values() for block in of_group])
        notes = wrapped(notes, (options.size or max(sizes))[0], options)
        below = (0.11 * (notes.count("\n") + 1) + 0.05) * options.font_size / 9
        figure, parts = in_rows(sizes, below, options)
        width = figure.get_figwidth()
        for part, (title, of_group) in zip(parts, blocks.items(), strict=True):
            draw_group(part, of_group, title if len(blocks) > 1 else "", options, width)
        add_notes(figure, notes, options)
    return figure


def _explanation(runs: Sequence[Run], *, with_spread: bool) -> list[str]:
    """Explains lines, and bands if there are any, and what diverged means if a seed has."""
    logarithmic = [run.columns[run.main_metric].logarithmic for run in runs]
    both = "mean (geometric on a logarithmic axis)" if any(logarithmic) else "mean"
    counts = {len(run.seeds) - len(run.diverged) for run in runs} - {0}
    parts = [f"line: {'geometric mean' if all(logarithmic) else both} over seeds" if counts != {1} else "one seed"]
    if with_spread and any(n >= FEWEST for n in counts):
        parts.append("band: 95 % interval of that mean (Student's t)")
    if with_spread and any(1 < n < FEWEST for n in counts):
        parts.append(f"thin lines: single seeds, where there are fewer than {FEWEST}")
    return ["; ".join(parts), *([DIVERGED] if any(run.diverged for run in runs) else [])]


def _explained(blocks: Sequence[Block]) -> list[str]:
    """Explains grey bands and crosses, if there are any."""
    shown = [(curve.run, block.column) for block in blocks for curve in block.curves]
    crosses = meanings(shown, CROSS, at_end=False)
    angles = [block for block in blocks if block.layer is not None]
    if not any(widest_random([curve.run for curve in block.curves], block.column) for block in angles):
        return crosses
    return ["grey: 90 degrees ± the standard deviation for random signals, of an example and of the mean", *crosses]
