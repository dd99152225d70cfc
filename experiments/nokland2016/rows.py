"""The rows of the tables of Nøkland, NeurIPS 2016, with the settings of the author's code.

    python -m experiments.nokland2016.rows                          the short runs: 10 epochs, 2 seeds
    python -m experiments.nokland2016.rows 2x800 --epochs 300 --seeds 3
    python -m experiments.nokland2016.rows "cifar10 conv" --epochs 300 --seeds 1
    python -m experiments.nokland2016.rows 2x800 --epochs 300 --status    what is done, running and left
    python -m experiments.nokland2016.rows --collect                tabulates finished runs, and trains nothing
    python -m experiments.nokland2016.rows --table                  prints the tables as Markdown, and trains nothing

The data are read from `$TFDS_DATA_DIR`. Each row and rule is one run in outputs/nokland2016/<epochs>epochs; finished
runs are not trained again. At the end, the script writes `measured_<epochs>epochs.csv` to outputs/nokland2016/results,
or with `--update` beside this file.
"""

import argparse
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from experiments import queue
from experiments.common import layer_columns, read_rows, seconds, write_table
from experiments.training import Row, run_row, runs_of
from fa_jax.checks import BadOption, choose
from fa_jax.records.reader import Run

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/nokland2016")
INPUTS = {"mnist": 784, "cifar10": 3072, "cifar100": 3072}
CONV = ((5 * 5 * 3, 5 * 5 * 96, 5 * 5 * 128, 2304, 2048, 2048), (21600, 6272, 2304, 2048, 2048))
"""The convolutional network: the fan-in of each layer, the readout included, and the sizes of the hidden layers."""


class Network(NamedTuple):
    """A network, and the rules that train it."""

    hidden: tuple[int, ...]
    """Widths; empty: the convolutional network."""
    rules: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    task: str = "mnist"
    zero: bool | None = None
    """Whether all weights start at zero; None: as in the author's code."""


DROPOUT = ("architecture.dropout=0.5", "architecture.input_dropout=0.1")
CIFAR_RULES = ("bp", "fa", "dfa")
MNIST_RULES = (*CIFAR_RULES, "ifa")
ROWS = {
    "2x800": Network((800, 800), (*MNIST_RULES, "drtp", "sdfa")),
    "1x800": Network((800,), CIFAR_RULES),
    "7x240": Network((240,) * 7, MNIST_RULES),
    "2x800 relu": Network((800, 800), MNIST_RULES, ("architecture.activation=relu",)),
    "2x800 logistic": Network((800, 800), MNIST_RULES, ("architecture.activation=sigmoid",)),
    "2x800 dropout": Network((800, 800), MNIST_RULES, DROPOUT),
    "2x800 adversarial": Network((800, 800), MNIST_RULES, ("adversarial=0.08",)),
    "3x800": Network((800,) * 3, MNIST_RULES),
    "4x800": Network((800,) * 4, MNIST_RULES),
    "100x240": Network((240,) * 100, CIFAR_RULES),
    "3x400": Network((400,) * 3, ("bp", "dfa")),
    "2x800 from zero": Network((800, 800), ("bp",), zero=True),
    "2x800 not from zero": Network((800, 800), ("dfa",), zero=False),
    **{
        f"{task} {name}": Network(hidden, CIFAR_RULES, further, task)
        for task in ("cifar10", "cifar100")
        for name, hidden, further in (
            ("1x1000", (1000,), ()),
            ("3x1000", (1000,) * 3, ()),
            ("3x1000 dropout", (1000,) * 3, DROPOUT),
            ("conv", (), ()),
        )
    },
}
SHORT = ("2x800", "1x800", "7x240", "2x800 relu")
EPOCHS = (1, 2, 3, 5, 10, 20, 50, 100, 300)
"""The epochs of which the test error is tabulated."""
LENGTHS = (2, 5, 10, 20, 50, 100, 200, 300)
"""Numbers of epochs that rows are declared for."""
ZERO = ("dfa", "drtp", "sdfa")
"""Rules whose tanh and sigmoid networks start at zero in the author's code. FA's dense networks start at zero in all
layers but the first, its convolutional network in all layers."""
TABLES = {"mnist": "table1_mnist.csv", "cifar10": "table2_cifar10.csv", "cifar100": "table3_cifar100.csv"}
SMOOTHED, SMALL = 0.25, 0.01
"""The stopping rule of the author's code: an exponential average of the training error in %, which starts at 100 and
of which each epoch replaces the share `SMOOTHED`, is at most `SMALL`."""


