"""The meaning of the columns of `metrics.csv`: label, unit, direction and axis, as their metrics declare them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # reading records needs no JAX, which is slow to import
    from fa_jax.core import Metric

SPLITS = ("test", "validation", "train")


class Flag(NamedTuple):
    """When a value of a column is marked."""

    by: str
    """The column that decides, of the same row."""
    least: float | None
    most: float | None
    meaning: str
    """The note shown for a marked value."""


class Random(NamedTuple):
    """The expected value of a column for random signals of as many units, and its standard deviation."""

    value: float
    of_one: float
    """The standard deviation for one example."""
    of_mean: float
    """That of the mean over the examples of the probe batch, each with a random signal of its own."""


class Column(NamedTuple):
    """The meaning of one column."""

    metric: str
    """The name of its metric, such as `error` or `signal_angle`."""
    label: str
    """The label, such as `test error`."""
    unit: str
    better: str
    """`lower`, `higher` or `neither`."""
    logarithmic: bool
    bounds: tuple[float | None, float | None]
    split: str | None = None
    """The split of a score, one of `SPLITS`; None for other metrics."""
    layer: int | None = None
    """The index of the layer; None for one value per network."""
    plotted: bool = True
    """Whether the report draws it."""
    prediction: str = ""
    """How it is predicted, such as `softmax`, if otherwise than test scores are."""
    flag: Flag | None = None
    random: Random | None = None

    @property
    def axis(self) -> str:
        """The label with the prediction and the unit, for an axis."""
        return self.qualified(self.label, self.unit)

    def qualified(self, name: str, *qualities: str) -> str:
        """Returns a name with how it is predicted, if unlike test scores, and with other qualities."""
        parts = [part for part in (self.prediction, *qualities) if part]
        return f"{name} ({', '.join(parts)})" if parts else name

    @property
    def order(self) -> tuple[int, str, int]:
        """Sorts columns: test scores, validation scores, training scores, angles, other metrics; then layers."""
        rank = SPLITS.index(self.split) if self.split else len(SPLITS) + (self.unit != "degrees")
        return rank, self.metric, -1 if self.layer is None else self.layer


class Declared(NamedTuple):
    """The metrics of a run."""

    scores: "tuple[Metric, ...]"
    """The scores of every split; the run is judged by the first."""
    measured: "tuple[Metric, ...]"
    """The metrics of measures on the probe batch."""
    train_prediction: str = ""
    """How training scores are predicted, if otherwise than test scores are."""
    units: tuple[int, ...] = ()
    """The number of units of each hidden layer."""
    examples: int = 0
    """The number of examples in the probe batch."""

    @property
    def main(self) -> str:
        """The column that the run is judged by."""
        return f"test_{self.scores[0].name}"

    def columns(self, names: Sequence[str]) -> dict[str, Column]:
        """Returns the columns of these names, sorted.

        Raises:
          KeyError: if no metric is declared for a name.
        """
        columns = {name: self._column(name) for name in names}
        return dict(sorted(columns.items(), key=lambda item: item[1].order))

    def _column(self, name: str) -> Column:
        split, _, rest = name.partition("_")
        for metric in self.scores:
            if split in SPLITS and rest == metric.name:
                prediction = self.train_prediction if split == "train" else ""
                return _describe(metric, label=f"{split} {metric.label}", split=split, prediction=prediction)
        measured = {metric.name: metric for metric in self.measured}
        if name in measured:
            return _describe(measured[name])
        layer = re.fullmatch(r"(.*)_(\d+)", name)
        if layer and layer[1] in measured:
            metric = measured[layer[1]]
            label, of_layer = f"{metric.label}, layer {layer[2]}", int(layer[2])
            return _describe(metric, label=label, layer=of_layer, random=self._random(metric, of_layer))
        raise KeyError(f"no metric is declared for the column {name}")

    def _random(self, metric: "Metric", layer: int) -> Random | None:
        if metric.random is None or layer >= len(self.units) or not self.examples:
            return None
        value, of_unit = metric.random
        of_one = of_unit / math.sqrt(self.units[layer])
        return Random(value, of_one, of_one / math.sqrt(self.examples))


def _describe(metric: "Metric", label: str | None = None, layer: int | None = None, **where: Any) -> Column:
    values = metric.name, label or metric.label, metric.unit, metric.better, metric.logarithmic, metric.bounds
    flag = None
    if metric.flag is not None:
        by = metric.flag.metric if layer is None else f"{metric.flag.metric}_{layer}"
        flag = Flag(by, *metric.flag.allowed, metric.flag.meaning)
    return Column(*values, plotted=metric.plotted, layer=layer, flag=flag, **where)


def merged(described: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """Returns the columns of several runs by name; where they differ, those of the first run.

    If they differ in how they are predicted, the prediction says so, such as `some by softmax`.
    """
    columns: dict[str, Column] = {}
    for of_run in described:
        columns = {**of_run, **columns}
    for name, column in columns.items():
        predictions = list(dict.fromkeys(of_run[name].prediction for of_run in described if name in of_run))
        if len(predictions) > 1:
            others = " or ".join(prediction for prediction in predictions if prediction)
            columns[name] = column._replace(prediction=f"some by {others}")
    return columns


def read_column(content: Mapping[str, Any]) -> Column:
    """Returns the column that `Column._asdict` was recorded from."""
    fields = {field: content[field] for field in Column._fields if field in content}
    low, high = content["bounds"]
    flag, random = content.get("flag"), content.get("random")
    fields |= {"flag": flag and Flag(*flag), "random": random and Random(*random)}
    return Column(**{**fields, "bounds": (low, high)})
