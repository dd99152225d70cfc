"""Measures how many seeds an accelerator trains at once, and a whole command on it.

    python -m experiments.speed.accelerator [--repeats 3] [--out FOLDER]

784-1000-10, tanh, softmax cross-entropy, batch 64, SGD, on images of MNIST's shape: FA with 1 to 1024 seeds on one
device. Then the command that trains 20 seeds of FA for 20 epochs of MNIST, if `$TFDS_DATA_DIR` is set.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from experiments.common import add_output_options, read_rows, results_folder
from experiments.speed.benchmark import EPOCH, HERE, Contestant, race
from experiments.speed.record import Row, record, table

SEEDS = (1, 4, 16, 20, 64, 256, 1024)
STEPS = 4 * EPOCH
"""Steps of a block with up to 16 seeds; more seeds take fewer steps, down to a sixteenth."""
COMMAND = ("rule=fa", "task=mnist", "architecture.hidden=[1000]", "seeds=20", "epochs=20", "evaluations=20")


def seeds_at_once(repeats: int) -> Iterator[Row]:
    """Measures the seed-steps per second of FA against the number of seeds."""
    for seeds in SEEDS:
        overrides = ["task=mnist", "rule=fa", "architecture.hidden=[1000]", "architecture.activation=tanh"]
        overrides += ["batch_size=64", "optimizer.learning_rate=0.1", f"seeds={seeds}"]
        spec = {"loop": "FaJax", "overrides": overrides, "synthetic": {}}
        steps = max(STEPS * 16 // max(seeds, 16), STEPS // 16)
        rates = race({"fa": Contestant(spec, steps, seeds)}, repeats)["fa"]
        yield Row(f"784-1000-10: FA, seeds at once: {seeds}", rates, "seed-steps/s")


def command() -> Iterator[Row]:
    """Measures the wall time of a whole command, and of its parts as its summary has them."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        arguments = [sys.executable, "-m", "fa_jax", *COMMAND, f"hydra.run.dir={folder}/run"]
        subprocess.run(arguments, check=True, stdout=sys.stderr)
        yield Row(f"fa-jax {' '.join(COMMAND)}", [time.perf_counter() - began], "s")
        cost = json.loads(Path(folder, "run", "summary.json").read_text())["cost"]
        for part in ("compile", "train", "evaluation"):
            yield Row(f"of this, {part}", [cost[f"{part}_seconds"]], "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median is taken over them")
    add_output_options(parser)
    chosen = parser.parse_args()
    rows, out = [], results_folder(chosen, HERE) / "accelerator.csv"
    for row in itertools.chain(seeds_at_once(chosen.repeats), command() if "TFDS_DATA_DIR" in os.environ else ()):
        rows.append(row)
        record("accelerator", rows, out, accelerator=jax.devices()[0].device_kind)
    print(table(read_rows(out)))


if __name__ == "__main__":
    main()
