"""Figures of trained rows: error curves, angles of signals and updates, features of the first layer.

    python -m experiments.nokland2016.rows 2x800 7x240
    python -m experiments.nokland2016.figures

The second command draws `errors`, `angles` and `features`, as PNG and PDF, in outputs/nokland2016/results, or with
`--update` beside this file. experiments/representations draws the maps of hidden layers.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import add_output_options, layer_columns, of_seed, results_folder
from experiments.nokland2016.rows import row_of
from experiments.training import trained
from fa_jax.records.reader import Run, read_checkpoint
from fa_jax.reports.figures import STYLE, save
from fa_jax.reports.labels import NAMES
from fa_jax.reports.looks import colour_of

HERE = Path(__file__).parent
EPOCHS = 10
NETS, RULES = ("2x800", "7x240"), ("bp", "fa", "dfa", "ifa")
UNITS = 16
SIDE = 28


def runs_of(net: str) -> dict[str, Run]:
    """Returns the runs of a network, by rule, after training those that are missing."""
    return {rule: run for rule in RULES for run in trained(row_of(net, rule, EPOCHS))}


def draw(axes: Axes, run: Run, metric: str, **style: Any) -> None:
    """Draws a metric by epoch: the mean over seeds in a style, and a thin line of the same colour for each seed."""
    examples, values = run.curves(metric)
    epochs = EPOCHS * examples / examples[-1]
    (mean,) = axes.plot(epochs, values.mean(0), **style)
    axes.plot(epochs, values.T, color=mean.get_color(), linewidth=0.4)


def errors() -> Figure:
    """Draws test errors by epoch: the mean of each rule, and a thin line for each seed."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, net in zip(figure.subplots(1, 2), NETS, strict=True):
        runs = runs_of(net)
        for rule, run in runs.items():
            draw(axes, run, "test_error", label=NAMES[rule], color=colour_of(rule))
        axes.set(ylim=(0, 20), xlabel="epochs", ylabel="test error (%)")
        axes.set_title(f"784-{net}-10, tanh")
        axes.legend()
    return figure


def angles() -> Figure:
    """Draws the angles of signals and of updates to backprop's: a line for each layer, the darker the higher."""
    columns = [(net, rule) for net in NETS for rule in ("fa", "dfa")]
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.subplots(2, len(columns), sharex=True, sharey=True)
    for column, (net, rule) in zip(grid.T, columns, strict=True):
        run = runs_of(net)[rule]
        for axes, kind in zip(column, ("signal", "update"), strict=True):
            hidden = len(layer_columns(run, "signal_angle"))  # without the readout, whose updates are backprop's
            names = [f"{kind}_angle_{i}" for i in range(hidden)]
            for i, name in enumerate(names):
                shade = mpl.colormaps["viridis_r"](i / max(1, len(names) - 1))
                draw(axes, run, name, color=shade, label=f"layer {i}", linewidth=1.4)
            axes.axhline(90, color="#555555", linewidth=0.6)
            axes.legend(fontsize=5.5, ncols=2)
        column[0].set_title(f"{net}, {NAMES[rule]}")
        column[1].set_xlabel("epochs")
    for axes, kind in zip(grid[:, 0], ("signal", "update"), strict=True):
        axes.set_ylabel(f"{kind}: angle to BP's (degrees)")
        axes.set_ylim(0, 120)
    return figure


def features() -> Figure:
    """Draws the weights of the first units of the first hidden layer for the first seed, with a row for each rule."""
    runs = runs_of("2x800")
    figure = Figure(figsize=(9, 0.62 * len(runs)), layout="constrained")
    for line, (rule, run) in zip(figure.subplots(len(runs), UNITS), runs.items(), strict=True):
        params = of_seed(read_checkpoint(run)["params"], 0)
        (kernel,) = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2 and len(leaf) == SIDE * SIDE]
        for axes, weights in zip(line, kernel.T, strict=False):
            top = np.abs(weights).max()
            axes.imshow(weights.reshape(SIDE, SIDE), cmap="RdBu_r", vmin=-top, vmax=top)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
        line[0].set_ylabel(NAMES[rule])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    with mpl.rc_context(STYLE):
        for figure in (errors, angles, features):
            save(figure(), into / figure.__name__)


if __name__ == "__main__":
    main()