def overrides(name: str, rule: str) -> list[str]:
    """Returns the overrides that give a row and a rule the settings of the author's code."""
    row = ROWS[name]
    fans, sizes = ((INPUTS[row.task], *row.hidden), row.hidden) if row.hidden else CONV
    relu = any("relu" in override for override in row.overrides)
    zero = rule in ZERO or (rule == "fa" and not row.hidden)
    starts = [0.0 if not relu and (zero or (rule == "fa" and layer)) else 1.0 for layer in range(len(fans))]
    starts = starts if row.zero is None else [float(not row.zero)] * len(fans)
    biases = [start * fan**-0.5 for start, fan in zip(starts, fans, strict=True)]
    given = [f"experiment=nokland2016/{'' if row.hidden else 'conv_'}{row.task}"]
    given += [f"rule={rule}", f"architecture.init_scale={starts}"]
    given += [f"architecture.hidden={list(row.hidden)}"] if row.hidden else []
    given += ["architecture.bias_init=uniform", f"architecture.bias_scale={biases}"]
    if rule != "bp":
        # Feedback to n units is from U(-1/sqrt(n), 1/sqrt(n)), that of FA like the weights of its layer.
        units = fans[1:] if rule == "fa" else sizes[: 1 if rule == "ifa" else None]
        scales = [n**-0.5 for n in units]
        given += ["feedback.distribution=uniform", f"feedback.scale={scales if len(set(scales)) > 1 else scales[0]}"]
    return [override.replace(" ", "") for override in (*given, *row.overrides)]


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows of all `LENGTHS`, such as `nokland2016/300epochs/2x800_dfa`; seeds are those asked for."""
    return [
        row_of(name, rule, epochs, seeds)
        for epochs in LENGTHS
        for name, network in ROWS.items()
        for rule in network.rules
    ]


def row_of(name: str, rule: str, epochs: int, seeds: int | None = None) -> Row:
    """Returns the row of a network, a rule and a number of epochs."""
    default = 1 if ROWS[name].task != "mnist" else 2 if epochs <= 10 else 3
    folder, hours = folder_of(name, rule, epochs), estimated_hours(name.replace("cifar100", "cifar10"), rule)
    return run_row(
        f"nokland2016/{folder.relative_to(OUTPUTS)}",
        folder,
        [*overrides(name, rule), f"epochs={epochs}", f"evaluations={epochs}"],
        hours and hours * epochs * default,
        seeds=seeds,
        default=default,
    )


def estimated_hours(name: str, rule: str) -> float | None:
    """Returns the hours of an epoch of one seed on a CPU; where none was measured, those of 2x800 by the weights."""
    measured = hours_of_epoch()
    of_reference = measured.get(("2x800", rule))
    if (name, rule) in measured or of_reference is None or not ROWS[name].hidden:
        return measured.get((name, rule))
    return of_reference * weights(name) / weights("2x800")


def weights(name: str) -> int:
    """Returns the number of weights of a dense network, without those of its readout."""
    return sum(below * above for below, above in itertools.pairwise((INPUTS[ROWS[name].task], *ROWS[name].hidden)))


@functools.cache
def hours_of_epoch() -> dict[tuple[str, str], float]:
    """Returns the hours of an epoch of one seed on a CPU, by network and rule; those of the longest run count."""
    return {
        (row["row"], row["rule"]): float(row["seconds"]) / 3600 / epochs / int(row["seeds"])
        for epochs in LENGTHS
        for row in read_rows(HERE / f"measured_{epochs}epochs.csv")
        if "NVIDIA" not in row["measured"]
    }


def folder_of(name: str, rule: str, epochs: int) -> Path:
    """Returns the folder of a run."""
    return OUTPUTS / f"{epochs}epochs" / f"{name.replace(' ', '_')}_{rule}"


def stopping_epoch(train_error: np.ndarray) -> int | None:
    """Returns the epoch after which the author's code would have stopped; None: it would have gone on.

    Args:
      train_error: in %, after every epoch.
    """
    smoothed = 100.0
    for epoch, error in enumerate(train_error, 1):
        smoothed += SMOOTHED * (error - smoothed)
        if smoothed <= SMALL:
            return epoch
    return None


def measured(name: str, rule: str, run: Run) -> dict[str, object]:
    """Returns the row of a run: test errors in % after some epochs, the training error, cosines of signals to BP's."""
    _, train_error = run.curves("train_error")
    row: dict[str, object] = {"row": name, "rule": rule, "seeds": len(train_error)}
    if not len(train_error):  # all diverged
        return row
    for epoch in EPOCHS:
        error = run.at_epoch("test_error", epoch)
        if error is not None:
            row[f"test error, epoch {epoch}"] = f"{error.mean():.2f}"
            row[f"sd, epoch {epoch}"] = f"{error.std(ddof=1):.2f}" if len(error) > 1 else ""
    stops = [stop for errors in train_error if (stop := stopping_epoch(errors[1:])) is not None]
    at_stops = [errors for stop in stops if (errors := run.at_epoch("test_error", stop)) is not None]
    if len(at_stops) == len(train_error):
        at_stop = np.array([errors[seed] for seed, errors in enumerate(at_stops)])
        row["epoch of the stop rule"] = f"{np.mean(stops):.0f}"
        row["test error there"] = f"{at_stop.mean():.2f}"
        row["sd there"] = f"{at_stop.std(ddof=1):.2f}" if len(at_stop) > 1 else ""
    row["train error, last epoch"] = f"{train_error[:, -1].mean():.3f}"
    cosines = [np.cos(np.radians(run.curves(name)[1][:, -1])).mean() for name in layer_columns(run, "signal_angle")]
    row["signal cosine by hidden layer, last epoch"] = " ".join(f"{cosine:.2f}" for cosine in cosines)
    row["seconds"] = round(seconds(run))
    return row


