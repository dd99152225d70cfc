"""The rows of the tables of Nøkland, NeurIPS 2016, by the recipe of the author's code.

    python -m experiments.nokland2016.rows                          the short runs: 10 epochs, 2 seeds
    python -m experiments.nokland2016.rows 2x800 --epochs 300 --seeds 3
    python -m experiments.nokland2016.rows "cifar10 conv" --epochs 300 --seeds 1
    python -m experiments.nokland2016.rows --collect                only writes down what has been trained
    python -m experiments.nokland2016.rows --table                  only prints what is written down

The data have to be where `$TFDS_DATA_DIR` says. Each row and rule is one run in outputs/nokland2016/<epochs>epochs;
what is there already is not trained again. `measured_<epochs>epochs.csv` beside this file is written at the end.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from experiments.common import is_trained, seconds, trained, write_table
from fa_jax.records.reader import Run, read_run

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/nokland2016")
INPUTS = {"mnist": 784, "cifar10": 3072, "cifar100": 3072}
CONV = ((5 * 5 * 3, 5 * 5 * 96, 5 * 5 * 128, 2304, 2048, 2048), (21600, 6272, 2304, 2048, 2048))
"""Of the convolutional network: what each layer sums over, the readout included, and the sizes of the hidden layers."""


class Row(NamedTuple):
    """A network, and the rules it is trained by."""

    hidden: tuple[int, ...]
    """Widths; empty: the convolutional network."""
    rules: tuple[str, ...]
    further: tuple[str, ...] = ()
    task: str = "mnist"
    zero: bool | None = None
    """Whether all weights start at zero; None: as in the author's code."""


