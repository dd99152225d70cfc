"""Sanfiz, Akrout (2021), BioTorch: LeNet on CIFAR-10, by gradient descent with momentum and by Adam."""

from collections.abc import Iterator

from experiments.tables.lenet import LEFT_OUT, RULES, rows_of
from experiments.tables.row import LOWEST_VALIDATION, Row, Setting, Table, control, partial_control

FANS = (27, 288), (288, 576), (576, 1152), (128, 256), (256, 10)
SIZES = 15 * 15 * 32, 6 * 6 * 64, 4 * 4 * 128, 256
EXPERIMENT = "experiment=sanfiz_akrout2021/cifar10"
SGD = {"FA": 0.001, "DFA": 0.0001}
ADAM = {"FA": 0.0001, "DFA": 0.0001}
"""The rates that differ from those of the other rules, 0.1 and 0.001."""


def rows() -> Iterator[Row]:
    """Yields the rows of the table."""
    for name, words, rates, other in (("SGD", (), SGD, 0.1), ("Adam", ("optimizer=adam",), ADAM, 0.001)):
        setting = Setting("sanfiz_akrout2021_cifar10", f"CIFAR-10, {name}", (EXPERIMENT, *words), 9.0)
        options = {label: (f"optimizer.learning_rate={rates.get(label, other):g}",) for label in RULES}
        yield from rows_of(setting, FANS, SIZES, 10, options, control(5000, other), partial_control(5000, other))


TABLE = Table(
    "sanfiz_akrout2021_cifar10",
    "Sanfiz, Akrout (2021), BioTorch: LeNet on CIFAR-10",
    LOWEST_VALIDATION,
    tuple(rows()),
    (
        "One seed, as published; nine hours a run on one core: for an accelerator.",
        "The validation examples are the last 5000 in the order of TensorFlow Datasets; theirs are drawn once.",
        "The rates differ by rule, and no search of them is documented.",
    ),
    LEFT_OUT,
)
