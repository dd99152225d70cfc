"""Memory of a training step against depth, Forward-Forward and backprop, by the compiled programs' own account.

    python -m experiments.hinton2022.memory

Layers of 2000 units, 2 to 47 of them, Adam, 2500 examples a step (a positive and a negative one of each for
Forward-Forward, twice as many for backprop), one seed. `memory.csv` and `memory.png` are written beside this file.
MNIST has to be where `$TFDS_DATA_DIR` says. Nothing is trained: the compiler says what a program needs at once, besides
its arguments (params, the optimizer's slots, data), which are counted apart.
"""

import argparse
import csv
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fa_jax.cli.build import build
from fa_jax.cli.compose import compose, tell_apart
from fa_jax.reports.figures import STYLE, save
from fa_jax.training.compile import make_program_of

HERE = Path(__file__).parent
DEPTHS = (2, 7, 12, 17, 27, 37, 47)
MEBI = 2**20
FF = ("rule=forward_forward", "optimizer=adam", "batch_size=2500")
RULES = {
    "FF": FF,
    "FF by goodness": (*FF, "rule.negatives=uniform", "rule.inference=goodness"),
    "BP": ("rule=bp", "optimizer=adam", "batch_size=5000"),
}


def needs(words: tuple[str, ...], depth: int) -> dict[str, float]:
    """Returns MiB of a training step: `kept`, params, slots and feedback, and `working`, all that comes and goes."""
    further = (f"architecture.hidden={[2000] * depth}", "architecture.activation=relu", "task.train_examples=5000")
    every = ["task=mnist", *words, *further, "seeds=1", "devices=1", "probe=0", "shuffle=false"]
    composed = compose(tell_apart(every))[1][0]
    program = make_program_of(build(composed.config), 1)
    seeds = jax.ShapeDtypeStruct((1,), np.int32, sharding=program.over_seeds)
    step = jax.ShapeDtypeStruct((), np.int32)
    states, fixed = jax.eval_shape(program.start, seeds)
    memory = program.advance.lower(states, fixed, seeds, step, step, program.data).compile().memory_analysis()
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((states, fixed)))
    return {"kept": kept / MEBI, "working": memory.temp_size_in_bytes / MEBI}


def draw(found: dict[str, list[dict[str, float]]]) -> None:
    """Draws both parts against depth."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5, 3.6), layout="constrained")
        axes = figure.subplots()
        for (name, rows), colour in zip(found.items(), ("#0072B2", "#D55E00", "black"), strict=True):
            axes.plot(DEPTHS, [row["working"] for row in rows], color=colour, label=f"{name}: comes and goes")
            axes.plot(DEPTHS, [row["kept"] for row in rows], ":", color=colour, label=f"{name}: kept")
        axes.set_xlabel("hidden layers of 2000")
        axes.set_ylabel("MiB")
        axes.set_ylim(0)
        axes.legend()
        save(figure, HERE / "memory")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = {name: [needs(words, depth) for depth in DEPTHS] for name, words in RULES.items()}
    with (HERE / "memory.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rule", "hidden layers", "kept MiB", "working MiB", "jax"])
        for name, rows in found.items():
            for depth, row in zip(DEPTHS, rows, strict=True):
                writer.writerow([name, depth, f"{row['kept']:.0f}", f"{row['working']:.0f}", jax.__version__])
    draw(found)


if __name__ == "__main__":
    main()
