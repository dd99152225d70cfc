"""Every rule on every architecture that it has a definition for: two tables, with intervals and what each rule costs.

    python -m experiments.rules_by_architectures.compare digits
    python -m experiments.rules_by_architectures.compare mnist --epochs 2
    python -m experiments.rules_by_architectures.compare digits --collect      only writes down what has been trained
    python -m experiments.rules_by_architectures.compare digits --table        only prints what is written down

Every rule has seven trials of two seeds each on held-out examples: five learning rates at its own feedback scale, then,
at the best of them, a third and three times that scale; a rule without one has two more rates around the best instead.
What did best goes to conf/recipe/tuned, where `tuned=true` finds it. With it, and with the values that the rule and the
task come with, it is then trained on everything. The runs go to outputs/rules_by_architectures; what is there is not
trained again.
"""

import argparse
import contextlib
import csv
import io
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments.common import is_trained, trained, write_table
from fa_jax.checks import BadOption
from fa_jax.cli import help as catalogue
from fa_jax.cli.build import build
from fa_jax.cli.compose import compose, tell_apart
from fa_jax.records.reader import Run
from fa_jax.training.compile import operations

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/rules_by_architectures")
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
OWN_RATES = {
    "associated_learning": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "forward_forward": (0.003, 0.01, 0.03, 0.1, 0.3),
    "recurrent_forward_forward": (0.003, 0.01, 0.03, 0.1, 0.3),
}
"""Of the rules that come with an optimizer of their own."""
SCALES = (1 / 3, 3.0)
BETWEEN = (3**-0.5, 3**0.5)
SIZES: dict[str, dict[str, dict[str, str]]] = {
    "digits": {
        "mlp": {"hidden": "[100,100]"},
        "cnn": {},
        "lenet": {},
        "locally_connected": {"topology": "conv16x3s2-conv32x3s2-64"},
        "resnet8": {},
    },
    "mnist": {"mlp": {"hidden": "[100,100]"}, "lenet": {}},
}
"""The architectures of each task, and how large they are where not as they come. Others, which come too large for a
machine without an accelerator, are trained where they are named on the command line."""
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
CONF = catalogue.CONF / "recipe" / "tuned" / "true"


class Case:
    """A rule on an architecture and a task."""

    def __init__(self, task: str, architecture: str, rule: str, epochs: float | None):
        """Makes the words that are common to its runs."""
        self.task, self.architecture, self.rule = task, architecture, rule
        self.network = SIZES[task].get(architecture, {})
        self.words = [f"task={task}", f"architecture={architecture}", f"rule={rule}"]
        self.words += [f"architecture.{option}={value}" for option, value in self.network.items()]
        self.words += [] if epochs is None else [f"epochs={epochs:g}"]
        self.length = "" if epochs is None else f" --epochs {epochs:g}"
        self.place = OUTPUTS / f"{task}{self.length.replace(' --', '_').replace(' ', '_')}" / architecture / rule

    def config(self) -> dict[str, Any] | None:
        """What it comes with; None where the rule has no definition for the architecture."""
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                return compose(tell_apart(self.words))[1][0].config
            except BadOption as refusal:
                if not str(refusal).startswith(f"rule={self.rule} "):
                    raise
                print(f"{self.rule} on {self.architecture}: {refusal}")
                return None

    def tried(self, values: dict[str, float]) -> float:
        """The mean validation error with these values; infinite where a seed diverged."""
        words = [f"{option}={value:.4g}" for option, value in values.items()]
        trial = [*self.words, *words, f"task.validation={HELD_OUT[self.task]}", "seeds=2", "probe=0", "evaluations=1"]
        place = self.place / "_".join(words).replace("=", "_")
        run = trained(place, *trial, "checkpoint=false", "checkpoint_every=null")
        return float("inf") if run.diverged else run.summary["final"]["validation_error"]["mean"]

    def tune(self, scale: float | None) -> tuple[dict[str, float], bool]:
        """Returns the values with the lowest validation error, and whether the rate is at the edge of the grid."""
        rates = OWN_RATES.get(self.rule, RATES)
        trials = {rate: self.tried({"optimizer.learning_rate": rate}) for rate in rates}
        best = min(trials, key=trials.__getitem__)
        candidates: list[tuple[float, dict[str, float]]] = [(trials[best], {"optimizer.learning_rate": best})]
        if scale is None:
            further = [{"optimizer.learning_rate": best * factor} for factor in BETWEEN]
        else:
            further = [{"optimizer.learning_rate": best, "rule.scale": scale * factor} for factor in SCALES]
        candidates += [(self.tried(values), values) for values in further]
        values = min(candidates, key=lambda one: one[0])[1]
        return values, not rates[0] < values["optimizer.learning_rate"] < rates[-1]

    def keep(self, values: dict[str, float]) -> None:
        """Writes down what was found, with the network it was found with, for `tuned=true`."""
        path = CONF / self.task / self.architecture / f"{self.rule}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            "# @package _global_",
            f"# Found by experiments/rules_by_architectures/compare.py {self.task}{self.length}.",
        ]
        lines += ["architecture:"] if self.network else []
        lines += [f"  {option}: {value}" for option, value in self.network.items()]
        for option, value in values.items():
            group, _, name = option.partition(".")
            lines += [f"{group}:", f"  {name}: {value:.4g}"]
        path.write_text("\n".join([*lines, ""]))

    def final(self, name: str, values: dict[str, float], seeds: int) -> Run:
        """The run on everything with these values."""
        words = [f"{option}={value:.4g}" for option, value in values.items()]
        return trained(self.place / name, *self.words, *words, f"seeds={seeds}", "checkpoint=false")


