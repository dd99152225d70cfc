"""Every rule on every architecture that it is defined on: test errors with default and with tuned values, and cost.

    python -m experiments.rules_by_architectures.compare digits
    python -m experiments.rules_by_architectures.compare mnist --epochs 2
    python -m experiments.rules_by_architectures.compare digits --collect      tabulates finished runs, trains nothing
    python -m experiments.rules_by_architectures.compare digits --table        prints the tables, trains nothing

Every rule has seven trials of two seeds each on held-out examples: five learning rates at the default feedback scale,
then a third and three times that scale at the best rate; a rule without a feedback scale tries two more rates around
the best. If the best of the five rates is the lowest or the highest, or all diverge, up to four rates beyond are tried
until it is not. The best values go to conf/tuned.csv, where `tuned=true` reads them. The rule is then trained on all
training examples, with the default and with the tuned values. Runs are in outputs/rules_by_architectures; finished ones
are not trained again.
"""

import argparse
import csv
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments.common import is_trained, read_rows, trained, trained_sweep, write_table
from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.build import build
from fa_jax.cli.compose import compose
from fa_jax.cli.groups import choices
from fa_jax.cli.tuned import TABLE
from fa_jax.records.environment import commit
from fa_jax.records.reader import Run
from fa_jax.training.compile import operations

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/rules_by_architectures")
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
RATES_OF = {
    "associated_learning": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "local_loss": (0.0001, 0.0003, 0.001, 0.003, 0.01),
    "forward_forward": (0.003, 0.01, 0.03, 0.1, 0.3),
    "recurrent_forward_forward": (0.003, 0.01, 0.03, 0.1, 0.3),
    "predictive_coding": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "scff": (0.0003, 0.001, 0.003, 0.01, 0.03),
}
"""For rules with another default optimizer than plain gradient descent."""
SCALE_FACTORS = (1 / 3, 3.0)
RATE_FACTORS = (3**-0.5, 3**0.5)
BEYOND, FURTHER = 10**0.5, 4
"""The factor from a rate at the edge of the grid to the next one beyond, and the largest number of these."""
SIZES: dict[str, dict[str, dict[str, str]]] = {
    "digits": {
        "mlp": {"hidden": "[100,100]"},
        "cnn": {},
        "lenet": {},
        "locally_connected": {"topology": "conv16x3s2-conv32x3s2-64"},
        "resnet8": {},
        "transformer": {"patch": "2", "width": "32", "blocks": "2", "mlp_width": "64"},
        "recurrent": {"hidden": "[64]"},
    },
    "mnist": {"mlp": {"hidden": "[100,100]"}, "lenet": {}},
}
"""The architectures of each task, and their sizes where these are not the defaults. Other architectures are trained if
they are named on the command line; their default sizes need an accelerator."""
TRIAL_SEEDS = 2
ERRORS = {"test error": "mean", "low": "low", "high": "high"}
"""Columns, and what they are of the test errors of the seeds that did not diverge; empty if all did."""
HELD_OUT = {"digits": 200, "mnist": 10000}
COLUMNS = {
    "rule": "left",
    "as it comes (%)": "right",
    "tuned (%)": "right",
    "95 % interval": "left",
    "learning rate": "right",
    "feedback scale": "right",
    "angle": "right",
    "seed-steps/s": "right",
    "Mflop": "right",
    "compiling (s)": "right",
    "memory (MB)": "right",
}
TUNED_KEY = ("task", "architecture", "rule")
"""The columns that identify a row of `conf/tuned.csv`."""


