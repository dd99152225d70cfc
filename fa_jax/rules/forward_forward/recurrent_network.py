"""Layers that are sent what is below and above them: those of a chain, with weights of their own for the way down."""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.network import Network
from fa_jax.networks.chain import DenseStage
from fa_jax.networks.cnn import ConvolutionStage
from fa_jax.networks.layers import straight

States = list[jax.Array]
"""The activities of all layers, `[batch, ...]` each."""


class Recurrent(nn.Module):
    """Stages that are sent what is below and above them, and linear readouts of the last of them.

    Called, it returns the logits of the readouts after one pass upward.
    """

    stages: Sequence[nn.Module]
    """Without activation functions and `Hidden`, which come after what is from below and above has been added up."""
    hiddens: Sequence[nn.Module]
    downs: Sequence[nn.Module]
    heads: Sequence[nn.Module]
    normalise: Callable[[jax.Array], jax.Array]
    damping: float

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits, `[batch, classes]`; of no effect on them, it makes the params of the way down too."""
        states = self.upward(x)
        if self.is_initializing():
            self.iterated(x, jnp.zeros((len(x), self.heads[0].features)), states)
        sent = [self.normalise(y).reshape(len(x), -1) for y in states[-len(self.heads) :]]
        return functools.reduce(jnp.add, [head(n) for head, n in zip(self.heads, sent, strict=True)])

    def upward(self, x: jax.Array) -> States:
        """Returns the states that images start with."""
        states: States = []
        for stage, hidden in zip(self.stages, self.hiddens, strict=True):
            states.append(hidden(jax.nn.relu(stage(self.normalise(states[-1] if states else x)))))
        return states

    def inputs(self, x: jax.Array, label: jax.Array, states: States) -> States:
        """Returns the `r_l` that come of states a step before."""
        n = [self.normalise(y) for y in (x, *states, label)]
        found = []
        for i, (stage, down) in enumerate(zip(self.stages, self.downs, strict=True)):
            rising = stage(n[i])
            falling = down(n[i + 2] if _is_local(down) else n[i + 2].reshape(len(x), -1))
            found.append(self.hiddens[i](straight(rising + falling.reshape(rising.shape))))
        return found

    def iterated(self, x: jax.Array, label: jax.Array, states: States) -> States:
        """Returns the states after an iteration."""
        return self.damped(states, self.inputs(x, label, states))

    def damped(self, states: States, inputs: States) -> States:
        """Returns the states that are made of those a step before and of new `r_l`."""
        return [self.damping * y + (1 - self.damping) * r for y, r in zip(states, inputs, strict=True)]


def _is_local(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv | nn.ConvLocal)


def downs(network: Network, stages: Sequence[DenseStage | ConvolutionStage]) -> list[nn.Module]:
    """The layers on the way down to each stage from the one above it, or from the label to the last."""
    shapes = [hidden.shape for name, h in network.hiddens.items() for hidden in [h] * (h.stack or (1,))[0]]
    found: list[nn.Module] = []
    for i, stage in enumerate(stages):
        shape, above = shapes[i], shapes[i + 1] if i + 1 < len(shapes) else ()
        initial = stage.initial["kernel_init"] if isinstance(stage, ConvolutionStage) else stage.kernel_init
        if isinstance(stage, ConvolutionStage) and len(above) == 3 and above[:2] == shape[:2]:
            kind, window = nn.Conv if stage.shared else nn.ConvLocal, (stage.shape.window,) * 2
            found.append(kind(shape[-1], window, padding="SAME", use_bias=False, kernel_init=initial))
        else:
            found.append(nn.Dense(math.prod(shape), use_bias=False, kernel_init=initial))
    return found
