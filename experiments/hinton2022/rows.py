"""Forward-Forward with the settings of Hinton's code: the experiments of his paper, at full length and shortened.

    python -m experiments.hinton2022.rows                     all short rows
    python -m experiments.hinton2022.rows full --seeds 3      three layers of 1000, 50 000 training images, 100 epochs
    python -m experiments.hinton2022.rows fields --seeds 1    local receptive fields, 60 epochs
    python -m experiments.hinton2022.rows --status            what is done, running and left
    python -m experiments.hinton2022.rows --collect           tabulates finished runs, and trains nothing

The data are read from `$TFDS_DATA_DIR`. Each row is a run in outputs/hinton2022; finished runs are not trained again.
At the end, the script writes `measured.csv` to outputs/hinton2022/results, or with `--update` beside this file; it
computes errors by goodness from the final params.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from experiments import queue
from experiments.common import layer_columns, of_seed, provenance, read_rows, seconds, write_table
from experiments.training import Row, run_row, runs_of
from fa_jax.cli.build import build
from fa_jax.records.reader import Run, read_checkpoint

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/hinton2022")
MNIST, CIFAR = "experiment=hinton2022/mnist", "experiment=hinton2022/cifar10"
FIVE = ("epochs=5", "evaluations=5")
ALL = "task.validation=0"
"""Training on all 60 000 images."""
WIDE = "architecture.hidden=[2000,2000,2000,2000]"
HYBRID = (MNIST, "rule.negatives=hybrid", WIDE, "epochs=100", "evaluations=50", ALL)
JITTER = (MNIST, WIDE, "augmentation.shift=2", ALL)
FIELDS = (
    "architecture=locally_connected",
    "~architecture.hidden",
    "architecture.topology=conv128x10vs6-conv220x2v-conv512x2v",
    "rule.negatives=hybrid",
    ALL,
)
RECURRENT = ("rule=recurrent_forward_forward", ALL)
PHASES = ("rule.phase_length=50", "optimizer/schedule=constant", *FIVE)
"""Fifty steps on positive data, then fifty on negative data."""
ITERATED = ("rule.iterations=10", "rule.eval_iterations=[4,6]")
FEW = ("task.train_examples=1000", "task.test_examples=500", "batch_size=20", "epochs=3", "evaluations=1", "probe=100")
SMALL = (*FEW, "architecture.topology=conv3x5-conv3x5")
"""CIFAR-10 on a CPU: fields of 5x5 and few examples."""
OTHERS = {"bp": 9, "fa": 9, "dfa": 12}
"""The other rules, and the epochs in which they take as many operations as Forward-Forward in five: a step of 100
examples takes 2.81 Gflop by Forward-Forward, 1.52 by BP and FA, and 1.13 by DFA (`training.operations`)."""
RATES = (0.005, 0.015, 0.05, 0.15, 0.5)
BEST = {"bp": 0.5, "fa": 0.15, "dfa": 0.015}
"""The rate of `RATES` with the lowest validation error after five epochs."""
OTHER_RULES = (MNIST, "optimizer=ema")
ROWS = {
    "five": (MNIST, *FIVE),
    "five_constant": (MNIST, *FIVE, "optimizer/schedule=constant"),
    "full": (MNIST,),
    "full_uniform": (MNIST, "rule.negatives=uniform"),
    "full_125": (MNIST, "rule.weight_decay=0.002", "epochs=125", "evaluations=125"),
    "hybrid_five": (MNIST, "rule.negatives=hybrid", *FIVE),
    "hybrid": HYBRID,
    "hybrid_all_layers": (*HYBRID, "rule.first_readout_layer=0"),
    "large": (MNIST, WIDE, "epochs=60", "evaluations=60", ALL),
    "large_twice_the_rate": (MNIST, WIDE, "optimizer.learning_rate=0.02", "epochs=40", "evaluations=40", ALL),
    "jitter_ten": (MNIST, "augmentation.shift=2", "epochs=10", "evaluations=10"),
    "jitter": (*JITTER, "epochs=500", "evaluations=100"),
    "jitter_450": (*JITTER, "epochs=450", "evaluations=90"),
    "fields_five": (MNIST, *FIELDS, *FIVE),
    "fields_twenty": (MNIST, *FIELDS, "epochs=20", "evaluations=20"),
    "fields": (MNIST, *FIELDS, "epochs=60", "evaluations=60"),
    "recurrent_five": (MNIST, *RECURRENT, "architecture.hidden=[500,500]", *FIVE),
    "recurrent": (MNIST, *RECURRENT, "architecture.hidden=[2000,2000,2000]", "epochs=60", "evaluations=20"),
    "sleep_five": (MNIST, *PHASES),
    "sleep_five_slowly": (MNIST, *PHASES, "optimizer.learning_rate=0.003", "optimizer.scaling.decay=0.999"),
    "fashion_five": (MNIST, "task=fashion_mnist", "task.validation=10000", *FIVE),
    "digits": (
        MNIST,
        "task=digits",
        ALL,
        "architecture.hidden=[500,500,500]",
        "epochs=60",
        "evaluations=20",
        "probe=300",
    ),
    **{
        f"{rule}_{epochs}_epochs_{rate}": (
            *OTHER_RULES,
            f"rule={rule}",
            f"optimizer.learning_rate={rate}",
            f"epochs={epochs}",
            f"evaluations={epochs}",
        )
        for rule, longer in OTHERS.items()
        for epochs, rates in ((5, RATES), (longer, (BEST[rule],)))
        for rate in rates
    },
    **{
        f"cifar10_{goodness}_{layers}{short and '_few'}": (
            CIFAR,
            *ITERATED,
            f"rule.goodness={goodness}",
            *((f"architecture.topology={'-'.join(['conv3x11'] * layers)}",) if not short else SMALL),
        )
        for goodness in ("minimised", "maximised")
        for layers, short in ((2, ""), (3, ""), (2, "few"))
    },
    **{
        f"cifar10_bp_{layers}{short and '_few'}": (
            CIFAR,
            "rule=bp",
            "optimizer=momentum",
            *((f"architecture.topology={'-'.join(['conv3x11'] * layers)}",) if not short else SMALL),
        )
        for layers, short in ((2, ""), (3, ""), (2, "few"))
    },
}
SHORT = (
    "five",
    "five_constant",
    "hybrid_five",
    "jitter_ten",
    "fields_five",
    "recurrent_five",
    "digits",
    "fashion_five",
)
SHORT += tuple(name for name in ROWS if "_epochs_" in name)
SHORT += ("sleep_five", "sleep_five_slowly", "cifar10_minimised_2_few", "cifar10_maximised_2_few", "cifar10_bp_2_few")
HOURS = {
    "full_uniform": 0.8,
    "full_125": 1,
    "large": 2.5,
    "large_twice_the_rate": 1.7,
    "hybrid": 4,
    "hybrid_all_layers": 4,
    "jitter": 20,
    "jitter_450": 18,
    "fields": 1.8,
    "recurrent": 30,
    "cifar10_bp_2": 2.7,
    "cifar10_minimised_2": 57,
}
"""Estimates for one seed of rows that were not measured on a CPU. For CIFAR-10: by the operations of BP at 50 GFLOP/s,
and by the times that Forward-Forward and BP take on few images."""
EPOCHS = (1, 2, 3, 5, 9, 10, 12, 20, 30, 40, 50, 60, 100, 125)
"""The epochs of which errors are tabulated."""
BATCH = 1000


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows, such as `hinton2022/large`; seeds are those that were asked for."""
    return [row_of(name, seeds) for name in ROWS]


