"""`fa-jax check`: whether a rule keeps the contract, in words; the contract tests in brief."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import Arguments, parse
from fa_jax.cli.compose import compose
from fa_jax.cli.errors import one_line_errors
from fa_jax.cli.own import check_rule
from fa_jax.core import Batch, PyTree
from fa_jax.training.job import Job
from fa_jax.user.text import say

EXAMPLES = 16
STEPS = 30


class NotChecked(Exception):
    """A property says nothing of a rule; the message says why."""


class Case(NamedTuple):
    """A job with the params and the feedback of seed 0, and a batch."""

    job: Job
    params: PyTree
    feedback: PyTree
    batch: Batch

    def updates(self, **changed) -> PyTree:
        """Returns the updates, with other params, feedback or batch."""
        used = self._replace(**changed)
        return self.job.rule.updates(used.params, used.feedback, used.batch)


def check(words: Sequence[str]) -> int:
    """Checks the rule of a config, and prints a line for each property; returns 1 if one does not hold.

    Raises:
      BadOption: if the config is wrong.
    """
    arguments = parse(words)
    usual = Arguments(arguments.overrides, arguments.options, config_dir=arguments.config_dir)
    if arguments != usual or set(arguments.options) - {"trust"}:
        raise BadOption(f"takes overrides, --config-dir and trust; got {' '.join(words)}", "check")
    task = [] if arguments.value_of("task") else ["task=digits"]
    with one_line_errors():
        composed = compose(arguments._replace(overrides=[*task, *arguments.overrides])).runs[0]
        job = composed.job
    console, case, counts = Console(), None, Counter()
    name = f"rule={composed.choices['rule']}"
    for property_name, holds in PROPERTIES.items():
        case = case or _case(job, name)
        try:
            problem = _problem(holds, case)
            verdict = "no" if problem else "yes"
        except NotChecked as reason:
            verdict, problem = "-", f"not checked, since {reason}"
        counts[verdict] += 1
        say(console, f"{verdict:3}  {property_name}" + (f": {problem}" if problem else ""))
    left = f", {counts['-']} not checked" if counts["-"] else ""
    say(console, f"{name}: {counts['yes']} of {counts['yes'] + counts['no']} properties hold{left}")
    return 1 if counts["no"] else 0


def _case(job: Job, name: str) -> Case:
    task = job.task
    check_rule(job.rule, name, (EXAMPLES, *task.input_shape), task.outputs)
    params, feedback = job.rule.init(jax.random.key(0))
    examples = jax.tree.map(lambda a: a[:EXAMPLES], task.train)
    batch = Batch(task.prepare(examples.inputs), task.encode(examples.targets), jax.random.key(1))
    return Case(job, params, feedback, batch)


def _problem(holds: Callable[[Case], str | None], case: Case) -> str | None:
    try:
        return holds(case)
    except NotChecked:
        raise
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}".partition("\n")[0]


def _finite(case: Case) -> str | None:
    return _infinite(case.updates())


def _feedback_finite(case: Case) -> str | None:
    if case.job.rule.learn is None:
        raise NotChecked("the feedback does not learn")
    changes = case.job.rule.learn(case.params, case.feedback, case.batch, case.updates())
    if jax.tree.structure(changes) != jax.tree.structure(case.feedback):
        return "they have another tree than the feedback"
    for (path, change), array in zip(
        jax.tree_util.tree_leaves_with_path(changes), jax.tree.leaves(case.feedback), strict=True
    ):
        if np.shape(change) != np.shape(array):
            return f"{jax.tree_util.keystr(path)} got {np.shape(change)} for {np.shape(array)}"
    return _infinite(changes)


def _infinite(updates: PyTree) -> str | None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
        if not np.isfinite(leaf).all():
            return f"the update of {jax.tree_util.keystr(path)} is not"
    return None


def _same_params(case: Case) -> str | None:
    if case.job.rule.extras.network is not None:
        raise NotChecked("the rule has a network of its own")
    return _different(case.params, case.job.network.init(jax.random.key(0)), 0)


def _seeds_differ(case: Case) -> str | None:
    if not jax.tree.leaves(case.feedback):
        raise NotChecked("the rule has no feedback")
    if all(np.all(leaf == np.ravel(leaf)[0]) for leaf in jax.tree.leaves(case.feedback)):
        raise NotChecked("nothing of the feedback is drawn")
    _, other = case.job.rule.init(jax.random.key(1))
    leaves = zip(jax.tree.leaves(case.feedback), jax.tree.leaves(other), strict=True)
    return None if any(np.any(a != b) for a, b in leaves) else "seeds 0 and 1 have the same"


def _repeatable(case: Case) -> str | None:
    return _different(case.updates(), case.updates(), 0)


def _compiled(case: Case) -> str | None:
    return _different(jax.jit(case.job.rule.updates)(case.params, case.feedback, case.batch), case.updates(), 1e-3)


def _vmapped(case: Case) -> str | None:
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    params, feedback = jax.vmap(case.job.rule.init)(keys)
    both = jax.vmap(case.job.rule.updates, (0, 0, None))(params, feedback, case.batch)
    alone = case.updates(params=jax.tree.map(lambda a: a[1], params), feedback=jax.tree.map(lambda a: a[1], feedback))
    return _different(jax.tree.map(lambda a: a[1], both), alone, 1e-3)


def _mean(case: Case) -> str | None:
    other_key = case.updates(batch=case.batch._replace(key=jax.random.key(2)))
    if _different(other_key, case.updates(), 0):
        raise NotChecked("the updates are random, so that no two batches are comparable")
    inputs, targets = (jnp.concatenate([a, a]) for a in case.batch[:2])
    twice = Batch(inputs, targets, case.batch.key)
    problem = _different(case.updates(batch=twice), case.updates(), 1e-3)
    return problem and f"{problem}; signals must include the 1/batch of the mean loss"


def _learns(case: Case) -> str | None:
    rule, loss, batch = case.job.rule, case.job.loss.value, case.batch
    params, feedback, optimizer = case.params, case.feedback, case.job.learner.optimizer
    of_feedback = case.job.learner.feedback_optimizer
    state, feedback_state = optimizer.init(params), of_feedback.init(feedback) if rule.learn else None

    @jax.jit
    def step(params, feedback, state, feedback_state, key):
        now = batch._replace(key=key)
        updates = rule.updates(params, feedback, now)
        if rule.learn is not None:
            changes = rule.learn(params, feedback, now, updates)
            changes, feedback_state = of_feedback.update(changes, feedback_state, feedback)
            feedback = optax.apply_updates(feedback, changes)
        updates, state = optimizer.update(updates, state, params)
        return optax.apply_updates(params, updates), feedback, state, feedback_state

    before = float(loss(rule.predict(params, batch.inputs), batch.targets))
    for key in jax.random.split(jax.random.key(3), STEPS):
        params, feedback, state, feedback_state = step(params, feedback, state, feedback_state, key)
    after = float(loss(rule.predict(params, batch.inputs), batch.targets))
    return None if after < before else f"it went from {before:.3g} to {after:.3g}; is the sign that of a gradient?"


PROPERTIES: dict[str, Callable[[Case], str | None]] = {
    "updates are finite": _finite,
    "updates of the feedback are finite, and shaped like it": _feedback_finite,
    "for one seed, params start as those of every other rule": _same_params,
    "feedback differs from seed to seed": _seeds_differ,
    "the same arguments give the same updates": _repeatable,
    "compiled updates equal those that are not": _compiled,
    "updates of several seeds at once equal those of each": _vmapped,
    "each example twice gives the same updates": _mean,
    f"the loss falls in {STEPS} steps on {EXAMPLES} examples": _learns,
}
"""What is checked, besides shapes."""


def _different(got: PyTree, needed: PyTree, tolerance: float) -> str | None:
    """Returns where two trees differ, relative to the largest entry of each array."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(needed), strict=True):
        scale = max(float(np.abs(b).max(initial=0)), 1e-6)
        if not np.allclose(a, b, rtol=0, atol=tolerance * scale):
            worst = float(np.abs(np.asarray(a) - np.asarray(b)).max())
            return f"{jax.tree_util.keystr(path)} differs by up to {worst:.2g}, of {scale:.2g}"
    return None
