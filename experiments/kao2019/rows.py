"""Associated learning and backprop side by side: depth and sigmoid units, class separation, learning curves, CIFAR.

    python -m experiments.kao2019.rows                        all rows but the long ones
    python -m experiments.kao2019.rows depth separation       these
    python -m experiments.kao2019.rows exact_200 cnn_200      the authors' own length, for an accelerator
    python -m experiments.kao2019.rows cifar10 cifar100       likewise: four networks, 200 epochs
    python -m experiments.kao2019.rows --collect              only writes down what has been trained

The data have to be where `$TFDS_DATA_DIR` says. Each row is some runs in outputs/kao2019/<row>; what is there already
is not trained again. `measured.csv` beside this file is written at the end.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

from experiments.common import is_trained, seconds, trained, write_table
from fa_jax.records.reader import Run, read_run

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/kao2019")
MNIST = "experiment=kao2019_mnist"
DROPPING = ("optimizer/schedule=staircase", "optimizer.schedule.drops=[[0.4,0.1],[0.6,0.1],[0.8,0.1],[0.9,0.5]]")
CNN = "conv32x3+conv32x3-conv32x3+conv32x3s2-conv64x3+conv64x3-conv64x3+conv64x3s2"
EXACT = ("batch_size=32", "shuffle=false", "optimizer.learning_rate=0.0001")
"""As in the authors' code: small batches in the same order every epoch, at a tenth of the rate."""

