"""Bartunov et al. (2018): table 1, dense networks, with the values of table 5."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.tables.row import LOWEST_TEST, VARIANT, Row, Setting, Table, control, glorot, partial_control, scales


class Adam(NamedTuple):
    """The values of an optimizer in table 5."""

    rate: float
    b1: float
    b2: float
    eps: float

    def options(self, name: str = "optimizer") -> tuple[str, ...]:
        """Returns the options that set it."""
        return (
            f"{name}.learning_rate={self.rate:g}",
            *(f"{name}.scaling.{option}={value:g}" for option, value in zip(self._fields[1:], self[1:], strict=True)),
        )


class Values(NamedTuple):
    """The values of a rule of difference target propagation in table 5."""

    forward: Adam
    inverses: Adam
    step: float | None
    sigma: float


MNIST = {
    "BP": Adam(1.52e-4, 0.9, 0.999, 1e-8),
    "FA": Adam(1.68e-4, 0.9, 0.999, 1e-4),
    "DFA": Adam(1.649e-3, 0.9, 0.95, 1e-3),
}
MNIST_TARGETS = {
    "DTP, parallel": Values(Adam(7.57e-4, 0.99, 0.95, 1e-3), Adam(7.68e-4, 0.99, 0.999, 1e-4), 0.15008, 0.36133),
    "SDTP, parallel": Values(Adam(4.02e-4, 0.99, 0.999, 1e-8), Adam(1.101e-3, 0.99, 0.95, 1e-6), None, 0.213995),
}
CIFAR = {
    "BP": Adam(1.9e-5, 0.9, 0.999, 1e-6),
    "FA": Adam(2.5e-5, 0.9, 0.99, 1e-4),
    "DFA": Adam(5.0e-5, 0.9, 0.99, 1e-8),
}
CIFAR_TARGETS = {
    "DTP, parallel": Values(Adam(1.2e-5, 0.9, 0.999, 1e-8), Adam(3.9e-5, 0.9, 0.99, 1e-6), 0.125693, 0.169783),
    "SDTP, parallel": Values(Adam(1.29e-4, 0.9, 0.99, 1e-6), Adam(1.1e-5, 0.9, 0.99, 1e-6), None, 0.273341),
}


def rows_of(
    task: str,
    name: str,
    widths: tuple[int, ...],
    hours: float,
    rules: Mapping[str, Adam],
    targets: Mapping[str, Values],
) -> Iterator[Row]:
    """Yields the rows of a data set."""
    setting = Setting("bartunov2018", name, (f"experiment=bartunov2018/{task}",), hours)
    outputs = widths[-1]
    feedback = {
        "BP": (),
        "FA": ("feedback.distribution=uniform", f"feedback.scale={scales(glorot(*widths)[1:])}"),
        "DFA": (
            "feedback.distribution=uniform",
            f"feedback.scale={scales([glorot(outputs, n)[0] for n in widths[1:-1]])}",
        ),
    }
    for label, adam in rules.items():
        given = f"rule={label.lower()}", *feedback[label]
        yield setting.row(label, *given, *adam.options())
        if task == "mnist":
            yield setting.row(f"{label}, searched rate", *given, *adam.options()[1:], **_searched(label, adam.rate))
    for label, values in targets.items():
        variant = "dtp" if values.step else "sdtp"
        given = (
            "+optimizer@feedback_optimizer=adam",
            "rule=target_propagation",
            f"rule.variant={variant}",
            f"rule.step_size={values.step or 'null'}",
            f"rule.sigma={values.sigma:g}",
            *values.inverses.options("feedback_optimizer"),
        )
        note = "the scale of the step is not said: here it is that of an example's loss." if values.step else ""
        rate, *others = values.forward.options()
        yield setting.row(label, *given, rate, *others, cost=2.0, note=note)
        if task == "mnist":
            searched = _searched(label, values.forward.rate)
            yield setting.row(f"{label}, searched rate", *given, *others, cost=2.0, note=note, **searched)
    _, *others = rules["BP"].options()
    yield setting.row("frozen hidden layers", "rule=shallow", *others, **control(6000, rules["BP"].rate))
    yield setting.row("frozen blocks", "rule=frozen_blocks", *others, **partial_control(6000, rules["BP"].rate))


def _searched(label: str, rate: float) -> dict[str, Any]:
    """Returns the search of a rule around a rate of table 5, for `Setting.row`."""
    tried = ",".join(f"{factor * rate:.4g}" for factor in (0.1, 0.3, 1, 3, 10))
    search = "task.validation=6000", f"optimizer.learning_rate={tried}"
    return {"kind": VARIANT, "published": label, "search": search, "search_cost": 0.1}


TABLE = Table(
    "bartunov2018",
    "Bartunov et al. (2018): table 1, dense networks of tanh units, with the values of table 5",
    LOWEST_TEST,
    (
        *rows_of("mnist", "MNIST", (784, *(256,) * 5, 10), 1.8, MNIST, MNIST_TARGETS),
        *rows_of("cifar10", "CIFAR-10", (3072, *(1024,) * 3, 10), 5.0, CIFAR, CIFAR_TARGETS),
    ),
    (
        "Not said in the paper, and chosen here: batches of 128, pixels in [0, 1], biases that start at 0, B from "
        "Glorot's uniform distribution, three seeds (CIFAR-10: one).",
        "The paper prints the best error of 500 epochs, most likely of the test set.",
        "On CIFAR-10, the paper mentions flips and crops, but not in which rows; there are none here.",
        "The paper itself says that its networks were chosen for target propagation, not for DFA.",
        "Rows with a searched rate have the other values of table 5, and as many trials as frozen hidden layers.",
    ),
    (
        "DTP and SDTP, alternating: here the weights and their inverses step together, which is the parallel form.",
        "AO-SDTP: the values of its runs are not printed.",
        "The locally connected networks: 16 hours a run on MNIST, more than a hundred on CIFAR-10, on two cores.",
    ),
)
