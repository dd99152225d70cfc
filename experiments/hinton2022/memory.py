"""Memory of a training step against depth, for Forward-Forward and backprop, by XLA's estimate.

    python -m experiments.hinton2022.memory

Networks have 2 to 47 layers of 2000 units; a step of Adam trains one seed on 5000 rows: 2500 positive and 2500 negative
ones for Forward-Forward, 5000 examples for backprop. It trains nothing: XLA estimates the temporary memory of the
compiled program. Params, optimizer state and feedback, the arguments of the program, are counted separately. MNIST is
read from `$TFDS_DATA_DIR`. The script writes `memory.csv` and `memory.png` to outputs/hinton2022/results, or with
`--update` beside this file.
"""

import argparse
import csv
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.common import add_output_options, results_folder
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.reports.figures import STYLE, save
from fa_jax.reports.looks import colour_of, shade
from fa_jax.training.compile import make_program_of

HERE = Path(__file__).parent
DEPTHS = (2, 7, 12, 17, 27, 37, 47)
MEBI = 2**20
FF = ("rule=forward_forward", "optimizer=adam", "batch_size=2500")
COLOURS = (colour_of("forward_forward"), shade(colour_of("forward_forward"), 0.3), colour_of("bp"))
RULES = {
    "FF": FF,
    "FF by goodness": (*FF, "rule.negatives=uniform", "rule.inference=goodness"),
    "BP": ("rule=bp", "optimizer=adam", "batch_size=5000"),
}


def memory_of(overrides: tuple[str, ...], depth: int) -> dict[str, float]:
    """Returns MiB of a training step: `kept`, params, optimizer state and feedback; `working`, temporary memory."""
    network = (f"architecture.hidden={[2000] * depth}".replace(" ", ""), "architecture.activation=relu")
    data = ("task=mnist", "task.train_examples=5000", "shuffle=false")
    job = compose(parse([*data, *overrides, *network, "seeds=1", "devices=1", "probe=0"])).runs[0].job
    program = make_program_of(job, 1)
    seeds = jax.ShapeDtypeStruct((1,), np.int32, sharding=program.seed_sharding)
    step = jax.ShapeDtypeStruct((), np.int32)
    states = jax.eval_shape(program.init, seeds, {})
    memory = program.train.lower(states, seeds, step, step, program.data()).compile().memory_analysis()
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states))
    return {"kept": kept / MEBI, "working": memory.temp_size_in_bytes / MEBI}


def draw(measured: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draws both parts against depth."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5, 3.6), layout="constrained")
        axes = figure.subplots()
        for (name, rows), colour in zip(measured.items(), COLOURS, strict=True):
            axes.plot(DEPTHS, [row["working"] for row in rows], color=colour, label=f"{name}: comes and goes")
            axes.plot(DEPTHS, [row["kept"] for row in rows], ":", color=colour, label=f"{name}: kept")
        axes.set_xlabel("hidden layers of 2000")
        axes.set_ylabel("MiB")
        axes.set_ylim(0)
        axes.legend()
        save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    measured = {name: [memory_of(overrides, depth) for depth in DEPTHS] for name, overrides in RULES.items()}
    with (into / "memory.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rule", "hidden layers", "kept MiB", "working MiB", "jax"])
        for name, rows in measured.items():
            for depth, row in zip(DEPTHS, rows, strict=True):
                writer.writerow([name, depth, f"{row['kept']:.0f}", f"{row['working']:.0f}", jax.__version__])
    draw(measured, into / "memory")


if __name__ == "__main__":
    main()
