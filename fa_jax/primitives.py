"""Three `jax.custom_vjp`s with which a learning rule modifies the backward pass, and how a Flax module applies them.

`with_backward_weights` sends a cotangent through separate backward weights (feedback alignment and related rules), and
`with_product_weights` through a product of two; the interceptor `use_backward_kernels` applies them to linear layers.
`replace_cotangent` replaces a cotangent by a learning signal (direct feedback alignment and related rules); the layer
`Hidden` applies it at the end of a hidden layer.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption

LINEAR = (nn.Dense, nn.DenseGeneral, nn.Einsum, nn.Conv, nn.ConvLocal, nn.ConvTranspose)
"""The Flax layers that are linear in their input, so that their backward weights can be replaced. Layers of other
classes keep their true backward pass; if the error crosses weights of theirs, `Network.crossed_kernels` refuses the
network."""

BACKWARD = "backward_kernel"
"""The name of a layer's backward kernel, which stands beside its kernel among the params of one forward pass. Whatever
carries the params to a layer (`nn.scan`, `nn.vmap`, `nn.remat`, `nn.RNN`) then carries the backward kernel too."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_backward_weights(layer: nn.Module, params: Any, backward_params: Any, x: jax.Array) -> jax.Array:
    """Applies a linear layer whose input cotangent passes through another kernel instead of the layer's own.

    The params get their ordinary gradient and the other kernel a zero one. With equal kernels this is the layer itself,
    forward and backward, bit for bit.

    Args:
      layer: an unbound Flax layer, linear in `x`.
      params: the params of the layer, a dict with `kernel` and perhaps `bias`.
      backward_params: a dict with `kernel`, shaped like the layer's. The layer's kernel is W^T in the notation of the
        papers, y = W x, and this one is B.
      x: `[batch, ...]`.

    Returns:
      `layer.apply({"params": params}, x)`.

    Reference: Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks",
      arXiv 1411.0247, 2014: `W^T` replaced by `B`.
    """
    del backward_params
    return cast(jax.Array, layer.apply({"params": params}, x))


def _linear_forward(layer, params, backward_params, x):
    return layer.apply({"params": params}, x), (params, backward_params, x)


def _linear_backward(layer, residuals, cotangent):
    params, backward_params, x = residuals
    with_replaced_kernel = {**params, **backward_params}  # W^T replaced by B: this is feedback alignment
    _, params_vjp = jax.vjp(lambda params: layer.apply({"params": params}, x), params)
    _, input_vjp = jax.vjp(lambda x: layer.apply({"params": with_replaced_kernel}, x), x)
    return *params_vjp(cotangent), jax.tree.map(jnp.zeros_like, backward_params), *input_vjp(cotangent)