def published(file: str) -> list[dict[str, str]]:
    """Returns the rows of a table in `published`."""
    return read_rows(HERE / "published" / file)


def reference(row: dict[str, str]) -> dict[str, float]:
    """Returns the test errors in % that a measured row is compared with.

    Those of the independent implementation are named `epoch 1`, `epoch 5` and `epoch 10`, that of the paper `the end`.
    """
    errors = {}
    for short in published("short_runs.csv"):
        if (short["row"], short["rule"]) == (row["row"], row["rule"]):
            errors = {f"epoch {epoch}": float(short[f"epoch{epoch}"]) for epoch in (1, 5, 10) if short[f"epoch{epoch}"]}
    model = model_of(row["row"])
    for printed in published(TABLES[ROWS[row["row"]].task]):
        if (printed["model"], printed["rule"]) == (model, row["rule"]) and printed["error"]:
            errors["the end"] = float(printed["error"])
    return errors


def model_of(name: str) -> str:
    """Returns what the published tables call a network of `ROWS`."""
    network, _, variant = name.removeprefix(f"{ROWS[name].task} ").partition(" ")
    unit = variant if variant in ("relu", "logistic") else "tanh"
    return f"{network} {unit}" + (f" + {variant}" if variant and variant != unit else "")


def tables() -> str:
    """Returns the tables of the short and of the full runs as Markdown, with differences from the references."""

    def with_difference(error: str, other: float | None) -> str:
        return error if other is None or not error else f"{error} ({float(error) - other:+.2f})"

    short = []
    for row in measured_rows(10):
        others = reference(row)
        errors = [
            with_difference(row[f"test error, epoch {epoch}"], others.get(f"epoch {epoch}")) for epoch in (1, 5, 10)
        ]
        cosines = "" if row["rule"] == "bp" else row["signal cosine by hidden layer, last epoch"]
        short.append([row["row"], row["rule"], row["seeds"], *errors, cosines])
    ends = []
    for epochs in (100, 300):
        for row in measured_rows(epochs):
            error = row["test error there"] or row[f"test error, epoch {epochs}"]
            stop = row["epoch of the stop rule"] or f"not within {epochs}"
            paper = reference(row).get("the end")
            end = [with_difference(error, paper), "" if paper is None else f"{paper:.2f}"]
            ends.append(
                [row["row"], row["rule"], row["seeds"], stop, *end, row["train error, last epoch"], row["seconds"]]
            )
    short_headings = ["network", "rule", "seeds", *(f"epoch {epoch}" for epoch in (1, 5, 10))]
    short_headings.append("cosines of the signals, layer by layer")
    end_headings = ["network", "rule", "seeds", "stops after epoch", "test error then, or at the end", "the paper's"]
    end_headings += ["training error at the end", "seconds"]
    plain = {"tablefmt": "pipe", "disable_numparse": True}
    return f"{tabulate(short, short_headings, **plain)}\n\n{tabulate(ends, end_headings, **plain)}"


def measured_rows(epochs: int) -> list[dict[str, str]]:
    """Returns the recorded rows of runs of a number of epochs, in the order of `ROWS`; none if there is no table."""
    recorded = read_rows(HERE / f"measured_{epochs}epochs.csv")
    rows = [{"test error there": "", "epoch of the stop rule": "", **row} for row in recorded]
    return sorted(rows, key=lambda row: (list(ROWS).index(row["row"]), ROWS[row["row"]].rules.index(row["rule"])))


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Tabulates those of some rows that are done, with a table for each number of epochs."""
    wanted = {row.name: row for row in chosen}
    for epochs in LENGTHS:
        cases = [(name, rule) for name, network in ROWS.items() for rule in network.rules]
        rows = [
            (measured(name, rule, run), [run])
            for name, rule in cases
            if (row := wanted.get(row_of(name, rule, epochs).name)) is not None
            for run in runs_of(row)
        ]
        if rows:
            write_table(into / f"measured_{epochs}epochs.csv", rows, "row", "rule")


def main() -> None:
    """Trains and collects the rows that the command line names by network, rules and epochs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=SHORT, help=f"of {', '.join(ROWS)}; default: the short runs")
    parser.add_argument("--epochs", type=int, choices=LENGTHS, default=10)
    parser.add_argument("--rules", nargs="+", default=(), help="some of the rules of the rows; default: all")
    chosen = queue.parsed(parser, lambda chosen: tables())
    try:
        for name in chosen.rows:
            rules = choose("a row", name, ROWS).rules
            for rule in chosen.rules:
                choose(f"--rules of {name}", rule, dict.fromkeys(rules))
    except BadOption as problem:
        parser.error(str(problem))
    names = [
        row_of(name, rule, chosen.epochs).name for name in chosen.rows for rule in chosen.rules or ROWS[name].rules
    ]
    queue.follow(parser, chosen, names, "nokland2016")


if __name__ == "__main__":
    main()
