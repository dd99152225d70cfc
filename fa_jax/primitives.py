"""The two ways in which a learning rule departs from backprop, and the only two `jax.custom_vjp`s of the project.

`transport` lets a cotangent cross other weights than the forward ones (feedback alignment and its kin).
`teach` throws a cotangent away and puts a learning signal in its place (direct feedback alignment and its kin).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

LINEAR = (nn.Dense, nn.DenseGeneral, nn.Einsum, nn.Conv, nn.ConvLocal, nn.ConvTranspose)
"""The stock Flax layers that are linear in their input, so whose backward weights can be exchanged."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def transport(layer: nn.Module, params: Any, feedback: Any, x: jax.Array) -> jax.Array:
    """Applies a linear layer whose input cotangent crosses other weights than its own.

    The params still get their ordinary gradient, the feedback gets a zero one. With feedback equal to the kernel this
    is the layer itself, forward and backward, bit for bit.

    Args:
      layer: an unbound stock Flax layer, linear in `x`.
      params: the layer's own, a dict with a `kernel` and perhaps a `bias`.
      feedback: a dict with a `kernel` of the shape of the layer's; `B = kernel^T` in the notation of the papers.
      x: `[batch, ...]`.

    Returns:
      `layer.apply({"params": params}, x)`.

    Reference: Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks",
      arXiv 1411.0247, 2014: `W^T` replaced by `B`.
    """
    del feedback
    return _apply(layer, params, x)


def _apply(layer: nn.Module, params: Any, x: jax.Array) -> Any:
    return layer.apply({"params": params}, x)


def _transport_forward(layer, params, feedback, x):
    return _apply(layer, params, x), (params, feedback, x)


def _transport_backward(layer, residuals, cotangent):
    params, feedback, x = residuals
    if _is_plain_dense(layer):
        to_params = _dense_gradient(params, x, cotangent)
    elif _is_plain(layer, nn.Conv, params["kernel"], x):
        to_params = _convolution_gradient(layer, params, x, cotangent)
    else:
        (to_params,) = jax.vjp(lambda p: _apply(layer, p, x), params)[1](cotangent)
    if _is_plain(layer, nn.Conv, params["kernel"], x):
        to_x = _convolution_cotangent(layer, feedback["kernel"], x, cotangent)
    elif _is_plain(layer, nn.ConvLocal, params["kernel"], x):
        to_x = _local_cotangent(layer, feedback["kernel"], x, cotangent)
    else:
        (to_x,) = jax.vjp(lambda x: _apply(layer, {**params, **feedback}, x), x)[1](cotangent)
    return to_params, jax.tree.map(jnp.zeros_like, feedback), to_x


def _is_plain_dense(layer: nn.Module) -> bool:
    """Whether a layer is `nn.Dense` itself: what is derived from it may make other use of its params."""
    return type(layer) is nn.Dense and layer.dot_general is None and layer.dot_general_cls is None


def _dense_gradient(params, x, cotangent):
    """`x^T cotangent`, written out: JAX's own comes as the transpose of `cotangent^T x`.

    With the seeds as a batch axis, XLA does not see that the two are the same, and a CPU then spends a third of a
    training step on transposing it.
    """
    examples = tuple(range(x.ndim - 1))
    gradient = {"kernel": jnp.tensordot(x, cotangent, (examples, examples))}
    if "bias" in params:
        gradient["bias"] = jnp.sum(cotangent, examples)
    return jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, dict(params))


def _is_plain(layer: nn.Module, kind: type, kernel: jax.Array, x: jax.Array) -> bool:
    """Whether a layer is a two-dimensional `nn.Conv` or `nn.ConvLocal` without dilation, groups or anything else.

    And is given one batch of images, of numbers of one precision.
    """
    if x.ndim != 4 or {x.dtype, jnp.dtype(layer.dtype or x.dtype)} != {kernel.dtype}:
        return False
    if type(layer) is not kind or isinstance(layer.kernel_size, int) or len(layer.kernel_size) != 2:
        return False
    usual = kind(layer.features, layer.kernel_size)
    names = ("feature_group_count", "input_dilation", "kernel_dilation", "mask", "precision")
    names += ("conv_general_dilated", "conv_general_dilated_cls")
    return layer.padding in ("SAME", "VALID") and all(getattr(layer, n) == getattr(usual, n) for n in names)


def _strides(layer: nn.Module) -> tuple[int, ...]:
    return (layer.strides,) * 2 if isinstance(layer.strides, int) else tuple(layer.strides or (1, 1))


