"""Gradients of dense, convolutional and locally connected layers in a form that XLA compiles to fast CPU code.

The numbers are those of JAX; only the order of axes differs, which XLA's CPU compiler rearranges by itself outside of
loops but not inside one, and a training loop is one. `grad` equals `jax.grad` up to rounding.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.primitives import BACKWARD

INNER = "fast_gradients_inner"
"""The name of the copy of a layer that computes its forward pass and is not intercepted again."""


def grad(function: Callable, **options: Any) -> Callable:
    """Returns `jax.grad(function, **options)`, with fast gradients of every Flax layer that the function applies.

    JAX keeps the trace of a jitted function, so apply `grad` outside of `jax.jit` alone: a function that is jitted
    inside of it has no forward mode afterwards.
    """

    def gradient(*arguments: Any) -> Any:
        with _enabled():
            return jax.grad(function, **options)(*arguments)

    return gradient


@contextlib.contextmanager
def _enabled() -> Iterator[None]:
    """While entered, layers have fast gradients in reverse mode, and none in forward mode."""
    with nn.intercept_methods(_intercept):
        yield


def _intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    layer = context.module
    fast = context.method_name == "__call__" and isinstance(layer, nn.Dense | nn.Conv | nn.ConvLocal)
    # A layer with feedback is applied again, without it, by `primitives.with_backward_weights`.
    if not fast or layer.is_initializing() or layer.name == INNER or layer.has_variable("params", BACKWARD):
        return call(*args, **kwargs)
    (x,) = (*args, *kwargs.values())
    return with_fast_gradient(layer, x) if _is_plain(layer, x) else call(*args, **kwargs)


def observe_with_fast_gradient(layer: nn.Module, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For `Network.observe_linear`: observes the outputs of linear layers, each a function of its own params alone.

    The gradient of the observations is that of each layer by itself, in the fast form where there is one.
    """
    observation = with_fast_gradient(layer, x) if _is_plain(layer, x) else y
    return jax.lax.stop_gradient(y), observation


def with_fast_gradient(layer: nn.Module, x: jax.Array) -> jax.Array:
    """Returns the output of a bound layer for which `_is_plain`."""
    return apply_linear(layer.clone(parent=None, name=INNER), layer.variables["params"], x)


def _is_plain(layer: nn.Module, x: jax.Array) -> bool:
    kernel = layer.variables["params"]["kernel"]
    return any(plain(layer, kernel, x) for plain in (_is_plain_dense, _is_plain_conv, _is_plain_local))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def apply_linear(layer: nn.Module, params: Any, x: jax.Array) -> jax.Array:
    """Returns `layer.apply({"params": params}, x)` of a layer named `INNER`."""
    return cast(jax.Array, layer.apply({"params": params}, x))


def _forward(layer, params, x):
    return apply_linear(layer, params, x), (params, x)


def _backward(layer, residuals, cotangent):
    params, x = residuals
    kernel = params["kernel"]
    if _is_plain_dense(layer, kernel, x):
        d_params = _dense_gradient(params, x, cotangent)
    elif _is_plain_conv(layer, kernel, x):
        d_params = _conv_gradient(layer, params, x, cotangent)
    else:
        (d_params,) = jax.vjp(lambda p: layer.apply({"params": p}, x), params)[1](cotangent)
    if _is_plain_conv(layer, kernel, x):
        d_x = _conv_cotangent(layer, kernel, x, cotangent)
    elif _is_plain_local(layer, kernel, x):
        d_x = _local_cotangent(layer, kernel, x, cotangent)
    else:
        (d_x,) = jax.vjp(lambda x: layer.apply({"params": params}, x), x)[1](cotangent)
    return d_params, d_x


apply_linear.defvjp(_forward, _backward)


def _is_plain_dense(layer: nn.Module, kernel: jax.Array, x: jax.Array) -> bool:
    """Returns whether a layer is `nn.Dense` itself: a subclass may use its params otherwise."""
    del kernel, x
    return type(layer) is nn.Dense and layer.dot_general is None and layer.dot_general_cls is None


def _is_plain_conv(layer: nn.Module, kernel: jax.Array, x: jax.Array) -> bool:
    return type(layer) is nn.Conv and _has_usual_window(layer, kernel, x)


def _is_plain_local(layer: nn.Module, kernel: jax.Array, x: jax.Array) -> bool:
    return type(layer) is nn.ConvLocal and _has_usual_window(layer, kernel, x)


