"""Numbers as tables show them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

MOST_DECIMALS = 6
ROUNDING = 1e-12
"""The relative difference of float64 numbers that rounding may explain."""


def number_text(value: float | None) -> str:
    """Returns a number with four digits; `-` if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.2e}" if value and abs(value) < 1e-2 else f"{value:.4g}"


def interval_text(low: float | None, high: float | None) -> str:
    """Returns an interval with four digits; `-` if there is none, or if it has no width but by rounding."""
    if low is None or high is None or math.isnan(low) or math.isclose(low, high, rel_tol=ROUNDING):
        return "-"
    return f"{number_text(low)} – {number_text(high)}"


def signed_text(value: float, ratio: bool) -> str:
    """Returns a difference with its sign, or a ratio."""
    if ratio:
        return f"× {number_text(value)}"
    return f"+{number_text(value)}" if value > 0 else number_text(value)


def difference_texts(
    differences: Sequence[tuple[str, float, float, float]], is_ratio: Mapping[str, bool]
) -> list[tuple[str, str]]:
    """Returns each difference with its sign, and its interval, with the same decimals for all of a metric.

    Ratios, and differences that are too small for `MOST_DECIMALS`, are shown as by `signed_text`.

    Args:
      differences: metric, difference, and the two ends of its interval.
      is_ratio: whether those of a metric are ratios.
    """
    places: dict[str, int | None] = {}
    for metric in is_ratio:
        of_metric = [(value, high - value) for name, value, _, high in differences if name == metric]
        decimals = decimals_of(*zip(*of_metric, strict=True)) if of_metric else 0
        places[metric] = None if is_ratio[metric] or decimals == MOST_DECIMALS else decimals
    texts = []
    for metric, value, low, high in differences:
        decimals = places[metric]
        if decimals is None or not math.isfinite(value):
            texts.append((signed_text(value, is_ratio[metric]), interval_text(low, high)))
        else:
            interval = "-" if math.isnan(low) else f"{low:z.{decimals}f} – {high:z.{decimals}f}"
            texts.append((f"{value:+z.{decimals}f}" if value else f"{value:z.{decimals}f}", interval))
    return texts


def fixed(value: float, decimals: int) -> str:
    """Returns a number with a real minus sign and so many decimals."""
    text = f"{value:.{decimals}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def decimals_of(means: Sequence[float], halves: Sequence[float]) -> int:
    """Returns the decimals that show two digits of the typical spread, or three of the typical mean without spreads."""
    known = [half for half in halves if math.isfinite(half) and half > 0]
    typical, digits = known, 2
    if not known:
        typical, digits = [abs(mean) for mean in means if math.isfinite(mean) and mean], 3
    if not typical:
        return 0
    exponent = math.floor(math.log10(float(np.median(typical))))
    return min(max(digits - 1 - exponent, 0), MOST_DECIMALS)