FULL = (*DROPPING, "epochs=200", "evaluations=100")
LENGTHS = {
    "exact": ("epochs=4", "evaluations=4"),
    "exact_20": (*DROPPING, "epochs=20", "evaluations=20"),
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
FEW = ("task.test_examples=2000", "epochs=2", "evaluations=10", "probe=20", "checkpoint=false")
FEW = (*FEW, "optimizer.schedule.drops=[[0.99,0.1]]")
"""Of CIFAR-10, what a processor can do: two epochs, at the rate of the beginning."""


def associated(width: int, stages: int, activation: str = "elu") -> list[str]:
    """Associated learning with bridges of one hidden layer, five times as wide as the codes."""
    return [f"architecture.hidden={[width] * stages}", f"architecture.activation={activation}", f"rule.width={width}"]


def effective(width: int, stages: int, inside: str, elsewhere: str) -> list[str]:
    """Backprop on a network shaped like the one that associated learning predicts with, with linear logits."""
    hidden = [width] * stages + [5 * width, width] + [width] * (stages - 1)
    activations = [inside] * stages + [elsewhere] * (stages + 1)
    return ["rule=bp", "optimizer=adam", f"architecture.hidden={hidden}", f"architecture.activation={activations}"]


def dense(width: int) -> str:
    """The dense layers that backprop has above its convolutions."""
    return "-".join(map(str, (5 * width, *[width] * 4)))


def cifar(classes: int) -> Iterator[tuple[str, list[str]]]:
    """The networks of the authors, by associated learning and by backprop: (name, words)."""
    n = {"mlp": 3000, "cnn": 256 if classes == 10 else 500, "resnet20": 300 if classes == 10 else 500}
    n["vgg"] = n["resnet20"]
    decays = {"resnet20": 1e-4, "vgg": 1e-5}
    networks = {
        "mlp": [f"architecture.hidden={[n['mlp']] * 2}"],
        "cnn": ["architecture=cnn", f"architecture.topology={CNN}"],
        "resnet20": [*RESIDUAL, "architecture.stage=group"],
        "vgg": ["architecture=cnn", f"architecture.topology={VGG}"],
    }
    for name, words in networks.items():
        further = ["architecture.activation=elu", f"rule.width={n[name]}", f"rule.weight_decay={decays.get(name, 0.0)}"]
        yield f"{name}_al", ["rule=associated_learning", *words, *further]
    bp, relu = ["rule=bp", "optimizer=adam", "optimizer/schedule=staircase"], "architecture.activation=relu"
    yield "mlp_bp", [*effective(n["mlp"], 2, "relu", "relu"), *bp[2:]]

    convolutions = f"{CNN.replace('+', '-')}-{dense(n['cnn'])}"
    yield "cnn_bp", [*bp, "architecture=cnn", f"architecture.topology={convolutions}", relu]
    decay = f"optimizer.weight_decay={1e-4 if classes == 10 else 5e-4}"
    above = f"architecture.dense={[5 * n['resnet20'], *[n['resnet20']] * 4]}"
    yield "resnet20_bp", [*bp, *RESIDUAL, relu, above, decay, "optimizer.learning_rate=0.001"]
    convolutions = f"{VGG.partition('-1024')[0].replace('+', '-')}-{dense(n['vgg'])}"
    norm = ["architecture.norm=batch_tensorflow", "architecture.norm_dense=true", "optimizer.weight_decay=5e-4"]
    # Its dense layers start as Glorot's, all others as He's.
    fans = (2048, 5 * n["vgg"], *[n["vgg"]] * 4, classes)
    scales = [2**0.5] * 6 + [(6 / (below + above)) ** 0.5 for below, above in itertools.pairwise(fans)]
    start = [f"architecture.init={['fan_normal'] * 6 + ['uniform'] * 6}", f"architecture.init_scale={scales}"]
    yield "vgg_bp", [*bp, "architecture=cnn", f"architecture.topology={convolutions}", relu, *norm, *start]


def runs(row: str) -> Iterator[tuple[str, list[str], int]]:
    """The runs of a row: (name, words for the command line, seeds)."""
    if row == "depth":
        for stages in (2, 4, 8):
            yield f"{stages}_al_elu", [*associated(128, stages)], 2
            yield f"{stages}_al_sigmoid", [*associated(128, stages, "logistic")], 2
            yield f"{stages}_bp_relu", [*effective(128, stages, "relu", "relu")], 2
            yield f"{stages}_bp_elu_then_sigmoid", [*effective(128, stages, "elu", "logistic")], 2
            yield f"{stages}_bp_sigmoid", [*effective(128, stages, "logistic", "logistic")], 2
    elif row == "separation":
        yield "al", [*associated(256, 2)], 2
        yield "bp", [*effective(256, 2, "relu", "relu")], 2
    elif row == "schedule":
        words = [*DROPPING, "epochs=20", "evaluations=20"]
        yield "al", [*words, *associated(256, 2)], 4
        yield "bp", [*words, *effective(256, 2, "relu", "relu")], 4
    elif row in LENGTHS:
        words = [*EXACT, *LENGTHS[row]]
        yield "al", [*words, *associated(1024, 2)], 1
        yield "bp", [*words, *effective(1024, 2, "relu", "relu")], 1
    elif row in CNN_LENGTHS:
        words = [*EXACT, *CNN_LENGTHS[row], "architecture=cnn", "~architecture.hidden", "probe=100"]
        elu, relu = (f"architecture.activation={activation}" for activation in ("elu", "relu"))
        yield "al", [*words, f"architecture.topology={CNN}", elu, "rule.width=256"], 1
        convolutions = f"{CNN.replace('+', '-')}-{dense(256)}"
        yield "bp", [*words, "rule=bp", "optimizer=adam", f"architecture.topology={convolutions}", relu], 1
    elif row in ("cifar10", "cifar100"):
        for name, words in cifar(100 if row == "cifar100" else 10):
            yield name, [f"experiment=kao2019_{row}", *words], 1
    elif row == "cifar10_few":
        for name, words in cifar(10):
            yield name, ["experiment=kao2019_cifar10", *words, *FEW], 1


def all_words(words: list[str], seeds: int) -> list[str]:
    """Returns the words of a run as they stand on the command line."""
    first = [] if words[0].startswith("experiment=") else [MNIST]
    return [*first, *(word.replace(" ", "") for word in words), f"seeds={seeds}"]


ROWS = ("depth", "separation", "schedule", "exact", "cnn", "cifar10_few")
LONG = ("exact_20", "exact_200", "cnn_200", "cifar10", "cifar100")


def measured(row: str, name: str, run: Run) -> dict[str, object]:
    """What a run came to: accuracies after epochs in %, seeds' mean and deviation; separation by hidden layer."""
    found: dict[str, object] = {"row": row, "run": name, "seeds": len(run.summary["seeds"])}
    found["diverged"] = len(run.diverged)
    for epoch in (1, 2, 4, 5, 20, 200):
        error = run.at_epoch("test_error", epoch)
        if error is not None:
            found[f"accuracy, epoch {epoch}"] = f"{100 - error.mean():.2f}"
            found[f"sd, epoch {epoch}"] = f"{error.std(ddof=1):.2f}" if len(error) > 1 else ""
    for prefix, what in (
        ("separation", "separation by layer"),
        ("signal_norm", "norms of the learning signals"),
        ("bp_signal_norm", "norms of the true gradients"),
    ):
        layers = sorted((m for m in run.metrics if m.startswith(f"{prefix}_")), key=lambda m: int(m.rpartition("_")[2]))
        at = -1 if prefix == "separation" else 0
        found[what] = " ".join(f"{run.curves(m)[1][:, at].mean():.3g}" for m in layers)
    found["seconds"] = seconds(run)
    return found


def collect() -> None:
    """Writes down every run that has finished."""
    found = [
        (row, name, read_run(OUTPUTS / row / name))
        for row in (*ROWS, *LONG)
        for name, _, _ in runs(row)
        if is_trained(OUTPUTS / row / name)
    ]
    if not found:
        return
    write_table(HERE / "measured.csv", [(measured(*one), [one[-1]]) for one in found], "row", "run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=ROWS, help=f"of {', '.join((*ROWS, *LONG))}")
    parser.add_argument("--runs", nargs="+", help="of these rows, such as cnn_al; default: all of them")
    parser.add_argument("--seeds", type=int, help="default: as many as each row says")
    parser.add_argument("--collect", action="store_true")
    chosen = parser.parse_args()
    if unknown := [row for row in chosen.rows if row not in (*ROWS, *LONG)]:
        parser.error(f"rows are {', '.join((*ROWS, *LONG))}; got {unknown[0]}")
    for row in chosen.rows if chosen.runs else ():
        names = [name for name, _, _ in runs(row)]
        if unknown := [name for name in chosen.runs if name not in names]:
            parser.error(f"--runs of {row} are {', '.join(names)}; got {unknown[0]}")
    for row in [] if chosen.collect else chosen.rows:
        for name, words, seeds in runs(row):
            if chosen.runs and name not in chosen.runs:
                continue
            trained(OUTPUTS / row / name, *all_words(words, chosen.seeds or seeds))
    collect()


if __name__ == "__main__":
    main()
