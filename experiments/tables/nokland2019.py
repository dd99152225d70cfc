"""Nøkland, Eidnes (2019): local losses on MNIST, three layers of 1024 units, with shifted images."""

from collections.abc import Iterator

from experiments.tables.row import LAST, Row, Setting, Table, control, partial_control

SETTING = Setting("nokland2019", "MNIST", ("experiment=nokland2019/mnist", "evaluations=100", "seeds=3"), 2.5)
RELU = "architecture.activation=relu"


def rows() -> Iterator[Row]:
    """Yields the rows of the table."""
    yield SETTING.row("BP", "rule=bp", RELU)
    yield SETTING.row("pred", "rule.objective=pred", RELU, cost=0.9)
    yield SETTING.row("sim", "rule.objective=sim", cost=2.0)
    yield SETTING.row("predsim", cost=2.0)
    yield SETTING.row("frozen hidden layers", "rule=shallow", RELU, **control(6000, 0.0005))
    yield SETTING.row("frozen blocks", "rule=frozen_blocks", RELU, **partial_control(6000, 0.0005))


TABLE = Table(
    "nokland2019",
    "Nøkland, Eidnes (2019), local error signals: three layers of 1024 units on shifted images",
    LAST,
    tuple(rows()),
    (
        "Three seeds; the published numbers are single runs. Which epoch is printed is not said; the program holds "
        "nothing out.",
        "The last batch of an epoch, which is not full, is left out.",
        "With frozen hidden layers, the heads of the local losses have no effect on the prediction: one control serves "
        "all rows.",
    ),
    ("The convolutional networks (VGG8b and larger), which need an accelerator for days.",),
)
