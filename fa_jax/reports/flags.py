"""Values that are marked wherever they are shown, such as an angle to a signal that is too small to mean anything.

A metric declares when (`core.Flag`), every column of a run records it, and tables, figures and the report ask here.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from fa_jax.records.conditions import Condition
from fa_jax.records.reader import Run
from fa_jax.reports.notes import first

MARK = "†"
MOST_LAYERS = 3
"""The most layers that a note names."""


def flagged(run: Run, name: str) -> np.ndarray:
    """Returns whether values of a column are marked, `[seeds, evaluations]` as in `Run.curves`."""
    values, flag = run.curves(name)[1], run.columns[name].flag
    if flag is None or flag.by not in run.metrics:
        return np.zeros(values.shape, bool)
    deciding, outside = run.curves(flag.by)[1], np.zeros(values.shape, bool)
    if flag.least is not None:
        outside |= deciding < flag.least
    if flag.most is not None:
        outside |= deciding > flag.most
    return outside & ~np.isnan(values)


def seeds_flagged(run: Run, name: str) -> int:
    """Returns the number of seeds whose value at the last evaluation is marked."""
    flags = flagged(run, name) if name in run.metrics else np.zeros((0, 0), bool)
    return int(flags[:, -1].sum()) if flags.size else 0


def marked(text: str, run: Run, name: str) -> str:
    """Returns the text of a value over seeds with a mark, if that of a seed is marked."""
    return f"{text}{MARK}" if seeds_flagged(run, name) else text


def meanings(shown: Iterable[tuple[Run, str]], mark: str = MARK, *, at_end: bool = True) -> list[str]:
    """Returns one line for each kind of mark among shown values, with its meaning.

    Args:
      shown: runs and columns.
      mark: how they are marked.
      at_end: whether the values are those of the last evaluation alone, and not curves.
    """
    marked = [
        flag.meaning
        for run, name in shown
        if name in run.metrics and (flag := run.columns[name].flag) is not None
        if (seeds_flagged(run, name) if at_end else flagged(run, name).any())
    ]
    return [f"{mark}: in at least one seed, {meaning}" for meaning in dict.fromkeys(marked)]


def flag_notes(compared: Sequence[Condition], names: Sequence[str]) -> list[str]:
    """Returns in which conditions, and layers, values are marked at the last evaluation, and why."""
    by_meaning: dict[str, dict[str, dict[int, None]]] = {}
    for condition, label in zip(compared, names, strict=True):
        for name, column in condition.run.columns.items():
            if column.flag is not None and seeds_flagged(condition.run, name):
                layers = by_meaning.setdefault(column.flag.meaning, {}).setdefault(label, {})
                layers |= {} if column.layer is None else {column.layer: None}
    return [
        f"{MARK} {meaning}: {first([f'{label}{_layers(list(layers))}' for label, layers in where.items()], ', ')}"
        for meaning, where in by_meaning.items()
    ]


def _layers(layers: Sequence[int]) -> str:
    if len(layers) > MOST_LAYERS:
        return f" ({len(layers)} layers)"
    return f" (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))})" if layers else ""
