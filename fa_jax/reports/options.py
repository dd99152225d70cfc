"""Options of figures and tables, checked: as they are typed, or as Python values."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fa_jax.checks import BadOption, choose, integer, number, switch

AXES = {"examples": "training examples", "epochs": "epochs"}
"""What curves may be drawn over, with the label of the axis."""
IMAGES = ("png", "pdf", "svg")
TABLES = ("csv", "markdown", "latex")
SWITCH = {"true": True, "false": False}
"""What may be typed."""
FORMATS: dict[str, None] = dict.fromkeys((*IMAGES, *TABLES))


class FigureOptions(NamedTuple):
    """How figures are drawn."""

    title: str = ""
    size: tuple[float, float] | None = None
    """Width and height in inches; None: as suits what is drawn."""
    font_size: float = 9.0
    """The size in points."""
    axis: str = "examples"
    """One of `AXES`."""
    layers: tuple[int, ...] | None = None
    """The hidden layers whose angles are drawn; None: the first and the last."""
    notes: bool = True
    """Whether lines, bands and marks are explained below the panels; a paper says it in its caption."""


def figure_options(
    title: str | None = None,
    size: Any = None,
    font_size: Any = None,
    axis: str | None = None,
    layers: Any = None,
    notes: Any = None,
) -> FigureOptions:
    """Returns the options of figures; None stands for the default.

    Raises:
      BadOption: if a value is wrong.
    """
    default = FigureOptions()
    axis = default.axis if axis is None else axis
    choose("axis", axis, AXES)
    return FigureOptions(
        title or "",
        None if size is None else _size(size),
        default.font_size if font_size is None else number("font_size", _number(font_size), least=1, most=100),
        axis,
        None if layers is None else _layers(layers),
        default.notes if notes is None else switch("notes", SWITCH.get(notes, notes)),
    )


def formats(text: str | None) -> tuple[str, ...]:
    """Returns the formats that a text such as `latex,svg` names; None: all but svg.

    Raises:
      BadOption: if there is no such format.
    """
    if text is None:
        return tuple(name for name in FORMATS if name != "svg")
    names = listed(text)
    for name in names:
        choose("format", name, FORMATS)
    return tuple(dict.fromkeys(names))


def listed(text: str) -> list[str]:
    """Returns the parts of a text such as `mean,n`, in brackets or not."""
    return [part.strip() for part in text.strip().removeprefix("[").removesuffix("]").split(",")]


def of_figures(options: Mapping[str, str]) -> dict[str, str]:
    """Returns the typed options that `figure_options` takes."""
    return {name: value for name, value in options.items() if name in FigureOptions._fields}


def _size(got: Any) -> tuple[float, float]:
    parts = re.split("[x,]", got.strip("[]")) if isinstance(got, str) else got
    if not isinstance(parts, Sequence) or len(parts) != 2:
        raise BadOption(f"must be a width and a height in inches, such as 6x4; got {got!r}", "size")
    width, height = (number("size", _number(part), least=1, most=100) for part in parts)
    return width, height


def _layers(got: Any) -> tuple[int, ...]:
    parts = listed(got) if isinstance(got, str) else got if isinstance(got, Sequence) else [got]
    return tuple(dict.fromkeys(integer("layers", _number(part), least=0) for part in parts))


def _number(got: Any) -> Any:
    """Returns the number that a text is; anything else as it is."""
    if isinstance(got, str):
        for kind in (int, float):
            try:
                return kind(got)
            except ValueError:
                continue
    return got
