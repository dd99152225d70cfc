"""Cosines of the rules' learning signals to backprop's, at the activations and at the pre-activations.

    python -m experiments.nokland2016.rows 2x800 7x240
    python -m experiments.nokland2016.signals

`fa-jax` records the angle of a hidden layer's signal for its activation h. The signals of the paper, and those of the
independent implementation, are for the pre-activation: they are multiplied by the slope of the activation function, so
that saturated units count for less. `signals.csv` has both for networks of tanh units, means over 1 000 test examples.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import add_output_options, of_seed, results_folder, write_table
from experiments.nokland2016.rows import row_of
from experiments.training import runs_of
from fa_jax.cli.build import build
from fa_jax.core import Batch
from fa_jax.records.reader import Run, read_checkpoint
from fa_jax.rules.backward import hidden_gradient

HERE = Path(__file__).parent
ROWS = {"2x800": ("fa", "dfa", "ifa", "drtp", "sdfa"), "7x240": ("fa", "dfa")}
PROBE = 1000


def cosines(run: Run) -> np.ndarray:
    """Returns the mean cosines of each seed, `[seeds, 2, layers]`: at the activations, and at the pre-activations."""
    job = build(run.config)
    signals = job.rule.extras.signals
    assert signals is not None
    checkpoint, test = read_checkpoint(run), job.task.test
    batch = Batch(job.task.prepare(test.inputs[:PROBE]), job.task.encode(test.targets[:PROBE]), jax.random.key(0))

    @jax.jit
    def cosines_of(params, feedback):
        _, activations = job.network.forward(params, batch.inputs)
        ours = signals(params, feedback, batch)
        theirs = hidden_gradient(job.network, job.loss.value, params, batch)
        slopes = {name: 1 - jnp.square(h) for name, h in activations.items()}

        def cosine(a, b):
            return jnp.mean(jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)))

        at_h = [cosine(ours[name], theirs[name]) for name in slopes]
        return jnp.stack([jnp.stack(at_h), jnp.stack([cosine(ours[n] * f, theirs[n] * f) for n, f in slopes.items()])])

    trees = checkpoint["params"], checkpoint["feedback"]
    return np.stack([cosines_of(*of_seed(trees, i)) for i in range(len(run.seeds))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    add_output_options(parser)
    options = parser.parse_args()
    epochs, rows = options.epochs, []
    for name, rules in ROWS.items():
        for rule in rules:
            for run in runs_of(row_of(name, rule, epochs)):
                by_seed = cosines(run)
                texts = [" ".join(f"{value:.2f}" for value in layers) for layers in by_seed.mean(0)]
                row = {"row": name, "rule": rule, "epochs": epochs, "seeds": len(by_seed)}
                rows.append(({**row, "at the activations": texts[0], "at the total inputs": texts[1]}, [run]))
    write_table(results_folder(options, HERE) / "signals.csv", rows, "row", "rule", "epochs")


if __name__ == "__main__":
    main()
