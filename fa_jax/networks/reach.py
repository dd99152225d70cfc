"""Finds, from the jaxprs of a network, the kernels that the error crosses, other weights on its way, and the readout.

The backward pass of a rule such as feedback alignment replaces the kernels of Flax's linear layers. Two questions
decide whether it means what it says: does the error cross every backward kernel that is drawn, and does it cross any
other weights? The readout is what stands between the hidden layers and the output.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.errors
import flax.linen as nn
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from flax import traverse_util
from jax.interpreters import partial_eval

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.networks.variables import leaves_named
from fa_jax.primitives import LINEAR, is_linear_call

if TYPE_CHECKING:
    from fa_jax.network import Network

PRODUCTS = ("dot_general", "conv_general_dilated")
"""The operations by which weights mix the components of an activation."""
Names = frozenset[str] | None
"""The params that a value is computed from alone, by name; None: it depends on the inputs too."""


def crossed_kernels(network: "Network", params: PyTree) -> tuple[str, ...]:
    """Returns `network.crossed_kernels`, given the shapes of the params.

    Raises:
      BadOption: if the error crosses weights that are no kernel of a linear layer, or a layer cannot have others.
    """
    names, inputs = list(network.kernel_shapes), jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32)
    if others := _other_weights(network, params, inputs):
        raise BadOption(
            f"cannot replace the weights {others[0]} in the backward pass: the error crosses them outside of "
            f"{', '.join(layer.__name__ for layer in LINEAR)}; write the layer with one of these"
        )
    kernels, outputs = leaves_named(params, "kernel"), jax.eval_shape(network.apply, params, inputs)

    def backward(feedback, arguments):
        params, inputs, error = arguments
        return jax.vjp(lambda p: network.apply(p, inputs, backward_kernels=feedback), params)[1](error)

    try:
        reached = crossed(backward, {name: kernels[name] for name in names}, (params, inputs, outputs))
    except flax.errors.FlaxError as problem:  # such as a layer that renames or transforms the params of others
        reason = str(problem).partition(" (http")[0]
        raise BadOption(f"cannot give backward weights to layers of this network: {reason}") from None
    return tuple(name for name in names if name in reached)


def readout_params(network: "Network") -> frozenset[tuple[str, ...]]:
    """Returns the paths of the params on which the output depends if all hidden activations are given.

    Those that it depends on in training or in prediction count, running statistics aside.
    """
    params, key = jax.eval_shape(network.init, jax.random.key(0)), jax.random.key(0)
    inputs = jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32)
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)

    def outputs(leaves, states, inputs):
        given = traverse_util.unflatten_dict(dict(zip(flat, leaves, strict=True)))
        return [network.forward(given, inputs, key=mode, states=states)[0] for mode in (None, key)]

    closed = jax.make_jaxpr(outputs)(list(flat.values()), jax.eval_shape(network.hidden_zeros, inputs), inputs)
    _, used = partial_eval.dce_jaxpr(_without_effects(closed.jaxpr), [True] * len(closed.jaxpr.outvars))
    return frozenset(path for path, is_used in zip(flat, used, strict=False) if is_used) - network.statistics_paths


def is_layered(network: "Network") -> bool:
    """Returns whether hidden states reach the layers above them, and the output, through linear layers alone.

    Residual connections, for one, are other ways.
    """
    params, key = jax.eval_shape(network.init, jax.random.key(0)), jax.random.key(0)
    inputs = jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32)

    def around(layer, args, kwargs, context):
        y = layer(*args, **kwargs)
        return jnp.zeros_like(y) if is_linear_call(context) else y

    def outputs(states, arguments):
        params, inputs = arguments
        with nn.intercept_methods(around):
            return network.forward(params, inputs, key=key, states=states)

    states = jax.eval_shape(network.hidden_zeros, inputs)
    return not crossed(outputs, states, (params, inputs))


def _without_effects(jaxpr: Any) -> Any:
    """Returns a jaxpr whose equations have no effects, such as printing, for which they would count as used."""

    def cleared(value: Any) -> Any:
        if isinstance(value, jex.ClosedJaxpr):
            return value.replace(jaxpr=_without_effects(value.jaxpr))
        if isinstance(value, jex.Jaxpr):
            return _without_effects(value)
        return tuple(map(cleared, value)) if isinstance(value, tuple) else value

    equations = [
        equation.replace(effects=set(), params={name: cleared(value) for name, value in equation.params.items()})
        for equation in jaxpr.eqns
    ]
    return jaxpr.replace(eqns=equations, effects=set())


def _other_weights(network: "Network", params: PyTree, inputs: jax.ShapeDtypeStruct) -> list[str]:
    """Returns the paths of params that multiply activations without being the kernel of a linear layer."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    kernels = {"/".join((*name.split("/"), "kernel")).lstrip("/") for name in network.kernel_shapes}
    candidates = ["/".join(path) for path, leaf in flat.items() if leaf.ndim > 1 and "/".join(path) not in kernels]
    used = multiplying(network.apply, params, inputs) if candidates else ()
    return [path for path in candidates if path in used]


