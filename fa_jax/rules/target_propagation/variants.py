"""The variants of target propagation: where the first target lies, what the inverses are, and what they learn.

    dtp               g(y) = f(V y + c)     |g(F(h + xi)) - (h + xi)|^2
    sdtp, ao_sdtp     g(y) = f(V y + c)     |g(F(h + xi)) - h|^2
    drl               g(y) = f(V y + c)     |r - (h + xi)|^2 / sigma^2
    l_drl             g(y) = V f(y)         -2 xi . (g(F(h + xi)) - g(y)) + |g(y + zeta) - g(y)|^2

Layers count from 0; layer L is the readout. h is the input of a layer, y = F(h) its output, g the inverse that leads
back from y to h. r is what comes back if h + xi is sent up to the logits, and down from there by difference
corrections. xi and zeta are noise of standard deviation sigma. Losses are means over the batch of sums over the units,
that of drl a mean over both.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fa_jax.core import PyTree
from fa_jax.rules.target_propagation.differences import Function, difference_of


class Layer(NamedTuple):
    """A layer of the forward network on a batch."""

    kernel: jax.Array
    """`[in, out]`."""
    bias: jax.Array | float
    function: Function
    below: jax.Array
    """h, its input, `[batch, in]`."""
    preactivation: jax.Array
    """a, `[batch, out]`."""
    output: jax.Array
    """y = f(a), `[batch, out]`, as the inverse reads it: for the readout logits or probabilities."""

    def shifted(self, shift: jax.Array) -> jax.Array:
        """Returns f(W (h + shift) + b)."""
        return self.function((self.below + shift) @ self.kernel + self.bias)

    def change(self, shift: jax.Array) -> jax.Array:
        """Returns the change of the output if the input changes by `shift`."""
        return difference_of(self.function)(self.preactivation, shift @ self.kernel)


class Inverse(NamedTuple):
    """g, the inverse of a layer: of an output y, and of a change of it."""

    value: Callable[[jax.Array], jax.Array]
    change: Callable[[jax.Array, jax.Array], jax.Array]
    """`(y, u) -> g(y + u) - g(y)`."""


def activation_outside(part: PyTree, layer: Layer, below: Layer) -> Inverse:
    """Returns `g(y) = f(V y + c)`, with the activation function f of the layer below."""
    del layer
    kernel, bias = part["kernel"], part["bias"]
    return Inverse(
        lambda y: below.function(y @ kernel.T + bias),
        lambda y, u: difference_of(below.function)(y @ kernel.T + bias, u @ kernel.T),
    )


def activation_inside(part: PyTree, layer: Layer, below: Layer) -> Inverse:
    """Returns `g(y) = V f(y)`, with the layer's own activation function. A bias would cancel everywhere."""
    del below
    kernel = part["kernel"]
    return Inverse(lambda y: layer.function(y) @ kernel.T, lambda y, u: difference_of(layer.function)(y, u) @ kernel.T)


def noise_preserving(layers: Sequence[Layer], inverses: Sequence[Inverse], xi, zeta, sigma) -> jax.Array:
    """Lee et al., 2015: `|g(f(h + xi)) - (h + xi)|^2`."""
    del zeta, sigma
    return _mean_square(inverses[0].value(layers[0].shifted(xi)) - (layers[0].below + xi))


def denoising(layers: Sequence[Layer], inverses: Sequence[Inverse], xi, zeta, sigma) -> jax.Array:
    """Bartunov et al., 2018: `|g(f(h + xi)) - h|^2`."""
    del zeta, sigma
    return _mean_square(inverses[0].value(layers[0].shifted(xi)) - layers[0].below)


def difference_reconstruction(layers: Sequence[Layer], inverses: Sequence[Inverse], xi, zeta, sigma) -> jax.Array:
    """Meulemans et al., 2020: `(r - (h + xi))^2 / sigma^2`.

    r is what comes back if `h + xi` is sent up to the logits, and down from there by difference corrections.
    """
    del zeta
    change = xi
    for layer in layers:
        change = layer.change(change)
    for layer, inverse in reversed(list(zip(layers, inverses, strict=True))):
        change = inverse.change(layer.output, change)
    return jnp.mean(jnp.square(change - xi)) / sigma**2


def local_difference_reconstruction(layers: Sequence[Layer], inverses: Sequence[Inverse], xi, zeta, sigma) -> jax.Array:
    """Ernoult et al., 2022: `-2 xi . (g(f(h + xi)) - g(y)) + |g(y + zeta) - g(y)|^2`."""
    del sigma
    layer, inverse = layers[0], inverses[0]
    returned = inverse.change(layer.output, layer.change(xi))
    return _mean_square(inverse.change(layer.output, zeta)) - 2 * jnp.mean(jnp.sum(xi * returned, -1))


def _mean_square(a: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum(jnp.square(a), -1))


class Variant(NamedTuple):
    """What distinguishes a variant."""

    inverse: Callable[[PyTree, Layer, Layer], Inverse]
    """`(V and c, layer, the layer below) -> g`."""
    reconstruction: Callable[..., jax.Array]
    """`(layers, inverses, xi, zeta, sigma) -> loss` of the first of the inverses; both from a layer to the readout."""
    from_gradient: bool = False
    """Whether the first target is that of the last hidden layer, by the gradient of the loss."""
    from_labels: bool = False
    """Whether the first target is the label, at the probabilities; else it is at the logits, by the gradient."""
    factor: float = 2.0
    """The factor of the squared distance from a target, whose half is the loss of a layer."""
    learns_first: bool = False
    """Whether the targets use the inverses that the same batch has trained."""

    @property
    def at_logits(self) -> bool:
        """Whether the first target is that of the logits."""
        return not (self.from_gradient or self.from_labels)


VARIANTS = {
    "dtp": Variant(activation_outside, noise_preserving, from_gradient=True),
    "sdtp": Variant(activation_outside, denoising, from_labels=True),
    "ao_sdtp": Variant(activation_outside, denoising, from_labels=True),
    "drl": Variant(activation_outside, difference_reconstruction),
    "l_drl": Variant(activation_inside, local_difference_reconstruction, factor=1.0, learns_first=True),
}
