"""Networks of your own: any Flax module, checked to fit the task before anything is compiled."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.network import STATISTICS, Network
from fa_jax.user.code import imported, place_of

CARRIED = ("params", STATISTICS, "hidden")
"""The collections of a module that training carries; `hidden` is written by `Hidden` in every pass."""
MODES = ("train", "training", "is_training", "deterministic", "use_running_average")
"""Arguments by which modules are told whether they train."""


def module(input_shape: tuple[int, ...], outputs: int, *, module: str, arguments: Mapping[str, Any] | None) -> Network:
    """Returns the network of a Flax module by its name.

    Args:
      input_shape: of one example.
      outputs: the number of outputs.
      module: where it can be imported from, such as `mylab.nets.ViT`: a class of modules, or a function that makes one.
      arguments: its arguments; None: it takes none.

    Raises:
      BadOption: if it cannot be imported or made, or does not fit the task.
    """
    if not isinstance(module, str):
        raise BadOption(f"must be the name of a Flax module, such as mylab.nets.ViT; got {module!r}", "module")
    if arguments is not None and not isinstance(arguments, Mapping):
        raise BadOption(f"must be a mapping of names to values, such as {{width: 64}}; got {arguments!r}", "arguments")
    try:
        factory = imported(module)
    except Exception as problem:
        raise BadOption(f"{module} cannot be imported: {place_of(problem)}", "module") from None
    try:
        made = factory(**(arguments or {}))
    except Exception as problem:
        raise BadOption(f"of {module}: {place_of(problem)}", "arguments") from None
    return network_of(made, input_shape, outputs, name=module)


def network_of(made: Any, input_shape: tuple[int, ...], outputs: int, *, name: str) -> Network:
    """Returns the network of a Flax module.

    Args:
      made: the module. It is called with inputs `[batch, *input_shape]` alone and returns logits `[batch, outputs]`.
      input_shape: of one example.
      outputs: the number of outputs.
      name: for messages.

    Raises:
      BadOption: if it is no module, or does not fit the task.
    """
    if not isinstance(made, nn.Module):
        raise BadOption(f"{name} must be a module of flax.linen; got {type(made).__name__}", complete=True)
    _check_arguments(made, name)
    shape = (1, *input_shape)
    try:
        variables = jax.eval_shape(made.init, jax.random.key(0), jnp.zeros(shape))
    except Exception as problem:
        raise BadOption(f"{name} fails on inputs {list(shape)}: {place_of(problem)}", complete=True) from None
    if others := sorted(set(variables) - set(CARRIED)):
        raise BadOption(
            f"{name} keeps state in the collection {others[0]}, and training carries params and batch_stats alone",
            complete=True,
        )
    if not jax.tree.leaves(variables.get("params", {})):
        raise BadOption(f"{name} has no params to train", complete=True)
    network = Network(made, tuple(input_shape))
    # In training: with dropout, and with the statistics of the batch.
    shapes, key = jax.eval_shape(network.init, jax.random.key(0)), jax.random.key(0)
    try:
        logits = jax.eval_shape(lambda p, x: network.apply(p, x, key=key), shapes, jnp.zeros((3, *input_shape)))
    except Exception as problem:
        raise BadOption(f"{name} fails in training: {place_of(problem)}", complete=True) from None
    got = getattr(logits, "shape", type(logits).__name__)
    if got != (3, outputs):
        got = list(got) if isinstance(got, tuple) else got
        raise BadOption(
            f"{name} must return logits [3, {outputs}] for 3 examples of this task; got {got}", complete=True
        )
    if logits.dtype != jnp.float32:
        raise BadOption(f"{name} must return logits of float32; got {logits.dtype}", complete=True)
    return network


def _check_arguments(made: nn.Module, name: str) -> None:
    """Checks that a module is called with inputs alone."""
    parameters = list(inspect.signature(type(made).__call__).parameters.values())[1:]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    modes = [p.name for p in parameters if p.name in MODES]
    if modes:
        raise BadOption(
            f"{name} is told by its argument {modes[0]} whether it trains, which nobody gives it: write "
            "nn.Dropout(rate, deterministic=not self.has_rng('dropout')) and leave the argument out",
            complete=True,
        )
    if len(needed) != 1:
        raise BadOption(f"{name} must be called with the inputs alone; it needs {', '.join(needed)}", complete=True)