def crossed(
    backward: Callable[[Mapping[str, Any], PyTree], PyTree], feedback: Mapping[str, Any], arguments: PyTree
) -> list[str]:
    """Returns the names of the backward weights on which the result of a backward pass depends.

    Args:
      backward: `(feedback, arguments) -> updates`.
      feedback: shapes by name.
      arguments: shapes of the other arguments.
    """
    names = list(feedback)
    closed = jax.make_jaxpr(lambda *arrays: backward(dict(zip(names, arrays[:-1], strict=True)), arrays[-1]))(
        *feedback.values(), arguments
    )
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return [name for name, is_used in zip(names, used, strict=False) if is_used]


def multiplying(forward: Callable[[PyTree, jax.Array], Any], params: PyTree, inputs: Any) -> frozenset[str]:
    """Returns the paths of the params that activations are multiplied by, as matrices or as convolutions.

    Args:
      forward: `(params, inputs) -> outputs`.
      params, inputs: shapes.
    """
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    closed = jax.make_jaxpr(
        lambda leaves, x: forward(traverse_util.unflatten_dict(dict(zip(flat, leaves, strict=True))), x)
    )(list(flat.values()), inputs)
    multiplied: set[str] = set()
    names: list[Names] = [frozenset(["/".join(path)]) for path in flat]
    _follow(closed.jaxpr, [*names, *[None] * (len(closed.jaxpr.invars) - len(names))], multiplied)
    return frozenset(multiplied)


def _follow(jaxpr: Any, arguments: Sequence[Names], multiplied: set[str]) -> list[Names]:
    """Follows params through a jaxpr, adds those that multiply activations to `multiplied`, and returns its results."""
    known: dict[Any, Names] = dict.fromkeys(jaxpr.constvars, frozenset())
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def of(variable: Any) -> Names:
        return frozenset() if isinstance(variable, jex.Literal) else known[variable]

    for equation in jaxpr.eqns:
        operands = [of(variable) for variable in equation.invars]
        if equation.primitive.name in PRODUCTS:
            pure = [names for names in operands if names]
            if any(names is None for names in operands):
                multiplied.update(*pure)
        results = _inside(equation, operands, multiplied)
        if results is None or len(results) != len(equation.outvars):
            results = [_joined(operands)] * len(equation.outvars)
        known |= dict(zip(equation.outvars, results, strict=True))
    return [of(variable) for variable in jaxpr.outvars]


def _inside(equation: Any, operands: list[Names], multiplied: set[str]) -> list[Names] | None:
    """Follows params through the jaxprs in an equation, if it has any."""
    results: list[list[Names]] = []
    for inner in jex.jaxprs_in_params(equation.params):
        jaxpr = getattr(inner, "jaxpr", inner)
        size = len(jaxpr.invars)
        # Those of a branch or of a loop's body take the last operands.
        arguments = operands[-size:] if size else []
        if size > len(operands):
            arguments = [None] * size
        if equation.primitive.name in ("scan", "while"):
            # What a loop carries depends on the inputs, unless it never changes: then it is no argument of a product.
            start = equation.params.get("num_consts", equation.params.get("body_nconsts", 0))
            stop = start + equation.params.get("num_carry", size)
            arguments = [None if start <= i < stop else names for i, names in enumerate(arguments)]
        results.append(_follow(jaxpr, arguments, multiplied))
    if not results or any(len(result) != len(results[0]) for result in results):
        return None
    return [_joined(values) for values in zip(*results, strict=True)]


def _joined(operands: Sequence[Names]) -> Names:
    if any(names is None for names in operands):
        return None
    return frozenset().union(*(names for names in operands if names is not None))
