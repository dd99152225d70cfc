"""Figures of what `rows.py` has trained, and what each exit of an associated network is worth.

    python -m experiments.kao2019.figures

draws `depth.png` (errors by depth, and the true gradients at the start), `separation.png` (classes apart, by layer and
epoch) and `codes.png` (the label's codes), and writes `exits.csv`: accuracy and multiplications by exit.
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.common import params_of, write_table
from fa_jax.cli.build import build
from fa_jax.network import Network
from fa_jax.records.reader import Run, read_run
from fa_jax.reports.figures import STYLE

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/kao2019")
KINDS = {
    "al_elu": ("associated learning, ELU stages", "#0072B2", "-"),
    "al_sigmoid": ("associated learning, all logistic", "#56B4E9", "-"),
    "bp_relu": ("backprop, ReLU", "black", "-"),
    "bp_elu_then_sigmoid": ("backprop, the shape and units that AL predicts with", "#D55E00", "--"),
    "bp_sigmoid": ("backprop, all logistic", "#E69F00", "--"),
}
STAGES = (2, 4, 8)


def by_layer(run: Run, prefix: str, at: int) -> np.ndarray:
    """A metric of each layer at one evaluation, `[seeds, layers]`."""
    names = sorted((m for m in run.metrics if m.startswith(f"{prefix}_")), key=lambda m: int(m.rpartition("_")[2]))
    return np.stack([run.curves(name)[1][:, at] for name in names], -1)


def depth() -> Figure:
    """The error after five epochs by the number of stages, and the norms of what layers are taught before training."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    errors, norms = figure.subplots(1, 2)
    for kind, (label, colour, line) in KINDS.items():
        runs = [read_run(OUTPUTS / "depth" / f"{stages}_{kind}") for stages in STAGES]
        last = np.stack([run.curves("test_error")[1][:, -1] for run in runs])
        errors.plot(STAGES, last.mean(1), line, color=colour, label=label)
        errors.plot(STAGES, last, ".", color=colour, markersize=4)
        found = by_layer(runs[-1], "signal_norm" if kind.startswith("al") else "bp_signal_norm", 0).mean(0)
        norms.plot(range(len(found)), found, line, color=colour, marker=".", markersize=4)
    errors.set(xlabel="stages", ylabel="test error after 5 epochs (%)", xticks=STAGES, yscale="log", ylim=(2, 100))
    errors.set_yticks([2, 5, 10, 20, 50, 100], labels=["2", "5", "10", "20", "50", "100"])
    norms.set(xlabel="hidden layer, from the input", ylabel="learning signal's norm at the start", yscale="log")
    norms.set_title("8 stages", fontsize=9)
    figure.legend(*errors.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def separation() -> Figure:
    """The ratio of distances between and within classes, by layer, after each epoch."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (name, title) in zip(panels, (("al", "associated learning"), ("bp", "backprop")), strict=True):
        run = read_run(OUTPUTS / "separation" / name)
        epochs = run.curves("test_error")[0] / 60_000
        layers = np.stack([by_layer(run, "separation", at).mean(0) for at in range(len(epochs))])
        for i, values in enumerate(layers.T):
            panel.plot(epochs, values, color=mpl.colormaps["viridis"](i / 5), marker=".", label=f"layer {i}")
        panel.set(xlabel="epoch", title=title)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("distance between classes / within")
    return figure


def codes() -> Figure:
    """What each encoder makes of the ten classes, a row a class, and how far apart the classes are."""
    params = params_of(read_run(OUTPUTS / "depth" / "8_al_sigmoid"))
    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(4, 2).ravel()
    t = jnp.eye(10)
    for i, panel in enumerate(panels):
        layer = params[f"encoders_{i}"]
        t = jax.nn.sigmoid(t @ layer["kernel"][0] + layer["bias"][0])
        apart = jnp.sqrt(jnp.mean(jnp.square(t[:, None] - t), -1)).sum() / 90
        image = panel.imshow(t, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        panel.set_title(f"stage {i}: {apart:.2f} apart", fontsize=8)
        panel.set(xticks=[], yticks=[0, 9])
        panel.grid(visible=False)
    figure.colorbar(image, ax=panels, label="activity of a code's unit")
    figure.supylabel("class")
    return figure


def exits() -> list[dict[str, object]]:
    """What predictions through the first stages are worth, on the test images, and what they cost."""
    run = read_run(OUTPUTS / "depth" / "8_al_elu")
    job, params = build(run.config), params_of(run)
    inputs, targets = job.task.prepare(job.task.test.inputs), np.asarray(job.task.test.targets)
    rows = []
    for last in range(1, 9):
        network = Network(job.network.module.clone(exit=last), job.network.input_shape)
        found = np.asarray(jax.jit(jax.vmap(network.apply, (0, None)))(params, inputs)).argmax(-1)
        products = sum(math.prod(kernel.shape) for kernel in network.kernels.values())
        accuracy = f"{100 * np.mean(found == targets):.2f}"
        rows.append({"exit": last, "accuracy": accuracy, "seeds": len(found), "multiplications": products})
    return rows


def main() -> None:
    with mpl.rc_context(STYLE):
        for draw in (depth, separation, codes):
            figure = draw()
            for ending in ("png", "pdf"):
                figure.savefig(HERE / f"{draw.__name__}.{ending}")
    run = read_run(OUTPUTS / "depth" / "8_al_elu")
    write_table(HERE / "exits.csv", [(row, [run]) for row in exits()])


if __name__ == "__main__":
    main()
