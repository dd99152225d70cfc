"""Ren et al. (2023), forward gradients: table 3, the smallest network on MNIST, with one block of two layers."""

from collections.abc import Iterator

from experiments.tables.row import CONTROL, LAST, PARTIAL, Row, Setting, Table

SETTING = Setting("ren2023", "MNIST, S/1/1", ("experiment=ren2023/mnist",), 0.6)
VALIDATION = "task.validation=6000"
RATES = VALIDATION, "optimizer.learning_rate=1,0.3,0.1,0.03,0.01,0.003"
LOW_RATES = VALIDATION, "optimizer.learning_rate=0.03,0.01,0.003,0.001,0.0003,0.0001"
FEEDBACK = "feedback.distribution=normal", "feedback.scale=0.1"
"""As the weights, but for those of the readout, which start at zero."""
SUMMED = (
    "the program's global form sums over the batch, so that its hidden layers take steps that are 100 times larger "
    "than those of its readout; here both are of the mean."
)


def rows() -> Iterator[Row]:
    """Yields the rows of the table."""
    searched = {"search": RATES, "search_cost": 0.1}
    yield SETTING.row("BP", "rule=bp", **searched)
    yield SETTING.row("FA", "rule=fa", *FEEDBACK, **searched)
    yield SETTING.row("DFA", "rule=dfa", *FEEDBACK, **searched)
    yield SETTING.row(
        "FG-W",
        "rule=forward_gradient",
        "rule.perturb=hidden_weights",
        search=LOW_RATES,
        search_cost=0.1,
    )
    yield SETTING.row("FG-A", "rule=forward_gradient", "rule.spare_silent=true", **searched, note=SUMMED)
    yield SETTING.row("frozen hidden layers", "rule=shallow", **searched, kind=CONTROL, cost=0.5)
    yield SETTING.row("frozen blocks", "rule=frozen_blocks", **searched, kind=PARTIAL)


TABLE = Table(
    "ren2023",
    "Ren et al. (2023), forward gradients: MNIST, two layers of 256 ReLU units with layer norm",
    LAST,
    tuple(rows()),
    (
        "Rates, epochs and batch size could not be read: 200 epochs, batches of 100, a rate that falls linearly to 0, "
        "initial weights and weight decay are the defaults of the authors' program, which has no loader of MNIST; the "
        "rates are searched. Pixels are in [0, 1], and B is drawn like the weights, which is not said there.",
        "Layer norm follows each layer, as is the program's default; the paper has it before each layer, too. Here it "
        "has gains and shifts, and these and biases decay like the weights. The program's readout has a tenth of the "
        "rate of the other layers.",
        "How many runs the published numbers are of is not said; the program fixes one seed. Which epoch is printed is "
        "not said either; it holds nothing out.",
        "In the program, the row DFA is greedy learning: each layer descends the cross-entropy of a frozen random "
        "readout of its own. In its row FA, the error at the output is that of the backward weights. Here both are the "
        "rules of their papers.",
        "The published network has a local head besides, which teaches it in the local rows; whether it does in FG-W "
        "and FG-A, which are printed with the numbers of their local forms, is not known.",
    ),
    (
        "The program's variants of DFA and FA: the first is no feedback alignment, the second has the output error of "
        "a fixed random readout. The printed numbers cannot be traced to them, since the program does not load MNIST.",
        "The local rows: those of forward gradients are printed equal to FG-W and FG-A, the others add a readout of "
        "the block to BP and FA.",
        "M/1/16 and CIFAR-10: grouped layers and layers that mix patches, which are no architecture here.",
    ),
)
