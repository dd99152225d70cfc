"""Two `jax.custom_vjp`s with which a learning rule modifies the backward pass.

`with_backward_weights` sends a cotangent through separate backward weights (feedback alignment and related rules).
`replace_cotangent` replaces a cotangent by a learning signal (direct feedback alignment and related rules).
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

LINEAR = (nn.Dense, nn.DenseGeneral, nn.Einsum, nn.Conv, nn.ConvLocal, nn.ConvTranspose)
"""The Flax layers that are linear in their input, so that their backward weights can be replaced."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_backward_weights(layer: nn.Module, params: Any, feedback: Any, x: jax.Array) -> jax.Array:
    """Applies a linear layer whose input cotangent passes through `feedback` instead of the layer's own kernel.

    The params get their ordinary gradient and the feedback a zero one. With feedback equal to the kernel this is the
    layer itself, forward and backward, bit for bit.

    Args:
      layer: an unbound Flax layer, linear in `x`.
      params: the params of the layer, a dict with `kernel` and perhaps `bias`.
      feedback: a dict with `kernel`, shaped like the layer's. In the papers' notation, `B = kernel^T`.
      x: `[batch, ...]`.

    Returns:
      `layer.apply({"params": params}, x)`.

    Reference: Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks",
      arXiv 1411.0247, 2014: `W^T` replaced by `B`.
    """
    del feedback
    return cast(jax.Array, layer.apply({"params": params}, x))


def _forward(layer, params, feedback, x):
    return layer.apply({"params": params}, x), (params, feedback, x)


def _backward(layer, residuals, cotangent):
    params, feedback, x = residuals
    (d_params,) = jax.vjp(lambda p: layer.apply({"params": p}, x), params)[1](cotangent)
    (d_x,) = jax.vjp(lambda x: layer.apply({"params": {**params, **feedback}}, x), x)[1](cotangent)
    return d_params, jax.tree.map(jnp.zeros_like, feedback), d_x


with_backward_weights.defvjp(_forward, _backward)


@jax.custom_vjp
def replace_cotangent(h: jax.Array, signal: jax.Array) -> jax.Array:
    """Returns `h`; in the backward pass its cotangent is discarded and replaced by `signal`.

    Args:
      h: an activation, `[batch, ...]`.
      signal: the substitute for dL/dh, with the shape and dtype of `h`. It includes the `1/batch` of a mean loss
        and has the sign of a gradient.

    Reference: Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, fig. 1c.
    """
    del signal
    return h


replace_cotangent.defvjp(lambda h, signal: (h, signal), lambda signal, cotangent: (signal, jnp.zeros_like(signal)))


def use_feedback(layer: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    """Flax interceptor: gives backward weights to every linear layer with a kernel in the `feedback` collection."""
    module = context.module
    if not is_linear_call(context) or not module.has_variable("feedback", "kernel"):
        return layer(*args, **kwargs)
    (x,) = (*args, *kwargs.values())
    unbound = module.clone(parent=None, name=None)
    return with_backward_weights(unbound, module.variables["params"], module.variables["feedback"], x)


def is_linear_call(context: nn.module.InterceptorContext) -> bool:
    """Returns whether an intercepted call is the `__call__` of a linear layer whose params exist already."""
    module = context.module
    return context.method_name == "__call__" and isinstance(module, LINEAR) and not module.is_initializing()
