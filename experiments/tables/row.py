"""What a published table consists of here: its runs, its published numbers, and what differs from its recipe."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import read_rows

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/tables")
LAST, LOWEST_TEST, LOWEST_VALIDATION, LOWEST_VALIDATION_LOSS = (
    "the last",
    "lowest test error",
    "lowest validation error",
    "lowest validation loss",
)
"""How a table chooses the epoch whose test error it prints."""
METRICS = {
    LOWEST_TEST: "test_error",
    LOWEST_VALIDATION: "validation_error",
    LOWEST_VALIDATION_LOSS: "validation_loss",
}
"""The metric whose lowest value chooses the epoch."""
RULE, VARIANT, CONTROL, PARTIAL = "rule", "variant", "control", "partial control"
"""Kinds of rows: a rule as its paper defines it; what the program behind a published number does instead, or the rule
at values that the recipe does not have; hidden layers that do not learn; and hidden layers of which a part does not, or
whose feedback does not."""
BEYOND = (3, 10, 30, 100)
"""How many times a rate are tried for a control besides: the largest that is searched for a rule, or backprop's."""


class Row(NamedTuple):
    """A row of a table: one run of several seeds."""

    name: str
    """Unique in the table: the setting and the label."""
    arguments: tuple[str, ...]
    """The arguments of `fa-jax`, without the folder and those that a search chooses."""
    folder: Path
    """The folder of the run. Rows that are one rule may share it."""
    hours: float
    """About how long it trains on one core; accelerators take much less."""
    setting: str
    """The data and the network."""
    label: str
    """The rule or variant, as the table prints it."""
    kind: str = RULE
    published: str = ""
    """The label of the published row that it is compared with; empty: none."""
    search: tuple[str, ...] = ()
    """Arguments with several values, of which a short search on validation examples chooses; empty: nothing."""
    search_hours: float = 0.0
    """About how long the search takes on one core."""
    note: str = ""
    """What differs from the recipe in this row."""
    group: str = ""
    """What the row has in common with its controls beside the setting, such as the loss; controls judge their group."""

    @property
    def hours_on_two_cores(self) -> float:
        """About how long it and its search take on two cores."""
        return (self.hours + self.search_hours) / 2


class Table(NamedTuple):
    """A published table."""

    name: str
    """The name of its folder and of the CSV of published numbers."""
    title: str
    choice: str
    """The epoch whose test error the paper prints: one of `LAST` and the keys of `METRICS`."""
    rows: tuple[Row, ...]
    deviations: tuple[str, ...]
    """What differs from the recipe, or is not known of it, in all rows."""
    left_out: tuple[str, ...] = ()
    """Published rows that are not configured, with the reason."""


class Setting(NamedTuple):
    """What the rows of a table on the same data and network share."""

    table: str
    name: str
    arguments: tuple[str, ...]
    hours: float
    """The hours of a run of backprop on one core."""

    def row(
        self,
        label: str,
        *arguments: str,
        kind: str = RULE,
        published: str | None = None,
        cost: float = 1.0,
        search: Sequence[str] = (),
        search_cost: float = 0.0,
        note: str = "",
        folder: str | None = None,
        group: str = "",
    ) -> Row:
        """Returns a row.

        Args:
          label: of the row.
          *arguments: of `fa-jax`, beside those of the setting.
          kind: of the row.
          published: the label of the published row; None: its own, and none for controls.
          cost: of the run, relative to backprop.
          search: arguments with several values; `search_cost` is that of the search, relative to a run of backprop.
          note: what differs from the recipe.
          folder: the label of the row whose run this is, too; None: a run of its own.
          group: of the row, as in `Row`.
        """
        return Row(
            name=f"{self.name}, {label}",
            arguments=(*self.arguments, *(argument.replace(" ", "") for argument in arguments)),
            folder=OUTPUTS / self.table / _folder(self.name) / _folder(folder or label),
            hours=cost * self.hours,
            setting=self.name,
            label=label,
            kind=kind,
            published=("" if kind in (CONTROL, PARTIAL) else label) if published is None else published,
            search=widened(search) if kind == CONTROL else tuple(search),
            search_hours=search_cost * self.hours,
            note=note,
            group=group,
        )


class Published(NamedTuple):
    """A published test error in %."""

    error: float
    deviation: str
    """Over seeds, as printed; empty: none."""
    seeds: str
    """How many; empty: not said, or not read."""
    provenance: str
    """Where the number was read."""

    def __str__(self) -> str:
        return f"{self.error:.2f}" + (f" ± {self.deviation}" if self.deviation else "")


def published(table: str) -> dict[tuple[str, str], Published]:
    """Returns the published numbers of a table by setting and row."""
    return {
        (row["setting"], row["row"]): Published(float(row["error"]), row["deviation"], row["seeds"], row["provenance"])
        for row in read_rows(HERE / "published" / f"{table}.csv")
    }


def scales(values: Sequence[float]) -> str:
    """Returns numbers as the value of an option: one, or a list of one per layer."""
    short = [f"{value:.6g}" for value in values]
    return short[0] if len(set(short)) == 1 else f"[{','.join(short)}]"


def glorot(*widths: int) -> list[float]:
    """Returns the bounds of Glorot's uniform distribution of each layer, given the widths from the input on."""
    return [(6 / (a + b)) ** 0.5 for a, b in itertools.pairwise(widths)]


def widened(search: Sequence[str]) -> tuple[str, ...]:
    """Returns a search with rates `BEYOND` those of a rule.

    A readout on random hidden layers learns best at much larger rates than a network. At those of the network, numbers
    would look learned that are not.
    """
    grids = []
    for argument in search:
        option, _, values = argument.partition("=")
        if option == "optimizer.learning_rate":
            largest = max(map(float, values.split(",")))
            values = ",".join([values, *(f"{factor * largest:g}" for factor in BEYOND)])
        grids.append(f"{option}={values}")
    return tuple(grids)


def control(held_out: int, rate: float) -> dict[str, Any]:
    """Returns the search of a control whose network has a rate that is printed, for `Setting.row`.

    Args:
      held_out: training examples on which the trials are judged.
      rate: of backprop on this network, the lowest that is tried.
    """
    search = f"task.validation={held_out}", f"optimizer.learning_rate={rate:g}"
    return {"kind": CONTROL, "cost": 0.5, "search": search, "search_cost": 0.1}


def partial_control(held_out: int, rate: float) -> dict[str, Any]:
    """Returns the search of frozen blocks whose network has a rate that is printed: a third of it to ten times."""
    tried = ",".join(f"{factor * rate:.4g}" for factor in (1 / 3, 1, 3, 10))
    search = f"task.validation={held_out}", f"optimizer.learning_rate={tried}"
    return {"kind": PARTIAL, "search": search, "search_cost": 0.1}


def torch_biases(*widths: int) -> tuple[str, str]:
    """Returns the options that draw biases as PyTorch does, given the widths from the input on."""
    return "architecture.bias_init=uniform", f"architecture.bias_scale={scales([n**-0.5 for n in widths[:-1]])}"


def _folder(name: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in name).strip("_").lower()
