"""Stacks of equal layers under `nn.scan` or `nn.vmap`: whether what is given for hidden layers reaches them."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.networks.shapes import ActivationShape
from fa_jax.networks.variables import unflatten
from fa_jax.primitives import Hidden

GIVEN = ("signal", "perturbation", "state")
"""The Flax collections that `Hidden` reads."""


def check_stacks(
    module: nn.Module, variables: PyTree, input_shape: tuple[int, ...], hidden_shapes: Mapping[str, ActivationShape]
) -> None:
    """Checks that signals, perturbations and states reach the hidden layers of a module, whose stacks may drop them.

    Args:
      module: with hidden layers.
      variables: shapes of its params and running statistics.
      input_shape: of one example.
      hidden_shapes: as of `Network`.

    Raises:
      BadOption: if they do not: a rule that sends signals would silently be backprop.
    """

    def look(layer, args, kwargs, context):
        if isinstance(context.module, Hidden):
            for collection in GIVEN:
                if not context.module.has_variable(collection, "h"):
                    raise unstacked(module, f"the {collection} of {'/'.join(context.module.path)}")
        return layer(*args, **kwargs)

    def run(variables, inputs, arrays):
        given = {collection: unflatten(arrays, "h") for collection in GIVEN}
        with nn.intercept_methods(look):
            return module.apply({**variables, **given}, inputs, mutable=["hidden"])

    zeros = {name: jax.ShapeDtypeStruct((*h.stack, 1, *h.shape), jnp.float32) for name, h in hidden_shapes.items()}
    jax.eval_shape(run, variables, jax.ShapeDtypeStruct((1, *input_shape), jnp.float32), zeros)


def unstacked(module: nn.Module, what: str) -> BadOption:
    """Returns the refusal of a module that loses arrays of a hidden layer in a stack."""
    axes = ", ".join(f"'{collection}': 0" for collection in ("params", "hidden", *GIVEN))
    return BadOption(
        f"does not stack {what}: nn.scan and nn.vmap need variable_axes={{{axes}}} around a layer with Hidden",
        type(module).__name__,
    )
