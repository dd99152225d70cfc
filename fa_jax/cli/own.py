"""Parts of the user's own: their import, their exceptions, and whether a rule keeps the contract."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fa_jax.checks import BadOption
from fa_jax.cli.given import name_of
from fa_jax.cli.trust import factories
from fa_jax.core import Batch, PyTree, Rule
from fa_jax.user.code import imported, place_of


def is_own(target: Any) -> bool:
    """Returns whether a target is of the user, and none of fa_jax's factories."""
    return target not in factories()


def check_importable(name: str, target: str) -> None:
    """Raises `BadOption` if a function of the user, which the option `name` calls, cannot be imported."""
    if not is_own(target):
        return
    try:
        imported(target)
    except Exception as problem:  # whatever the import of a module raises
        reason = f"{name} calls {target}, which cannot be imported: {place_of(problem)}"
        raise BadOption(reason, complete=True) from None


@contextlib.contextmanager
def users_exceptions(name: str, target: Any) -> Iterator[None]:
    """Turns an exception of the user's code into one line with its place; the exception stays its cause."""
    try:
        yield
    except BadOption:
        raise
    except Exception as problem:
        if not is_own(target):
            raise
        called = target if isinstance(target, str) else name_of(target)
        raise BadOption(f"{name}: {called} raised {place_of(problem)}", complete=True) from problem


def check_rule(rule: Rule, name: str, input_shape: tuple[int, ...], outputs: int) -> None:
    """Checks on shapes that a rule keeps the contract of `core.Rule`.

    Args:
      rule: to be checked.
      name: for messages.
      input_shape: of a batch.
      outputs: of the network.

    Raises:
      BadOption: naming the function that does not keep it.
    """
    params, feedback = jax.eval_shape(rule.init, jax.random.key(0))
    inputs: Any = jax.ShapeDtypeStruct(input_shape, np.float32)
    targets: Any = jax.ShapeDtypeStruct((input_shape[0], outputs), np.float32)
    batch = Batch(inputs, targets, jax.eval_shape(lambda: jax.random.key(0)))
    updates = jax.eval_shape(rule.updates, params, feedback, batch)
    if different := _difference(updates, params):
        raise BadOption(f"must return updates with the tree and the shapes of the params; {different}", name)
    if rule.learn is not None:
        learned = jax.eval_shape(rule.learn, params, feedback, batch, updates)
        if different := _difference(learned, feedback):
            raise BadOption(f"must learn with the tree and the shapes of the feedback; {different}", name)
    logits = jax.eval_shape(rule.predict, params, inputs)
    if getattr(logits, "shape", None) != (input_shape[0], outputs):
        got = getattr(logits, "shape", type(logits).__name__)
        raise BadOption(f"must predict logits {[input_shape[0], outputs]}; got {got}", name)


def _difference(got: PyTree, needed: PyTree) -> str:
    """Returns where a tree of shapes differs from the one that is needed, or an empty text."""
    trees = [
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (got, needed)
    ]
    for path in sorted(trees[0].keys() | trees[1].keys()):
        shapes = [f"{list(tree[path].shape)} {tree[path].dtype}" if path in tree else "nothing" for tree in trees]
        if shapes[0] != shapes[1]:
            return f"at {path or 'the root'} got {shapes[0]} for {shapes[1]}"
    return ""
