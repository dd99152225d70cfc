"""Akrout et al. (2019): dense networks, with the settings and the logs of the authors' program."""

from collections.abc import Iterator

from experiments.tables.row import LAST, Row, Setting, Table, control

MIRROR = (
    "the mirror is this project's, whose feedback converges to the weights, where theirs outgrows them: so the rate is "
    "that of BP, not 0.05."
)


def rows_of(task: str, name: str, widths: tuple[int, int, int], hours: float) -> Iterator[Row]:
    """Yields the rows of a data set."""
    setting = Setting("akrout2019", name, (f"experiment=akrout2019/{task}",), hours)
    feedback = "feedback.distribution=normal", f"feedback.scale={(widths[1] + widths[2]) ** -0.5:.6g}"
    yield setting.row("BP", "rule=bp")
    yield setting.row("FA", "rule=fa", *feedback)
    yield setting.row("KP", "rule=kolen_pollack", "optimizer.learning_rate=0.3", *feedback)
    yield setting.row("WM", "rule=weight_mirror", *feedback, cost=1.5, note=MIRROR)
    yield setting.row("frozen hidden layer", "rule=shallow", **control(6000, 0.2))


TABLE = Table(
    "akrout2019",
    "Akrout et al. (2019), without weight transport: one hidden layer of sigmoid units",
    LAST,
    (
        *rows_of("mnist", "MNIST", (784, 500, 10), 1.2),
        *rows_of("cifar10", "CIFAR-10", (3072, 1000, 10), 7.0),
    ),
    (
        "The published runs have one seed; here there are five.",
        "In the authors' program, the gradients of biases are divided by the batch size twice, so that biases hardly "
        "learn; here they learn like weights.",
        "The order of the examples is that of TensorFlow Datasets in every epoch, where theirs is that of the file.",
        "KP has no weight decay there, so that the difference between W and B never changes.",
        "On CIFAR-10, the logged errors are erratic at the end of training; their lowest ones are in "
        "published/akrout2019.csv, in a comment.",
    ),
    ("The networks on ImageNet.",),
)
