"""`freeze` builds the rule in which some params of another rule keep their initial values: its control.

For a rule that adds a network or heads, such a control removes the learning of hidden layers and nothing else. The
option `frozen`, as in `frozen=[stages_*]`, freezes params of any rule by their names.
"""

import fnmatch
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, nearest, sequence
from fa_jax.core import PyTree, Rule
from fa_jax.optimizers import Path, keys


def freeze(rule: Rule, is_frozen: Callable[[Path], bool]) -> Rule:
    """Returns a rule whose frozen params keep their initial values, bit for bit, under any optimizer.

    Their updates are zero, so that they have no part in a norm that is clipped, and so is their learning-rate
    multiplier, so that they do not decay. Running statistics of normalisation layers are still updated. Feedback that
    takes the steps of frozen params (`Extras.partners`) keeps its initial values, too, and a rule that perturbs its
    params leaves out frozen ones (`Extras.without`).

    Args:
      rule: any rule. Its signals and all other feedback stay as they are.
      is_frozen: `(path of a param) -> bool`, such as of `("stages_1", "linear", "kernel")`.
    """
    of_others = rule if rule.extras.without is None else rule.extras.without(is_frozen)
    held = {array for array, param in rule.extras.partners if is_frozen(param)}

    def updates(params, feedback, batch):
        return _without(of_others.updates(params, feedback, batch), is_frozen)

    def learn(params, feedback, batch, updates):
        assert rule.learn is not None
        return _without(rule.learn(params, feedback, batch, updates), held.__contains__)

    def multipliers(params):
        rates = _multipliers(rule, params)
        return jax.tree_util.tree_map_with_path(lambda path, rate: 0.0 if is_frozen(keys(path)) else rate, rates)

    def without(is_frozen_too):
        return freeze(rule, lambda path: is_frozen(path) or is_frozen_too(path))

    extras = rule.extras._replace(
        learning_rate_multipliers=multipliers, fixed_feedback=rule.extras.fixed_feedback | held, without=without
    )
    return rule._replace(updates=updates, learn=learn if held else rule.learn, extras=extras)


def freeze_named(rule: Rule, patterns: Sequence[str], statistics: Collection[Path] = frozenset()) -> Rule:
    """Returns a rule in which the params of some names keep their initial values.

    Args:
      rule: any rule.
      patterns: names of params or of layers, such as `stages_1` or `stages_1/linear/kernel`, in which `*` stands for
        anything.
      statistics: the paths of running statistics, which do not learn.

    Raises:
      BadOption: if a pattern names no params that learn, or nothing is left to learn.
    """
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    paths = [keys(path) for path, _ in jax.tree.leaves_with_path(params)]
    learning = _learning(rule, params) - set(statistics)
    names = sequence("frozen", patterns, "[stages_0,stages_1] or [stages_*]")
    if not names:
        raise BadOption("must name params, or be null; got []", "frozen")
    chosen: set[Path] = set()
    for pattern in names:
        named = {path for path in paths if _matches(path, str(pattern))}
        if not named:
            parts = list(dict.fromkeys(path[0] for path in paths))
            raise BadOption(
                f"must name params, such as those in {', '.join(parts)}; got {pattern!r}{nearest(str(pattern), parts)}",
                "frozen",
            )
        if not named & learning:
            raise BadOption(f"has no effect with {pattern!r}: it names what this rule does not train", "frozen")
        chosen |= named
    if not learning - chosen:
        raise BadOption(f"must leave something to learn; got {list(patterns)}, which is everything", "frozen")
    return freeze(rule, chosen.__contains__)


def _without(updates: PyTree, is_fixed: Callable[[Path], bool]) -> PyTree:
    """Returns updates that are zero for what is fixed."""
    return jax.tree_util.tree_map_with_path(
        lambda path, update: jnp.zeros_like(update) if is_fixed(keys(path)) else update, updates
    )


def _learning(rule: Rule, params: PyTree) -> set[Path]:
    """Returns the paths of the params that a rule does not freeze itself."""
    return {keys(path) for path, rate in jax.tree.leaves_with_path(_multipliers(rule, params)) if rate}


def _multipliers(rule: Rule, params: PyTree) -> PyTree:
    """Returns the learning-rate multiplier of each param: 1 unless the rule has others."""
    rates = rule.extras.learning_rate_multipliers
    return jax.tree.map(lambda _: 1.0, params) if rates is None else rates(params)


def _matches(path: Path, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase("/".join(path[:length]), pattern) for length in range(1, len(path) + 1))
