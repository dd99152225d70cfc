"""Forward-Forward on MNIST by the recipe of Hinton's code: three layers of 1000, 50 000 training images.

    python experiments/hinton2022/rows.py                     5 epochs: with the schedule, without it, without labels
    python experiments/hinton2022/rows.py full --seeds 3      100 epochs
    python experiments/hinton2022/rows.py --collect           only writes down what has been trained

MNIST has to be where `$TFDS_DATA_DIR` says. Each row is a run in outputs/hinton2022; what is there already is not
trained again. `measured.csv` beside this file is written at the end, errors by goodness worked out from the params.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from fa_jax.build import build
from fa_jax.records.reader import Run, read_run
from fa_jax.records.trained import is_trained, params_of, seconds, trained, write_table

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/hinton2022")
ROWS = {
    "five": ("epochs=5", "evaluations=5"),
    "five_constant": ("epochs=5", "evaluations=5", "optimizer/schedule=constant"),
    "full": (),
    "hybrid_five": ("rule.negatives=hybrid", "epochs=5", "evaluations=5"),
    "fashion_five": ("task=fashion_mnist", "task.validation=10000", "epochs=5", "evaluations=5"),
    "hybrid": (
        "rule.negatives=hybrid",
        "architecture.hidden=[2000,2000,2000,2000]",
        "epochs=100",
        "evaluations=50",
        "task.validation=0",
    ),
    "large": ("architecture.hidden=[2000,2000,2000,2000]", "epochs=60", "evaluations=60", "task.validation=0"),
}
SHORT = ("five", "five_constant", "hybrid_five", "fashion_five")
BATCH = 1000


def errors_by_goodness(run: Run) -> np.ndarray:
    """Returns the test errors in %, one a seed, of choosing the label with the most goodness."""
    job = build({**run.config, "rule": {**run.config["rule"], "inference": "goodness"}})
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
    """What a run came to: errors in % by the softmax readouts after epochs, and by goodness at the end."""
    found: dict[str, object] = {"row": name, "seeds": len(run.summary["seeds"])}
    for epoch in (1, 2, 3, 5, 10, 20, 30, 50, 60, 100):
        for split in ("validation", "test"):
            if f"{split}_error" in run.metrics and (error := run.at_epoch(f"{split}_error", epoch)) is not None:
                found[f"{split} error, epoch {epoch}"] = f"{error.mean():.2f}"
    if run.config["rule"]["negatives"] != "hybrid":
        found["test error by goodness, last epoch"] = f"{errors_by_goodness(run).mean():.2f}"
    pairs = [m for m in sorted(run.metrics) if m.startswith("pairwise_error_")]
    found["pairwise error by layer, last epoch"] = " ".join(f"{run.curves(m)[1][:, -1].mean():.2f}" for m in pairs)
    found["seconds"] = seconds(run)
    return found


def collect() -> None:
    """Writes down every run that has finished."""
    runs = {name: read_run(OUTPUTS / name) for name in ROWS if is_trained(OUTPUTS / name)}
    if not runs:
        return
    write_table(HERE / "measured.csv", [measured(*one) for one in runs.items()], list(runs.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=SHORT, help=f"of {', '.join(ROWS)}; default: the short ones")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--collect", action="store_true")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.rows if name not in ROWS]:
        parser.error(f"rows are {', '.join(ROWS)}; got {unknown[0]}")
    for name in [] if chosen.collect else chosen.rows:
        trained(OUTPUTS / name, "experiment=hinton2022_mnist", *ROWS[name], f"seeds={chosen.seeds}")
    collect()


if __name__ == "__main__":
    main()
