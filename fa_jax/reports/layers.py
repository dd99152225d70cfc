"""The table of hidden layers: what is measured of each at the last evaluation, never as a mean over layers."""

import math
from collections.abc import Sequence

import numpy as np

from fa_jax.records.conditions import Condition
from fa_jax.records.reader import Run
from fa_jax.records.statistics import Summary, summarise, summarise_logarithm
from fa_jax.reports.flags import MARK, marked, meanings
from fa_jax.reports.numbers import number_text
from fa_jax.reports.tables import Table, random_text

HEADINGS = ["run", "layer", "signal angle", "random", "dead", "reference", "scale", "by one layer", "since the start"]
CAPTION = (
    "signal angle: to BP's, mean over examples in degrees; random: that of random signals, with the standard "
    "deviation of the mean; dead: examples whose signal is zero\n"
    "reference: norm of BP's signal of an example; scale: norm of the hidden state, both medians over examples, and "
    "how it grows from the layer before, and since the start of training; geometric means over seeds"
)


def layer_table(conditions: Sequence[Condition], names: Sequence[str]) -> Table:
    """Returns one row for each hidden layer of each condition; none if nothing is measured of them."""
    rows, shown = [], []
    for condition, name in zip(conditions, names, strict=True):
        run = condition.run
        layers = [column.layer for column in run.columns.values() if column.metric == "scale"]
        for layer in (layer for layer in layers if layer is not None):
            rows.append(_row(run, name, layer))
            shown += [(run, f"signal_angle_{layer}"), (run, "growth")]
    return Table(HEADINGS, rows, "\n".join([CAPTION, *meanings(shown)]))


def since_start(run: Run, name: str) -> Summary:
    """Returns the ratio of a column at the last evaluation to that at the first; the mean over seeds is geometric."""
    values = run.curves(name)[1]
    return _ratio(values[:, -1:], values[:, :1])


def _row(run: Run, name: str, layer: int) -> list[str]:
    angle, scale = f"signal_angle_{layer}", f"scale_{layer}"
    return [
        name,
        str(layer),
        marked(number_text(_mean(run, angle)), run, angle),
        random_text(run.columns[angle]) if angle in run.columns else "-",
        f"{number_text(_mean(run, f'dead_signals_{layer}'))} %" if angle in run.metrics else "-",
        number_text(_mean(run, f"reference_norm_{layer}")),
        number_text(_mean(run, scale)),
        _growth(run, layer),
        f"× {number_text(since_start(run, scale).mean)}",
    ]


def _growth(run: Run, layer: int) -> str:
    """Returns how the scale grows from the layer before, with a mark as the largest of the layers would have."""
    above, below = f"scale_{layer}", f"scale_{layer - 1}"
    if below not in run.metrics:
        return "-"
    ends = run.curves(above)[1][:, -1:], run.curves(below)[1][:, -1:]
    flag = run.columns["growth"].flag
    exploded = flag is not None and flag.most is not None and bool((ends[0] > flag.most * ends[1]).any())
    return f"× {number_text(_ratio(*ends).mean)}{MARK if exploded else ''}"


def _mean(run: Run, name: str) -> float:
    if name not in run.metrics:
        return math.nan
    values = list(run.at_end(name).values())
    return (summarise_logarithm if run.columns[name].logarithmic else summarise)(values).mean


def _ratio(above: np.ndarray, below: np.ndarray) -> Summary:
    """Returns the ratio over seeds, where both are above 0."""
    known = (above > 0) & (below > 0)
    return summarise_logarithm((above[known] / below[known]).tolist())
