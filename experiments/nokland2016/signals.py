"""Cosines of the rules' signals and backprop's, at the activations and at the total inputs, of what `rows.py` trained.

    python -m experiments.nokland2016.rows 2x800 7x240
    python -m experiments.nokland2016.signals

`fa-jax` records the angle of what a hidden layer is told of its activation h. The signals of the paper, and of the
implementation that ours are held against, are one step further: times the slope, at its total input. Units that are
saturated count for less there. `signals.csv` has both, means over 1 000 test examples, for networks of tanh units.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import checkpoint_of, write_table
from experiments.nokland2016.rows import is_trained, place
from fa_jax.cli.build import build
from fa_jax.core import Batch
from fa_jax.network import gradient
from fa_jax.records.reader import Run, read_run

HERE = Path(__file__).parent
ROWS = {"2x800": ("fa", "dfa", "ifa", "drtp", "sdfa"), "7x240": ("fa", "dfa")}
PROBE = 1000


def cosines(run: Run) -> np.ndarray:
    """Returns the mean cosines of each seed, `[seeds, 2, layers]`: at the activations, and at the total inputs."""
    job = build(run.config)
    kept, test = checkpoint_of(run), job.task.test
    batch = Batch(job.task.prepare(test.inputs[:PROBE]), job.task.encode(test.targets[:PROBE]), jax.random.key(0))

    @jax.jit
    def of(params, feedback):
        _, activations = job.network.forward(params, batch.inputs)
        nudged = job.network.nudge(params, jax.tree.map(jnp.zeros_like, activations))
        ours = job.network.nudges(job.rule.updates(nudged, feedback, batch))
        theirs = job.network.nudges(gradient(job.network, job.loss.value, nudged, batch))
        slopes = {name: 1 - jnp.square(h) for name, h in activations.items()}

        def cosine(a, b):
            return jnp.mean(jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)))

        at_h = [cosine(ours[name], theirs[name]) for name in slopes]
        return jnp.stack([jnp.stack(at_h), jnp.stack([cosine(ours[n] * f, theirs[n] * f) for n, f in slopes.items()])])

    seeds = range(len(run.summary["seeds"]))
    return np.stack([of(*jax.tree.map(lambda a, i=i: a[i], (kept["params"], kept["feedback"]))) for i in seeds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    rows = []
    for name, rules in ROWS.items():
        for rule in rules:
            if is_trained(folder := place(name, rule, epochs)):
                found = cosines(run := read_run(folder))
                texts = [" ".join(f"{value:.2f}" for value in layers) for layers in found.mean(0)]
                row = {"row": name, "rule": rule, "epochs": epochs, "seeds": len(found)}
                rows.append(({**row, "at the activations": texts[0], "at the total inputs": texts[1]}, [run]))
    write_table(HERE / "signals.csv", rows, "row", "rule", "epochs")


if __name__ == "__main__":
    main()
