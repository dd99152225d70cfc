"""The options of a run that decide what is learned, by dotted name."""

from collections.abc import Mapping
from typing import Any

IRRELEVANT = (
    "seed",
    "seeds",
    "seeds_per_batch",
    "devices",
    "batch_devices",
    "checkpoint",
    "checkpoint_every",
    "logger",
    "task.data_dir",
    "display.label",
    "display.colour",
)
"""Options that choose seeds, where the data are, or the way a run is executed or shown; they do not change what is
learned."""

OFF = ("frozen",)
"""Options of which null says the same as their absence, in configs from before they were there."""


def options(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns the options of a config by dotted name, without the irrelevant ones."""
    flat = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in ("choices", *IRRELEVANT):
            continue
        if isinstance(value, dict) and value:
            flat |= options(value, f"{name}.")
        elif value != {} and not (name in OFF and value is None):
            flat[name] = str(_canonical(value))
    return flat


def _canonical(value: Any) -> Any:
    """Returns one form of equal values: 1 for 1.0, in lists too."""
    if isinstance(value, list):
        return [_canonical(element) for element in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
