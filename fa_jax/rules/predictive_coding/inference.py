"""Four ways to infer the activities and the prediction errors of predictive coding, given the weights.

    F = sum over the batch of 1/2 sum_{l<L} |h_l - mu_l|^2 + F_out(mu_L)        the energy
    G = F_out(mu_L) - sum over the batch of sum_{l<L} e_l . mu_l

with mu_l = mu_l(h_{l-1}) and e_l = h_l - mu_l; G is the energy of fixed errors, in which e_l is a constant. So
dF/dh_l = e_l + dG/dh_l, and dF/dW_l = dG/dW_l.

    states              h_l <- h_l - gamma (e_l + dG/dh_l)
    errors              e_l <- e_l - gamma dF/de_l          with h_l = mu_l + e_l, layer by layer from the input
    fixed_prediction    e_l <- e_l - gamma (e_l + dG/dh_l)  with h_l and mu_l as in the forward pass
    zero_divergence     as states, with gamma = 1; layer l learns once, when its first error arrives

The last has the updates of backprop, as has the third with gamma = 1 after as many steps as there are hidden layers.

Every inference starts from the forward pass, where e_l = 0, and moves all layers at once. It descends the energy of the
whole batch, a sum over the examples, so that their steps do not depend on the batch size.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fa_jax.core import LayerArrays, PyTree


class Model(NamedTuple):
    """A network on one batch: its predictions, and the energy at its output."""

    layers: dict[str, tuple[int, ...]]
    """The hidden layers in the order of the forward pass, each with its stack, `()` or `(depth,)`."""
    run: Callable[..., tuple[jax.Array, LayerArrays]]
    """`(params, states=None, shifts=None) -> (mu_L, {layer: mu_l})`. Without states, each layer receives the prediction
    below plus its shift, and that sum is returned in place of mu_l."""
    output_energy: Callable[[jax.Array], jax.Array]
    """F_out of mu_L, summed over the batch."""
    grad: Callable[..., Callable]
    """Differentiates functions of `run`, like `jax.grad`."""

    def energy(self, params: PyTree, states: LayerArrays) -> jax.Array:
        """Returns F of activities h_l."""
        output, predictions = self.run(params, states)
        return self.output_energy(output) + half_square(subtract(states, predictions))

    def fixed_error_energy(self, params: PyTree, states: LayerArrays, errors: LayerArrays) -> jax.Array:
        """Returns G of activities h_l and errors e_l."""
        output, predictions = self.run(params, states)
        products = jax.tree.map(jnp.vdot, errors, predictions)
        return self.output_energy(output) - sum(jax.tree.leaves(products))


class Inferred(NamedTuple):
    """The result of an inference, from which each layer learns dG/dW_l."""

    states: LayerArrays
    """h_l, what the layers above receive."""
    errors: LayerArrays
    """e_l."""


class Descent(NamedTuple):
    """T steps of gradient descent of rate gamma, with heavy-ball momentum; its memory is new for each batch."""

    steps: int
    rate: float
    momentum: float

    def minimise(self, slope: Callable[[LayerArrays], LayerArrays], start: LayerArrays) -> LayerArrays:
        """Returns the point that it reaches from `start`, given the gradient of a function."""
        optimizer = optax.sgd(self.rate, self.momentum)

        def step(carry, _):
            point, memory = carry
            moves, memory = optimizer.update(slope(point), memory)
            return (jax.tree.map(jnp.add, point, moves), memory), None

        (end, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=self.steps)
        return end


Inference = Callable[[Model, PyTree, Descent], Inferred]


def infer_states(model: Model, params: PyTree, descent: Descent) -> Inferred:
    """Descends F in the activities: `h_l <- h_l - gamma (e_l + dG/dh_l)`."""
    _, start = model.run(params)
    states = descent.minimise(model.grad(lambda h: model.energy(params, h)), start)
    return Inferred(states, subtract(states, model.run(params, states)[1]))


def infer_errors(model: Model, params: PyTree, descent: Descent) -> Inferred:
    """Descends F in the errors, from 0; `h_l = mu_l + e_l` follow layer by layer, and with them the gradient.

    Small errors keep their precision, unlike the difference of two activities.

    Reference: Goemaere et al., arXiv 2505.20137, 2025.
    """
    _, activities = model.run(params)

    def energy(errors):
        return model.output_energy(model.run(params, shifts=errors)[0]) + half_square(errors)

    errors = descent.minimise(model.grad(energy), jax.tree.map(jnp.zeros_like, activities))
    return Inferred(model.run(params, shifts=errors)[1], errors)


def fixed_prediction(model: Model, params: PyTree, descent: Descent) -> Inferred:
    """Holds mu_l, and all that layers receive, at the forward pass: `e_l <- e_l - gamma (e_l + dG/dh_l)`.

    With gamma = 1, the errors are minus backprop's after as many steps as there are hidden layers.

    Reference: Millidge, Tschantz, Buckley, arXiv 2006.04182, 2020; Rosenbaum, "On the relationship between predictive
      coding and backpropagation", PLoS ONE 17(3), 2022 (arXiv 2106.13082).
    """
    _, activities = model.run(params)
    slope = model.grad(model.fixed_error_energy, argnums=1)

    def step(errors, _):
        slopes = slope(params, activities, errors)
        return jax.tree.map(lambda e, s: e - descent.rate * (e + s), errors, slopes), None

    start = jax.tree.map(jnp.zeros_like, activities)
    return Inferred(activities, jax.lax.scan(step, start, length=descent.steps)[0])


def zero_divergence(model: Model, params: PyTree, descent: Descent) -> Inferred:
    """Descends F in the activities with gamma = 1; layer l learns at step L - l alone, when its first error arrives.

    The updates are backprop's: until then, all that the error has passed is as it was in the forward pass.

    Reference: Song, Lukasiewicz, Xu, Bogacz, NeurIPS 2020; Salvatori et al., "Reverse Differentiation via Predictive
      Coding", AAAI 2022 (arXiv 2103.04689).
    """
    _, start = model.run(params)
    slope = model.grad(model.energy, argnums=1)
    heights, hidden = {}, 0
    for name, stack in reversed(model.layers.items()):  # the last layer before the output has height 1
        (depth,) = stack or (1,)
        height = hidden + jnp.arange(depth, 0, -1) if stack else hidden + 1
        heights[name] = jnp.reshape(height, (*stack, *[1] * (start[name].ndim - len(stack))))
        hidden += depth

    def step(carry, t):
        states, inputs, errors = carry
        now = subtract(states, model.run(params, states)[1])
        # The layer above learns one step before: what it receives is the state of that moment.
        inputs = {name: jnp.where(heights[name] == t + 1, states[name], old) for name, old in inputs.items()}
        errors = {name: jnp.where(heights[name] == t, now[name], old) for name, old in errors.items()}
        slopes = slope(params, states)
        return (jax.tree.map(lambda h, s: h - descent.rate * s, states, slopes), inputs, errors), None

    first = start, start, jax.tree.map(jnp.zeros_like, start)
    (_, inputs, errors), _ = jax.lax.scan(step, first, jnp.arange(hidden + 1))
    return Inferred(inputs, errors)


def subtract(a: LayerArrays, b: LayerArrays) -> LayerArrays:
    """Returns `a - b`, layer by layer."""
    return jax.tree.map(jnp.subtract, a, b)


def half_square(arrays: LayerArrays) -> jax.Array:
    """Returns `1/2 |a|^2`, summed over layers and examples."""
    return 0.5 * jnp.sum(jnp.stack([jnp.vdot(a, a) for a in jax.tree.leaves(arrays)]))
