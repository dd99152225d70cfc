"""Every rule on every architecture that it is defined on: test errors with default and with tuned values, and cost.

    python -m experiments.rules_by_architectures.compare digits
    python -m experiments.rules_by_architectures.compare mnist --epochs 2
    python -m experiments.rules_by_architectures.compare digits --status       what is done, running and left
    python -m experiments.rules_by_architectures.compare digits --collect      tabulates finished runs, trains nothing
    python -m experiments.rules_by_architectures.compare digits --table        prints the tables, trains nothing

Every rule has seven trials of two seeds each on held-out examples: five learning rates at the default feedback scale,
then a third and three times that scale at the best rate; a rule without a feedback scale tries two more rates around
the best. If the best of the five rates is the lowest or the highest, or all diverge, up to four rates beyond are tried
until it is not. If another scale is best, the search goes on from there, up to four steps, with rates beside it and the
scale beyond. The rule is trained on all training examples, with the default and with the best values. Runs are in
outputs/rules_by_architectures; finished ones are not trained again. The tables go to its folder `results`; with
`--update`, they go to this folder, and the best values to conf/tuned.csv, where `tuned=true` reads them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats
from tabulate import tabulate

from experiments import queue
from experiments.common import read_rows, summary_of
from experiments.controlled import CONTROLS
from experiments.rules_by_architectures.case import HELD_OUT, SIZES, TRIAL_SEEDS, Case, default_scale, row_of
from fa_jax.cli.build import build
from fa_jax.cli.groups import choices
from fa_jax.records.reader import Run
from fa_jax.training.operations import operations

HERE = Path(__file__).parent
ERRORS = {"test error": "mean", "low": "low", "high": "high"}
"""Columns, and what they are of the test errors of the seeds that did not diverge; empty if all did."""
COLUMNS = {
    "rule": "left",
    "as it comes (%)": "right",
    "tuned (%)": "right",
    "95 % interval": "left",
    **dict.fromkeys((f"above {control}" for control in CONTROLS), "left"),
    "learning rate": "right",
    "feedback scale": "right",
    "angle": "right",
    "seed-steps/s": "right",
    "Mflop": "right",
    "compiling (s)": "right",
    "memory (MB)": "right",
}


class Margin(NamedTuple):
    """How far a rule is above a control: the control's mean test error less its own, in points."""

    mean: float
    low: float
    """The lower end of the 95 % interval by Welch's t: seeds are not paired, since the tables have no single ones."""
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def above(row: dict[str, str], control: dict[str, str]) -> Margin | None:
    """Returns how far a row of a measured table is above its control; None if less than two seeds of one are left."""
    counts = [int(side["n"]) for side in (control, row)]
    if min(counts) < 2:
        return None
    means = [float(side["test error"]) for side in (control, row)]
    half_widths = [(float(side["high"]) - float(side["low"])) / 2 for side in (control, row)]
    variances = [
        (half_width / stats.t.ppf(0.975, n - 1)) ** 2 for half_width, n in zip(half_widths, counts, strict=True)
    ]
    whole, mean = sum(variances), means[0] - means[1]
    if not whole:
        return Margin(mean, mean, mean)
    freedom = whole**2 / sum(variance**2 / (n - 1) for variance, n in zip(variances, counts, strict=True))
    half_width = float(stats.t.ppf(0.975, freedom)) * whole**0.5
    return Margin(mean, float(mean - half_width), float(mean + half_width))


def row(case: Case, name: str, run: Run, edge: bool | None) -> dict[str, Any]:
    """Returns a row of the table: the values, the test error and the cost."""
    summary = summary_of(run)
    error, cost = summary["final"]["test_error"], summary["cost"]
    angle = summary["final"].get("signal_angle_0", {}).get("mean")
    scale, flops = default_scale(run.config), operations(build(run.config))
    return {
        "task": case.task,
        "architecture": case.architecture,
        "rule": case.rule,
        "values": name,
        "learning rate": f"{run.config['optimizer']['learning_rate']:.3g}",
        "feedback scale": "" if scale is None else f"{scale:.3g}",
        "at the edge of the grid": "" if edge is None else edge,
        **{column: "" if error[key] is None else f"{error[key]:.2f}" for column, key in ERRORS.items()},
        "n": error["n"],
        "diverged": len(run.diverged),
        "angle of the first layer": "" if angle is None else f"{angle:.0f}",
        "seed-steps/s": f"{cost['seed_steps_per_second']:.0f}",
        "Mflop a step": "" if flops is None else f"{flops / 1e6:.2f}",
        "compile seconds": f"{cost['compile_seconds']:.1f}",
        "MB": f"{cost['memory_bytes'] / 1e6:.1f}",
    }