def row_of(name: str, seeds: int | None = None) -> Row:
    """Returns a row of `ROWS`."""
    default = 3 if name == "full" else 2 if name in SHORT else 1
    hours = hours_of_seed().get(name)
    return run_row(
        f"hinton2022/{name}", OUTPUTS / name, ROWS[name], hours and hours * default, seeds=seeds, default=default
    )


@functools.cache
def hours_of_seed() -> dict[str, float]:
    """Returns the hours of one seed of a row, measured on a CPU or estimated."""
    measured = [row for row in read_rows(HERE / "measured.csv") if row["seconds"] and "NVIDIA" not in row["measured"]]
    return HOURS | {row["row"]: float(row["seconds"]) / 3600 / int(row["seeds"]) for row in measured}


def errors_by(run: Run, inference: str) -> np.ndarray:
    """Returns the test errors in % of a kind of inference, one for each seed."""
    job = build({**run.config, "rule": {**run.config["rule"], "inference": inference}})
    all_params = read_checkpoint(run)["params"]
    predict = jax.jit(lambda params, inputs: job.rule.predict(params, job.task.prepare(inputs)).argmax(-1))
    inputs, targets = job.task.test
    errors = []
    for seed in range(len(run.seeds)):
        params = of_seed(all_params, seed)
        predicted = np.concatenate([predict(params, inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)])
        errors.append(100 * np.mean(predicted != np.asarray(targets)))
    return np.array(errors)


def measured(name: str, run: Run) -> dict[str, object]:
    """Returns the row of a run: errors in % after some epochs, and by the other kind of inference at the end."""
    row: dict[str, object] = {"row": name, "seeds": len(run.seeds)}
    row["diverged"] = len(run.diverged)
    if run.diverged:
        return row
    for epoch in EPOCHS:
        for split in ("validation", "test"):
            if f"{split}_error" in run.metrics and (error := run.at_epoch(f"{split}_error", epoch)) is not None:
                row[f"{split} error, epoch {epoch}"] = f"{error.mean():.2f}"
    last = run.curves("test_error")[1][:, -1]
    row["test error, last epoch"] = f"{last.mean():.2f}"
    row["sd, last epoch"] = f"{last.std(ddof=1):.2f}" if len(last) > 1 else ""
    negatives, inference = (run.config["rule"].get(option) for option in ("negatives", "inference"))
    if inference == "goodness":
        row["test error by goodness, last epoch"] = row["test error, last epoch"]
        row["test error by softmax, last epoch"] = f"{errors_by(run, 'softmax').mean():.2f}"
    elif negatives not in ("hybrid", None):
        row["test error by goodness, last epoch"] = f"{errors_by(run, 'goodness').mean():.2f}"

    def last_by_layer(metric: str, form: str) -> str:
        return " ".join(format(run.curves(column)[1][:, -1].mean(), form) for column in layer_columns(run, metric))

    row["pairwise error by layer, last epoch"] = last_by_layer("pairwise_error", ".2f")
    row["update angles to backprop, last epoch"] = last_by_layer("update_angle", ".0f")
    row["seconds"] = round(seconds(run))
    return row


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Tabulates those of some rows that are done and not in `measured.csv` of a folder yet."""
    path = into / "measured.csv"
    text = path.read_text() if path.exists() else ""
    done = {row.name.partition("/")[2]: run for row in chosen for run in runs_of(row)}
    new = [(measured(name, run), [run]) for name, run in done.items() if provenance([run]) not in text]
    if new:
        write_table(path, new, "row")


if __name__ == "__main__":
    queue.main(__doc__, "hinton2022", SHORT)