class Case:
    """A rule on an architecture and a task."""

    def __init__(self, task: str, architecture: str, rule: str, epochs: float | None, trial_seeds: int = TRIAL_SEEDS):
        self.task, self.architecture, self.rule, self.trial_seeds = task, architecture, rule, trial_seeds
        self.sizes = [f"architecture.{option}={value}" for option, value in SIZES[task].get(architecture, {}).items()]
        self.overrides = [f"task={task}", f"architecture={architecture}", f"rule={rule}", *self.sizes]
        self.overrides += [] if epochs is None else [f"epochs={epochs:g}"]
        self.command = f"python -m experiments.rules_by_architectures.compare {task}"
        self.command += "" if epochs is None else f" --epochs {epochs:g}"
        self.command += "" if trial_seeds == TRIAL_SEEDS else f" --trial-seeds {trial_seeds}"
        self.folder = OUTPUTS / (task if epochs is None else f"{task}_epochs_{epochs:g}") / architecture / rule

    def config(self) -> dict[str, Any] | None:
        """Returns the default config; None if the rule is not defined on the architecture."""
        try:
            composition = compose(parse(self.overrides))
            composition.build()
        except BadOption as refusal:
            if not str(refusal).startswith(f"rule={self.rule} "):
                raise
            print(f"{self.rule} on {self.architecture}: {refusal}")
            return None
        return composition.runs[0].config

    def validation_errors(self, option: str, tried: Sequence[float], fixed: dict[str, float]) -> list[float]:
        """Returns the mean validation error for each value of an option, in one sweep; infinite if a seed diverged."""
        swept = f"{option}={','.join(f'{value:.4g}' for value in tried)}"
        words = [*_overrides(fixed), swept]
        trial = [f"seeds={self.trial_seeds}", "probe=0", "evaluations=1", f"task.validation={HELD_OUT[self.task]}"]
        trial += ["checkpoint=false", "checkpoint_every=null"]
        trials = words if self.trial_seeds == TRIAL_SEEDS else [*words, f"seeds={self.trial_seeds}"]
        folder = self.folder / "_".join(trials).replace("=", "_").replace(",", "_")
        runs = trained_sweep(folder, *self.overrides, *words, *trial)
        return [float("inf") if run.diverged else run.summary["final"]["validation_error"]["mean"] for run in runs]

    def tune(self, scale: float | None) -> tuple[dict[str, float], bool]:
        """Returns the values with the lowest validation error, and whether the rate is the lowest or highest tried."""
        errors = self.errors_by_rate()
        rate = _best(errors)
        best = {"optimizer.learning_rate": rate}
        if scale is None:
            option, more = "optimizer.learning_rate", [rate * factor for factor in RATE_FACTORS]
        else:
            option, more = "feedback.scale", [scale * factor for factor in SCALE_FACTORS]
        of_more = self.validation_errors(option, more, {} if scale is None else best)
        candidates = [(errors[rate], best)]
        candidates += [(error, {**best, option: value}) for error, value in zip(of_more, more, strict=True)]
        values = min(candidates, key=lambda candidate: candidate[0])[1]
        return values, not min(errors) < values["optimizer.learning_rate"] < max(errors)

    def errors_by_rate(self) -> dict[float, float]:
        """Returns the mean validation error for each learning rate of the grid, and beyond its edge if that is best."""
        option, rates = "optimizer.learning_rate", RATES_OF.get(self.rule, RATES)
        errors = dict(zip(rates, self.validation_errors(option, rates, {}), strict=True))
        for _ in range(FURTHER):
            lowest, highest, best = min(errors), max(errors), _best(errors)
            if lowest < best < highest:
                break
            # Where every rate diverges, lower ones may not.
            beyond = highest * BEYOND if best == highest and errors[best] < float("inf") else lowest / BEYOND
            (errors[beyond],) = self.validation_errors(option, [beyond], {})
        return errors

    def tuned_row(self, values: dict[str, float], optimizer: str) -> dict[str, str]:
        """Returns the row of `conf/tuned.csv` for these values of an optimizer."""
        return {
            "task": self.task,
            "architecture": self.architecture,
            "rule": self.rule,
            "optimizer": optimizer,
            "overrides": " ".join([*self.sizes, *_overrides(values)]),
            "command": self.command,
            "date": datetime.date.today().isoformat(),
            "commit": (commit() or "unknown")[:7],
        }

    def train(self, name: str, values: dict[str, float], seeds: int) -> Run:
        """Returns the run on all training examples with these values."""
        return trained(self.folder / name, *self.overrides, *_overrides(values), f"seeds={seeds}", "checkpoint=false")