DROPOUT = ("architecture.dropout=0.5", "architecture.input_dropout=0.1")
OF_CIFAR = ("bp", "fa", "dfa")
OF_MNIST = (*OF_CIFAR, "ifa")
ROWS = {
    "2x800": Row((800, 800), (*OF_MNIST, "drtp", "sdfa")),
    "1x800": Row((800,), OF_CIFAR),
    "7x240": Row((240,) * 7, OF_MNIST),
    "2x800 relu": Row((800, 800), OF_MNIST, ("architecture.activation=relu",)),
    "2x800 logistic": Row((800, 800), OF_MNIST, ("architecture.activation=logistic",)),
    "2x800 dropout": Row((800, 800), OF_MNIST, DROPOUT),
    "2x800 adversarial": Row((800, 800), OF_MNIST, ("adversarial=0.08",)),
    "3x800": Row((800,) * 3, OF_MNIST),
    "4x800": Row((800,) * 4, OF_MNIST),
    "100x240": Row((240,) * 100, OF_CIFAR),
    "3x400": Row((400,) * 3, ("bp", "dfa")),
    "2x800 from zero": Row((800, 800), ("bp",), zero=True),
    "2x800 not from zero": Row((800, 800), ("dfa",), zero=False),
    **{
        f"{task} {name}": Row(hidden, OF_CIFAR, further, task)
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
ZERO = ("dfa", "drtp", "sdfa")
"""Rules whose tanh and logistic networks start at zero in the author's code; FA's do but for the first dense layer."""
TABLES = {"mnist": "table1_mnist.csv", "cifar10": "table2_cifar10.csv", "cifar100": "table3_cifar100.csv"}
SMOOTHED, SMALL = 0.25, 0.01
"""His stop rule: once the training error, smoothed by this much from 100 % on, is this small, in %."""


def overrides(name: str, rule: str) -> list[str]:
    """Returns what the recipe says of a row and a rule, as words for the command line."""
    row = ROWS[name]
    fans, sizes = ((INPUTS[row.task], *row.hidden), row.hidden) if row.hidden else CONV
    relu = any("relu" in word for word in row.further)
    zero = rule in ZERO or (rule == "fa" and not row.hidden)
    starts = [0.0 if not relu and (zero or (rule == "fa" and layer)) else 1.0 for layer in range(len(fans))]
    starts = starts if row.zero is None else [float(not row.zero)] * len(fans)
    biases = [start * fan**-0.5 for start, fan in zip(starts, fans, strict=True)]
    words = [f"rule={rule}", f"architecture.init_scale={starts}"]
    words += [f"architecture.hidden={list(row.hidden)}"] if row.hidden else []
    words += ["architecture.bias_init=uniform", f"architecture.bias_scale={biases}"]
    if rule != "bp":
        # Into a hidden layer of n units from U(-1/sqrt(n), 1/sqrt(n)), FA's as its layer's weights.
        into = fans[1:] if rule == "fa" else sizes[: 1 if rule == "ifa" else None]
        scales = [n**-0.5 for n in into]
        words += ["rule.distribution=uniform", f"rule.scale={scales if len(set(scales)) > 1 else scales[0]}"]
    words.insert(0, f"experiment=nokland2016_{'' if row.hidden else 'conv_'}{row.task}")
    return [word.replace(" ", "") for word in (*words, *row.further)]


def train(name: str, rule: str, epochs: int, seeds: int) -> None:
    """Trains a row by a rule to its end, unless it has been."""
    length = f"epochs={epochs}", f"evaluations={epochs}", f"seeds={seeds}"
    trained(place(name, rule, epochs), *overrides(name, rule), *length)


def place(name: str, rule: str, epochs: int) -> Path:
    """The folder of a run."""
    return OUTPUTS / f"{epochs}epochs" / f"{name.replace(' ', '_')}_{rule}"


def stopped(train_error: np.ndarray) -> int | None:
    """Returns the epoch after which the author's code would have stopped, or None: it would not have yet.

    Args:
      train_error: in %, of every epoch.
    """
    smoothed = 100.0
    for epoch, error in enumerate(train_error, 1):
        smoothed += SMOOTHED * (error - smoothed)
        if smoothed <= SMALL:
            return epoch
    return None


def measured(name: str, rule: str, run: Run) -> dict[str, object]:
    """What a run came to: test errors in % after some epochs, the training error, the cosines to BP's signals."""
    _, train_error = run.curves("train_error")
    row: dict[str, object] = {"row": name, "rule": rule, "seeds": len(train_error)}
    for epoch in (1, 2, 3, 5, 10, 20, 50, 100, 300):
        error = run.at_epoch("test_error", epoch)
        if error is not None:
            row[f"test error, epoch {epoch}"] = f"{error.mean():.2f}"
            row[f"sd, epoch {epoch}"] = f"{error.std(ddof=1):.2f}" if len(error) > 1 else ""
    stops = [stopped(errors[1:]) for errors in train_error]
    if None not in stops:
        there = np.array([run.at_epoch("test_error", stop)[seed] for seed, stop in enumerate(stops)])
        row["epoch of the stop rule"] = f"{np.mean(stops):.0f}"
        row["test error there"] = f"{there.mean():.2f}"
        row["sd there"] = f"{there.std(ddof=1):.2f}" if len(there) > 1 else ""
    row["train error, last epoch"] = f"{train_error[:, -1].mean():.3f}"
    layers = sorted((m for m in run.metrics if m.startswith("signal_angle_")), key=lambda m: int(m.rpartition("_")[2]))
    cosines = [np.cos(np.radians(run.curves(m)[1][:, -1])).mean() for m in layers]
    row["signal cosine by hidden layer, last epoch"] = " ".join(f"{c:.2f}" for c in cosines)
    row["seconds"] = seconds(run)
    return row


def published(file: str) -> list[dict[str, str]]:
    """The rows of a table in `published`."""
    with (HERE / "published" / file).open(newline="") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def against(row: dict[str, str]) -> dict[str, float]:
    """Test errors in % that those of a row are compared with: of the short runs, and the paper's.

    Args:
      row: of a table of measured rows.
    """
    found = {}
    for short in published("short_runs.csv"):
        if (short["row"], short["rule"]) == (row["row"], row["rule"]):
            found = {f"epoch {epoch}": float(short[f"epoch{epoch}"]) for epoch in (1, 5, 10) if short[f"epoch{epoch}"]}
    task = ROWS[row["row"]].task
    network, _, further = row["row"].removeprefix(f"{task} ").partition(" ")
    unit = further if further in ("relu", "logistic") else "tanh"
    model = f"{network} {unit}" + (f" + {further}" if further and further != unit else "")
    for one in published(TABLES[task]):
        if (one["model"], one["rule"]) == (model, row["rule"]) and one["error"]:
            found["the end"] = float(one["error"])
    return found


def tables() -> str:
    """Returns what the short runs, and those to their end, came to, with deviations, as Markdown."""

    def told(error: str, theirs: float | None) -> str:
        return error if theirs is None or not error else f"{error} ({float(error) - theirs:+.2f})"

    short = []
    for row in measured_rows(10):
        theirs = against(row)
        errors = [told(row[f"test error, epoch {epoch}"], theirs.get(f"epoch {epoch}")) for epoch in (1, 5, 10)]
        cosines = "" if row["rule"] == "bp" else row["signal cosine by hidden layer, last epoch"]
        short.append([row["row"], row["rule"], row["seeds"], *errors, cosines])
    ends = []
    for epochs in (100, 300):
        for row in measured_rows(epochs):
            error = row["test error there"] or row[f"test error, epoch {epochs}"]
            at = row["epoch of the stop rule"] or f"not within {epochs}"
            paper = against(row).get("the end")
            end = [told(error, paper), "" if paper is None else f"{paper:.2f}"]
            about = [row["train error, last epoch"], row["seconds"]]
            ends.append([row["row"], row["rule"], row["seeds"], at, *end, *about])
    heads = ["network", "rule", "seeds", *(f"epoch {epoch}" for epoch in (1, 5, 10))]
    heads.append("cosines of the signals, layer by layer")
    ending = ["network", "rule", "seeds", "stops after epoch", "test error then, or at the end", "the paper's"]
    ending += ["training error at the end", "seconds"]
    plain = {"tablefmt": "pipe", "disable_numparse": True}
    return f"{tabulate(short, heads, **plain)}\n\n{tabulate(ends, ending, **plain)}"


def measured_rows(epochs: int) -> list[dict[str, str]]:
    """The rows of a table of runs of so many epochs, in the order of `ROWS`; none where there is none."""
    path = HERE / f"measured_{epochs}epochs.csv"
    if not path.exists():
        return []
    with path.open(newline="") as lines:
        found = [{"test error there": "", "epoch of the stop rule": "", **row} for row in csv.DictReader(lines)]
    return sorted(found, key=lambda row: (list(ROWS).index(row["row"]), ROWS[row["row"]].rules.index(row["rule"])))


def collect(epochs: int) -> None:
    """Writes down every run of so many epochs that has finished."""
    runs = {}
    for name, row in ROWS.items():
        for rule in row.rules:
            folder = place(name, rule, epochs)
            if is_trained(folder):
                runs[name, rule] = read_run(folder)
    if not runs:
        return
    rows = [(measured(name, rule, run), [run]) for (name, rule), run in runs.items()]
    write_table(HERE / f"measured_{epochs}epochs.csv", rows, "row", "rule")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=SHORT, help=f"of {', '.join(ROWS)}; default: the short ones")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--collect", action="store_true")
    parser.add_argument(
        "--table", action="store_true", help="print what is written down as Markdown, and train nothing"
    )
    parser.add_argument("--rules", nargs="+", default=(), help="of the row's; default: all of them")
    chosen = parser.parse_args()
    if chosen.table:
        print(tables())
        return
    if not chosen.collect:
        if unknown := [name for name in chosen.rows if name not in ROWS]:
            parser.error(f"rows are {', '.join(ROWS)}; got {unknown[0]}")
        for name in chosen.rows:
            if unknown := [rule for rule in chosen.rules if rule not in ROWS[name].rules]:
                parser.error(f"--rules of {name} are {', '.join(ROWS[name].rules)}; got {unknown[0]}")
        for name in chosen.rows:
            for rule in ROWS[name].rules if not chosen.rules else chosen.rules:
                train(name, rule, chosen.epochs, chosen.seeds)
    collect(chosen.epochs)


if __name__ == "__main__":
    main()