def _has_usual_window(layer: nn.Module, kernel: jax.Array, x: jax.Array) -> bool:
    """Returns whether a convolution is two-dimensional, without dilation, groups or mask, and of one precision."""
    if x.ndim != 4 or {x.dtype, jnp.dtype(layer.dtype or x.dtype)} != {kernel.dtype}:
        return False
    if isinstance(layer.kernel_size, int) or len(layer.kernel_size) != 2 or layer.padding not in ("SAME", "VALID"):
        return False
    usual = type(layer)(layer.features, layer.kernel_size)
    names = ("feature_group_count", "input_dilation", "kernel_dilation", "precision")
    names += ("conv_general_dilated", "conv_general_dilated_cls")
    return layer.mask is None and all(getattr(layer, name) == getattr(usual, name) for name in names)


def _strides(layer: nn.Module) -> tuple[int, ...]:
    return (layer.strides,) * 2 if isinstance(layer.strides, int) else tuple(layer.strides or (1, 1))


def _dense_gradient(params, x, cotangent):
    """Returns `x^T cotangent`. JAX forms `(cotangent^T x)^T`.

    With a leading axis of seeds XLA does not see that both are equal, and spends a third of a training step on the
    transposition.
    """
    examples = tuple(range(x.ndim - 1))
    gradient = {"kernel": jnp.tensordot(x, cotangent, (examples, examples))}
    if "bias" in params:
        gradient["bias"] = jnp.sum(cotangent, examples)
    return jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, dict(params))


def _conv_gradient(layer: nn.Conv, params, x, cotangent):
    """Returns the gradient of a kernel as a convolution of inputs with cotangents, examples in place of channels."""
    stride = _strides(layer)
    window, image, places = params["kernel"].shape[:2], x.shape[1:3], cotangent.shape[1:3]
    pads = jax.lax.padtype_to_pads(image, window, stride, str(layer.padding))
    # Negative padding cuts off what the last window does not reach.
    reached = [(n - 1) * s + k for n, s, k in zip(places, stride, window, strict=True)]
    padding = [(low, end - size - low) for (low, _), end, size in zip(pads, reached, image, strict=True)]
    kernel = jax.lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        rhs_dilation=stride,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    gradient = {"kernel": kernel.transpose(1, 2, 0, 3)}
    if "bias" in params:
        gradient["bias"] = jnp.sum(cotangent, (0, 1, 2))
    return jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, dict(params))


def _conv_cotangent(layer: nn.Conv, kernel, x, cotangent):
    """Returns the input cotangent as a convolution of the output cotangent with the flipped kernel."""
    stride, window, image = _strides(layer), kernel.shape[:2], x.shape[1:3]
    pads = jax.lax.padtype_to_pads(image, window, stride, str(layer.padding))
    dilated = [(n - 1) * s + 1 for n, s in zip(cotangent.shape[1:3], stride, strict=True)]
    before = [k - 1 - low for k, (low, _) in zip(window, pads, strict=True)]
    sizes = zip(before, image, dilated, window, strict=True)
    return jax.lax.conv_general_dilated(
        cotangent,
        kernel[::-1, ::-1].transpose(0, 1, 3, 2),
        (1, 1),
        [(first, size + k - 1 - first - got) for first, size, got, k in sizes],
        lhs_dilation=stride,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _local_cotangent(layer: nn.ConvLocal, kernel, x, cotangent):
    """Returns the input cotangent of a locally connected layer, the sum over overlapping windows.

    JAX gathers the windows by a convolution, whose transpose takes many times as long on a CPU.
    """
    stride, window = _strides(layer), cast(tuple[int, ...], layer.kernel_size)
    places = cotangent.shape[1:3]

    def windows(image):
        padding = jax.lax.padtype_to_pads(image.shape[1:3], window, stride, str(layer.padding))
        image = jnp.pad(image, ((0, 0), *padding, (0, 0)))
        ends = [(n - 1) * s + 1 for n, s in zip(places, stride, strict=True)]
        offsets = [(i, j) for i in range(window[0]) for j in range(window[1])]
        parts = [image[:, i : i + ends[0] : stride[0], j : j + ends[1] : stride[1]] for i, j in offsets]
        return jnp.stack(parts, -1).reshape(len(image), *places, -1)  # Flax's order: channels, then the window

    (d_x,) = jax.vjp(windows, x)[1](jnp.einsum("bijf,ijkf->bijk", cotangent, kernel))
    return d_x
