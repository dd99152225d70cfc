"""Equilibrium propagation: a network settles freely, then nudged to the target; layers learn from the difference.

    s_l <- f(s_{l-1} W_l + b_l + s_{l+1} W_{l+1}^T),   above s_K: -beta dloss/ds_K              settling, see `dynamics`
    dW_l = -1/(2 beta) (s_l^beta s_{l-1}^beta - s_l^-beta s_{l-1}^-beta)                        centred
    dW_l = -1/beta (s_l^beta s_{l-1}^beta - s_l^0 s_{l-1}^0)                                    one-sided
    dW_l = -mean_k 1/beta_k s_l^{beta_k} s_{l-1}^{beta_k},   beta_k = beta exp(2 pi i k / N)    N points; N = 2: centred

averaged over the batch. Nudged phases start from the free states. The readout has the gradient of the loss at the
nudged states. As beta goes to 0, the updates become the gradient of the loss at the free fixed point, with an error of
the order beta one-sided, beta^2 centred and beta^N with N points. They are not those of backprop in the feed-forward
network of the same weights.

Scellier, Bengio, "Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation", Frontiers
in Computational Neuroscience 11:24, 2017, whose squared error has no factor 1/2, so that their beta is half of ours and
their updates are twice as large; centred: Laborieux et al., "Scaling Equilibrium Propagation to Deep ConvNets
by Drastically Reducing its Gradient Estimator Bias", Frontiers in Neuroscience, 2021; N points: Laborieux, Zenke,
"Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size Oscillations", NeurIPS 2022.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, is_on, number
from fa_jax.core import Extras, LossFunction, Measure, Metric, Rule
from fa_jax.network import Network
from fa_jax.networks.chain import DenseStage, each_stage, unstack
from fa_jax.networks.layers import ACTIVATIONS
from fa_jax.rules.equilibrium_propagation.dynamics import (
    Dynamics,
    EquilibriumNetwork,
    SettledHidden,
    linear_layers,
    params_of,
)
from fa_jax.rules.equilibrium_propagation.phases import Phases
from fa_jax.rules.stagewise import require_chain

ANALYTIC = ("linear", "tanh", "sigmoid", "shifted_sigmoid")
"""Activation functions with values for complex arguments."""
INCREASING = (*ANALYTIC, "clip", "relu", "leaky_relu", "elu")
METRICS = (Metric("settling_residual", "largest change of a state at the end of the free phase", logarithmic=True),)
SQUARED_ERROR, CROSS_ENTROPY = "squared error", "cross-entropy"
ANALYTIC_ERRORS = {
    SQUARED_ERROR: lambda output, targets: output - targets,
    CROSS_ENTROPY: lambda output, targets: _softmax(output) - targets,
}
"""The gradient of each loss of one example, for complex outputs too."""


def equilibrium_propagation(
    network: Network,
    loss: LossFunction,
    *,
    output: str,
    points: int,
    nudging_strength: float,
    free_steps: int,
    nudged_steps: int,
    tolerance: float | None,
    order: str,
) -> Rule:
    """Returns the `Rule` of equilibrium propagation; its feedback is `()`.

    Its params are those of the network, unstacked if scanned, with each matrix used in both directions. It predicts by
    settling, with the steps of the free phase, and is compared with the gradient of the loss at the fixed point.

    Args:
      network: an `mlp` of increasing activation functions, without norm and dropout.
      loss: a mean over the batch.
      output: `readout`: the readout is linear and has no state; `state`: the output is a state with the activation
        function of the last hidden layer, and the loss its squared error.
      points: N: 1, one-sided; 2, centred; or more, with complex states, for analytic activation functions and the
        cross-entropy or the squared error.
      nudging_strength: beta, not 0; above 0 unless one-sided.
      free_steps, nudged_steps: T1 and T2, at least 1. An error reaches one more layer with every nudged step.
      tolerance: a phase ends early when no state changes by more, above 0; None: all phases have all steps.
      order: `synchronous`: all states move at once; `asynchronous`: every other one does, and the rest then sees them,
        which settles where synchronous steps oscillate.

    Raises:
      BadOption: if an option is out of range, or the rule is not defined on the network or with the loss.
    """
    stages = _dense_stages(network, integer("points", points, least=1))
    has_output_state = choose("output", output, {"readout": False, "state": True})
    kind = _kind_of(loss)
    if has_output_state and kind != SQUARED_ERROR:
        raise BadOption("must be readout, unless loss=squared_error with loss.output=linear", "output")
    if points > 2 and kind is None:
        raise BadOption(f"must be at most 2 with a loss that is neither {SQUARED_ERROR} nor {CROSS_ENTROPY}", "points")
    beta = number("nudging_strength", nudging_strength, **({} if points == 1 else {"above": 0.0}))
    if not is_on(beta):
        raise BadOption(f"must be other than 0; got {nudging_strength!r}", "nudging_strength")
    free_steps = integer("free_steps", free_steps, least=1)
    nudged_steps = integer("nudged_steps", nudged_steps, least=1)
    activations = tuple(stage.activation for stage in stages)
    is_asynchronous = choose("order", order, {"synchronous": False, "asynchronous": True})
    if is_asynchronous and len(stages) + has_output_state == 1:
        raise BadOption("must be synchronous: a single layer settles", "order")
    dynamics = Dynamics(
        activations + activations[-1:] * has_output_state,
        is_asynchronous,
        None if tolerance is None else number("tolerance", tolerance, above=0),
    )
    module = EquilibriumNetwork(
        [stage.clone(activation=ACTIVATIONS["linear"], hidden=False) for stage in stages],
        [SettledHidden() for _ in stages],
        require_chain(network).readout.clone(),
        dynamics,
        free_steps,
    )
    settled = Network(module, network.input_shape)

    def init(key):
        params = network.init(key)
        return {**unstack(require_chain(network), params), "readout": params["readout"]}, ()

    output_error = ANALYTIC_ERRORS[str(kind)] if points > 2 else _error_of(loss)
    phases = Phases(dynamics, has_output_state, output_error, points, beta, free_steps, nudged_steps)

    def signals(params, feedback, batch):
        del feedback
        return dict(zip(settled.hidden_shapes, phases.signals(linear_layers(params), batch), strict=False))

    def predict(params, inputs, key=None):
        del key
        return settled.apply(params, inputs)

    measure = Measure(
        METRICS,
        lambda params, feedback, batch: {"settling_residual": phases.residual(linear_layers(params), batch)},
    )
    extras = Extras(signals=signals, measure=measure, network=settled)
    return Rule(
        init,
        lambda params, feedback, batch: params_of(phases.updates(linear_layers(params), batch)),
        predict,
        extras=extras,
    )


def _softmax(outputs: jax.Array) -> jax.Array:
    """Returns the softmax, for complex outputs too."""
    exponentials = jnp.exp(outputs - jnp.max(outputs.real, -1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _error_of(loss: LossFunction) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns the gradient of a loss of each example, `(outputs, targets) -> [batch, outputs]`."""
    return lambda outputs, targets: len(outputs) * jax.grad(loss)(outputs, targets)


