"""`Chain`, a network as a sequence of stages, which stage-wise rules need; and the stages of which it is made."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax

from fa_jax.core import PyTree
from fa_jax.networks.layers import Dropout
from fa_jax.primitives import Hidden


class DenseStage(nn.Module):
    """One hidden layer: dense layer on flattened inputs, norm, activation function, dropout, `Hidden`."""

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
    """Whether images are averaged over all positions instead of flattened."""
    hidden_before_dropout: bool = False

    @nn.nowrap
    def with_hidden_before_dropout(self) -> "DenseStage":
        """Returns the stage with its `Hidden` right after the activation function; the params are the same."""
        return self.clone(hidden_before_dropout=True)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = flatten(x, average=self.average)
        x = Dropout(self.input_dropout)(x)
        linear = nn.Dense(
            self.features, self.use_bias, kernel_init=self.kernel_init, bias_init=self.bias_init, name="linear"
        )
        h = linear(x)
        h = self.activation(h if self.norm is None else self.norm()(h))
        if self.hidden and self.hidden_before_dropout:
            h = Hidden(name="hidden")(h)
        h = Dropout(self.dropout)(h)
        return Hidden(name="hidden")(h) if self.hidden and not self.hidden_before_dropout else h


def flatten(x: jax.Array, *, average: bool) -> jax.Array:
    """Returns inputs `[batch, ..., channels]` as vectors: flattened, or the average over positions of each channel."""
    return x.mean(tuple(range(1, x.ndim - 1))) if average else x.reshape(len(x), -1)


class JoinedStage(nn.Module):
    """Several layers as one stage: the last one has the `Hidden`, and a rule teaches them together."""

    layers: Sequence[Any]

    @nn.nowrap
    def with_hidden_before_dropout(self) -> "JoinedStage":
        """Returns the stage with the `Hidden` of its last layer moved, as in `DenseStage`."""
        return self.clone(layers=[*self.layers[:-1], self.layers[-1].with_hidden_before_dropout()])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Readout(nn.Module):
    """A linear readout of flattened images, or of the average of each channel."""

    outputs: int
    use_bias: bool
    average: bool
    kernel_init: Callable
    bias_init: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        linear = nn.Dense(
            self.outputs, self.use_bias, kernel_init=self.kernel_init, bias_init=self.bias_init, name="linear"
        )
        return linear(flatten(x, average=self.average))


class Chain(nn.Module):
    """A network that is a sequence of stages, each ending in `Hidden`, and a readout.

    Attributes:
      stages: each maps `[batch, ...]` to `[batch, ...]`.
      repeats: how many copies of each stage follow one another, with weights of their own. A stage with several copies
        must preserve the shape; the copies are scanned, so a hundred layers compile as fast as one.
      readout: maps the activation of the last stage to the logits, `[batch, outputs]`.
    """

    stages: Sequence[nn.Module]
    repeats: Sequence[int]
    readout: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        every: Any = {True: 0}  # every Flax collection is stacked along a leading axis
        for stage, repeats in zip(self.stages, self.repeats, strict=True):
            if repeats == 1:
                x = stage(x)
            else:
                rngs: Any = {True: True}  # every random stream is split
                stack = nn.scan(lambda s, h, _: (s(h), None), every, split_rngs=rngs, length=repeats)
                x, _ = stack(stage, x, None)
        return self.readout(x)


def each_stage(chain: Chain) -> Iterator[nn.Module]:
    """Yields the stages one by one, scanned ones included, for a rule that runs them separately."""
    for stage, repeats in zip(chain.stages, chain.repeats, strict=True):
        for _ in range(repeats):
            yield stage.clone()


def unstack(chain: Chain, params: PyTree) -> dict[str, PyTree]:
    """Returns the params of `each_stage`, named `stages_0`, `stages_1`, ..., given the params of the chain."""
    layers = []
    for i, repeats in enumerate(chain.repeats):
        stage = params[f"stages_{i}"]
        layers += [stage] if repeats == 1 else [jax.tree.map(lambda a, j=j: a[j], stage) for j in range(repeats)]
    return {f"stages_{i}": layer for i, layer in enumerate(layers)}
