"""Frenkel et al. (2021): the dense networks of their comparison on MNIST, as shown in the first author's talk of 2020.

Their loss is a mean over the batch and the 10 outputs, ours a sum over the outputs: a rate of theirs is a tenth of it
here. Their program sends `B e` and `B y` to hidden layers undivided, and divides the gradients of BP, FA and all
readouts by the batch size times 10. Under gradient descent with momentum, the updates of a hidden layer are linear in
its B, so that undivided signals are those of a B that is 1000 times larger.
"""

from collections.abc import Iterator

from experiments.tables.row import CONTROL, LAST, PARTIAL, VARIANT, Row, Setting, Table, scales, torch_biases

UNDIVIDED = 100 * 10
"""The batch size times the outputs."""
RATES = "task.validation=6000", "optimizer.learning_rate=0.005,0.015,0.05,0.15"
UNDIVIDED_RATES = "task.validation=6000", "optimizer.learning_rate=0.00015,0.0005,0.0015,0.005"
HOURS = {(500,): 0.35, (1000,): 0.65, (500, 500): 0.55, (1000, 1000): 1.6}


def rows_of(hidden: tuple[int, ...]) -> Iterator[Row]:
    """Yields the rows of a network."""
    setting = Setting(
        "frenkel2021",
        "-".join(map(str, hidden)),
        (
            "experiment=frenkel2021/mnist",
            f"architecture.hidden=[{','.join(map(str, hidden))}]",
            *torch_biases(784, *hidden, 10),
        ),
        HOURS[hidden],
    )
    searched = {"search": RATES, "search_cost": 0.1}
    bounds = [(6 / n) ** 0.5 for n in hidden]  # of FA and DFA alike: n is the size of the layer that B sends to
    feedback = "feedback.distribution=uniform", f"feedback.scale={scales(bounds)}"
    large = "feedback.distribution=uniform", f"feedback.scale={scales([UNDIVIDED * bound for bound in bounds])}"
    yield setting.row("BP", "rule=bp", **searched)
    yield setting.row("FA", "rule=fa", *feedback, **searched)
    if len(hidden) == 1:
        note = "at one hidden layer one rule with FA; this is the run of FA."
        yield setting.row("DFA", "rule=fa", *feedback, **searched, folder="FA", note=note)
    else:
        yield setting.row("DFA", "rule=dfa", *feedback, **searched, cost=0.8)
    yield setting.row("DRTP", "rule=drtp", *feedback, **searched, cost=0.8)
    for rule in ("DFA", "DRTP"):
        yield setting.row(
            f"{rule}, undivided signal",
            f"rule={rule.lower()}",
            *large,
            kind=VARIANT,
            published=rule,
            cost=0.8,
            search=UNDIVIDED_RATES,
            search_cost=0.1,
        )
    yield setting.row("frozen hidden layers", "rule=shallow", **searched, kind=CONTROL, cost=0.5)
    if len(hidden) > 1:
        yield setting.row("frozen blocks", "rule=frozen_blocks", **searched, kind=PARTIAL)


TABLE = Table(
    "frenkel2021",
    "Frenkel et al. (2021), direct random target projection: MNIST, dense networks of tanh units",
    LAST,
    tuple(row for hidden in ((500,), (1000,), (500, 500), (1000, 1000)) for row in rows_of(hidden)),
    (
        "The published rates, epochs and trials are not known. All rows have 100 epochs, which is the default of the "
        "authors' program, and a rate that is searched for each.",
        "FA and DFA are one rule at one hidden layer, and the published table has 1.92 and 2.59 % for 500 units: its "
        "DFA is another rule. The program divides the hidden signals of BP and FA by the batch size times the outputs, "
        "those of DFA and DRTP not; the rows *undivided signal* do the same.",
        "Which epoch is printed is not said; the program holds out nothing, and prints the test error of every epoch.",
    ),
    ("The convolutional networks and CIFAR-10: they have the same undivided signals, and need an accelerator.",),
)
