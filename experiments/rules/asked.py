"""Asks the code where each rule is defined, and what it logs: builds every rule on every architecture and loss."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import jax

from experiments.rules.sources import HERE
from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.cli.groups import choices
from fa_jax.core import Batch
from fa_jax.training.evaluation import STANDARD
from fa_jax.training.job import Job

PATH = HERE / "asked.json"
OMITTED = ("module", "resnet20", "resnet56")
"""Architectures that need options, or differ from resnet8 in size alone and take minutes to trace."""


def recorded() -> dict[str, dict[str, Any]]:
    """Returns the recorded answers by rule; see `ask`."""
    return json.loads(PATH.read_text())


def ask(rule: str) -> dict[str, Any]:
    """Returns what the code says about a rule.

    Returns:
      `architecture` and `loss`: by choice, null or why the rule is refused, both on digits; `needs_classes`;
      `feedback`: none, fixed or learned; `logged`: the names of the metrics that it logs on `mlp` with two hidden
      layers, which end in `_i` if there is one for each layer.
    """
    architectures = [name for name in choices("architecture") if name not in OMITTED]
    job = _job(rule)
    _, feedback = jax.eval_shape(job.rule.init, jax.random.key(0))
    kind = "learned" if job.rule.learn else "fixed" if jax.tree.leaves(feedback) else "none"
    return {
        "architecture": {name: refusal(rule, f"architecture={name}") for name in architectures},
        "loss": {name: refusal(rule, f"loss={name}") for name in choices("loss")},
        "needs_classes": job.rule.extras.needs_classes,
        "feedback": kind,
        "logged": _logged(_job(rule, "architecture.hidden=[100,100]")),
    }


def _job(rule: str, *more: str) -> Job:
    return compose(parse(["task=digits", f"rule={rule}", *more])).runs[0].job


def refusal(rule: str, *more: str) -> str | None:
    """Returns why a rule is refused, without its name and the sizes of the network; None: it is not."""
    try:
        job = _job(rule, *more)
        jax.eval_shape(job.rule.init, jax.random.key(0))
    except BadOption as refusal:
        return str(refusal).removeprefix(f"rule={rule} ").partition("; got ")[0]
    return None


def _logged(job: Job) -> list[str]:
    """Returns the names of the metrics of the probe batch, in their order."""
    rule, network = job.rule, job.network
    standard = [measure.compute for measure in STANDARD]
    measures: list[Callable] = [functools.partial(compute, rule, network, job.loss.value) for compute in standard]
    if rule.extras.measure is not None:
        measures.append(rule.extras.measure.compute)
    inputs = jax.ShapeDtypeStruct((4, *job.task.input_shape), "float32")
    targets = jax.ShapeDtypeStruct((4, job.task.outputs), "float32")

    def compute(key, inputs, targets):
        params, feedback = rule.init(key)
        return [measure(params, feedback, Batch(inputs, targets, key)) for measure in measures]

    logged = jax.eval_shape(compute, jax.random.key(0), inputs, targets)
    return list(dict.fromkeys(re.sub(r"_\d+$", "_i", name) for metrics in logged for name in metrics))


def main() -> None:
    PATH.write_text(json.dumps({rule: ask(rule) for rule in choices("rule")}, indent=1) + "\n")


if __name__ == "__main__":
    main()
