"""Python objects in the place of choices of config groups: how they are composed, built and recorded."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hydra.utils

from fa_jax.checks import BadOption

OBJECTS = Path(__file__).parents[1] / "api" / "objects"
"""A folder of configs whose choice `object` leaves its node to a Python object."""
OBJECT = "object"
TARGET = "fa_jax.api.given"
"""Stands in recorded configs for an object that cannot be named there; nothing has this name."""
ARGUMENTS = {"architecture": "network"}
"""The argument of `fa_jax.train` for a config group, where it has another name."""
PLAIN = (str, int, float, bool, type(None))


class Given(NamedTuple):
    """A Python object for a config group."""

    name: str
    """Recorded as the choice of the group, and shown in tables and figures."""
    make: Callable
    """The factory, called as the function is that a config of the group names."""
    node: dict[str, Any]
    """What is recorded of it. If it has a `_target_` that can be imported, it can be made again from the record."""


def recorded_config(config: Mapping[str, Any], given: Mapping[str, Given]) -> dict[str, Any]:
    """Returns a config in which the nodes and choices of groups say which objects were given."""
    names = {group: thing.name for group, thing in given.items()}
    return {
        **config,
        "choices": {**config["choices"], **names},
        **{group: choice.node for group, choice in given.items()},
    }


def with_factories(config: Mapping[str, Any], given: Mapping[str, Given]) -> dict[str, Any]:
    """Returns a config in which the objects themselves are the targets."""
    return {**config, **{group: {"_target_": thing.make} for group, thing in given.items()}}


def check_given(config: Mapping[str, Any], given: Mapping[str, Given]) -> None:
    """Checks that all objects are given which a config cannot name.

    Raises:
      BadOption: naming the first that is not, or that is another one than was recorded.
    """
    for group, node in config.items():
        if not isinstance(node, Mapping) or node.get("_target_") != TARGET:
            continue
        argument = ARGUMENTS.get(group, group)
        if group not in given:
            raise BadOption(
                f"{argument} was a Python object, {node.get('object')}; give it again: fa_jax.load(folder, "
                f"{argument}=...)",
                complete=True,
            )
        if given[group].node != {key: node.get(key) for key in given[group].node}:
            raise BadOption(f"{argument} is another object than the {node.get('object')} of the run", complete=True)


def function_node(function: Callable) -> dict[str, Any]:
    """Returns the config of a function: its name and options if others can import it, else a digest of its code."""
    keywords = dict(function.keywords) if isinstance(function, functools.partial) else {}
    bare = function.func if isinstance(function, functools.partial) and not function.args else function
    target = f"{getattr(bare, '__module__', None)}.{getattr(bare, '__qualname__', None)}"
    if is_importable(bare, target) and is_plain(keywords):
        return {"_target_": target, "_partial_": True, **keywords}
    return unnamed(name_of(function), *_code(bare), sorted((k, _described(v)) for k, v in keywords.items()))


def draws_feedback(factory: Callable) -> bool:
    """Returns whether the factory of a rule takes a function that draws its feedback."""
    return "init_feedback" in inspect.signature(factory).parameters


def name_of(thing: Any) -> str:
    """Returns a short name of a function or an object."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return getattr(thing, "__name__", type(thing).__name__).strip("<>")


def unnamed(described: str, *content: Any) -> dict[str, Any]:
    """Returns the node of an object that a config cannot name, with a digest that distinguishes it from others."""
    digest = hashlib.blake2b(digest_size=8)
    for part in content:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return {"_target_": TARGET, "object": described, "digest": digest.hexdigest()}


def is_importable(thing: Any, target: str) -> bool:
    """Returns whether a name leads to this very object, in other processes too."""
    if "<" in target or target.startswith(("__main__.", "builtins.", "None.")):
        return False
    try:
        return hydra.utils.get_object(target) is thing
    except Exception:
        return False


def is_plain(value: Any) -> bool:
    """Returns whether a config can hold a value as it is."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and key[:1] != "_" and is_plain(v) for key, v in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return type(value) in PLAIN and "${" not in str(value)


def _code(function: Callable) -> tuple[Any, ...]:
    """Returns what distinguishes a function: its source, or else its name, with defaults and what it closes over."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = repr(function)
    cells = [_described(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    return source, [_described(value) for value in getattr(function, "__defaults__", None) or ()], cells


def _described(value: Any) -> str:
    """Returns the `repr` of a value; of an array, which shows some of its entries alone, with all of them."""
    return f"{value!r} {value.__array__().tobytes()}" if hasattr(value, "__array__") else repr(value)