with_backward_weights.defvjp(_linear_forward, _linear_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_product_weights(layer: nn.Module, params: Any, factors: Any, x: jax.Array) -> jax.Array:
    """Applies a linear layer whose input cotangent passes through two matrices, which are never multiplied out.

    The params get their ordinary gradient, and `fixed` a zero one. `learned` gets the gradient that it would have as
    the kernel of a forward layer with the same input, given the cotangent between both factors.

    Args:
      layer: an unbound Flax layer, one that `has_product` accepts.
      params: as for `with_backward_weights`.
      factors: a dict with `fixed`, `[m, outputs]`, which the cotangent passes first, and `learned`, the kernel of such
        a layer with m outputs. In the notation of the papers they are B^T and R^T.
      x: `[batch, ...]`.

    Returns:
      `layer.apply({"params": params}, x)`.
    """
    del factors
    return cast(jax.Array, layer.apply({"params": params}, x))


def _product_backward(layer, residuals, cotangent):
    params, factors, x = residuals
    output_axes = 1 if isinstance(layer.features, int) else len(layer.features)
    flat = cotangent.reshape(*cotangent.shape[: cotangent.ndim - output_axes], -1)
    inner_cotangent = flat @ factors["fixed"].T
    factor_layer = layer.clone(features=inner_cotangent.shape[-1], use_bias=False)

    def apply(kernel, x):
        return factor_layer.apply({"params": {"kernel": kernel}}, x)

    _, params_vjp = jax.vjp(lambda params: layer.apply({"params": params}, x), params)
    _, learned_vjp = jax.vjp(lambda kernel: apply(kernel, x), factors["learned"])
    _, input_vjp = jax.vjp(lambda x: apply(factors["learned"], x), x)
    factor_updates = {"fixed": jnp.zeros_like(factors["fixed"]), "learned": learned_vjp(inner_cotangent)[0]}
    return *params_vjp(cotangent), factor_updates, *input_vjp(inner_cotangent)


with_product_weights.defvjp(_linear_forward, _product_backward)


def has_product(layer: nn.Module) -> bool:
    """Returns whether `with_product_weights` is defined for a layer: for dense layers and ungrouped convolutions."""
    if isinstance(layer, nn.DenseGeneral):
        return not layer.batch_dims
    return isinstance(layer, nn.Dense) or (isinstance(layer, nn.Conv) and layer.feature_group_count == 1)


def is_linear_call(context: nn.module.InterceptorContext) -> bool:
    """Returns whether an intercepted call is the `__call__` of a linear layer whose params exist already."""
    module = context.module
    return context.method_name == "__call__" and isinstance(module, LINEAR) and not module.is_initializing()


def only_argument(args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Returns the input of an intercepted layer, passed by position or by name."""
    (x,) = (*args, *kwargs.values())
    return x


def use_backward_kernels(layer: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    """Flax interceptor: gives backward weights to every linear layer that has a `BACKWARD` among its params.

    Raises:
      BadOption: if they are a product, and `has_product` refuses the layer.
    """
    module = context.module
    if not is_linear_call(context) or not module.has_variable("params", BACKWARD):
        return layer(*args, **kwargs)
    unbound = module.clone(parent=None, name=None)  # the vjp applies the layer to params of its own
    params, x = dict(module.variables["params"]), only_argument(args, kwargs)
    backward = params.pop(BACKWARD)
    if isinstance(backward, Mapping):
        if not has_product(unbound):
            reason = "has product feedback, which is defined for dense layers and for convolutions without groups"
            raise BadOption(f"{reason}; {'/'.join(module.path)} is a {type(module).__name__}")
        return with_product_weights(unbound, params, dict(backward), x)
    return with_backward_weights(unbound, params, {"kernel": backward}, x)


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


def _replace_forward(h, signal):
    return h, signal


def _replace_backward(signal, cotangent):
    del cotangent
    return signal, jnp.zeros_like(signal)


replace_cotangent.defvjp(_replace_forward, _replace_backward)


class Hidden(nn.Module):
    """The identity, placed at the end of a hidden layer: records the activation, and can replace it or its cotangent.

    Its position is part of the rule: in a residual network on the residual stream after each sum, in a convolutional
    stage after the pooling, and after the dropout; in a recurrent layer on the state, inside the recurrence.

    Flax collections: writes the activation to `hidden/h`; adds `perturbation/h` to it and replaces its cotangent by
    `signal/h`, if these are given. If `state/h` is given, the layers above receive it instead, and no cotangent passes.
    """

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        if self.has_variable("perturbation", "h"):
            h = h + self.get_variable("perturbation", "h")
        sow_array(self, "hidden", "h", h)
        if self.has_variable("state", "h"):
            return self.get_variable("state", "h")
        return replace_cotangent(h, self.get_variable("signal", "h")) if self.has_variable("signal", "h") else h


def sow_array(module: nn.Module, collection: str, name: str, array: jax.Array) -> None:
    """Writes an array to a Flax collection as it is; by default, `sow` would append it to a tuple."""
    module.sow(collection, name, array, init_fn=lambda: array, reduce_fn=lambda _, new: new)
