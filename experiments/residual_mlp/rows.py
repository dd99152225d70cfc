"""Which feedback rules are above frozen blocks: backprop, FA, DFA and controls in pre-norm residual networks on CIFAR.

    python -m experiments.residual_mlp.rows                                 CIFAR-10 for 30 epochs, all rules
    python -m experiments.residual_mlp.rows 30epochs/cifar10/fa             one of them
    python -m experiments.residual_mlp.rows 100epochs/cifar10 30epochs      the length of 2026; all networks
    python -m experiments.residual_mlp.rows --status                        how far the rows have come
    python -m experiments.residual_mlp.rows --table                         prints the tables

Each rule tries five learning rates with two seeds for a third of the epochs, on all but 5000 training images; then the
best one of these held-out images trains on all, with five seeds. The runs are in outputs/residual_mlp.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments import queue
from experiments.common import read_rows, write_table
from experiments.training import DONE, Row, Training, runs_of, state
from fa_jax.records.reader import Run
from fa_jax.reports.comparison import Comparison, compare

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/residual_mlp")
NETWORKS = {
    "cifar10": ("task=cifar10",),
    "cifar10_without_norm": ("task=cifar10", "architecture.terminal_norm=false"),
    "cifar100": ("task=cifar100",),
}
"""Four blocks of width 256; behind the last one there is a norm, unless the name says otherwise."""
RULES = ("frozen_blocks", "shallow", "bp", "fa", "dfa")
LENGTHS = {30: 1.0, 100: 3.0}
"""Epochs, and estimates of the hours that a rule takes."""
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RECIPE = ("architecture=residual_mlp", "optimizer=adamw", "optimizer/schedule=cosine", "batch_size=128")
RECIPE += ("task.preprocessing=standardised", "evaluations=10")
"""That of 2026; its rate was 1e-3 for all rules. The weight decay is the default one of AdamW, 0.01."""
HELD_OUT, SEEDS, TRIAL_SEEDS = 5000, 5, 2
COLUMNS = {
    "network": "left",
    "rule": "left",
    "n": "right",
    "learning rate": "right",
    "test error": "right",
    "above frozen_blocks": "right",
    "95 % interval": "left",
    "above shallow": "right",
    "angles of the signals, layer by layer": "left",
}


def overrides(network: str, rule: str, epochs: int) -> tuple[str, ...]:
    """Returns the arguments of a rule on a network, without the learning rate."""
    return (*NETWORKS[network], *RECIPE, f"rule={rule}", f"epochs={epochs}")


def trials(network: str, rule: str, epochs: int) -> Training:
    """Returns the sweep over learning rates, which is judged on held-out images."""
    swept = "optimizer.learning_rate=" + ",".join(f"{rate:g}" for rate in RATES)
    further = (f"seeds={TRIAL_SEEDS}", f"task.validation={HELD_OUT}", "probe=0", "checkpoint=false")
    folder = OUTPUTS / f"{epochs}epochs" / network / rule / "trials"
    return Training(folder, (*overrides(network, rule, max(1, epochs // 3)), swept, *further), is_sweep=True)


def best_rate(runs: Sequence[Run]) -> float:
    """Returns the learning rate of the trials with the lowest mean validation error; one that diverges is none."""

    def error(run: Run) -> float:
        return float("inf") if run.diverged else (run.summary or {})["final"]["validation_error"]["mean"]

    return min(runs, key=error).config["optimizer"]["learning_rate"]


def trainings(network: str, rule: str, epochs: int, seeds: int | None) -> Iterator[Training]:
    """Yields the trials of a rule, and when they are done its run with the best rate; seeds as in `rows`."""
    searched = trials(network, rule, epochs)
    yield searched
    if state(searched).kind != DONE:
        return
    rate = f"optimizer.learning_rate={best_rate(searched.runs()):g}"
    asked, defaults = ((f"seeds={seeds}",), ()) if seeds is not None else ((), (f"seeds={SEEDS}",))
    yield Training(searched.folder.parent / "tuned", (*overrides(network, rule, epochs), rate, *asked), defaults)


def row_of(network: str, rule: str, epochs: int, seeds: int | None = None) -> Row:
    """Returns the row of a rule on a network."""
    name = f"{epochs}epochs/{network}/{rule}"
    hours = LENGTHS[epochs] * (1 if seeds is None else seeds / SEEDS)
    return Row(f"residual_mlp/{name}", OUTPUTS / name, lambda: trainings(network, rule, epochs, seeds), hours)


def rows(seeds: int | None = None) -> list[Row]:
    """Returns all rows; seeds are those that were asked for, None: as recorded, or five."""
    return [row_of(network, rule, epochs, seeds) for epochs in LENGTHS for network in NETWORKS for rule in RULES]


def measured(network: str, rule: str, compared: Comparison) -> dict[str, Any]:
    """Returns a row of the table: the last epoch, and how far it is above each control that is done."""
    rules = [condition.run.choices["rule"] for condition in compared.conditions]
    run = compared.conditions[rules.index(rule)].run
    final, rate = (run.summary or {})["final"], run.config["optimizer"]["learning_rate"]
    error = final["test_error"]
    angles = [f"{final[name]['mean']:.0f}" for name in final if name.startswith("signal_angle_") and final[name]["n"]]
    found: dict[str, Any] = {
        "network": network,
        "rule": rule,
        "n": error["n"],
        "diverged": len(run.diverged),
        "learning rate": f"{rate:g}",
        "at the edge of the grid": rate in (min(RATES), max(RATES)),
        **{
            name: "" if error[key] is None else f"{error[key]:.2f}"
            for name, key in (("test error", "mean"), ("low", "low"), ("high", "high"))
        },
        "angles of the signals, layer by layer": " ".join(angles),
    }
    for margin in compared.margins:
        if rules[margin.condition] == rule:
            control = rules[margin.control]
            found |= {f"above {control}": f"{margin.margin:+.2f}", f"above {control}, n": margin.n}
            found |= {f"above {control}, low": f"{margin.low:+.2f}", f"above {control}, high": f"{margin.high:+.2f}"}
    return found


def collect(into: Path, chosen: Sequence[Row]) -> None:
    """Tabulates those of some rows that are done, with a table for each number of epochs; controls are read beside."""
    names = {row.name for row in chosen}
    for epochs in LENGTHS:
        lines = []
        for network in NETWORKS:
            done = {rule: run for rule in RULES for run in runs_of(row_of(network, rule, epochs))}
            compared = compare(list(done.values())) if done else None
            lines += [
                (measured(network, rule, compared), [run])
                for rule, run in done.items()
                if compared is not None and row_of(network, rule, epochs).name in names
            ]
        if lines:
            write_table(into / f"measured_{epochs}epochs.csv", lines, "network", "rule")


def tables() -> str:
    """Returns the recorded tables as Markdown, one for each number of epochs."""
    parts = []
    for epochs in LENGTHS:
        recorded = read_rows(HERE / f"measured_{epochs}epochs.csv")
        if recorded:
            lines = [_line(row) for row in recorded]
            text = tabulate(lines, list(COLUMNS), "pipe", disable_numparse=True, colalign=list(COLUMNS.values()))
            parts.append(f"{epochs} epochs:\n\n{text}")
    return "\n\n".join(parts)


def _line(row: dict[str, str]) -> list[str]:
    low, high = (row.get(f"above frozen_blocks, {end}") or "" for end in ("low", "high"))
    said = {**row, "95 % interval": f"{low} to {high}" if low else ""}
    said["learning rate"] += " (edge)" if row["at the edge of the grid"] == "True" else ""
    return [said.get(column) or "" for column in COLUMNS]


def main() -> None:
    """Trains and collects rows, or prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=["30epochs/cifar10"], help="names of rows, or of folders of rows")
    parser.add_argument("--table", action="store_true", help="print the tables as Markdown, and train nothing")
    queue.add_options(parser)
    chosen = parser.parse_args()
    if chosen.table:
        print(tables())
        return
    queue.follow(parser, chosen, [f"residual_mlp/{name}" for name in chosen.rows], "residual_mlp")


if __name__ == "__main__":
    main()
