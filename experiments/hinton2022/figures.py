"""Figures of trained rows: learning curve, goodness by layer, first-layer weights, hybrid images.

    python -m experiments.hinton2022.rows full
    python -m experiments.hinton2022.figures

The second command draws `curve`, `goodness`, `fields` and `hybrids`, as PNG and PDF. It also writes `layers.csv`: the
test error of inference by the goodness of one layer alone, and of all layers but the first. They go to
outputs/hinton2022/results, or with `--update` beside this file.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.common import add_output_options, of_seed, read_rows, results_folder, write_table
from experiments.hinton2022.rows import BATCH, row_of
from experiments.training import runs_of, trained
from fa_jax.cli.build import build
from fa_jax.records.reader import Run, read_checkpoint
from fa_jax.records.statistics import band
from fa_jax.reports.figures import STYLE, save
from fa_jax.reports.looks import colour_of
from fa_jax.rules.forward_forward.negatives import BLUR_STEPS, hybrids, masks, with_label

HERE = Path(__file__).parent
LAYERS = ("#0072B2", "#E69F00", "#009E73")
SIDE = 28
FIELDS = (5, 16)
"""Rows and columns of units in the figure."""
BY_LAYER = ("full", "fashion_five", "digits")
"""Rows whose errors are computed layer by layer."""
SHOWN = 8
"""The number of hybrid images."""


def curve(run: Run) -> Figure:
    """Draws the validation error over epochs, with the published log of a port of Hinton's code."""
    published = read_rows(HERE / "published" / "learning_curve.csv")
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    colour = colour_of("forward_forward")
    _draw(axes, run, "validation_error", colour, f"ours, softmax, mean of {len(run.seeds)} seeds and 95 % interval")
    style = {"markeredgecolor": colour, "markerfacecolor": "white", "markersize": 4}
    for key, sign in (("error_by_softmax", "o"), ("error_by_goodness", "^")):
        numbers = [(float(row["epoch"]), float(row[key])) for row in published]
        label = f"ff-py, one run, {key.rpartition('_')[2]}"
        axes.plot(*zip(*numbers, strict=True), sign, label=label, **style)
    axes.set_ylim(0, 6)
    axes.set_ylabel("validation error (%)")
    axes.legend()
    return figure


def goodness(run: Run) -> Figure:
    """Draws the goodness of positive and negative data, and the share of pairs in the wrong order, by layer."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, colour in enumerate(LAYERS):
        _draw(left, run, f"positive_goodness_{i}", colour, f"layer {i}, true label")
        _draw(left, run, f"negative_goodness_{i}", colour, f"layer {i}, wrong label", "--")
        _draw(right, run, f"pairwise_error_{i}", colour, f"layer {i}")
    left.axhline(1, color="#555555", linewidth=0.6)
    left.set_ylabel("goodness / threshold")
    right.set_ylabel("wrong label has the higher goodness (%)")
    left.set_ylim(0.4, 1.8)
    left.legend(fontsize=7, ncols=3)
    right.set_ylim(0, 12)
    right.legend(fontsize=7)
    return figure


def fields(run: Run) -> Figure:
    """Draws weights of the first layer for the first seed, without the first row of pixels, which holds the label."""
    kernel = of_seed(read_checkpoint(run)["params"], 0)["stages_0"]["linear"]["kernel"]
    rows, columns = FIELDS
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, weights in zip(figure.subplots(rows, columns).flat, kernel.T, strict=False):
        image = weights.reshape(SIDE, SIDE)[1:]
        top = np.abs(image).max()
        axes.imshow(image, cmap="RdBu_r", vmin=-top, vmax=top)
        axes.set_axis_off()
    return figure


def errors_by_layer(run: Run) -> list[dict[str, object]]:
    """Returns the test error in % of each layer, and of all but the first together: mean and SD over seeds."""
    job = build(run.config)
    all_params, (inputs, targets) = read_checkpoint(run)["params"], job.task.test

    @jax.jit
    def predict(params, rows):
        def evidence(label):
            labels = jnp.broadcast_to(label, (len(rows), job.task.outputs))
            layers = job.network.call("activities", params, with_label(job.task.prepare(rows), labels))
            excess = jnp.stack([jnp.sum(jnp.square(y), -1) - y.shape[-1] for y in layers])
            return jnp.concatenate([excess, excess[1:].sum(0, keepdims=True)])

        return jax.lax.map(evidence, jnp.eye(job.task.outputs)).argmax(0)

    errors = []
    for seed in range(len(run.seeds)):
        params = of_seed(all_params, seed)
        predicted = np.concatenate([predict(params, inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)], -1)
        errors.append(100 * np.mean(predicted != np.asarray(targets), -1))
    names = [*map(str, range(len(errors[0]) - 1)), "all but the first"]
    return [
        {
            "layer": name,
            "seeds": len(errors),
            "test error": f"{column.mean():.2f}",
            "sd": f"{column.std(ddof=1):.2f}" if len(errors) > 1 else "",
        }
        for name, column in zip(names, np.transpose(errors), strict=True)
    ]


def hybrid_images(run: Run) -> Figure:
    """Draws images, masks, and the hybrids of two images by a mask."""
    job = build(run.config)
    images = job.task.prepare(job.task.train.inputs[:SHOWN])
    key = jax.random.key(1)
    mask = masks(jax.random.split(key)[0], images.shape[:3], BLUR_STEPS)
    figure = Figure(figsize=(SHOWN, 3.1), layout="constrained")
    grid = figure.subplots(3, SHOWN)
    pictures = {"images": images[..., 0], "masks": mask, "hybrids": hybrids(key, images, BLUR_STEPS)[..., 0]}
    for line, (name, row) in zip(grid, pictures.items(), strict=True):
        for axes, picture in zip(line, row, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
        line[0].set_ylabel(name)
    return figure


def _draw(axes, run: Run, metric: str, colour: str, label: str, line: str = "-") -> None:
    examples, values = run.curves(metric)
    epochs = examples / examples[-1] * run.config["epochs"]
    mean, low, high = band(values, logarithmic=False)
    axes.plot(epochs, mean, line, color=colour, label=label, linewidth=1.4)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("epochs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    (full,) = trained(row_of("full"))
    with mpl.rc_context(STYLE):
        save(curve(full), into / "curve")
        save(goodness(full), into / "goodness")
        save(fields(full), into / "fields")
        save(hybrid_images(full), into / "hybrids")
    runs = {name: run for name in BY_LAYER for run in runs_of(row_of(name))}
    rows = [({"row": name, **row}, [run]) for name, run in runs.items() for row in errors_by_layer(run)]
    write_table(into / "layers.csv", rows, "row", "layer")


if __name__ == "__main__":
    main()
