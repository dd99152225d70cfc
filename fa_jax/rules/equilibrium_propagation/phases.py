"""The phases of equilibrium propagation, and what the layers learn from them; equations are in `rule`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_jax.core import Batch, PyTree
from fa_jax.rules.equilibrium_propagation.dynamics import Dynamics, Layers, States, largest_change


class Phases(NamedTuple):
    """The free phase and the nudged ones."""

    dynamics: Dynamics
    has_output_state: bool
    """Whether the output is a state; else it is a linear readout of the last state."""
    output_error: Callable[[jax.Array, jax.Array], jax.Array]
    """`(outputs, targets) -> dloss/doutput` of each example, `[batch, outputs]`."""
    points: int
    """N; 1: the free phase and one at beta."""
    beta: float
    free_steps: int
    nudged_steps: int

    def free(self, layers: Layers, batch: Batch) -> States:
        """Returns the states of the free phase."""
        return self.dynamics.free(layers, _flat(batch), self._unshifted(batch), self.free_steps)

    def nudged(self, layers: Layers, batch: Batch, free: States, strength: jax.Array | float) -> States:
        """Returns the states that settle from the free ones at a strength of nudging, which may be complex."""

        def nudge(last):
            if self.has_output_state:
                return -strength * self.output_error(last, batch.targets)
            return -strength * self.output_error(_read(layers, last), batch.targets) @ layers[-1]["kernel"].T

        start = [s.astype(jnp.result_type(s, strength)) for s in free]
        arguments = layers, _flat(batch), self._unshifted(batch)
        return self.dynamics.settle(lambda s: self.dynamics.step(*arguments, s, nudge), start, self.nudged_steps)

    def mean_over_points(self, function: Callable) -> PyTree:
        """Returns the mean of `function(beta_k)`, whose value at -k is the conjugate of that at k."""
        if self.points == 1:
            return function(self.beta)
        strengths, weights = _half_circle(self.beta, self.points)
        return jax.tree.map(lambda a: jnp.tensordot(weights, a.real, 1), jax.vmap(function)(strengths))

    def updates(self, layers: Layers, batch: Batch) -> Layers:
        """Returns the update of each layer."""
        x, free = _flat(batch), self.free(layers, batch)

        def coupled(states, strength):
            pairs = zip([x, *states[:-1]], states, layers, strict=False)
            return [_products(below, -s / (strength * len(x)), layer) for below, s, layer in pairs]

        def learned(strength):
            states = self.nudged(layers, batch, free, strength)
            if self.has_output_state:
                return coupled(states, strength), []
            error = self.output_error(_read(layers, states[-1]), batch.targets) / len(x)
            return coupled(states, strength), [_products(states[-1], error, layers[-1])]

        contrast, readout = self.mean_over_points(learned)
        if self.points == 1:
            contrast = jax.tree.map(jnp.subtract, contrast, coupled(free, self.beta))
        return [*contrast, *readout]

    def signals(self, layers: Layers, batch: Batch) -> States:
        """Returns minus the derivative of each state by beta: in the limit, dloss by what the state receives."""
        free = self.free(layers, batch)

        def slopes(states, strength):
            return [-s / (strength * len(batch.inputs)) for s in states]

        signals = self.mean_over_points(lambda beta: slopes(self.nudged(layers, batch, free, beta), beta))
        if self.points > 1:
            return signals
        return jax.tree.map(jnp.subtract, signals, slopes(free, self.beta))

    def residual(self, layers: Layers, batch: Batch) -> jax.Array:
        """Returns the largest change of a free state in one more step."""
        free = self.free(layers, batch)
        again = self.dynamics.step(layers, _flat(batch), self._unshifted(batch), free, None)
        return largest_change(again, free)

    def _unshifted(self, batch: Batch) -> States:
        return [jnp.zeros((), batch.inputs.dtype)] * len(self.dynamics.activations)


def _flat(batch: Batch) -> jax.Array:
    return batch.inputs.reshape(len(batch.inputs), -1)


def _read(layers: Layers, last: jax.Array) -> jax.Array:
    """Returns the outputs of the linear readout."""
    return last @ layers[-1]["kernel"] + layers[-1].get("bias", 0.0)


def _products(below: jax.Array, above: jax.Array, layer: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns sums over the batch of the products of two states, shaped like the params of the layer between them."""
    return {"kernel": below.T @ above} | ({"bias": above.sum(0)} if "bias" in layer else {})


def _half_circle(beta: float, points: int) -> tuple[jax.Array, jax.Array]:
    """Returns beta_k for k from 0 to N/2, and their weights in the mean over all k, those of -k included."""
    k = np.arange(points // 2 + 1)
    strengths = beta * np.exp(2j * np.pi * k / points)
    is_real = (2 * k) % points == 0
    return jnp.asarray(strengths.real if points == 2 else strengths), jnp.asarray(np.where(is_real, 1, 2) / points)
