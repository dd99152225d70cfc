"""Associated learning compared with backprop: depth and sigmoid units, class separation, learning curves, CIFAR.

    python -m experiments.kao2019.rows                        all short rows
    python -m experiments.kao2019.rows depth separation       two rows
    python -m experiments.kao2019.rows exact_200 cnn_200      the authors' length, for an accelerator
    python -m experiments.kao2019.rows cifar10 cifar100       four networks, 200 epochs, for an accelerator
    python -m experiments.kao2019.rows exact_20/al            one run of a row
    python -m experiments.kao2019.rows --status               what is done, running and left
    python -m experiments.kao2019.rows --collect              tabulates finished runs, and trains nothing

The data are read from `$TFDS_DATA_DIR`. A row has several runs, in outputs/kao2019/<row>; finished runs are not trained
again. At the end, the script writes `measured.csv` to outputs/kao2019/results, or with `--update` beside this file.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments import queue
from experiments.common import layer_columns, read_rows, seconds, write_table
from experiments.training import Row, run_row, runs_of
from fa_jax.records.reader import Run

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/kao2019")
MNIST = "experiment=kao2019/mnist"
STEP_DECAY = ("optimizer/schedule=step_decay", "optimizer.schedule.drops=[[0.4,0.1],[0.6,0.1],[0.8,0.1],[0.9,0.5]]")
CNN = "conv32x3+conv32x3-conv32x3+conv32x3s2-conv64x3+conv64x3-conv64x3+conv64x3s2"
EXACT = ("batch_size=32", "shuffle=false", "optimizer.learning_rate=0.0001")
"""The authors' settings: small batches, in the same order in every epoch, at a tenth of the rate."""

FULL = (*STEP_DECAY, "epochs=200", "evaluations=100")
LENGTHS = {
    "exact": ("epochs=4", "evaluations=4"),
    "exact_20": (*STEP_DECAY, "epochs=20", "evaluations=20"),
    "exact_200": (*FULL, "probe=500"),
}
CNN_LENGTHS = {"cnn": ("epochs=1", "evaluations=10"), "cnn_200": FULL}

VGG = "conv128x3+conv256x3p2-conv256x3+conv512x3p2-conv512x3p2+conv512x3p2-1024+1024"
RESIDUAL = (
    "architecture=resnet20",
    "architecture.norm=batch_tensorflow",
    "architecture.biases=true",
    "architecture.normed_shortcuts=false",
)
FEW = ("task.test_examples=2000", "epochs=2", "evaluations=10", "checkpoint=false")
FEW = (*FEW, "optimizer.schedule.drops=[[0.99,0.1]]")
"""CIFAR-10 on a CPU: two epochs at the initial rate."""


def associated(width: int, stages: int, activation: str = "elu") -> list[str]:
    """Returns the overrides of associated learning; bridges have one hidden layer, five times as wide as the codes."""
    return [f"architecture.hidden={[width] * stages}", f"architecture.activation={activation}", f"rule.width={width}"]


def effective(width: int, stages: int, inside: str, elsewhere: str) -> list[str]:
    """Returns the overrides of backprop on a network with the layers that associated learning predicts with."""
    hidden = [width] * stages + [5 * width, width] + [width] * (stages - 1)
    activations = [inside] * stages + [elsewhere] * (stages + 1)
    return ["rule=bp", "optimizer=adam", f"architecture.hidden={hidden}", f"architecture.activation={activations}"]


def dense(width: int) -> str:
    """Returns the dense layers above the convolutions of backprop, as the end of a topology."""
    return "-".join(map(str, (5 * width, *[width] * 4)))


