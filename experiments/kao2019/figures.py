"""Figures of trained rows, and the accuracy of each exit of a network trained by associated learning.

    python -m experiments.kao2019.rows depth separation
    python -m experiments.kao2019.figures

The second command draws `depth.png` (errors by depth, norms of learning signals before training), `separation.png`
(class separation by layer and epoch) and `codes.png` (the codes of the labels). It writes `exits.csv`: accuracy and
multiplications by exit. They go to outputs/kao2019/results, or with `--update` beside this file.
"""

import argparse
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.common import add_output_options, layer_columns, results_folder, write_table
from experiments.kao2019.rows import row_of
from experiments.training import trained
from fa_jax.cli.build import build
from fa_jax.network import Network
from fa_jax.records.reader import Run, read_checkpoint
from fa_jax.reports.figures import STYLE
from fa_jax.reports.looks import colour_of

HERE = Path(__file__).parent
KINDS = {
    "al_elu": ("associated learning, ELU stages", colour_of("associated_learning"), "-"),
    "al_sigmoid": ("associated learning, all sigmoid", colour_of("associated_learning"), ":"),
    "bp_relu": ("backprop, ReLU", colour_of("bp"), "-"),
    "bp_elu_then_sigmoid": ("backprop, the shape and units that AL predicts with", colour_of("bp"), "--"),
    "bp_sigmoid": ("backprop, all sigmoid", colour_of("bp"), ":"),
}
STAGES = (2, 4, 8)


def run_of(row: str, name: str) -> Run:
    """Returns a run of a row, after training it if it is missing."""
    (run,) = trained(row_of(row, name))
    return run


def by_layer(run: Run, metric: str, evaluation: int) -> np.ndarray:
    """Returns a metric of each layer at one evaluation, `[seeds, layers]`."""
    return np.stack([run.curves(column)[1][:, evaluation] for column in layer_columns(run, metric)], -1)


def depth() -> Figure:
    """Draws the error after five epochs by the number of stages, and the norms of learning signals before training."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    errors, norms = figure.subplots(1, 2)
    for kind, (label, colour, line) in KINDS.items():
        runs = [run_of("depth", f"{stages}_{kind}") for stages in STAGES]
        last = np.stack([run.curves("test_error")[1][:, -1] for run in runs])
        errors.plot(STAGES, last.mean(1), line, color=colour, label=label)
        errors.plot(STAGES, last, ".", color=colour, markersize=4)
        metric = "signal_norm" if kind.startswith("al") else "bp_signal_norm"
        initial = by_layer(runs[-1], metric, 0).mean(0)
        norms.plot(range(len(initial)), initial, line, color=colour, marker=".", markersize=4)
    errors.set(xlabel="stages", ylabel="test error after 5 epochs (%)", xticks=STAGES, yscale="log", ylim=(2, 100))
    errors.set_yticks([2, 5, 10, 20, 50, 100], labels=["2", "5", "10", "20", "50", "100"])
    norms.set(xlabel="hidden layer, from the input", ylabel="learning signal's norm at the start", yscale="log")
    norms.set_title("8 stages", fontsize=9)
    figure.legend(*errors.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def separation() -> Figure:
    """Draws the ratio of distances between and within classes, by layer, after each epoch."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (name, title) in zip(panels, (("al", "associated learning"), ("bp", "backprop")), strict=True):
        run = run_of("separation", name)
        epochs = run.curves("test_error")[0] / 60_000
        layers = np.stack([by_layer(run, "separation", i).mean(0) for i in range(len(epochs))])
        for i, values in enumerate(layers.T):
            panel.plot(epochs, values, color=mpl.colormaps["viridis"](i / 5), marker=".", label=f"layer {i}")
        panel.set(xlabel="epoch", title=title)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("distance between classes / within")
    return figure


def codes() -> Figure:
    """Draws the codes of the ten classes, with one row for each class, and their mean distance, by stage."""
    params = read_checkpoint(run_of("depth", "8_al_sigmoid"))["params"]
    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(4, 2).ravel()
    t = jnp.eye(10)
    for i, panel in enumerate(panels):
        layer = params[f"encoders_{i}"]
        t = jax.nn.sigmoid(t @ layer["kernel"][0] + layer["bias"][0])
        distance = jnp.sqrt(jnp.mean(jnp.square(t[:, None] - t), -1)).sum() / 90
        image = panel.imshow(t, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        panel.set_title(f"stage {i}: {distance:.2f} apart", fontsize=8)
        panel.set(xticks=[], yticks=[0, 9])
        panel.grid(visible=False)
    figure.colorbar(image, ax=panels, label="activity of a code's unit")
    figure.supylabel("class")
    return figure


def exits() -> list[dict[str, object]]:
    """Returns the test accuracy and the cost of predictions that pass some of the stages."""
    run = run_of("depth", "8_al_elu")
    job, params = build(run.config), read_checkpoint(run)["params"]
    inputs, targets = job.task.prepare(job.task.test.inputs), np.asarray(job.task.test.targets)
    rows = []
    for last in range(1, 9):
        network = Network(job.network.module.clone(exit=last), job.network.input_shape)
        predicted = np.asarray(jax.jit(jax.vmap(network.apply, (0, None)))(params, inputs)).argmax(-1)
        products = sum(math.prod(kernel.shape) for kernel in network.kernel_shapes.values())
        accuracy = f"{100 * np.mean(predicted == targets):.2f}"
        rows.append({"exit": last, "accuracy": accuracy, "seeds": len(predicted), "multiplications": products})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    with mpl.rc_context(STYLE):
        for draw in (depth, separation, codes):
            figure = draw()
            for ending in ("png", "pdf"):
                figure.savefig(into / f"{draw.__name__}.{ending}")
    run = run_of("depth", "8_al_elu")
    write_table(into / "exits.csv", [(row, [run]) for row in exits()])


if __name__ == "__main__":
    main()
