"""What is recorded of the rules: needs, answers of the code, results, tuned values."""

from experiments.common import read_rows
from experiments.rules import asked
from experiments.rules.results import Result, results
from experiments.rules.sources import measured, needs, rules
from fa_jax.cli.tuned import TABLE

TASKS = ("digits", "mnist")


class Recorded:
    """What is recorded of all rules."""

    def __init__(self) -> None:
        self.rules = rules()
        self.needs = needs()
        self.asked = asked.recorded()
        self.measured = [row for task in TASKS for row in measured(task)]
        self.results: list[Result] = results()
        self.tuned = read_rows(TABLE)

    def row(self, rule: str, task: str, architecture: str, values: str = "tuned") -> dict[str, str] | None:
        """Returns the recorded result of a rule; None: there is none."""
        key = rule, task, architecture, values
        matches = (r for r in self.measured if (r["rule"], r["task"], r["architecture"], r["values"]) == key)
        return next(matches, None)


def cost(row: dict[str, str], bp: dict[str, str]) -> str:
    """Returns the operations of a step by those of backprop's; empty: one of both is not known."""
    if not (bp and bp["Mflop a step"] and row["Mflop a step"]):
        return ""
    ratio = float(row["Mflop a step"]) / float(bp["Mflop a step"])
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
