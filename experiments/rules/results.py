"""What the other experiments measured of each rule, from their CSVs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.common import read_rows
from experiments.hinton2022 import rows as hinton2022
from fa_jax.cli.groups import choices

EXPERIMENTS = Path(__file__).parents[1]
BY_LABEL = {"FA": "fa", "sparse FA": "fa", "BP": "bp", "shallow": "shallow", "node perturbation": "node_perturbation"}
"""The rules of lillicrap2014 by how the name of a check begins."""
SEEDS = {"task1": "20", "task2": "3", "task3": "20"}
"""The seeds of each task of lillicrap2014."""
EXPERIMENT_RULES = {hinton2022.MNIST: "forward_forward", hinton2022.CIFAR: "recurrent_forward_forward"}


class Result(NamedTuple):
    """A result of one rule."""

    rule: str
    experiment: str
    """The folder."""
    what: str
    seeds: str
    result: str


def results() -> list[Result]:
    """Returns all results, by experiment."""
    return [*_lillicrap2014(), *_nokland2016(), *_kao2019(), *_hinton2022(), *_yagi2022()]


def _measured(experiment: str) -> list[Path]:
    return sorted((EXPERIMENTS / experiment).glob("measured*.csv"))


def _last(row: dict[str, str], column: str) -> tuple[str, str]:
    """Returns the last epoch that has a value in a column such as `test error, epoch 5`, and that value."""
    epochs = {int(match[1]): name for name in row if (match := re.fullmatch(rf"{column}, epoch (\d+)", name))}
    values = {epoch: row[name] for epoch, name in epochs.items() if row[name]}
    return (str(max(values)), values[max(values)]) if values else ("", "")


def _lillicrap2014() -> Iterator[Result]:
    for path in _measured("lillicrap2014"):
        task = path.stem.removeprefix("measured_").replace("_", ", ").replace("300epochs", "300 epochs")
        for row in read_rows(path):
            label, _, check = row["check"].partition(",")
            rule = BY_LABEL.get(re.sub(r" \(.*| at .*", "", label))
            if rule and " over " not in check:
                result = f"{row['measured']} (expected: {row['target']})"
                yield Result(rule, "lillicrap2014", f"{task}: {row['check']}", SEEDS[task[:5]], result)


def _nokland2016() -> Iterator[Result]:
    longest: dict[tuple[str, str], tuple[int, Result]] = {}
    for path in _measured("nokland2016"):
        for row in read_rows(path):
            epoch, error = _last(row, "test error")
            length = int(epoch or 0)
            if row.get("test error there"):  # where the author's code would stop
                epoch, error = row["epoch of the stop rule"], row["test error there"]
            name = row["row"] if row["row"].startswith("cifar") else f"MNIST, {row['row']}"
            result = Result(row["rule"], "nokland2016", name, row["seeds"], f"{error} % after {epoch} epochs")
            key = row["rule"], row["row"]
            if length > longest.get(key, (0,))[0]:
                longest[key] = length, result
    return (result for _, result in longest.values())


def _kao2019() -> Iterator[Result]:
    for path in _measured("kao2019"):
        for row in read_rows(path):
            rule = "associated_learning" if "al" in row["run"].split("_") else "bp"
            epoch, accuracy = _last(row, "accuracy")
            what = f"{row['row']}: {row['run']}"
            yield Result(rule, "kao2019", what, row["seeds"], f"{accuracy} % correct after {epoch} epochs")


def _hinton2022() -> Iterator[Result]:
    for path in _measured("hinton2022"):
        for row in read_rows(path):
            overrides = hinton2022.ROWS[row["row"]]
            typed = [word.removeprefix("rule=") for word in overrides if word.removeprefix("rule=") in choices("rule")]
            rule = typed[-1] if typed else EXPERIMENT_RULES[overrides[0]]
            epoch, error = _last(row, "test error")
            at_end = row["test error, last epoch"]
            text = f"{at_end} % at the end" if at_end else f"{error} % after {epoch} epochs"
            by_goodness = row["test error by goodness, last epoch"]
            if by_goodness not in ("", at_end):
                text += f"; by goodness {by_goodness} %"
            if row["diverged"] not in ("", "0"):
                text = f"{row['diverged']} of {row['seeds']} diverged"
            yield Result(rule, "hinton2022", row["row"], row["seeds"], text)


def _yagi2022() -> Iterator[Result]:
    last: dict[tuple[str, ...], Result] = {}
    for path in _measured("yagi2022"):
        for row in read_rows(path):
            rule = row["curve"].rstrip("0123456789")
            if rule in choices("rule") and row["measure"] == "test_loss":
                what = f"{row['task']}: {row['curve']}" + (f", teacher {row['teacher']}" if row["teacher"] else "")
                result = f"test loss {row['mean']} after {row['epoch']} epochs"
                last[row["task"], row["curve"], row["teacher"]] = Result(rule, "yagi2022", what, row["seeds"], result)
    return iter(last.values())