def results(case: Case) -> list[tuple[dict[str, Any], list[Run]]]:
    """Returns rows and their runs with the default and with the tuned values, of a case that is done."""
    values, edge = case.tune(default_scale(case.config() or {}))
    settings = (("as it comes", {}, None), ("tuned", values, edge))
    runs = [(name, run, at_edge) for name, chosen, at_edge in settings for run in case.final(name, chosen).runs()]
    return [(row(case, name, run, at_edge), [run]) for name, run, at_edge in runs]


def table(path: Path) -> str:
    """Returns a measured table as Markdown: the rules on each architecture, from the lowest tuned error up."""
    rows = read_rows(path)
    parts = []
    for architecture in sorted({row["architecture"] for row in rows}):
        plain, tuned = (
            {row["rule"]: row for row in rows if (row["architecture"], row["values"]) == (architecture, values)}
            for values in ("as it comes", "tuned")
        )
        ordered = sorted(tuned, key=lambda rule: float(tuned[rule]["test error"] or "inf"))
        lines = [line(rule, plain[rule], tuned[rule], [tuned.get(control) for control in CONTROLS]) for rule in ordered]
        text = tabulate(lines, list(COLUMNS), "pipe", disable_numparse=True, colalign=list(COLUMNS.values()))
        parts.append(f"{architecture}:\n\n{text}\n")
    return "\n".join(parts)


def line(
    rule: str, plain: dict[str, str], tuned: dict[str, str], controls: Sequence[dict[str, str] | None]
) -> list[str]:
    """Returns the `COLUMNS` of a rule; all numbers but the first are of the tuned values, as are the `CONTROLS`."""
    margins = [None if rule in CONTROLS or control is None else above(tuned, control) for control in controls]
    return [
        rule,
        test_error(plain),
        test_error(tuned),
        f"{tuned['low']} to {tuned['high']}" if tuned["low"] else "-",
        *("-" if margin is None else str(margin) for margin in margins),
        tuned["learning rate"] + (" (edge)" if tuned["at the edge of the grid"] == "True" else ""),
        tuned["feedback scale"] or "-",
        f"{tuned['angle of the first layer']}°" if tuned["angle of the first layer"] else "-",
        f"{int(tuned['seed-steps/s']):,}",
        tuned["Mflop a step"] or "-",
        tuned["compile seconds"],
        tuned["MB"],
    ]


def test_error(row: dict[str, str]) -> str:
    """Returns the mean test error of a row, and how many of its seeds diverged."""
    diverged = int(row["diverged"])
    note = f"({diverged} of {diverged + int(row['n'])} diverged)" if diverged else ""
    return f"{row['test error']} {note}".strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(HELD_OUT))
    parser.add_argument("--architectures", nargs="*", choices=sorted(choices("architecture")))
    rules = sorted(choices("rule"))
    parser.add_argument("--rules", nargs="*", choices=rules, default=rules)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--trial-seeds", type=int, default=TRIAL_SEEDS, help="of each trial")
    chosen = queue.parsed(parser, lambda chosen: table(HERE / f"measured_{chosen.task}.csv"))
    architectures = chosen.architectures or list(SIZES[chosen.task])
    cases = [
        Case(chosen.task, name, rule, chosen.epochs, chosen.trial_seeds)
        for name in architectures
        for rule in chosen.rules
    ]
    rows = [row_of(case, chosen.seeds) for case in cases]
    queue.follow(parser, chosen, [row.name for row in rows], "rules_by_architectures", rows)


if __name__ == "__main__":
    main()
