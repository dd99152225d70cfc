"""Forward gradients: the derivative of the loss along a random direction, times that direction, estimates the gradient.

    weights:     dtheta = (dL/dtheta . v) v                               v ~ N(0, 1), one for the whole batch
    activities:  signal_i = u_i sum_j (dL_n/dh_j . u_j) / batch           u ~ N(0, 1), of each example n

The sum over all hidden layers j, or all weights, is one number that a single forward pass computes beside the loss
(`jax.jvp`), or two forward passes a finite distance sigma apart. L_n is the loss of one example. With noise in
activities the readout learns from its true gradient, as it does with `hidden_weights`.

The noise enters after the activation function, at `Hidden`, and the signal passes through the layer by the chain rule.
For ReLU units, noise that spares silent units is the same as noise before the activation function.

Baydin, Pearlmutter, Syme, Wood, Torr, "Gradients without Backpropagation", arXiv 2202.08587, 2022 (weights); Ren,
Kornblith, Liao, Hinton, "Scaling Forward Gradient With Local Losses", ICLR 2023 (arXiv 2210.03310), eqs. 2 and 3; Ren's
weight-perturbed rows are `hidden_weights`. Finite differences: Malladi et al., NeurIPS 2023 (arXiv 2305.17333).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, switch, unused
from fa_jax.core import Batch, Extras, LayerArrays, LossFunction, PyTree, Rule
from fa_jax.feedback import require_hidden
from fa_jax.network import Network
from fa_jax.optimizers import is_kernel
from fa_jax.rules.backward import backward_rule, gradient
from fa_jax.rules.stagewise import require_chain

NOISES = {"normal": jax.random.normal, "signs": jax.random.rademacher}
"""Distributions of mean 0 and variance 1, `(key, shape, dtype) -> array`."""
Derivative = Callable[[Callable, PyTree, PyTree], jax.Array]
"""`(function, point, direction) -> derivative of the function along the direction`."""


def exact(function: Callable, point: PyTree, direction: PyTree) -> jax.Array:
    """Returns the directional derivative by forward-mode differentiation."""
    return jax.jvp(function, (point,), (direction,))[1]


def one_sided(function: Callable, point: PyTree, direction: PyTree, sigma: float) -> jax.Array:
    """Returns `(f(x + sigma v) - f(x)) / sigma`, whose error is of the order of sigma."""
    return (function(_moved(point, direction, sigma)) - function(point)) / sigma


def central(function: Callable, point: PyTree, direction: PyTree, sigma: float) -> jax.Array:
    """Returns `(f(x + sigma v) - f(x - sigma v)) / 2 sigma`, whose error is of the order of sigma^2."""
    ahead, behind = (function(_moved(point, direction, distance)) for distance in (sigma, -sigma))
    return (ahead - behind) / (2 * sigma)


DIFFERENCES = {"one_sided": one_sided, "central": central}


def forward_gradient(
    network: Network,
    loss: LossFunction,
    *,
    perturb: str,
    derivative: str,
    sigma: float | None,
    noise: str,
    draws: int,
    spare_silent: bool,
) -> Rule:
    """Returns the `Rule` of forward gradients; its feedback is `()`.

    Args:
      network: with noise in activities, marks its hidden layers with `Hidden`; with `hidden_weights`, a `Chain`.
      loss: a mean over the batch.
      perturb: where the noise enters: `activities`, all hidden layers at once; `weights`, all params; or
        `hidden_weights`, all but those of the readout.
      derivative: `exact`, by forward-mode differentiation; `one_sided` or `central`, by finite differences.
      sigma: of finite differences, the standard deviation of the noise, above 0; None with `exact`.
      noise: `normal`, or `signs`: 1 and -1.
      draws: the number of estimates that are averaged, at least 1.
      spare_silent: whether units whose activation is 0 get no noise, which halves the variance; for ReLU units alone.

    Raises:
      BadOption: if an option is out of range or without effect, or the rule is not defined on the network.
    """
    choose("perturb", perturb, {name: name for name in ("activities", "weights", "hidden_weights")})
    differentiate = _derivative(derivative, sigma)
    draw = choose("noise", noise, NOISES)
    draws = integer("draws", draws, least=1)
    spares = switch("spare_silent", spare_silent)
    if perturb != "activities":
        if spares:
            raise BadOption(f"must be false with perturb={perturb}, which perturbs no unit", "spare_silent")
        hidden_only = perturb == "hidden_weights"
        return _weight_perturbation(network, loss, differentiate, draw, draws, hidden_only=hidden_only)
    check_activity_noise(network, spares)
    if network.statistics_paths:
        raise BadOption(
            "is not defined for noise in activities with batch statistics, where the loss of one example depends on "
            "the noise of the others; it needs norm=none, layer or group"
        )

    def backward(params, feedback, batch):
        del feedback

        def signals(key):
            u = activity_noise(network, params, batch, key, draw, spares)
            return activity_signals(network, loss, params, batch, u, differentiate)

        return {"signals": mean_over_draws(signals, batch.key, draws)}

    return backward_rule(network, loss, init=lambda key: (network.init(key), ()), backward=backward)


def activity_signals(
    network: Network, loss: LossFunction, params: PyTree, batch: Batch, noise: LayerArrays, derivative: Derivative
) -> LayerArrays:
    """Returns the signals that noise in the activities yields, shaped like the noise, with the `1/batch` of the loss.

    Args:
      network, loss, params, batch: of the forward pass.
      noise: u, `[*stack, batch, *shape]` by hidden layer.
      derivative: of the losses of all examples along the noise.
    """
    each_loss = jax.vmap(lambda logits, targets: loss(logits[None], targets[None]))

    def losses(perturbations):
        logits = network.apply(params, batch.inputs, key=batch.key, perturbations=perturbations)
        return each_loss(logits, batch.targets)

    slopes = derivative(losses, jax.tree.map(jnp.zeros_like, noise), noise) / len(batch.inputs)
    # One number per example, in front of the axes of an activation.
    return {name: slopes.reshape(-1, *[1] * len(network.hidden_shapes[name].shape)) * u for name, u in noise.items()}


def weight_update(
    network: Network, loss: LossFunction, params: PyTree, batch: Batch, direction: PyTree, derivative: Derivative
) -> PyTree:
    """Returns the derivative of the mean loss along a direction of the params, times the direction."""

    def batch_loss(params):
        return loss(network.apply(params, batch.inputs, key=batch.key), batch.targets)

    slope = derivative(batch_loss, params, direction)
    return jax.tree.map(lambda v: slope * v, direction)


def activity_noise(
    network: Network, params: PyTree, batch: Batch, key: jax.Array, draw: Callable, spare_silent: bool
) -> LayerArrays:
    """Returns noise for every hidden layer, `[*stack, batch, *shape]`, each example with its own.

    Args:
      network, params, batch: of the forward pass.
      key: draws the noise.
      draw: one of `NOISES`.
      spare_silent: whether the noise of units whose activation is 0 is 0.
    """
    zeros = network.hidden_zeros(batch.inputs)
    noise = {name: draw(jax.random.fold_in(key, i), h.shape, h.dtype) for i, (name, h) in enumerate(zeros.items())}
    if not spare_silent:
        return noise
    _, hiddens = network.forward(params, batch.inputs, key=batch.key)
    return {name: u * (hiddens[name] != 0) for name, u in noise.items()}


def mean_over_draws(estimate: Callable[[jax.Array], PyTree], key: jax.Array, draws: int) -> PyTree:
    """Returns the mean of `estimate(key)` over so many keys, one after another; of one key, the given one."""
    if draws == 1:
        return estimate(key)

    def add(total, key):
        return jax.tree.map(jnp.add, total, estimate(key)), None

    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(estimate, key))
    total, _ = jax.lax.scan(add, zeros, jax.random.split(key, draws))
    return jax.tree.map(lambda a: a / draws, total)


def check_activity_noise(network: Network, spare_silent: bool) -> None:
    """Checks that noise can enter the activities of a network.

    Raises:
      BadOption: if it marks no hidden layer, or if silent units are to be spared and one is not a ReLU unit.
    """
    require_hidden(network)
    if not spare_silent:
        return
    last_layers = [getattr(stage, "layers", [stage])[-1] for stage in require_chain(network).stages]
    if any(getattr(layer, "activation", None) is not jax.nn.relu for layer in last_layers):
        raise BadOption(
            "must be false unless activation=relu: other units pass gradients where they are 0", "spare_silent"
        )


def _weight_perturbation(
    network: Network,
    loss: LossFunction,
    derivative: Derivative,
    draw: Callable,
    draws: int,
    *,
    hidden_only: bool,
    is_frozen: Callable[[tuple[str, ...]], bool] = lambda path: False,
) -> Rule:
    """Returns the rule with noise in the params that learn, or in those of the hidden layers alone."""
    if hidden_only:
        require_chain(network)

    def direction(params, key):
        """Draws v: no noise for what does not learn, nor for a readout with its true gradient."""
        flat, tree = jax.tree_util.tree_flatten_with_path(params)

        def drawn(i, path, p):
            names = tuple(entry.key for entry in path)
            if names in network.statistics_paths or is_frozen(names) or (hidden_only and names[0] == "readout"):
                return jnp.zeros_like(p)
            noise = draw(jax.random.fold_in(key, i), p.shape, p.dtype)
            if network.is_sparse and is_kernel(names):
                return jnp.where((p == 0) & jnp.any(p != 0), 0, noise)
            return noise

        return jax.tree.unflatten(tree, [drawn(i, path, p) for i, (path, p) in enumerate(flat)])

    def updates(params, feedback, batch):
        del feedback

        def estimate(key):
            return weight_update(network, loss, params, batch, direction(params, key), derivative)

        estimated = mean_over_draws(estimate, batch.key, draws)
        if not hidden_only:
            return estimated
        true = gradient(network, loss, params, batch, signals=network.hidden_zeros(batch.inputs))
        return {**estimated, "readout": true["readout"]}

    def without(is_frozen):
        return _weight_perturbation(
            network, loss, derivative, draw, draws, hidden_only=hidden_only, is_frozen=is_frozen
        )

    extras = Extras(without=without)
    return Rule(lambda key: (network.init(key), ()), updates, network.apply, extras=extras)


def _derivative(name: str, sigma: float | None) -> Derivative:
    """Returns the derivative of that name; finite differences are of size sigma."""
    chosen = choose("derivative", name, {"exact": exact, **DIFFERENCES})
    if chosen is exact:
        unused("sigma", sigma, "with derivative=exact, which has no finite noise")
        return exact
    size = number("sigma", sigma, above=0)
    return lambda function, point, direction: chosen(function, point, direction, size)


def _moved(point: PyTree, direction: PyTree, distance: float) -> PyTree:
    return jax.tree.map(lambda x, v: x + distance * v, point, direction)