def cifar(classes: int) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and the overrides of each of the authors' networks, for associated learning and for backprop."""
    n = {"mlp": 3000, "cnn": 256 if classes == 10 else 500, "resnet20": 300 if classes == 10 else 500}
    n["vgg"] = n["resnet20"]
    decays = {"resnet20": 1e-4, "vgg": 1e-5}
    networks = {
        "mlp": [f"architecture.hidden={[n['mlp']] * 2}"],
        "cnn": ["architecture=cnn", f"architecture.topology={CNN}"],
        "resnet20": [*RESIDUAL, "architecture.stage=group"],
        "vgg": ["architecture=cnn", f"architecture.topology={VGG}"],
    }
    for name, network in networks.items():
        options = ["architecture.activation=elu", f"rule.width={n[name]}", f"rule.weight_decay={decays.get(name, 0.0)}"]
        yield f"{name}_al", ["rule=associated_learning", *network, *options]
    bp, relu = ["rule=bp", "optimizer=adam", "optimizer/schedule=step_decay"], "architecture.activation=relu"
    yield "mlp_bp", [*effective(n["mlp"], 2, "relu", "relu"), *bp[2:]]

    convolutions = f"{CNN.replace('+', '-')}-{dense(n['cnn'])}"
    yield "cnn_bp", [*bp, "architecture=cnn", f"architecture.topology={convolutions}", relu]
    decay = f"optimizer.weight_decay={1e-4 if classes == 10 else 5e-4}"
    above = f"architecture.dense={[5 * n['resnet20'], *[n['resnet20']] * 4]}"
    yield "resnet20_bp", [*bp, *RESIDUAL, relu, above, decay, "optimizer.learning_rate=0.001"]
    convolutions = f"{VGG.partition('-1024')[0].replace('+', '-')}-{dense(n['vgg'])}"
    norm = ["architecture.norm=batch_tensorflow", "architecture.norm_dense=true", "optimizer.weight_decay=5e-4"]
    # Dense layers are initialised after Glorot, all others after He.
    fans = (2048, 5 * n["vgg"], *[n["vgg"]] * 4, classes)
    scales = [2**0.5] * 6 + [(6 / (below + above)) ** 0.5 for below, above in itertools.pairwise(fans)]
    start = [f"architecture.init={['fan_normal'] * 6 + ['uniform'] * 6}", f"architecture.init_scale={scales}"]
    yield "vgg_bp", [*bp, "architecture=cnn", f"architecture.topology={convolutions}", relu, *norm, *start]


def runs(row: str) -> Iterator[tuple[str, list[str], int]]:
    """Yields the name, the overrides and the number of seeds of each run of a row."""
    if row == "depth":
        for stages in (2, 4, 8):
            yield f"{stages}_al_elu", [*associated(128, stages)], 2
            yield f"{stages}_al_sigmoid", [*associated(128, stages, "sigmoid")], 2
            yield f"{stages}_bp_relu", [*effective(128, stages, "relu", "relu")], 2
            yield f"{stages}_bp_elu_then_sigmoid", [*effective(128, stages, "elu", "sigmoid")], 2
            yield f"{stages}_bp_sigmoid", [*effective(128, stages, "sigmoid", "sigmoid")], 2
    elif row == "separation":
        yield "al", [*associated(256, 2)], 2
        yield "bp", [*effective(256, 2, "relu", "relu")], 2
    elif row == "schedule":
        shared = [*STEP_DECAY, "epochs=20", "evaluations=20"]
        yield "al", [*shared, *associated(256, 2)], 4
        yield "bp", [*shared, *effective(256, 2, "relu", "relu")], 4
    elif row in LENGTHS:
        shared = [*EXACT, *LENGTHS[row]]
        yield "al", [*shared, *associated(1024, 2)], 1
        yield "bp", [*shared, *effective(1024, 2, "relu", "relu")], 1
    elif row in CNN_LENGTHS:
        shared = [*EXACT, *CNN_LENGTHS[row], "architecture=cnn", "~architecture.hidden", "probe=100"]
        elu, relu = (f"architecture.activation={activation}" for activation in ("elu", "relu"))
        yield "al", [*shared, f"architecture.topology={CNN}", elu, "rule.width=256"], 1
        convolutions = f"{CNN.replace('+', '-')}-{dense(256)}"
        yield "bp", [*shared, "rule=bp", "optimizer=adam", f"architecture.topology={convolutions}", relu], 1
    elif row in ("cifar10", "cifar100"):
        for name, overrides in cifar(100 if row == "cifar100" else 10):
            yield name, [f"experiment=kao2019/{row}", *overrides], 1
    elif row == "cifar10_few":
        for name, overrides in cifar(10):
            yield name, ["experiment=kao2019/cifar10", *overrides, *FEW], 1


