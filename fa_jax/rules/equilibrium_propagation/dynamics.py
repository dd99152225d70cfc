"""The dynamics of equilibrium propagation, and the network that predicts by settling.

    s_l <- f(s_{l-1} W_l + b_l + s_{l+1} W_{l+1}^T),   s_0 = x                   l < K
    s_K <- f(s_{K-1} W_K + b_K - beta dloss/ds_K)

A fixed point is a stationary point of E + beta loss, with E = sum_l [G(s_l) - s_l . (s_{l-1} W_l + b_l)], G' = f^-1,
for every increasing f. The loss is that of a linear readout of s_K, or of s_K itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.core import PyTree
from fa_jax.primitives import Hidden, sow_array

States = list[jax.Array]
"""s_1 to s_K, `[batch, units]` each."""
Layers = list[dict[str, jax.Array]]
"""The `kernel`, `[in, out]`, and perhaps the `bias` of each linear layer, the readout last."""


class Dynamics(NamedTuple):
    """How states settle."""

    activations: tuple[Callable[[jax.Array], jax.Array], ...]
    """f of each state."""
    asynchronous: bool
    """Whether layers 1, 3, ... move first, and layers 2, 4, ... then see their new states; else all move at once."""
    tolerance: float | None
    """Settling ends when no state changes by more; None: after all steps."""

    def step(self, layers: Layers, x: jax.Array, shifts: States, states: States, nudge: Callable | None) -> States:
        """Returns the states after one step.

        Args:
          layers, x, states: W and b; s_0, `[batch, inputs]`; s_1 to s_K.
          shifts: are added to what each state receives.
          nudge: s_K to the last term of what it receives, `-beta dloss/ds_K`; None: beta = 0.
        """

        def moved(i, states):
            below = states[i - 1] if i else x
            drive = below @ layers[i]["kernel"] + layers[i].get("bias", 0.0) + shifts[i]
            if i + 1 < len(states):
                drive += states[i + 1] @ layers[i + 1]["kernel"].T
            elif nudge is not None:
                drive += nudge(states[i])
            return self.activations[i](drive)

        order = (range(0, len(states), 2), range(1, len(states), 2)) if self.asynchronous else (range(len(states)),)
        for group in order:
            new = {i: moved(i, states) for i in group}
            states = [new.get(i, s) for i, s in enumerate(states)]
        return states

    def settle(self, step: Callable[[States], States], states: States, steps: int) -> States:
        """Returns the states after so many steps, or when they have settled to the tolerance."""
        tolerance = self.tolerance
        if tolerance is None:
            return jax.lax.fori_loop(0, steps, lambda _, s: step(s), states)

        def goes_on(carry):
            t, change, _ = carry
            return (t < steps) & (change > tolerance)

        def move(carry):
            t, _, old = carry
            new = step(old)
            return t + 1, largest_change(new, old), new

        dtype = jnp.abs(states[0]).dtype
        return jax.lax.while_loop(goes_on, move, (0, jnp.asarray(jnp.inf, dtype), states))[2]

    def free(self, layers: Layers, x: jax.Array, shifts: States, steps: int) -> States:
        """Returns the states that settle from 0 without nudging.

        Their derivatives are those of the fixed point, by a fixed-point iteration of as many steps.
        """
        return _free(self, steps, layers, x, shifts)


def largest_change(new: States, old: States) -> jax.Array:
    """Returns the largest absolute difference of all units of all examples."""
    return functools.reduce(jnp.maximum, [jnp.max(jnp.abs(a - b)) for a, b in zip(new, old, strict=True)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _free(dynamics: Dynamics, steps: int, layers: Layers, x: jax.Array, shifts: States) -> States:
    zeros = [jnp.zeros((len(x), layer["kernel"].shape[1]), x.dtype) for layer in layers[: len(dynamics.activations)]]
    return dynamics.settle(lambda s: dynamics.step(layers, x, shifts, s, None), zeros, steps)


def _free_forward(dynamics, steps, layers, x, shifts):
    states = _free(dynamics, steps, layers, x, shifts)
    return states, (layers, x, shifts, states)


def _free_backward(dynamics, steps, residuals, cotangents):
    layers, x, shifts, states = residuals
    # At s = F(s, a), ds/da = (1 - dF/ds)^-1 dF/da: v = g + (dF/ds)^T v, then (dF/da)^T v.
    _, of_states = jax.vjp(lambda s: dynamics.step(layers, x, shifts, s, None), states)
    _, of_arguments = jax.vjp(lambda *a: dynamics.step(*a, states, None), layers, x, shifts)
    without_tolerance = dynamics._replace(tolerance=None)
    v = without_tolerance.settle(lambda v: jax.tree.map(jnp.add, cotangents, of_states(v)[0]), cotangents, steps)
    return of_arguments(v)


_free.defvjp(_free_forward, _free_backward)


class SettledHidden(Hidden):
    """Marks a state: records it, and provides the shift of what it receives, so that dloss/dshift can be computed."""

    def shift(self, like: jax.Array) -> jax.Array:
        """Returns the shift, zeros if there is none."""
        return self.get_variable("perturbation", "h", jnp.zeros_like(like))

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        sow_array(self, "hidden", "h", h)
        return h


class EquilibriumNetwork(nn.Module):
    """Predicts by settling: its forward pass returns the logits of the free phase, or its output state.

    Its gradient is that of the loss at the fixed point.
    """

    stages: Sequence[nn.Module]
    """Linear layers."""
    hiddens: Sequence[SettledHidden]
    readout: nn.Module
    dynamics: Dynamics
    steps: int
    """The number of steps of the free phase."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the outputs, `[batch, outputs]`."""
        outputs, inputs = [], x.reshape(len(x), -1)
        for layer in (*self.stages, self.readout):  # creates the params, and shows the layers to the interceptors
            outputs.append(layer(outputs[-1] if outputs else inputs))
        layers = linear_layers(self.variables["params"])
        shifts = [hidden.shift(a) for hidden, a in zip(self.hiddens, outputs, strict=False)]
        has_output_state = len(self.dynamics.activations) > len(self.stages)
        shifts += [jnp.zeros_like(outputs[-1])] * has_output_state
        states = self.dynamics.free(layers, inputs, shifts, self.steps)
        for hidden, state in zip(self.hiddens, states, strict=False):
            hidden(state)
        return states[-1] if has_output_state else self.readout(states[-1])


def linear_layers(params: PyTree) -> Layers:
    """Returns the params of the linear layers in order, given those of an `EquilibriumNetwork`."""
    return [params[f"stages_{i}"]["linear"] for i in range(len(params) - 1)] + [params["readout"]]


def params_of(layers: Layers) -> PyTree:
    """Returns the tree of params, given their linear layers in order: the inverse of `linear_layers`."""
    *hidden, readout = layers
    return {**{f"stages_{i}": {"linear": layer} for i, layer in enumerate(hidden)}, "readout": readout}
