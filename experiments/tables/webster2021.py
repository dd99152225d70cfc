"""Webster et al. (2021): direct Kolen-Pollack on CIFAR-10, with the settings of the authors' code of August 2020."""

from collections.abc import Iterator

from experiments.tables.row import LAST, Row, Setting, Table, control, partial_control

SETTING = Setting("webster2021", "CIFAR-10", (), 20.0)
SHARED = "experiment=webster2021/cifar10"


def rows() -> Iterator[Row]:
    """Yields the rows of the table."""
    direct = "feedback.distribution=uniform", "feedback.scale=[0.0144338,0.0154647,0.2165064]"
    yield SETTING.row("DKP", f"{SHARED}_dkp", cost=0.8)
    yield SETTING.row("DFA", SHARED, "rule=dfa", *direct, cost=0.7)
    yield SETTING.row("BP", SHARED, "rule=bp")
    yield SETTING.row("frozen hidden layers", SHARED, "rule=shallow", **control(5000, 0.0005))
    yield SETTING.row("frozen blocks", SHARED, "rule=frozen_blocks", **partial_control(5000, 0.0005))


TABLE = Table(
    "webster2021",
    "Webster et al. (2021), direct Kolen-Pollack: CIFAR-10, two convolutions and a dense layer",
    LAST,
    tuple(rows()),
    (
        "They stood in the authors' README from August 2020 to February 2021, beside the code of that day. Which "
        "epoch they are of is not said.",
        "Four seeds, as published, whose runs were not seeded. Twenty hours a run on one core: for an accelerator.",
    ),
    ("AlexNet on CIFAR-100: the numbers are of another recipe.",),
)