def row(case: Case, name: str, run: Run, edge: bool | None) -> dict[str, Any]:
    """A row of the table: the values, the test error and the cost."""
    error, cost = run.summary["final"]["test_error"], run.summary["cost"]
    angle = run.summary["final"].get("signal_angle_0", {}).get("mean")
    scale, flops = run.config["rule"].get("scale"), operations(build(run.config))
    return {
        "task": case.task,
        "architecture": case.architecture,
        "rule": case.rule,
        "values": name,
        "learning rate": f"{run.config['optimizer']['learning_rate']:.3g}",
        "feedback scale": "" if scale is None else f"{scale:.3g}",
        "at the edge of the grid": "" if edge is None else edge,
        "test error": f"{error['mean']:.2f}",
        "low": f"{error['low']:.2f}",
        "high": f"{error['high']:.2f}",
        "n": error["n"],
        "diverged": len(run.diverged),
        "angle of the first layer": "" if angle is None else f"{angle:.0f}",
        "seed-steps/s": f"{cost['seed_steps_per_second']:.0f}",
        "Mflop a step": "" if flops is None else f"{flops / 1e6:.2f}",
        "compile seconds": f"{cost['compile_seconds']:.1f}",
        "MB": f"{cost['memory_bytes'] / 1e6:.1f}",
    }


def compare(case: Case, seeds: int, collect: bool) -> list[tuple[dict[str, Any], Run]]:
    """Returns a row and its run with what the rule comes with and one with what was found; none where undefined."""
    if collect and not is_trained(case.place / "tuned"):
        return []
    config = case.config()
    if config is None:
        return []
    values, edge = case.tune(config["rule"].get("scale"))
    case.keep(values)
    runs = (("as it comes", {}, None), ("tuned", values, edge))
    done = [(name, case.final(name.replace(" ", "_"), own, seeds), at) for name, own, at in runs]
    return [(row(case, name, run, at), run) for name, run, at in done]


def table(path: Path) -> str:
    """Returns what `path` has as Markdown: the rules on each architecture, that with the lowest tuned error first."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = []
    for architecture in sorted({one["architecture"] for one in rows}):
        plain, tuned = (
            {one["rule"]: one for one in rows if (one["architecture"], one["values"]) == (architecture, values)}
            for values in ("as it comes", "tuned")
        )
        ordered = sorted(tuned, key=lambda rule: float(tuned[rule]["test error"]))
        lines = [line(rule, plain[rule], tuned[rule]) for rule in ordered]
        text = tabulate(lines, list(COLUMNS), "pipe", disable_numparse=True, colalign=list(COLUMNS.values()))
        parts.append(f"{architecture}:\n\n{text}\n")
    return "\n".join(parts)


def line(rule: str, plain: dict[str, str], tuned: dict[str, str]) -> list[str]:
    """A line of the table: `COLUMNS` of a rule, all but the first number of the tuned values."""
    lost = f" ({plain['diverged']} of {int(plain['diverged']) + int(plain['n'])} diverged)"
    return [
        rule,
        plain["test error"] + (lost if int(plain["diverged"]) else ""),
        tuned["test error"],
        f"{tuned['low']} to {tuned['high']}",
        tuned["learning rate"] + (" (edge)" if tuned["at the edge of the grid"] == "True" else ""),
        tuned["feedback scale"] or "-",
        f"{tuned['angle of the first layer']}°" if tuned["angle of the first layer"] else "-",
        f"{int(tuned['seed-steps/s']):,}",
        tuned["Mflop a step"] or "-",
        tuned["compile seconds"],
        tuned["MB"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(HELD_OUT))
    parser.add_argument("--architectures", nargs="*", choices=sorted(catalogue.options("architecture")))
    rules = sorted(catalogue.options("rule"))
    parser.add_argument("--rules", nargs="*", choices=rules, default=rules)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the CSV as Markdown, and train nothing")
    chosen = parser.parse_args()
    path = HERE / f"measured_{chosen.task}.csv"
    if chosen.table:
        print(table(path))
        return
    architectures = chosen.architectures or list(SIZES[chosen.task])
    cases = [Case(chosen.task, one, rule, chosen.epochs) for one in architectures for rule in chosen.rules]
    rows = [pair for case in cases for pair in compare(case, chosen.seeds, chosen.collect)]
    key = "task", "architecture", "rule", "values"
    write_table(path, [(one, [run]) for one, run in rows], *key)


if __name__ == "__main__":
    main()
