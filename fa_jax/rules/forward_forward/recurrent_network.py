"""The network of recurrent Forward-Forward: layers with input from below and from above."""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.network import Network
from fa_jax.networks.chain import DenseStage
from fa_jax.networks.cnn import ConvolutionStage
from fa_jax.networks.layers import ACTIVATIONS
from fa_jax.primitives import Hidden
from fa_jax.rules.forward_forward.stages import Stage

States = list[jax.Array]
"""The activities of all layers, `[batch, ...]` each."""


class Recurrent(nn.Module):
    """Linear layers upward and downward, and linear readouts of the last layers.

    Its forward pass returns the logits of the readouts after one pass upward.

    Attributes:
      stages: W_l, without activation function and `Hidden`.
      hiddens: a `Hidden` for each layer.
      downs: V_l, from the layer above each layer, or from the label to the last.
      readouts: of the last layers.
      normalise: of activities, before they are sent on.
      damping: d, the share of its activity that a layer keeps at each iteration.
    """

    stages: Sequence[nn.Module]
    hiddens: Sequence[nn.Module]
    downs: Sequence[nn.Module]
    readouts: Sequence[nn.Module]
    normalise: Callable[[jax.Array], jax.Array]
    damping: float

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits, `[batch, classes]`."""
        states = self.upward(x)
        if self.is_initializing():  # draws the params of the way down too
            self.preactivations(x, jnp.zeros((len(x), self.readouts[0].features)), states)
        inputs = [self.normalise(y).reshape(len(x), -1) for y in states[-len(self.readouts) :]]
        return functools.reduce(jnp.add, [readout(n) for readout, n in zip(self.readouts, inputs, strict=True)])

    def upward(self, x: jax.Array) -> States:
        """Returns the states after one pass upward, with which the iterations start."""
        states: States = []
        for stage, hidden in zip(self.stages, self.hiddens, strict=True):
            states.append(hidden(jax.nn.relu(stage(self.normalise(states[-1] if states else x)))))
        return states

    def preactivations(self, x: jax.Array, label: jax.Array, states: States) -> States:
        """Returns the pre-activations a_l of the next iteration, given the states before it."""
        n = [self.normalise(y) for y in (x, *states, label)]
        result = []
        for i, (stage, down) in enumerate(zip(self.stages, self.downs, strict=True)):
            rising = stage(n[i])
            local = isinstance(down, nn.Conv | nn.ConvLocal)
            falling = down(n[i + 2] if local else n[i + 2].reshape(len(x), -1))
            result.append(rising + falling.reshape(rising.shape))
        return result

    def iterate(self, x: jax.Array, label: jax.Array, states: States) -> States:
        """Returns the states after one more iteration."""
        return damped(self.damping, states, self.preactivations(x, label, states))


def damped(damping: float, states: States, preactivations: States) -> States:
    """Returns `d y + (1 - d) relu(a)` of the states y before an iteration and its pre-activations a."""
    return [damping * y + (1 - damping) * jax.nn.relu(a) for y, a in zip(states, preactivations, strict=True)]


def recurrent_network(
    network: Network, stages: Sequence[Stage], first_readout: int, normalise: Callable, damping: float
) -> Network:
    """Returns the recurrent network of the stages of another one, with readouts of the layers from the first on."""
    layers = stages[first_readout:]
    readouts = [nn.Dense(network.outputs, use_bias=False, kernel_init=nn.initializers.zeros) for _ in layers]
    module = Recurrent(
        [_without_activation(stage) for stage in stages],
        [Hidden() for _ in stages],
        _downs(network, stages),
        readouts,
        normalise,
        damping,
    )
    return Network(module, network.input_shape)


def _without_activation(stage: Stage) -> nn.Module:
    if isinstance(stage, DenseStage):
        return stage.clone(activation=ACTIVATIONS["linear"], hidden=False)
    return stage.clone(activation=ACTIVATIONS["linear"], hidden_position=None)


def _downs(network: Network, stages: Sequence[Stage]) -> list[nn.Module]:
    """Returns the layers from above each stage to it: local ones between images of one size, else dense ones."""
    shapes = [hidden.shape for h in network.hidden_shapes.values() for hidden in [h] * (h.stack or (1,))[0]]
    downs: list[nn.Module] = []
    for i, stage in enumerate(stages):
        shape, above = shapes[i], shapes[i + 1] if i + 1 < len(shapes) else ()
        kernel_init = stage.initial["kernel_init"] if isinstance(stage, ConvolutionStage) else stage.kernel_init
        if isinstance(stage, ConvolutionStage) and len(above) == 3 and above[:2] == shape[:2]:
            kind, window = nn.Conv if stage.shared else nn.ConvLocal, (stage.shape.window,) * 2
            downs.append(kind(shape[-1], window, padding="SAME", use_bias=False, kernel_init=kernel_init))
        else:
            downs.append(nn.Dense(math.prod(shape), use_bias=False, kernel_init=kernel_init))
    return downs
