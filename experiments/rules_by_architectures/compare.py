"""Every rule on every architecture that it has a definition for: one table, with intervals and what each rule costs.

    python experiments/rules_by_architectures/compare.py digits
    python experiments/rules_by_architectures/compare.py mnist --epochs 5 --architectures mlp

Each rule has the learning rate, of those tried on a validation split, with the lowest validation error: the same few
trials for every rule. The rate goes to conf/recipe/tuned, where `tuned=true` finds it. The runs go to
outputs/rules_by_architectures; what is there is not trained again.
"""

import argparse
from pathlib import Path
from typing import Any

from fa_jax import catalogue
from fa_jax.records.reader import Run, read_run
from fa_jax.records.trained import trained, write_table

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/rules_by_architectures")
RATES = (0.03, 0.1, 0.3, 1.0)
OWN_RATES = {"associated_learning": (0.001, 0.003, 0.01, 0.03), "forward_forward": (0.01, 0.03, 0.1, 0.3)}
"""Of the rules that come with an optimizer of their own."""
HIDDEN = {"mlp": "[100,100]"}
HELD_OUT = {"digits": 200, "mnist": 10000}
CONF = catalogue.CONF / "recipe" / "tuned" / "true"
EXCLUDED = {"resnet20", "resnet56", "vgg"}
"""Too slow for a machine without an accelerator; named on the command line they are trained too."""


def is_defined(architecture: str, rule: str) -> bool:
    """Whether a rule has a definition for an architecture."""
    return rule not in ("ifa", "forward_forward") or architecture == "mlp"


def validation_error(run: Run) -> float:
    """The mean validation error at the end; infinite where a seed diverged."""
    return float("inf") if run.diverged else run.summary["final"]["validation_error"]["mean"]


def keep(task: str, architecture: str, rule: str, hidden: str | None, rate: float) -> None:
    """Writes down the rate, with the hidden layers it was found with, for `tuned=true`."""
    path = CONF / task / architecture / f"{rule}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# @package _global_", f"# Found by experiments/rules_by_architectures/compare.py {task}."]
    lines += [] if hidden is None else ["architecture:", f"  hidden: {hidden}"]
    path.write_text("\n".join([*lines, "optimizer:", f"  learning_rate: {rate}", ""]))


def compare(task: str, architecture: str, rule: str, epochs: float | None, seeds: int) -> dict[str, Any]:
    """Returns a row of the table: the rate found, the test error at that rate, and the cost."""
    rates, hidden = OWN_RATES.get(rule, RATES), HIDDEN.get(architecture)
    words = [f"task={task}", f"architecture={architecture}", f"rule={rule}"]
    words += [] if hidden is None else [f"architecture.hidden={hidden}"]
    words += [] if epochs is None else [f"epochs={epochs}"]
    place = OUTPUTS / task / architecture / rule
    trials = {}
    for rate in rates:
        trial = [*words, f"optimizer.learning_rate={rate}", f"task.validation={HELD_OUT[task]}", "seeds=2", "probe=0"]
        trials[rate] = validation_error(trained(place / f"rate_{rate}", *trial, "checkpoint=false", "evaluations=1"))
    best = min(trials, key=trials.__getitem__)
    if trials[best] < float("inf"):
        keep(task, architecture, rule, hidden, best)
    run = trained(place / "final", *words, f"optimizer.learning_rate={best}", f"seeds={seeds}", "checkpoint=false")
    error, cost = run.summary["final"]["test_error"], run.summary["cost"]
    angle = run.summary["final"].get("signal_angle_0", {}).get("mean")
    return {
        "task": task,
        "architecture": architecture,
        "rule": rule,
        "learning rate": best,
        "at the edge of the grid": best in (rates[0], rates[-1]),
        "test error": f"{error['mean']:.2f}",
        "low": f"{error['low']:.2f}",
        "high": f"{error['high']:.2f}",
        "n": error["n"],
        "angle of the first layer": "" if angle is None else f"{angle:.0f}",
        "seed-steps/s": f"{cost['seed_steps_per_second']:.0f}",
        "compile seconds": f"{cost['compile_seconds']:.1f}",
        "MB": f"{cost['memory_bytes'] / 1e6:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(HELD_OUT))
    parser.add_argument("--architectures", nargs="*")
    parser.add_argument("--rules", nargs="*", default=sorted(catalogue.options("rule")))
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    architectures = chosen.architectures or sorted(set(catalogue.options("architecture")) - EXCLUDED)
    rows = []
    for architecture in architectures:
        for rule in chosen.rules:
            if is_defined(architecture, rule):
                rows.append(compare(chosen.task, architecture, rule, chosen.epochs, chosen.seeds))
    places = [OUTPUTS / row["task"] / row["architecture"] / row["rule"] / "final" for row in rows]
    write_table(HERE / f"measured_{chosen.task}.csv", rows, [read_run(place) for place in places])


if __name__ == "__main__":
    main()