def arguments_of(overrides: list[str]) -> list[str]:
    """Returns the arguments of `fa-jax` for a run, without the seeds."""
    experiment = [] if overrides[0].startswith("experiment=") else [MNIST]
    return [*experiment, *(override.replace(" ", "") for override in overrides)]


ROWS = ("depth", "separation", "schedule", "exact", "cnn", "cifar10_few")
LONG = ("exact_20", "exact_200", "cnn_200", "cifar10", "cifar100")
LONGER = {"exact_20": ("exact", 5), "exact_200": ("exact", 50), "cnn_200": ("cnn", 200)}
LONGER |= {"cifar10": ("cifar10_few", 100), "cifar100": ("cifar10_few", 100)}
"""Rows that were not measured on a CPU: a shorter one of the same networks, and how many times longer they are."""
HOURS = {"mlp_al": 69, "mlp_bp": 38, "resnet20_al": 35, "resnet20_bp": 13, "vgg_al": 310, "vgg_bp": 290}
"""The hours of networks on CIFAR-10 and CIFAR-100 of which no shorter row was measured: their operations
(`training.operations`) at 50 GFLOP/s, at which the CNN would take 39 h, where its two epochs tell 34."""


def measured(row: str, name: str, run: Run) -> dict[str, object]:
    """Returns the row of a run: accuracies in % after some epochs, mean and deviation; metrics by hidden layer."""
    result: dict[str, object] = {"row": row, "run": name, "seeds": len(run.seeds)}
    result["diverged"] = len(run.diverged)
    if len(run.diverged) == len(run.seeds):
        return result
    for epoch in (1, 2, 4, 5, 20, 200):
        error = run.at_epoch("test_error", epoch)
        if error is not None:
            result[f"accuracy, epoch {epoch}"] = f"{100 - error.mean():.2f}"
            result[f"sd, epoch {epoch}"] = f"{error.std(ddof=1):.2f}" if len(error) > 1 else ""
    for metric, heading in (
        ("separation", "separation by layer"),
        ("signal_norm", "norms of the learning signals"),
        ("bp_signal_norm", "norms of the true gradients"),
    ):
        evaluation = -1 if metric == "separation" else 0
        means = [run.curves(column)[1][:, evaluation].mean() for column in layer_columns(run, metric)]
        result[heading] = " ".join(f"{mean:.3g}" for mean in means)
    result["seconds"] = round(seconds(run))
    return result


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows, such as `kao2019/depth/2_al_elu`; seeds are those that were asked for."""
    return [row_of(row, name, seeds) for row in (*ROWS, *LONG) for name, _, _ in runs(row)]


def row_of(row: str, name: str, seeds: int | None = None) -> Row:
    """Returns one run of a row."""
    ((overrides, default),) = [(overrides, n) for other, overrides, n in runs(row) if other == name]
    hours = hours_of_seed().get((row, name))
    if hours is None and row in LONGER:
        shorter, times = LONGER[row]
        hours = hours_of_seed().get((shorter, name))
        hours = hours * times if hours else HOURS.get(name)
    path = f"{row}/{name}"
    total = hours and hours * default
    return run_row(f"kao2019/{path}", OUTPUTS / path, arguments_of(overrides), total, seeds=seeds, default=default)


@functools.cache
def hours_of_seed() -> dict[tuple[str, str], float]:
    """Returns the measured hours of one seed, by row and run."""
    return {
        (row["row"], row["run"]): float(row["seconds"]) / 3600 / int(row["seeds"])
        for row in read_rows(HERE / "measured.csv")
        if row["seconds"]
    }


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Tabulates those of some rows that are done."""
    done = [(row.name.split("/")[1:], run) for row in chosen for run in runs_of(row)]
    if done:
        results = [(measured(row, name, run), [run]) for (row, name), run in done]
        write_table(into / "measured.csv", results, "row", "run")


if __name__ == "__main__":
    queue.main(__doc__, "kao2019", ROWS)
