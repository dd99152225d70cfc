"""The tables of Nøkland, 2016, beside what was measured of them."""

import functools

from experiments.common import read_rows
from experiments.nokland2016.rows import EPOCHS, HERE, LENGTHS, ROWS, TABLES, model_of, published, row_of
from experiments.reproduced import (
    NO,
    NOT_MEASURED,
    SHORTENED,
    YES,
    Claim,
    Measured,
    Result,
    cost,
    in_words,
    interval_of,
    judge,
    percent_claim,
    yes,
)

TITLE = "Nøkland, 2016"
FULL = (300, 100)
"""Lengths at which a run counts: most stop before 100 epochs."""
SEEDS = 3
"""That the bounds are for."""
DATA = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
UNTRAINED = 50.0
"""The error in % above which a network counts as not trained."""


def tolerance(task: str, model: str, rule: str) -> float | None:
    """Returns the difference in points that was accepted beforehand; None: none was set."""
    if task == "mnist":
        return 0.3 if model.startswith("7x240") else 0.4 if model.startswith("100x240") else 0.15
    if model.startswith("conv"):
        return 2.0 if (task, rule) == ("cifar10", "fa") else 1.5
    if task == "cifar10":
        return 1.5 if model == "3x1000 tanh" else 1.0
    return None


@functools.cache
def measured() -> dict[tuple[str, str], tuple[int, dict[str, str]]]:
    """Returns the number of epochs and the line of the longest run of each network and rule."""
    return {
        (row["row"], row["rule"]): (epochs, row)
        for epochs in LENGTHS
        for row in read_rows(HERE / f"measured_{epochs}epochs.csv")
    }


def result(task: str, name: str, line: dict[str, str]) -> Result:
    """Returns the result of one cell of a table.

    Args:
      task: the data set.
      name: of the network in `ROWS`.
      line: of the published table.
    """
    model, rule = line["model"], line["rule"]
    what = f"{DATA[task]}, {model}, {rule.upper()}"
    error, sd = line["error"], line["sd"]
    points = tolerance(task, model, rule)
    text = f"{float(error):.2f} ± {sd}" if error else "does not train"
    accepted = f"above {UNTRAINED:g}" if not error else f"± {points}" if points else ""
    measurement = measured().get((name, rule))
    epochs, row = measurement if measurement else (FULL[0], {})
    length = epochs if epochs in FULL else FULL[0]
    new = Result(what, text, line["provenance"], accepted, NOT_MEASURED, row_of(name, rule, length).name)
    if not measurement:
        return new
    at_stop = bool(row.get("test error there"))
    value = float(row["test error there"] if at_stop else row[f"test error, epoch {epochs}"])
    seeds, deviation = int(row["seeds"]), row["sd there"] if at_stop else row[f"sd, epoch {epochs}"]
    interval = interval_of(value, deviation, seeds)
    where = f"stopped after {row['epoch of the stop rule']} epochs" if at_stop else f"{epochs} epochs"
    difference = f" ({value - float(error):+.2f})" if error else ""
    new = new._replace(seeds=str(seeds), interval=in_words(interval), cost=cost(row["seconds"], row["measured"]))
    if epochs not in FULL:
        shorter = row_of(name, rule, epochs).name
        return new._replace(measured=f"{value:.2f}, {where}", verdict=SHORTENED, run=shorter)
    verdict = YES if value > UNTRAINED else NO
    if error and points:
        bound = float(error) - points - 0.005, float(error) + points + 0.005  # of numbers with two decimals
        verdict = judge(value, bound, interval, seeds, SEEDS)
    if verdict == YES:
        verdict = yes(line["provenance"], published_within=True)
    return new._replace(measured=f"{value:.2f}{difference}, {where}", verdict=verdict)


def results() -> list[Result]:
    """Returns every cell of the three tables."""
    names = {(network.task, model_of(name)): name for name, network in reversed(ROWS.items())}
    return [result(task, names[task, line["model"]], line) for task, file in TABLES.items() for line in published(file)]


def claims(row: str) -> list[Claim]:
    """Returns the recorded test errors of a row, such as `nokland2016/10epochs/2x800_dfa`."""
    for epochs in LENGTHS:
        for line in read_rows(HERE / f"measured_{epochs}epochs.csv"):
            if row_of(line["row"], line["rule"], epochs).name == row:
                return [
                    percent_claim(f"test error, epoch {epoch}", "test_error", float(epoch), recorded)
                    for epoch in EPOCHS
                    if (error := line.get(f"test error, epoch {epoch}"))
                    for sd in [line[f"sd, epoch {epoch}"]]
                    for recorded in [Measured(float(error), float(sd) if sd else None, int(line["seeds"]), 0.005)]
                ]
    return []
