"""Numbers as tables show them."""

import math
from collections.abc import Sequence

import numpy as np

MOST_DECIMALS = 6


def number_text(value: float | None) -> str:
    """Returns a number with four digits; `-` if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.2e}" if value and abs(value) < 1e-2 else f"{value:.4g}"


def interval_text(low: float | None, high: float | None) -> str:
    """Returns an interval with four digits; `-` if there is none."""
    if low is None or high is None or math.isnan(low):
        return "-"
    return f"{number_text(low)} – {number_text(high)}"


def signed_text(value: float, ratio: bool) -> str:
    """Returns a difference with its sign, or a ratio."""
    if ratio:
        return f"× {number_text(value)}"
    return f"+{number_text(value)}" if value > 0 else number_text(value)


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