def _best(errors: dict[float, float]) -> float:
    """Returns the rate with the lowest error, of equal ones the lowest rate."""
    return min(errors, key=lambda rate: (errors[rate], rate))


def _overrides(values: dict[str, float]) -> list[str]:
    return [f"{option}={value:.4g}" for option, value in values.items()]


def write_tuned(row: dict[str, str], path: Path = TABLE) -> None:
    """Adds a row to a table of tuned values, in place of the row of the same task, architecture and rule."""
    rows = {tuple(old[column] for column in TUNED_KEY): old for old in read_rows(path)}
    key = tuple(row[column] for column in TUNED_KEY)
    # Values that were measured again keep the date and the commit of the first time.
    if key not in rows or any(rows[key][column] != row[column] for column in ("optimizer", "overrides", "command")):
        rows[key] = row
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))


def row(case: Case, name: str, run: Run, edge: bool | None) -> dict[str, Any]:
    """Returns a row of the table: the values, the test error and the cost."""
    error, cost = run.summary["final"]["test_error"], run.summary["cost"]
    angle = run.summary["final"].get("signal_angle_0", {}).get("mean")
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


def default_scale(config: dict[str, Any]) -> float | None:
    """Returns the feedback scale of a config; None if it has none."""
    return config.get("feedback", {}).get("scale")


def compare(case: Case, seeds: int, collect: bool) -> list[tuple[dict[str, Any], Run]]:
    """Returns rows and their runs with the default and with the tuned values; none if the rule is not defined."""
    if collect and not is_trained(case.folder / "tuned"):
        return []
    config = case.config()
    if config is None:
        return []
    values, edge = case.tune(default_scale(config))
    write_tuned(case.tuned_row(values, config["choices"]["optimizer"]))
    settings = (("as it comes", {}, None), ("tuned", values, edge))
    runs = [(name, case.train(name.replace(" ", "_"), chosen, seeds), at_edge) for name, chosen, at_edge in settings]
    return [(row(case, name, run, at_edge), run) for name, run, at_edge in runs]


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
        lines = [line(rule, plain[rule], tuned[rule]) for rule in ordered]
        text = tabulate(lines, list(COLUMNS), "pipe", disable_numparse=True, colalign=list(COLUMNS.values()))
        parts.append(f"{architecture}:\n\n{text}\n")
    return "\n".join(parts)


def line(rule: str, plain: dict[str, str], tuned: dict[str, str]) -> list[str]:
    """Returns the `COLUMNS` of a rule; all numbers but the first are those of the tuned values."""
    return [
        rule,
        test_error(plain),
        test_error(tuned),
        f"{tuned['low']} to {tuned['high']}" if tuned["low"] else "-",
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
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trial-seeds", type=int, default=TRIAL_SEEDS, help="of each trial")
    parser.add_argument("--collect", action="store_true", help="tabulate finished runs, and train nothing")
    parser.add_argument("--table", action="store_true", help="print the tables as Markdown, and train nothing")
    chosen = parser.parse_args()
    path = HERE / f"measured_{chosen.task}.csv"
    if chosen.table:
        print(table(path))
        return
    architectures = chosen.architectures or list(SIZES[chosen.task])
    cases = [
        Case(chosen.task, name, rule, chosen.epochs, chosen.trial_seeds)
        for name in architectures
        for rule in chosen.rules
    ]
    results = [result for case in cases for result in compare(case, chosen.seeds, chosen.collect)]
    write_table(path, [(values, [run]) for values, run in results], "task", "architecture", "rule", "values")


if __name__ == "__main__":
    main()
