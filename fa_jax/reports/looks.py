"""How runs look in figures and in the report: the colour and the marker show the rule, the line shows the setting."""

import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from fa_jax.records.reader import Run
from fa_jax.reports.labels import NAMES, Described, describe

PAPER = {"bp": "#000000", "fa": "#00A651", "shallow": "#9A9A9A", "node_perturbation": "#4D4D4D"}
"""The colours of Lillicrap et al., 2014, whose control is grey."""
CONTROLS = {"frozen_blocks": "#BFBFBF"}
"""Greys of other controls."""
OTHERS = ("#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#0072B2")
OTHERS += ("#332288", "#44AA99", "#999933", "#CC6677", "#882255", "#AA4499", "#88CCEE", "#DDCC77", "#117733")
"""The colour-blind-safe palette of Okabe and Ito, without its green, which is close to the paper's, and its yellow,
which is too light for lines; then Tol's muted palette."""
MARKERS = (("o", "circle"), ("s", "square"), ("^", "triangle-up"), ("D", "diamond"), ("v", "triangle-down"))
MARKERS += (("P", "cross"), ("X", "x"), ("<", "triangle-left"), (">", "triangle-right"), ("p", "pentagon"))
"""Markers by their names in Matplotlib and in Plotly."""
DASHES = ("solid", "dash", "dot", "dashdot")
"""Line styles by their names in Plotly."""
HEX = re.compile(r"#[0-9a-fA-F]{6}")
WIDE = 5
"""The ratio of the largest to the smallest value above which an axis is logarithmic."""
LENGTHS = 8
"""The ratio of the longest to the shortest run above which their axis is logarithmic: the short would be a stripe."""
LIGHTEST, DARKEST = 80.0, 38.0
"""The lightness of the lightest shade of a colour and of the darkest one, as L* of CIELAB from 0 to 100."""


class Look(NamedTuple):
    """How the curve of a run is drawn."""

    colour: str
    """`#rrggbb`; of the rule, in a shade of the setting if there are more settings than `DASHES`."""
    dash: str
    """One of `DASHES`: of the setting."""
    marker: tuple[str, str]
    """One of `MARKERS`: of the rule. Curves that coincide are told apart by their markers."""


def looks(
    runs: Sequence[Run], described: Sequence[Described] | None = None, among: Sequence[Run] | None = None
) -> list[Look]:
    """Returns how each run looks among all that are shown.

    Args:
      runs: to be drawn.
      described: what distinguishes them; None: as `labels.describe` finds.
      among: all runs that are shown, which share out the colours; None: `runs`.
    """
    described, among = described or describe(runs), among or runs
    rules = [run.choices["rule"] for run in runs]
    colour_of, names = _colours(among), sorted({run.choices["rule"] for run in among}, key=_rank)
    marker_of = {rule: MARKERS[i % len(MARKERS)] for i, rule in enumerate(names)}
    result = []
    for rule, (position, total) in zip(rules, positions(described), strict=True):
        result.append(Look(*of_setting(colour_of[rule], position, total), marker_of[rule]))
    return result


def of_setting(colour: str, position: int, total: int) -> tuple[str, str]:
    """Returns the shade of a rule's colour and the line style of one of so many settings.

    Neighbours in shade have different lines.
    """
    if total <= len(DASHES):
        return colour, DASHES[position]
    return shade(colour, position / (total - 1)), DASHES[position % len(DASHES)]


def positions(described: Sequence[Described]) -> list[tuple[int, int]]:
    """Returns the position of each run's setting, and the number of settings, among those of the same options.

    Numbers are in order; other values are in the order of the runs.
    """
    families: dict[tuple[str, ...], dict[tuple[str, ...], None]] = {}
    split = [
        (tuple(key for key, _ in condition.setting), tuple(value for _, value in condition.setting))
        for condition in described
    ]
    for keys, values in split:
        families.setdefault(keys, {})[values] = None
    ordered = {keys: {values: i for i, values in enumerate(_in_order(list(seen)))} for keys, seen in families.items()}
    return [(ordered[keys][values], len(ordered[keys])) for keys, values in split]


def is_colour(value: object) -> bool:
    """Returns whether a value is a colour such as `#00A651`."""
    return isinstance(value, str) and HEX.fullmatch(value) is not None


def shade(colour: str, position: float) -> str:
    """Returns a shade of a colour `#rrggbb`, from light at 0 to dark at 1, in equal steps of lightness."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    target = LIGHTEST + position * (min(DARKEST, _lightness(channels)) - LIGHTEST)
    end = float(target > _lightness(channels))  # it is mixed with white or with black
    low, high, mixed = 0.0, 1.0, channels
    for _ in range(12):
        share = (low + high) / 2
        mixed = [(1 - share) * c + share * end for c in channels]
        low, high = (share, high) if (_lightness(mixed) < target) == bool(end) else (low, share)
    return "#" + "".join(f"{round(255 * c):02X}" for c in mixed)


def _lightness(rgb: Sequence[float]) -> float:
    """Returns L* of CIELAB of sRGB components from 0 to 1."""
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    y = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def over_logarithm(runs: Sequence[Run], key: str) -> bool:
    """Returns whether curves are drawn over a logarithmic axis: they were evaluated so, or some are much shorter.

    Args:
      runs: to be drawn.
      key: what they are drawn over, `examples` or `epoch`.
    """
    ends = [float(run.metrics[key].max()) for run in runs if run.metrics and run.is_finished]
    is_uneven = len(ends) > 1 and 0 < LENGTHS * min(ends) <= max(ends)
    return is_uneven or any(run.config["spacing"] == "log" for run in runs)


def _colours(runs: Sequence[Run]) -> dict[str, str]:
    """Returns a colour for each rule: its own, or its usual one, or else the next that no other rule has."""
    declared: dict[str, str] = {}
    for run in runs:
        display = run.config.get("display")
        colour = display.get("colour") if isinstance(display, dict) else None
        if is_colour(colour):
            declared.setdefault(run.choices["rule"], str(colour).upper())
    rules = sorted({run.choices["rule"] for run in runs} - declared.keys(), key=_rank)
    usual, chosen = _usual_colours(), dict(declared)
    for rule in rules:
        if usual.get(rule) not in (None, *chosen.values()):
            chosen[rule] = usual[rule]
    free = [colour for colour in OTHERS if colour not in chosen.values()] or list(OTHERS)
    return chosen | dict(zip((rule for rule in rules if rule not in chosen), itertools.cycle(free), strict=False))


def colour_of(rule: str) -> str:
    """Returns the colour that a rule of `NAMES` has unless a run says otherwise."""
    return _usual_colours()[rule]


def _usual_colours() -> dict[str, str]:
    """Returns the colour that each rule has unless a rule before it has taken it."""
    others = (rule for rule in NAMES if rule not in PAPER)
    return {**dict(zip(others, itertools.cycle(OTHERS), strict=False)), **CONTROLS, **PAPER}


def _rank(rule: str) -> tuple[int, str]:
    """Sorts rules: those of `NAMES` in their order, then those of the user by name."""
    known = list(NAMES)
    return (known.index(rule), "") if rule in known else (len(known), rule)


def _in_order(settings: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    numbers = [tuple(map(number, values)) for values in settings]
    if any(math.isnan(value) for values in numbers for value in values):
        return settings
    return [settings[i] for i in sorted(range(len(settings)), key=numbers.__getitem__)]


def number(text: str) -> float:
    """Returns the number that a text is, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def is_wide(values: Sequence[float]) -> bool:
    """Returns whether positive values span so much that their axis is logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= WIDE
