"""Numbers as tables show them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

MOST_DECIMALS = 6
ROUNDING = 1e-12
"""The relative difference of float64 numbers that rounding may explain."""


def number_text(value: float | None, decimals: int | None = None) -> str:
    """Returns a number with so many decimals, by default with four digits; `-` if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if decimals is not None:
        return f"{value:z.{decimals}f}"
    return f"{value:.2e}" if value and abs(value) < 1e-2 else f"{value:.4g}"


def interval_text(low: float | None, high: float | None, decimals: int | None = None) -> str:
    """Returns an interval, numbers as above; `-` if there is none, or if it has no width but by rounding."""
    if low is None or high is None or math.isnan(low) or math.isclose(low, high, rel_tol=ROUNDING):
        return "-"
    return f"{number_text(low, decimals)} – {number_text(high, decimals)}"


def signed_text(value: float, ratio: bool) -> str:
    """Returns a difference with its sign, or a ratio."""
    if ratio:
        return f"× {number_text(value)}"
    return f"+{number_text(value)}" if value > 0 else number_text(value)


def difference_texts(
    differences: Sequence[tuple[str, float, float, float]],
    is_ratio: Mapping[str, bool],
    decimals: Mapping[str, int] | None = None,
) -> list[tuple[str, str]]:
    """Returns each difference with its sign, and its interval, with the same decimals for all of a metric.

    Ratios, and differences that are too small for these decimals, are shown as by `signed_text`.

    Args:
      differences: metric, difference, and the two ends of its interval.
      is_ratio: whether those of a metric are ratios.
      decimals: of metrics, as other tables show them; of others, and by default, two digits of the typical spread.
    """
    places: dict[str, int | None] = {}
    for metric in is_ratio:
        of_metric = [(value, high - value) for name, value, _, high in differences if name == metric]
        needed = decimals_of(*zip(*of_metric, strict=True)) if of_metric else 0
        shown = (decimals or {}).get(metric, needed)
        places[metric] = None if is_ratio[metric] or needed == MOST_DECIMALS or needed > shown + 1 else shown
    texts = []
    for metric, value, low, high in differences:
        shown = places[metric]
        if shown is None or not math.isfinite(value):
            texts.append((signed_text(value, is_ratio[metric]), interval_text(low, high)))
        else:
            interval = "-" if math.isnan(low) else f"{low:z.{shown}f} – {high:z.{shown}f}"
            texts.append((f"{value:+z.{shown}f}" if value else f"{value:z.{shown}f}", interval))
    return texts


def fixed(value: float, decimals: int) -> str:
    """Returns a number with a real minus sign and so many decimals."""
    text = f"{value:.{decimals}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def decimals_of(means: Sequence[float], halves: Sequence[float]) -> int:
    """Returns the decimals that show two digits of the typical spread, or three of the typical mean without spreads."""
    pairs = zip(means, halves, strict=True)
    known = [half for mean, half in pairs if math.isfinite(half) and half > ROUNDING * abs(mean)]
    typical, digits = known, 2
    if not known:
        typical, digits = [abs(mean) for mean in means if math.isfinite(mean) and mean], 3
    if not typical:
        return 0
    # Of two in the middle, the smaller: of a rate that fails, the spread must not hide the digits of one that does not.
    exponent = math.floor(math.log10(float(np.quantile(typical, 0.5, method="lower"))))
    return min(max(digits - 1 - exponent, 0), MOST_DECIMALS)


def power_of(means: Sequence[float]) -> int:
    """Returns the power of ten that a column is scaled by: 0, unless its numbers are tiny or huge."""
    largest = max((abs(mean) for mean in means if math.isfinite(mean)), default=0.0)
    power = math.floor(math.log10(largest)) if largest else 0
    return power if not -3 <= power < 6 else 0
