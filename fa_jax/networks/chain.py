"""The two words that a network needs so that it can be taught directly or stage by stage: `Hidden` and `Chain`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.network import STATISTICS, Network
from fa_jax.primitives import teach

SCANNED: Any = {"params": 0, STATISTICS: 0, "feedback": 0, "signal": 0, "hidden": 0, "noted": 0}
"""The axis along which a scanned stack of layers keeps each of its Flax collections."""


class Hidden(nn.Module):
    """The identity, put where a hidden layer ends: it records the activation and, given a signal, teaches it.

    Where it stands is science, not style: in a residual net on the stream after each sum, in a convolutional stage
    after the pooling, and after the dropout.

    Collections: writes `hidden/h`, the activation; reads `signal/h`, what replaces its gradient. A variable `nudge` in
    `params` is added to the activation, so the update of a zero nudge is the layer's learning signal.
    """

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        if self.has_variable("params", "nudge"):
            h = h + self.get_variable("params", "nudge")
        self.sow("hidden", "h", h, init_fn=lambda: None, reduce_fn=_latest)
        return teach(h, self.get_variable("signal", "h")) if self.has_variable("signal", "h") else h


def _latest(old: Any, new: Any) -> Any:
    del old
    return new


def require_hidden(network: Network) -> None:
    """Refuses a network that a rule cannot teach.

    Raises:
      BadOption: if it marks no hidden layer.
    """
    if not network.hiddens:
        raise BadOption(
            f"rule: this one teaches hidden layers, and architecture {type(network.module).__name__} marks none; "
            "put fa_jax.networks.chain.Hidden() where a hidden layer ends, or use rule=fa"
        )


class DenseStage(nn.Module):
    """One hidden layer: a dense layer on the flat input, normalisation, activation function, dropout, and `Hidden`."""

    features: int
    activation: Callable[[jax.Array], jax.Array]
    use_bias: bool
    kernel_init: Callable
    bias_init: Callable
    dropout: float = 0.0
    input_dropout: float = 0.0
    hidden: bool = True
    norm: Callable[[], nn.Module] | None = None
    average: bool = False
    """Whether images are flattened to their channels' averages."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _flat(x, self.average)
        x = nn.Dropout(self.input_dropout, deterministic=not self.has_rng("dropout"))(x)
        linear = nn.Dense(
            self.features, self.use_bias, kernel_init=self.kernel_init, bias_init=self.bias_init, name="linear"
        )
        h = linear(x)
        h = self.activation(h if self.norm is None else self.norm()(h))
        h = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(h)
        return Hidden(name="hidden")(h) if self.hidden else h


def _flat(x: jax.Array, average: bool) -> jax.Array:
    """Inputs `[batch, ..., channels]` flattened, or averaged over all but the channels."""
    return x.mean(tuple(range(1, x.ndim - 1))) if average else x.reshape(len(x), -1)


class JoinedStage(nn.Module):
    """Several layers as one stage, the last of which has the `Hidden`: rules teach them as one."""

    layers: Sequence[nn.Module]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Readout(nn.Module):
    """A linear readout of images: of all their components, or of each channel's average."""

    outputs: int
    use_bias: bool
    average: bool
    kernel_init: Callable
    bias_init: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _flat(x, self.average)
        linear = nn.Dense(
            self.outputs, self.use_bias, kernel_init=self.kernel_init, bias_init=self.bias_init, name="linear"
        )
        return linear(x)


class Chain(nn.Module):
    """A network that is visibly a sequence of stages, each ending in `Hidden`, and a readout.

    Attributes:
      stages: what maps `[batch, ...]` to `[batch, ...]`.
      repeats: how often each stage stands there in a row, with weights of its own each time; a stage that repeats must
        keep the shape, and is scanned, so a hundred layers compile as fast as one.
      readout: maps the last stage's activation to the logits, `[batch, outputs]`.
    """

    stages: Sequence[nn.Module]
    repeats: Sequence[int]
    readout: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        for stage, repeats in zip(self.stages, self.repeats, strict=True):
            if repeats == 1:
                x = stage(x)
            else:
                rngs: Any = {"params": True, "dropout": True, "mirror": True}
                stack = nn.scan(lambda s, h, _: (s(h), None), SCANNED, split_rngs=rngs, length=repeats)
                x, _ = stack(stage, x, None)
        return self.readout(x)


def each_stage(chain: Chain) -> Iterator[nn.Module]:
    """Yields the stages one by one, also those that are scanned, for a rule that runs them by themselves."""
    for stage, repeats in zip(chain.stages, chain.repeats, strict=True):
        for _ in range(repeats):
            yield stage.clone()


def unstacked(chain: Chain, params: PyTree) -> dict[str, PyTree]:
    """Returns the params of `each_stage`, named `stages_0` and so on, out of those of the chain."""
    layers = []
    for i, repeats in enumerate(chain.repeats):
        own = params[f"stages_{i}"]
        layers += [own] if repeats == 1 else [jax.tree.map(lambda a, j=j: a[j], own) for j in range(repeats)]
    return {f"stages_{i}": layer for i, layer in enumerate(layers)}
