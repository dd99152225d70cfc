"""Python objects in the place of choices of config groups: how they are composed, built and recorded."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hydra.utils

from fa_jax.checks import BadOption
from fa_jax.cli.digests import digest_of

OBJECTS = Path(__file__).parents[1] / "api" / "objects"
"""A folder of configs whose choice `object` leaves its node to a Python object."""
OBJECT = "object"
TARGET = "fa_jax.api.given"
"""Stands in recorded configs for an object that cannot be named there; nothing has this name."""
ARGUMENTS = {"task": "task", "architecture": "network", "rule": "rule", "loss": "loss", "optimizer": "optimizer"}
"""The config groups whose choice can be an object, with the argument of `fa_jax.train` that takes it."""
PLAIN = (str, int, float, bool, type(None))


class Given(NamedTuple):
    """A Python object for a config group."""

    name: str
    """Recorded as the choice of the group, and shown in tables and figures."""
    make: Callable
    """The factory, called as the function is that a config of the group names."""
    node: dict[str, Any]
    """What is recorded of it. If it has a `_target_` that can be imported, it can be made again from the record."""
    digest: str
    """The digest of its code and values, which tells whether it is the object of a record."""


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

    Args:
      config: of a run.
      given: objects, by their config group.

    Raises:
      BadOption: naming all that are not, or all that are others than were recorded.
    """
    nodes = {argument: config.get(group) for group, argument in ARGUMENTS.items()}
    objects = {
        argument: node
        for argument, node in nodes.items()
        if isinstance(node, Mapping) and node.get("_target_") == TARGET
    }
    by_argument = {ARGUMENTS[group]: thing for group, thing in given.items()}
    if missing := objects.keys() - by_argument.keys():
        names = [(argument, node.get("object")) for argument, node in objects.items() if argument in missing]
        described = ", ".join(argument if name == argument else f"{argument}: {name}" for argument, name in names)
        arguments = ", ".join(f"{argument}=..." for argument in nodes if argument in missing | by_argument.keys())
        raise BadOption(
            f"the run was given Python objects that its config cannot hold ({described}); fa_jax.load(folder, "
            f"{arguments}) opens it with them"
        )
    others = [argument for argument, node in objects.items() if by_argument[argument].digest != node.get("digest")]
    if others:
        named = " and ".join(
            f"{name} is another object than the {objects[name].get('object')} of the run" for name in others
        )
        raise BadOption(f"{named}: its code, or a value in it, is not what was recorded")


def function_given(function: Callable, make: Callable | None = None) -> Given:
    """Returns a function as what takes the place of a choice.

    Its config is its name and options if others can import it, else a digest of its code.

    Args:
      function: that was given.
      make: the factory; None: the function itself.
    """
    keywords = dict(function.keywords) if isinstance(function, functools.partial) else {}
    bare = function.func if isinstance(function, functools.partial) and not function.args else function
    target = f"{getattr(bare, '__module__', None)}.{getattr(bare, '__qualname__', None)}"
    if make is None and is_importable(bare, target) and is_plain(keywords):
        node = {"_target_": target, "_partial_": True, **keywords}
        return Given(name_of(function), function, node, digest_of(function))
    return unnamed(name_of(function), make or function, function)


def draws_feedback(factory: Callable) -> bool:
    """Returns whether the factory of a rule takes a function that draws its feedback."""
    return "init_feedback" in inspect.signature(factory).parameters


def name_of(thing: Any) -> str:
    """Returns a short name of a function or an object."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return getattr(thing, "__name__", type(thing).__name__).strip("<>")


def unnamed(described: str, make: Callable, *content: Any, name: str | None = None) -> Given:
    """Returns an object that a config cannot name, with a digest of its content that distinguishes it from others."""
    digest = digest_of(*content)
    return Given(name or described, make, {"_target_": TARGET, "object": described, "digest": digest}, digest)


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
