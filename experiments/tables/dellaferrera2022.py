"""Dellaferrera, Kreiman (2022): PEPITA with one hidden layer of 1024 units, and the rules that it is compared with."""

from collections.abc import Iterator

from experiments.tables.row import LAST, Row, Setting, Table, control

DRAWN = "how their B is drawn is not known; here it is drawn like the weights."


def rows_of(task: str, name: str, rate: float, hours: float) -> Iterator[Row]:
    """Yields the rows of a data set."""
    setting = Setting("dellaferrera2022", name, (f"experiment=dellaferrera2022/{task}",), hours)
    he = "feedback.distribution=uniform", f"feedback.scale={(6 / 1024) ** 0.5:.6g}"
    yield setting.row("PEPITA", cost=1.5)
    yield setting.row("BP", "rule=bp")
    yield setting.row("FA", "rule=fa", *he, note=DRAWN)
    yield setting.row("DRTP", "rule=drtp", *he, cost=0.8, note=DRAWN)
    yield setting.row("frozen hidden layer", "rule=shallow", **control(6000, rate))


TABLE = Table(
    "dellaferrera2022",
    "Dellaferrera, Kreiman (2022), PEPITA: one hidden layer of 1024 ReLU units",
    LAST,
    (
        *rows_of("mnist", "MNIST", 0.1, 1.2),
        *rows_of("cifar10", "CIFAR-10", 0.01, 4.0),
        *rows_of("cifar100", "CIFAR-100", 0.01, 4.0),
    ),
    (
        "The rates of BP, FA and DRTP are not known: all rows have PEPITA's. The authors' command for BP differs in "
        "the rule alone.",
        "Five seeds; that the published means are over ten runs is remembered.",
        "The last batch of an epoch, which is not full, is left out. CIFAR-100 has the rate of CIFAR-10.",
    ),
    (
        "The convolutional networks: the authors' program divides the step of the kernel by the batch size twice and "
        "gives it the opposite sign, so that the kernel stays where it starts.",
    ),
)
