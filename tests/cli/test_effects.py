"""Every option of a rule, of feedback, of an architecture and of an optimizer changes the program, or is refused."""

import re

import jax
import numpy as np
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose as compose_all
from fa_jax.cli.groups import choices
from fa_jax.core import Batch

SMALL = {"mlp": ["architecture.hidden=[9,8]"], "cnn": ["architecture.topology=conv4x3p2-conv3x3-6"]}
SMALL["locally_connected"] = SMALL["cnn"]
ARCHITECTURES = ("mlp", "cnn", "locally_connected", "resnet8", "residual_mlp", "transformer", "recurrent")
"""One or two of each kind of network; the others differ from them in values."""
CASES = [
    *([f"rule={rule}", *SMALL["mlp"]] for rule in choices("rule")),
    *([f"architecture={name}", "rule=dfa", *SMALL.get(name, [])] for name in ARCHITECTURES),
    *([f"optimizer={name}", "rule=bp"] for name in choices("optimizer")),
]
GROUPS = {"rule": ("rule", "feedback"), "architecture": ("architecture",), "optimizer": ("optimizer",)}
"""The groups whose options are tried, by the group that a case chooses from."""


def run_of(*words):
    """The run of some arguments, whose job was built."""
    (run,) = compose_all(parse(["task=digits", *words])).runs
    _ = run.job
    return run


def program_of(run):
    """The program that starts, takes a step and predicts, as text, and the constants in it."""
    learner = run.job.learner
    rule, optimizer, feedback_optimizer = learner.rule, learner.optimizer, learner.feedback_optimizer

    def start_step_and_predict(key, inputs, targets):
        params, feedback = rule.init(key)
        batch = Batch(run.job.task.prepare(inputs), run.job.task.encode(targets), key)
        updates = rule.updates(params, feedback, batch)
        steps = optimizer.update(updates, optimizer.init(params), params)
        if rule.learn is not None:
            changes = rule.learn(params, feedback, batch, updates)
            steps = steps, feedback_optimizer.update(changes, feedback_optimizer.init(feedback), feedback)
        return params, feedback, steps, rule.predict(params, batch.inputs)

    closed = jax.make_jaxpr(start_step_and_predict)(jax.random.key(0), *(a[:4] for a in run.job.task.train))
    used, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return re.sub(r"0x[0-9a-f]+", "", str(used)), [np.asarray(constant).tobytes() for constant in closed.consts]


NULLS = {
    "feedback.fan": ["fan_in", "fan_out"],
    "architecture.pooling": ["average"],
    "architecture.pool_stride": [1],
    "architecture.bias_scale": [0.25],
    "architecture.normed_shortcuts": [False],
    "rule.blur_steps": [3],
    "rule.head_features": [64],
}
"""Values of options that are null by default."""


def values_of(node, path):
    """The options of a config that have a value or are in `NULLS`, by dotted name."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from values_of(value, f"{path}.{key}")
        elif (value is not None or f"{path}.{key}" in NULLS) and key not in ("_target_", "_partial_"):
            yield f"{path}.{key}", value


def others(words, name, value):
    """Other values of an option, of which some may be refused."""
    if value is None:
        return NULLS[name]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [other for other in (value * 2, value / 2, value + 1, 0.25) if other != value]
    if isinstance(value, list):
        return [[other, *value[1:]] for other in others(words, name, value[0])] if value else []
    with pytest.raises(BadOption) as refused:
        run_of(*words, f"{name}=nonsense")
    listed = re.search(r"must be one of (.*?); got", str(refused.value))
    return [] if listed is None else [word for word in listed[1].split(", ") if word != value]


@pytest.mark.slow
@pytest.mark.parametrize("words", CASES, ids=lambda words: words[0])
def test_every_option_has_an_effect_or_is_refused(words):
    run = run_of(*words)
    program = program_of(run)
    assert program_of(run_of(*words)) == program
    without_effect = []
    for group in GROUPS[words[0].partition("=")[0]]:
        for name, value in values_of(run.config.get(group) or {}, group):
            accepted = []
            for other in others(words, name, value):
                try:
                    changed = run_of(*words, f"{name}={str(other).lower().replace(' ', '')}")
                except BadOption:
                    continue
                accepted.append(other)
                if program_of(changed) != program:
                    break
            else:
                without_effect += [f"{name}={other}" for other in accepted]
    assert without_effect == []
