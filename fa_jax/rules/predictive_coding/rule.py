"""Predictive coding: activities settle between the input and the target, then each layer learns to predict its own.

    mu_l = f(W_l h_{l-1} + b_l), l < L;   mu_L = W_L h_{L-1} + b_L               errors after the activation function
    mu_l = W_l f(h_{l-1}) + b_l, without f for the input                         errors before the activation function
    F = sum over the batch of [1/2 sum_{l<L} |h_l - mu_l|^2 + lambda loss(mu_L, y)]
    h_l <- h_l - gamma dF/dh_l, all layers at once, T times from the forward pass
    dW_l = dF/dW_l / (lambda N),   h held constant

Layers count from 1 here, h_0 = x, and N is the batch size: inference descends a sum over the batch, weights a mean. The
module `inference` has this loop and three others. Predictions are those of the forward pass.

Nudging weakens the target. By precision, lambda = beta, and as beta goes to 0 the updates become backprop's. By target,
lambda = 1, y is replaced by `mu_L - beta (mu_L - y)` of the forward pass, and updates are divided by beta.

Whittington, Bogacz, "An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network with Local
Hebbian Synaptic Plasticity", Neural Computation 29, 2017; nudging by target: Pinchetti et al., "Benchmarking Predictive
Coding Networks - Made Simple", ICLR 2025 (arXiv 2407.01163). Equations are those of the authors' programs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, is_on, number, unused
from fa_jax.core import Batch, Extras, LayerArrays, LossFunction, Measure, Metric, PyTree, Rule, Stream, stream
from fa_jax.feedback import require_hidden
from fa_jax.network import Network
from fa_jax.networks.chain import Chain
from fa_jax.networks.fast_gradients import grad
from fa_jax.optimizers import must_be_plain
from fa_jax.rules.predictive_coding.inference import (
    Descent,
    Model,
    fixed_prediction,
    infer_errors,
    infer_states,
    zero_divergence,
)

INFERENCES = {
    "states": infer_states,
    "errors": infer_errors,
    "fixed_prediction": fixed_prediction,
    "zero_divergence": zero_divergence,
}
DESCENTS = ("states", "errors")
"""The inferences that descend the energy; the others are linear in the output error."""
SIGN, STEP_COUNT = "sign", "step_count"
"""The entries of the feedback, if the sign of the nudging is drawn."""
METRICS = (Metric("energy_decrease", "decrease of the energy by inference", unit="%", better="neither"),)


def predictive_coding(
    network: Network,
    loss: LossFunction,
    *,
    inference: str,
    error_position: str,
    steps: int | None,
    step_size: float,
    momentum: float,
    nudging: str,
    nudging_strength: float | None,
    nudging_sign: str | None,
    sign_period: int | None,
) -> Rule:
    """Returns the `Rule` of predictive coding.

    Its feedback is `()`. If the sign of the nudging is drawn, it is that sign and the number of steps, and needs a
    feedback optimizer of rate 1.

    Args:
      network: marks its hidden layers with `Hidden`, without batch norm. What lies between two of them is
        differentiated as a whole, with the same dropout in all steps.
      loss: a mean over the batch.
      inference: `states`: gradient descent in the activities; `errors`: in the prediction errors; `fixed_prediction`:
        with predictions and derivatives held at the forward pass; `zero_divergence`: each layer learns when its first
        error arrives, which makes the updates those of backprop.
      error_position: `after_activation` or `before_activation`, the two placements of the equations above; the second
        needs hidden layers of one linear layer each.
      steps: T, at least 1; None with zero_divergence, which takes one per linear layer.
      step_size: gamma, above 0; below 2 with fixed_prediction, 1 with zero_divergence.
      momentum: of the descent, in [0, 1), without Nesterov's correction; 0 with fixed_prediction and zero_divergence.
      nudging: `none`, `precision` or `target`.
      nudging_strength: beta, not 0; with `target`, a share from -1 to 1; None without nudging.
      nudging_sign: of beta: `fixed`; `both`: the mean of the updates at beta and -beta; `drawn`: one of the two at
        random; None without nudging. The "centred nudging" of Pinchetti et al. is `drawn`, once per epoch.
      sign_period: the number of steps for which a drawn sign is kept, at least 1; else None.

    Raises:
      BadOption: if an option is out of range or would have no effect, or the rule is not defined on the network or with
        the loss.
    """
    require_hidden(network)
    if network.statistics_paths:
        raise BadOption("is not defined with batch norm, which couples the examples of a batch; it needs another norm")
    if inference == "zero_divergence" and not isinstance(network.module, Chain) and _has_stacks(network):
        raise BadOption(
            "must not be zero_divergence unless each hidden layer feeds the next one alone; in "
            f"{type(network.module).__name__}, they are scanned outside of a Chain",
            "inference",
        )
    before = choose("error_position", error_position, {"after_activation": False, "before_activation": True})
    if before:
        _require_one_linear_layer_each(network)
    infer = choose("inference", inference, INFERENCES)
    descent = _descent(inference, steps, step_size, momentum)
    beta = _strength(inference, nudging, nudging_strength, nudging_sign)
    is_drawn = _is_drawn(nudging_sign, sign_period)
    by_target = nudging == "target"
    if by_target:
        _require_squared_error(loss)

    def model_of(params: PyTree, batch: Batch, strength) -> Model:
        run = _run_before_activation(network, batch) if before else _run_after_activation(network, batch)
        targets, precision = batch.targets, strength
        if by_target:
            output, _ = run(params)
            targets, precision = output - strength * (output - batch.targets), 1.0
        kernels = list(network.kernel_shapes.items())[:-1]
        layers = {name: shape.stack for name, shape in (kernels if before else network.hidden_shapes.items())}
        return Model(
            layers,
            run,
            lambda output: precision * len(batch.inputs) * loss(output, targets),
            jax.grad if before else grad,  # layers with fast gradients cannot be observed
        )

    def init(key):
        signs = {SIGN: _draw_sign(stream(key, Stream.FEEDBACK)), STEP_COUNT: jnp.zeros(())} if is_drawn else ()
        return network.init(key), signs

    def learn(params, feedback, batch, updates):
        del params, updates
        ends = (feedback[STEP_COUNT] + 1) % sign_period == 0
        sign = jnp.where(ends, _draw_sign(batch.key), feedback[SIGN])
        return {SIGN: feedback[SIGN] - sign, STEP_COUNT: -jnp.ones(())}

    def mean_over_signs(feedback: PyTree, function: Callable) -> PyTree:
        if nudging_sign == "both":
            return jax.tree.map(lambda a: a.mean(0), jax.vmap(function)(jnp.asarray([beta, -beta])))
        return function(beta * feedback[SIGN] if is_drawn else beta)

    def updates(params, feedback, batch):
        def update(strength):
            model = model_of(params, batch, strength)
            states, errors = infer(model, params, descent)
            gradient = model.grad(model.fixed_error_energy)(params, states, errors)
            return jax.tree.map(lambda g: g / (strength * len(batch.inputs)), gradient)

        return mean_over_signs(feedback, update)

    def signals(params, feedback, batch):
        """Returns minus the errors: in place of dL/dh_l, they are what a layer learns from."""

        def signal(strength):
            errors = infer(model_of(params, batch, strength), params, descent).errors
            return jax.tree.map(lambda e: -e / (strength * len(batch.inputs)), errors)

        return mean_over_signs(feedback, signal)

    def measure(params, feedback, batch):
        def decrease(strength):
            model = model_of(params, batch, strength)
            start = model.output_energy(model.run(params)[0])
            end = model.energy(params, infer(model, params, descent).states)
            return 100 * (start - end) / jnp.abs(start)

        return {"energy_decrease": mean_over_signs(feedback, decrease)}

    def weight_pairs(params, feedback):
        del feedback
        # Errors travel back through the forward weights: the angle is reported, as 0.
        return {name: (w, w) for name, w in list(network.kernels(params).items())[1:]}

    extras = Extras(
        # Errors before the activation function stand for dL/da_l, which is no signal at h_l.
        signals=None if before else signals,
        weight_pairs=weight_pairs,
        measure=Measure(METRICS, measure) if inference in DESCENTS else None,
        check_feedback_optimizer=must_be_plain if is_drawn else None,
    )
    return Rule(init, updates, network.apply, learn if is_drawn else None, extras)


def _has_stacks(network: Network) -> bool:
    return any(hidden.stack for hidden in network.hidden_shapes.values())


def _draw_sign(key: jax.Array) -> jax.Array:
    """Returns 1 or -1."""
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def _run_after_activation(network: Network, batch: Batch) -> Callable:
    """Returns `Model.run` with the activities at the `Hidden`s."""

    def run(params, states=None, shifts=None):
        return network.forward(params, batch.inputs, key=batch.key, states=states, perturbations=shifts)

    return run


def _run_before_activation(network: Network, batch: Batch) -> Callable:
    """Returns `Model.run` with the activities at the outputs of the linear layers, named like these."""
    *hidden, readout = network.kernel_shapes

    def observe(layer, x, y):
        del x
        if layer.has_variable("states", "value"):
            return layer.get_variable("states", "value"), y
        y = y + layer.get_variable("shifts", "value", 0.0)
        return y, y

    def run(params, states=None, shifts=None):
        arrays: dict[str, LayerArrays] = {"states": states or {}, "shifts": shifts or {}}
        outputs = network.observe_linear(params, batch.inputs, observe, {"dropout": batch.key}, **arrays)
        return outputs[readout], {name: outputs[name] for name in hidden}

    return run


def _descent(inference: str, steps: int | None, step_size: float, momentum: float) -> Descent:
    """Returns the checked options of inference; `steps` is 0 where they are not an option."""
    momentum = number("momentum", momentum, least=0, below=1)
    if inference not in DESCENTS and momentum:
        raise BadOption(f"must be 0 with inference={inference}; got {momentum:g}", "momentum")
    if inference != "zero_divergence":
        bounds = {"below": 2.0} if inference == "fixed_prediction" else {}
        rate = number("step_size", step_size, above=0, **bounds)
        return Descent(integer("steps", steps, least=1), rate, momentum)
    unused("steps", steps, "with inference=zero_divergence, which sets it itself")
    if number("step_size", step_size) != 1:
        raise BadOption(f"must be 1 with inference=zero_divergence; got {step_size!r}", "step_size")
    return Descent(0, 1.0, 0.0)


def _strength(inference: str, nudging: str, strength: float | None, sign: str | None) -> float:
    """Returns the checked beta; without nudging, 1."""
    choose("nudging", nudging, dict.fromkeys(("none", "precision", "target")))
    if nudging == "none":
        for option, value in (("nudging_strength", strength), ("nudging_sign", sign)):
            unused(option, value, "with nudging=none")
        return 1.0
    if inference not in DESCENTS:
        raise BadOption(
            f"must be none with inference={inference}, which is linear in the output error; got {nudging!r}", "nudging"
        )
    either = choose("nudging_sign", sign, {"fixed": False, "both": True, "drawn": True})
    bounds = {"least": -1.0, "most": 1.0} if nudging == "target" else {}
    beta = number("nudging_strength", strength, **bounds)
    if not is_on(beta) or (either and beta < 0):
        valid = f"above 0 with nudging_sign={sign}, which uses both signs" if either else "other than 0"
        raise BadOption(f"must be {valid}; got {strength!r}", "nudging_strength")
    return beta


def _is_drawn(sign: str | None, period: int | None) -> bool:
    """Returns whether the sign of the nudging is drawn, with its period checked."""
    if sign == "drawn":
        integer("sign_period", period, least=1)
    else:
        unused("sign_period", period, "unless nudging_sign=drawn")
    return sign == "drawn"


def _require_squared_error(loss: LossFunction) -> None:
    """Raises `BadOption` unless the loss is half the squared error of linear outputs."""
    with jax.ensure_compile_time_eval():  # numbers of the rule may be traced, but the loss is not
        output, target = jnp.asarray([[0.3, -1.2]]), jnp.asarray([[0.9, 0.4]])
        is_squared_error = jnp.allclose(loss(output, target), 0.5 * jnp.sum(jnp.square(output - target)))
    if not is_squared_error:
        raise BadOption("must be none or precision, unless loss=squared_error with loss.output=linear", "nudging")


def _require_one_linear_layer_each(network: Network) -> None:
    """Raises `BadOption` unless each hidden layer has one linear layer, before whose activation it can have errors."""
    kernels, hiddens = list(network.kernel_shapes.values())[:-1], list(network.hidden_shapes.values())
    if [kernel.stack for kernel in kernels] != [hidden.stack for hidden in hiddens]:
        raise BadOption(
            "must be after_activation unless hidden layers have one linear layer each, as those of mlp; "
            f"got {len(kernels)} linear layers in {len(hiddens)} hidden ones",
            "error_position",
        )
