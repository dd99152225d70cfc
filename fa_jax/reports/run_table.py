"""The table that a run prints at its end."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group

from fa_jax.records.reader import Run
from fa_jax.records.statistics import DIVERGED
from fa_jax.reports.flags import marked, meanings
from fa_jax.reports.numbers import interval_text, number_text
from fa_jax.reports.tables import WIDTH, Table, random_text, terminal

SUMMARISED = ("signal_angle", "weight_angle", "growth")
"""The metrics that the table shows beside the scores."""


def run_table(run: Run) -> Group:
    """Returns the table at the end of a run: scores and angles over seeds at the last evaluation."""
    summary = run.summary or {"final": {}}
    rows, shown = [], []
    for name, numbers in summary["final"].items():
        column = run.columns[name]
        if (column.split or column.metric in SUMMARISED) and numbers["n"]:
            chosen = numbers["geometric"] if column.logarithmic else numbers
            label = column.qualified(name, column.unit, *(["geometric"] if column.logarithmic else []))
            interval = interval_text(chosen["low"], chosen["high"])
            numbers_shown = [marked(number_text(chosen["mean"]), run, name), interval, number_text(numbers["median"])]
            rows.append([label, *numbers_shown, str(numbers["n"]), random_text(column)])
            shown.append(name)
    headings = ["last evaluation", "mean", "95 % interval", "median", "n", "random"]
    lines = [run_caption(summary), *meanings((run, name) for name in shown)]
    if any(run.columns[name].random for name in shown):
        lines.append("random: of random signals, one for each example, with the standard deviation of their mean")
    rows = rows or [["every seed diverged", "-", "-", "-", "0", "-"]]
    return terminal(Table(headings, rows, "\n".join(lines)), WIDTH)


def run_caption(summary: Mapping[str, Any]) -> str:
    """Returns the caption of a run's table: seeds, parameter counts, speed."""
    cost = summary["cost"]
    diverged = summary["diverged_seeds"]
    parts = [f"{len(summary['seeds'])} seed{'s' if len(summary['seeds']) != 1 else ''}"]
    parts += [f"{len(diverged)} of them diverged and left out: {diverged}"] if diverged else []
    parts += [f"{cost['effective_params']:,} params"]
    parts += [f"{cost['affiliated_params']:,} more in training"] if cost["affiliated_params"] else []
    parts += [f"{cost['feedback_weights']:,} feedback weights"] if cost["feedback_weights"] else []
    parts += [
        f"{cost['seed_steps_per_second']:,.0f} steps/s over all seeds",
        f"compiled in {cost['compile_seconds']:.1f} s",
        f"trained in {cost['train_seconds']:.1f} s",
        f"evaluated in {cost['evaluation_seconds']:.1f} s",
    ]
    return ", ".join(parts) + (f"\n{DIVERGED}" if diverged else "")
