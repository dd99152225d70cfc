"""Python objects given to `fa_jax.train`: checked, and described for the record."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fa_jax.api.keywords import named_arguments
from fa_jax.checks import BadOption
from fa_jax.cli.digests import ADDRESS, digest_of
from fa_jax.cli.given import Given, function_given, is_importable, is_plain, unnamed
from fa_jax.core import Loss, Task
from fa_jax.networks.module import network_of
from fa_jax.tasks.arrays import NAMES, from_arrays

FORMS = {
    "task": "a name, a fa_jax.core.Task, or arrays (x, y, x_test, y_test)",
    "architecture": "a name, a Flax module, or a function (input_shape, outputs) -> Network",
    "rule": "a name, or a function (network, loss) -> Rule; init_feedback=... draws its feedback",
    "optimizer": "a name, or an optax.GradientTransformation",
    "loss": "a name, a fa_jax.core.Loss, or a function (logits, targets) -> scalar",
}


def given_object(group: str, thing: Any) -> Given:
    """Returns an object as what takes the place of a config group's choice.

    Args:
      group: `task`, `architecture`, `rule`, `optimizer` or `loss`.
      thing: as in `FORMS`.

    Raises:
      BadOption: if it is none of these.
    """
    made = {"task": _task, "architecture": _network, "rule": _rule, "optimizer": _optimizer, "loss": _loss}[group](
        thing
    )
    if made is None:
        argument = "network" if group == "architecture" else group
        raise BadOption(f"must be {FORMS[group]}; got {type(thing).__name__}", argument, complete=True)
    return made


@named_arguments()
def arrays(
    x: Any, y: Any, x_test: Any = None, y_test: Any = None, *, preprocessing: str | None = None, validation: int = 0
) -> Task:
    """Returns the task of your own arrays, for `fa_jax.train`; arguments as for `tasks.arrays.from_arrays`."""
    content: dict[str, Any] = dict(zip(NAMES, (x, y, x_test, y_test), strict=True))
    return from_arrays(content, preprocessing=preprocessing, validation=validation)


def _task(thing: Any) -> Given | None:
    if isinstance(thing, tuple) and not isinstance(thing, Task) and len(thing) in (2, 4):
        try:
            thing = arrays(*thing)
        except BadOption as problem:
            raise problem.within("task") from None
    if not isinstance(thing, Task):
        return None
    content = [np.asarray(leaf) for leaf in jax.tree.leaves((thing.train, thing.test, thing.validation))]
    prepared = np.asarray(thing.prepare(thing.train.inputs[:2]))
    return unnamed("arrays", lambda: thing, thing.input_shape, thing.outputs, *content, prepared)


def _network(thing: Any) -> Given | None:
    if isinstance(thing, nn.Module):
        return _module(thing)
    return function_given(thing) if callable(thing) else None


def _module(module: nn.Module) -> Given:
    """Returns a module, whose config is its class and fields if others can import it, else a digest."""
    name = type(module).__name__
    target = f"{type(module).__module__}.{type(module).__qualname__}"
    fields = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("parent", "name") and field.init
    }

    def make(shape, outputs):
        return network_of(module, shape, outputs, name=name)

    plain = {field: list(value) if isinstance(value, tuple) else value for field, value in fields.items()}
    if is_importable(type(module), target) and is_plain(plain):
        factory = {"_target_": "fa_jax.networks.module.module", "_partial_": True}
        return Given(name, make, {**factory, "module": target, "arguments": plain}, digest_of(module))
    shown = ", ".join(f"{field}={value!r}" for field, value in fields.items() if is_plain(value))
    return unnamed(f"{name}({shown})", make, module, name=name)


def _rule(thing: Any) -> Given | None:
    return function_given(thing) if callable(thing) else None


def _optimizer(thing: Any) -> Given | None:
    if not (callable(getattr(thing, "init", None)) and callable(getattr(thing, "update", None))):
        return None
    like = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    try:
        state = thing.init(like)
        traced = jax.make_jaxpr(thing.update)(like, state, like)
    except Exception as problem:
        raise BadOption(f"cannot update params: {type(problem).__name__}: {problem}", "optimizer") from None
    initial = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    program = ADDRESS.sub("", str(traced.jaxpr))

    def make():
        return lambda steps: optax.GradientTransformation(thing.init, thing.update)

    return unnamed("optimizer", make, program, traced.consts, initial)


def _loss(thing: Any) -> Given | None:
    if isinstance(thing, Loss):
        return unnamed("loss", lambda: thing, thing)
    if not callable(thing):
        return None
    value: Callable = thing
    return function_given(value, lambda: Loss(value, lambda logits: logits))
