"""Laborieux, Zenke (2022): equilibrium propagation on MNIST, with the settings and the logs of the authors' program."""

from collections.abc import Iterator

from experiments.tables.row import LAST, Row, Setting, Table, control, partial_control

SETTING = Setting("laborieux_zenke2022", "MNIST", (), 0.8)
SETTLING = "experiment=laborieux2022/mnist"
RATE = 0.05
FEED_FORWARD = (
    "task=mnist",
    "architecture.hidden=[256,256]",
    "architecture.activation=shifted_sigmoid",
    "architecture.init=fan_normal",
    "batch_size=20",
    "epochs=50",
    "evaluations=50",
    "seeds=3",
)
OWN_RATE = f"optimizer.learning_rate={RATE}"
ONE_SIDED = "rule.points=1", "rule.free_steps=350", "rule.nudged_steps=350"
FORWARD = "a feed-forward network of the same layers and functions: its predictions do not settle."


def rows() -> Iterator[Row]:
    """Yields the rows of the table."""
    yield SETTING.row("one-sided, strength 0.1", SETTLING, *ONE_SIDED, "rule.nudging_strength=0.1", cost=60.0)
    yield SETTING.row("one-sided, strength 0.4", SETTLING, *ONE_SIDED, cost=60.0)
    yield SETTING.row("ten points, strength 0.4", SETTLING, cost=120.0)
    yield SETTING.row("backprop", *FEED_FORWARD, OWN_RATE, "rule=bp", published="", note=FORWARD)
    yield SETTING.row("frozen hidden layers", *FEED_FORWARD, "rule=shallow", **control(6000, RATE), note=FORWARD)
    yield SETTING.row("frozen blocks", *FEED_FORWARD, "rule=frozen_blocks", **partial_control(6000, RATE), note=FORWARD)


TABLE = Table(
    "laborieux_zenke2022",
    "Laborieux, Zenke (2022), equilibrium propagation: MNIST, two layers of 256 units",
    LAST,
    tuple(rows()),
    (
        "Initial weights are normal; theirs are truncated at two standard deviations.",
        "Their logs have no backprop and no control on MNIST; ours are feed-forward networks.",
        "The rows of equilibrium propagation take days on a processor.",
    ),
    (
        "The continual form, which has no free phase.",
        "The runs with noise on every drive.",
        "CIFAR and ImageNet.",
    ),
)
