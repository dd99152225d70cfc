"""Forward-Forward by the recipe of Hinton's code: the experiments of his paper, at full length and shortened.

    python -m experiments.hinton2022.rows                     all the short ones
    python -m experiments.hinton2022.rows full --seeds 3      three layers of 1000, 50 000 training images, 100 epochs
    python -m experiments.hinton2022.rows fields --seeds 1    local receptive fields, 60 epochs
    python -m experiments.hinton2022.rows --collect           only writes down what has been trained

The data have to be where `$TFDS_DATA_DIR` says. Each row is a run in outputs/hinton2022; what is there already is not
trained again. `measured.csv` beside this file is written at the end, errors by goodness worked out from the params.
"""

import argparse
import re
from pathlib import Path

import jax
import numpy as np

from experiments.common import is_trained, params_of, provenance, seconds, trained, write_table
from fa_jax.cli.build import build
from fa_jax.records.reader import Run, read_run

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/hinton2022")
MNIST, CIFAR = "experiment=hinton2022_mnist", "experiment=hinton2022_cifar10"
FIVE = ("epochs=5", "evaluations=5")
ALL = "task.validation=0"
"""Trained on all 60 000 images."""
WIDE = "architecture.hidden=[2000,2000,2000,2000]"
FIELDS = (
    "architecture=locally_connected",
    "~architecture.hidden",
    "architecture.topology=conv128x10vs6-conv220x2v-conv512x2v",
    "rule.negatives=hybrid",
    ALL,
)
RECURRENT = ("rule=recurrent_forward_forward", ALL)
SLEEP = ("rule.sleep=50", "optimizer/schedule=constant", *FIVE)
"""Fifty steps awake, fifty asleep."""
ITERATED = ("rule.iterations=10", "rule.scored=[4,6]")
FEW = ("task.train_examples=1000", "task.test_examples=500", "batch_size=20", "epochs=3", "evaluations=1", "probe=100")
SMALL = (*FEW, "architecture.topology=conv3x5-conv3x5")
"""Of CIFAR-10, what a processor can do: fields of 5x5, few examples."""
OTHERS = {"bp": 9, "fa": 9, "dfa": 12}
"""Rules beside Forward-Forward, and the epochs that take them as many operations as five take it (2.81 Gflop a step of
100 examples; 1.52 and 1.13 for them, by `fa_jax.training.compile.operations`)."""
BEST = {"bp": 0.5, "fa": 0.15, "dfa": 0.015}
"""Of these rates, those with the lowest validation error after five epochs."""
RATES = (0.005, 0.015, 0.05, 0.15, 0.5)
BESIDE = (MNIST, "optimizer=averaged")
ROWS = {
    "five": (MNIST, *FIVE),
    "five_constant": (MNIST, *FIVE, "optimizer/schedule=constant"),
    "full": (MNIST,),
    "hybrid_five": (MNIST, "rule.negatives=hybrid", *FIVE),
    "hybrid": (MNIST, "rule.negatives=hybrid", WIDE, "epochs=100", "evaluations=50", ALL),
    "large": (MNIST, WIDE, "epochs=60", "evaluations=60", ALL),
    "jitter_ten": (MNIST, "augmentation.shift=2", "epochs=10", "evaluations=10"),
    "jitter": (MNIST, WIDE, "augmentation.shift=2", "epochs=500", "evaluations=100", ALL),
    "fields_five": (MNIST, *FIELDS, *FIVE),
    "fields_twenty": (MNIST, *FIELDS, "epochs=20", "evaluations=20"),
    "fields": (MNIST, *FIELDS, "epochs=60", "evaluations=60"),
    "recurrent_five": (MNIST, *RECURRENT, "architecture.hidden=[500,500]", *FIVE),
    "recurrent": (MNIST, *RECURRENT, "architecture.hidden=[2000,2000,2000]", "epochs=60", "evaluations=20"),
    "sleep_five": (MNIST, *SLEEP),
    "sleep_five_slowly": (MNIST, *SLEEP, "optimizer.learning_rate=0.003", "optimizer.scaling.decay=0.999"),
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
            *BESIDE,
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
BATCH = 1000


def errors_by(run: Run, inference: str) -> np.ndarray:
    """Returns the test errors in %, one a seed, of choosing the label in this way."""
    job = build({**run.config, "rule": {**run.config["rule"], "inference": inference}})
    params = params_of(run)
    predict = jax.jit(lambda p, inputs: job.rule.predict(p, job.task.prepare(inputs)).argmax(-1))
    inputs, targets = job.task.test
    found = []
    for seed in range(len(run.summary["seeds"])):
        own = jax.tree.map(lambda a, i=seed: a[i], params)
        chosen = np.concatenate([predict(own, inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)])
        found.append(100 * np.mean(chosen != np.asarray(targets)))
    return np.array(found)


def measured(name: str, run: Run) -> dict[str, object]:
    """What a run came to: errors in % as the rule infers after epochs, and by the other inference at the end."""
    found: dict[str, object] = {"row": name, "seeds": len(run.summary["seeds"])}
    found["diverged"] = len(run.diverged)
    if run.diverged:
        return found
    for epoch in (1, 2, 3, 5, 9, 10, 12, 20, 30, 50, 60, 100):
        for split in ("validation", "test"):
            if f"{split}_error" in run.metrics and (error := run.at_epoch(f"{split}_error", epoch)) is not None:
                found[f"{split} error, epoch {epoch}"] = f"{error.mean():.2f}"
    found["test error, last epoch"] = f"{run.curves('test_error')[1][:, -1].mean():.2f}"
    negatives, inference = (run.config["rule"].get(option) for option in ("negatives", "inference"))
    if inference == "goodness":
        found["test error by goodness, last epoch"] = found["test error, last epoch"]
        found["test error by softmax, last epoch"] = f"{errors_by(run, 'softmax').mean():.2f}"
    elif negatives not in ("hybrid", None):
        found["test error by goodness, last epoch"] = f"{errors_by(run, 'goodness').mean():.2f}"
    pairs = [m for m in sorted(run.metrics) if m.startswith("pairwise_error_")]
    found["pairwise error by layer, last epoch"] = " ".join(f"{run.curves(m)[1][:, -1].mean():.2f}" for m in pairs)
    angles = [m for m in sorted(run.metrics) if re.fullmatch(r"update_angle_\d", m)]
    found["update angles to backprop, last epoch"] = " ".join(f"{run.curves(m)[1][:, -1].mean():.0f}" for m in angles)
    found["seconds"] = seconds(run)
    return found


def collect() -> None:
    """Writes down every run that has finished and is not written down yet."""
    runs = {name: read_run(OUTPUTS / name) for name in ROWS if is_trained(OUTPUTS / name)}
    text = (HERE / "measured.csv").read_text()
    runs = {name: run for name, run in runs.items() if provenance([run]) not in text}
    if not runs:
        return
    write_table(HERE / "measured.csv", [(measured(*one), [one[1]]) for one in runs.items()], "row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=SHORT, help=f"of {', '.join(ROWS)}; default: the short ones")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--collect", action="store_true")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.rows if name not in ROWS]:
        parser.error(f"rows are {', '.join(ROWS)}; got {unknown[0]}")
    for name in [] if chosen.collect else chosen.rows:
        trained(OUTPUTS / name, *ROWS[name], f"seeds={chosen.seeds}")
    collect()


if __name__ == "__main__":
    main()