def _kind_of(loss: LossFunction) -> str | None:
    """Returns which of `ANALYTIC_ERRORS` is the gradient of a loss; None if none is."""
    with jax.ensure_compile_time_eval():  # numbers of the rule may be traced, but the loss is not
        outputs, targets = jnp.asarray([[0.3, -1.2, 0.7]]), jnp.asarray([[0.2, 0.7, 0.1]])
        gradient = jax.grad(loss)(outputs, targets)
        kinds = [kind for kind, error in ANALYTIC_ERRORS.items() if jnp.allclose(gradient, error(outputs, targets))]
    return kinds[0] if kinds else None


def _dense_stages(network: Network, points: int) -> list[DenseStage]:
    """Returns the stages of a network.

    Raises:
      BadOption: unless each is one dense layer of a suitable activation function, without norm and dropout.
    """
    chain = require_chain(network)
    every = list(each_stage(chain))
    stages = [stage for stage in every if isinstance(stage, DenseStage)]
    if len(stages) < len(every) or not isinstance(chain.readout, nn.Dense):
        raise BadOption("needs stages of one dense layer each, as those of mlp")
    if any(stage.norm is not None for stage in stages):
        raise BadOption("is not defined for normalised layers; it needs norm=none")
    if any(stage.dropout or stage.input_dropout for stage in stages):
        raise BadOption("is not defined with dropout; it needs dropout=0 and input_dropout=0")
    names = INCREASING if points <= 2 else ANALYTIC
    if not all(any(stage.activation is ACTIVATIONS[name] for name in names) for stage in stages):
        kind = "increasing" if points <= 2 else f"analytic with points={points}"
        raise BadOption(f"needs an activation function that is {kind}: one of {', '.join(names)}")
    return stages