def _convolution_gradient(layer: nn.Conv, params, x, cotangent):
    """The gradient of a kernel as a convolution of the inputs with the cotangents, examples in the place of channels.

    It is what JAX makes of it too, but with the axes in the order that XLA wants on a CPU. There it turns them round by
    itself only outside of loops, and in one, as a training loop is, it would take many times as long.
    """
    stride = _strides(layer)
    window, image, places = params["kernel"].shape[:2], x.shape[1:3], cotangent.shape[1:3]
    pads = jax.lax.padtype_to_pads(image, window, stride, str(layer.padding))
    # What the last window does not reach is cut off, by a padding below 0.
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


def _convolution_cotangent(layer: nn.Conv, kernel, x, cotangent):
    """What a convolution sends down, as a convolution of what it gets with its kernel turned round.

    It is what JAX makes of it too, to the last bit, but with the axes in the order that XLA wants, as above.
    """
    stride, window, image = _strides(layer), kernel.shape[:2], x.shape[1:3]
    pads = jax.lax.padtype_to_pads(image, window, stride, str(layer.padding))
    spread = [(n - 1) * s + 1 for n, s in zip(cotangent.shape[1:3], stride, strict=True)]
    before = [k - 1 - low for k, (low, _) in zip(window, pads, strict=True)]
    sizes = zip(before, image, spread, window, strict=True)
    return jax.lax.conv_general_dilated(
        cotangent,
        kernel[::-1, ::-1].transpose(0, 1, 3, 2),
        (1, 1),
        [(first, size + k - 1 - first - got) for first, size, got, k in sizes],
        lhs_dilation=stride,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _local_cotangent(layer: nn.ConvLocal, kernel, x, cotangent):
    """What a layer whose places have weights of their own sends down: each window's share, added up where they overlap.

    JAX's own gathers the windows by a convolution, whose transpose takes many times as long on a CPU.
    """
    stride, window = _strides(layer), cast(tuple[int, ...], layer.kernel_size)
    places = cotangent.shape[1:3]

    def windows(image):
        padding = jax.lax.padtype_to_pads(image.shape[1:3], window, stride, str(layer.padding))
        image = jnp.pad(image, ((0, 0), *padding, (0, 0)))
        ends = [(n - 1) * s + 1 for n, s in zip(places, stride, strict=True)]
        offsets = [(i, j) for i in range(window[0]) for j in range(window[1])]
        parts = [image[:, i : i + ends[0] : stride[0], j : j + ends[1] : stride[1]] for i, j in offsets]
        return jnp.stack(parts, -1).reshape(len(image), *places, -1)  # as Flax's kernels are: channels, then the window

    (to_x,) = jax.vjp(windows, x)[1](jnp.einsum("bijf,ijkf->bijk", cotangent, kernel))
    return to_x


transport.defvjp(_transport_forward, _transport_backward)


@jax.custom_vjp
def teach(h: jax.Array, signal: jax.Array) -> jax.Array:
    """Returns `h`, whose cotangent is thrown away and replaced by `signal`.

    Args:
      h: an activation, `[batch, ...]`.
      signal: what the layer below is to take for dL/dh, with the shape and dtype of `h`; it carries the `1/batch` of
        a mean loss and the sign of a gradient.

    Reference: Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, fig. 1c.
    """
    del signal
    return h


teach.defvjp(lambda h, signal: (h, signal), lambda signal, cotangent: (signal, jnp.zeros_like(signal)))


def cross_feedback(layer: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    """Flax interceptor: a linear layer with a kernel in the `feedback` collection is transported over it.

    Every other dense, convolutional or local one is transported over its own kernel, which is backprop, for the speed
    of its gradient.
    """
    module = context.module
    # A layer without a path stands alone: it is the one inside `transport`, met again.
    if not is_linear_call(context) or not module.path:
        return layer(*args, **kwargs)
    (x,) = (*args, *kwargs.values())
    kernel = module.variables["params"]["kernel"]
    if module.has_variable("feedback", "kernel"):
        feedback = module.variables["feedback"]
    elif _is_plain_dense(module) or any(_is_plain(module, kind, kernel, x) for kind in (nn.Conv, nn.ConvLocal)):
        feedback = {"kernel": kernel}
    else:
        return layer(*args, **kwargs)
    return transport(module.clone(parent=None, name=None), module.variables["params"], feedback, x)


def fans(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the forward and the backward fan of a linear layer whose kernel has this shape."""
    if isinstance(layer, nn.ConvLocal):  # [*places, window times channels in, channels out]: places do not add up
        window = math.prod([layer.kernel_size] if isinstance(layer.kernel_size, int) else layer.kernel_size)
        return shape[-2], window * shape[-1]
    return math.prod(shape[:-1]), math.prod(shape) // shape[-2]


def is_linear_call(context: nn.module.InterceptorContext) -> bool:
    """Whether an intercepted call is a stock linear layer's `__call__`, with params that are there already."""
    module = context.module
    return context.method_name == "__call__" and isinstance(module, LINEAR) and not module.is_initializing()
