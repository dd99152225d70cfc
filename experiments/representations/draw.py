"""Representations in the hidden layers of recorded runs: t-SNE maps, nearest neighbours, class separation.

    python -m experiments.representations.draw outputs/mnist/dfa/<time> outputs/mnist/bp/<time> --to figure

The script draws `figure.png` and `figure.pdf` with one row for each run: maps of the input and of every hidden layer,
for the first seed. It writes `figure.csv`: for each layer, over seeds, the accuracy of the 5 nearest neighbours and the
separation of the classes. Neighbours of 2 000 test examples are searched among 10 000 training examples, in the layer
itself and not in its map.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier

from experiments.common import of_seed, write_table
from fa_jax.cli.build import build
from fa_jax.core import PyTree, Split
from fa_jax.metrics.separation import centroid_ratio, ratio
from fa_jax.records.reader import read_checkpoint, read_run
from fa_jax.reports.labels import labels
from fa_jax.training.job import Job

NEIGHBOURS = 5
REFERENCES = 10_000
POINTS = 2_000
MOST_CLASSES = 20
"""The name in the legend."""


class Examples(NamedTuple):
    """The activations of a network on some examples."""

    layers: list[np.ndarray]
    """Those of the input and of the hidden layers, `[n, size]` each."""
    targets: np.ndarray
    """`[n, classes]`, one-hot."""


def activations(job: Job, params: PyTree, split: Split, count: int) -> Examples:
    """Returns the activations on the first examples of a split."""
    inputs, targets = (job.task.prepare(split.inputs[:count]), job.task.encode(split.targets[:count]))
    _, hiddens = jax.jit(job.network.forward)(params, inputs)
    layers = [inputs, *job.network.hiddens_in_order(hiddens)]
    return Examples([np.asarray(layer).reshape(len(layer), -1) for layer in layers], np.asarray(targets))


def measure(job: Job, params: PyTree) -> tuple[list[dict[str, float]], Examples]:
    """Returns the measurements of each layer of one seed's network, and its activations on test examples."""
    train, test = (
        activations(job, params, job.task.train, REFERENCES),
        activations(job, params, job.task.test, POINTS),
    )
    rows = []
    for references, points in zip(train.layers, test.layers, strict=True):
        classifier = KNeighborsClassifier(NEIGHBOURS).fit(references, train.targets.argmax(-1))
        rows.append(
            {
                "neighbours": 100 * classifier.score(points, test.targets.argmax(-1)),
                "separation": float(ratio(jnp.asarray(points), jnp.asarray(test.targets))),
                "centroids": float(centroid_ratio(jnp.asarray(points), jnp.asarray(test.targets))),
            }
        )
    return rows, test


def draw(axes: Axes, points: np.ndarray, classes: np.ndarray) -> None:
    """Draws the t-SNE map of a layer, with one colour for each class."""
    embedding = TSNE(2, init="pca", perplexity=30, random_state=0).fit_transform(points)
    axes.scatter(*embedding.T, c=[colour_of_class(c) for c in classes], s=1.5, linewidths=0)
    axes.set(xticks=[], yticks=[])


def colour_of_class(number: int) -> tuple[float, float, float, float]:
    """Returns the colour of a class."""
    return colormaps["tab10" if number < 10 else "tab20b"](number % (10 if number < 10 else 20))


def add_legend(figure: Figure, classes: int) -> None:
    """Adds the colours of the classes to a figure, up to as many as there are colours."""
    shown = range(min(classes, MOST_CLASSES))
    dots = [
        Line2D([], [], linestyle="", marker="o", markersize=4, color=colour_of_class(c), label=str(c)) for c in shown
    ]
    figure.legend(
        handles=dots, title="class", loc="outside lower center", ncols=len(dots), fontsize=7, title_fontsize=7
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, required=True, help="path of the figure, without its suffix")
    chosen = parser.parse_args()
    runs = [read_run(folder) for folder in chosen.runs]
    rows, maps = [], []
    for run, label in zip(runs, labels(runs), strict=True):
        job, params = build(run.config), read_checkpoint(run)["params"]
        seeds = [measure(job, of_seed(params, i)) for i in range(len(run.seeds))]
        for layer in range(len(seeds[0][0])):
            row: dict[str, object] = {"run": label, "layer": "input" if layer == 0 else layer - 1, "seeds": len(seeds)}
            for name in ("neighbours", "separation", "centroids"):
                values = [measured[layer][name] for measured, _ in seeds]
                row |= {name: f"{np.mean(values):.3f}"}
                row |= {f"{name}, sd": f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else ""}
            rows.append(row)
        maps.append((label, seeds[0][1]))

    across = max(len(examples.layers) for _, examples in maps)
    figure = Figure(figsize=(2 * across, 2.2 * len(maps)), layout="constrained", dpi=150)
    grid = figure.subplots(len(maps), across, squeeze=False)
    for (label, examples), line in zip(maps, grid, strict=True):
        for axes in line[len(examples.layers) :]:
            axes.set_axis_off()
        for layer, (points, axes) in enumerate(zip(examples.layers, line, strict=False)):
            draw(axes, points, examples.targets.argmax(-1))
            (row,) = [r for r in rows if r["run"] == label and r["layer"] == ("input" if layer == 0 else layer - 1)]
            name = "input" if layer == 0 else f"layer {layer - 1}"
            axes.set_title(f"{name}: {float(str(row['neighbours'])):.1f} %", fontsize=8)
        line[0].set_ylabel(label, fontsize=8)
    add_legend(figure, maps[0][1].targets.shape[-1])
    figure.suptitle(f"t-SNE of {POINTS} test examples; accuracy of {NEIGHBOURS} nearest neighbours", fontsize=9)
    for ending in ("png", "pdf"):
        figure.savefig(chosen.to.with_name(f"{chosen.to.name}.{ending}"))
    write_table(chosen.to.with_name(f"{chosen.to.name}.csv"), [(row, runs) for row in rows])


if __name__ == "__main__":
    main()
