"""`freeze` builds the rule in which some params of another rule keep their initial values: its control.

For a rule that adds a network or heads, such a control removes the learning of hidden layers and nothing else. The
option `frozen`, as in `frozen=[stages_*]`, freezes params of any rule by their names.
"""

import fnmatch
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, nearest, sequence
from fa_jax.core import PyTree, Rule

Path = tuple[str, ...]


def freeze(rule: Rule, is_frozen: Callable[[Path], bool]) -> Rule:
    """Returns a rule whose frozen params keep their initial values, bit for bit, under any optimizer.

    Their updates are zero, so that they have no part in a norm that is clipped, and so is their learning-rate
    multiplier, so that they do not decay. Running statistics of normalisation layers are still updated.

    Args:
      rule: any rule. Its signals and its feedback stay as they are.
      is_frozen: `(path of a param) -> bool`, such as of `("stages_1", "linear", "kernel")`.
    """

    def by_param(function: Callable[[bool, jax.Array], jax.Array | float], tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: function(is_frozen(_keys(path)), leaf), tree)

    def updates(params, feedback, batch):
        of_rule = rule.updates(params, feedback, batch)
        return by_param(lambda frozen, update: jnp.zeros_like(update) if frozen else update, of_rule)

    def multipliers(params):
        return by_param(lambda frozen, rate: 0.0 if frozen else rate, _multipliers(rule, params))

    return rule._replace(updates=updates, extras=rule.extras._replace(learning_rate_multipliers=multipliers))


def freeze_named(rule: Rule, patterns: Sequence[str]) -> Rule:
    """Returns a rule in which the params of some names keep their initial values.

    Args:
      rule: any rule.
      patterns: names of params or of layers, such as `stages_1` or `stages_1/linear/kernel`, in which `*` stands for
        anything.

    Raises:
      BadOption: if a pattern names no params, or nothing is left to learn.
    """
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    paths = [_keys(path) for path, _ in jax.tree.leaves_with_path(params)]
    chosen: set[Path] = set()
    for pattern in sequence("frozen", patterns, "[stages_0,stages_1] or [stages_*]"):
        named = {path for path in paths if _matches(path, str(pattern))}
        if not named:
            parts = list(dict.fromkeys(path[0] for path in paths))
            raise BadOption(
                f"must name params, such as those in {', '.join(parts)}; got {pattern!r}{nearest(str(pattern), parts)}",
                "frozen",
            )
        chosen |= named
    if not _learning(rule, params) - chosen:
        raise BadOption(f"must leave something to learn; got {list(patterns)}, which is everything", "frozen")
    return freeze(rule, chosen.__contains__) if chosen else rule


def _learning(rule: Rule, params: PyTree) -> set[Path]:
    """Returns the paths of the params that a rule does not freeze itself."""
    return {_keys(path) for path, rate in jax.tree.leaves_with_path(_multipliers(rule, params)) if rate}


def _multipliers(rule: Rule, params: PyTree) -> PyTree:
    """Returns the learning-rate multiplier of each param: 1 unless the rule has others."""
    rates = rule.extras.learning_rate_multipliers
    return jax.tree.map(lambda _: 1.0, params) if rates is None else rates(params)


def _matches(path: Path, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase("/".join(path[:length]), pattern) for length in range(1, len(path) + 1))


def _keys(path: Sequence) -> Path:
    return tuple(entry.key for entry in path)
