"""Sanfiz, Akrout (2021), BioTorch: LeNet on MNIST and Fashion-MNIST."""

from experiments.tables.lenet import LEFT_OUT, rows_of
from experiments.tables.row import CONTROL, LOWEST_TEST, PARTIAL, Setting, Table

FANS = (25, 150), (150, 400), (400, 3000), (120, 84), (84, 10)
SIZES = 14 * 14 * 6, 5 * 5 * 16, 120, 84
SEARCH = "task.validation=5000", "optimizer.learning_rate=0.1,0.03,0.01,0.003,0.001,0.0003"
SEARCHED = {"search": SEARCH, "search_cost": 0.2}

TABLE = Table(
    "sanfiz_akrout2021",
    "Sanfiz, Akrout (2021), BioTorch: LeNet on MNIST and Fashion-MNIST",
    LOWEST_TEST,
    tuple(
        row
        for task, name in (("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST"))
        for row in rows_of(
            Setting("sanfiz_akrout2021", name, (f"experiment=sanfiz_akrout2021/{task}",), 4.0),
            FANS,
            SIZES,
            10,
            {},
            {"kind": CONTROL, **SEARCHED},
            {"kind": PARTIAL, **SEARCHED},
            **SEARCHED,
        )
    ),
    (
        "The published runs have one seed; their rates are in no version of the repository, so they are searched here.",
        "The program takes the test set for validation, and prints the best epoch on it.",
    ),
    LEFT_OUT,
)
