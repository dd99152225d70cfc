"""Target propagation: every layer approaches a target, which learned inverses of the layers above send down.

    t_{i-1} = h_{i-1} + g_i(t_i) - g_i(h_i),     g_i(y) = f(V_i y + c_i)      difference correction
    dL/dh_i := -2 (t_i - h_i),                   for the loss |h_i - t_i|^2, half of it with l_drl

The first target is, for a step alpha and the gradient of the loss of one example,

    dtp              t_{L-1} = h_{L-1} - alpha dL/dh_{L-1}     at the last hidden layer
    sdtp, ao_sdtp    t_L = y, the label                        at the probabilities, h_L = softmax(a_L)
    drl, l_drl       t_L = a_L - alpha dL/da_L                 at the logits

The readout descends the loss in the first three, and `|a_L - t_L|^2` in the last two, which is `2 alpha` times as fast
(`alpha` with l_drl). V_i and c_i learn to invert layer i by the loss of the variant (`variants.py`). In place of a
target, its difference from the activation is sent down, which is small and keeps its digits.

* dtp: Lee, Zhang, Fischer, Bengio, "Difference Target Propagation", ECML/PKDD 2015 (arXiv 1412.7525).
* sdtp, ao_sdtp: Bartunov, Santoro, Richards, Marris, Hinton, Lillicrap, NeurIPS 2018 (arXiv 1807.04587). In ao_sdtp,
  V_L reads auxiliary units too: fixed random functions of h_{L-1}, in the target as in the activation. The paper does
  not say which activation function they have; here it is that of h_{L-1}.
* drl: Meulemans, Carzaniga, Suykens, Sacramento, Grewe, NeurIPS 2020 (arXiv 2006.14331).
* l_drl: Ernoult et al., ICML 2022 (arXiv 2201.13415), with `g_i(y) = V_i f(y)`, dense layers only; their noise, rate
  and number of steps differ from layer to layer, those here do not.

Inverses and layers learn on every batch, as in the runs that Bartunov et al. call parallel. Lee et al. alternate epochs
of both, and Meulemans et al. add epochs of the inverses alone.
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, unused
from fa_jax.core import LossFunction, PyTree, Rule, Stream, stream
from fa_jax.feedback import InitFeedback, require_all_kernels
from fa_jax.initializers import fan_uniform
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, each_stage
from fa_jax.optimizers import must_be_plain
from fa_jax.rules.backward import backward_rule
from fa_jax.rules.stagewise import require_dense_stages
from fa_jax.rules.target_propagation.differences import Function, difference_of
from fa_jax.rules.target_propagation.passes import AUXILIARY, Passes
from fa_jax.rules.target_propagation.variants import VARIANTS, activation_inside


def target_propagation(
    network: Network,
    loss: LossFunction,
    *,
    init_feedback: InitFeedback,
    variant: str,
    step_size: float | None,
    sigma: float,
    inner_steps: int,
    inner_rate: float | None,
    auxiliary_units: int | None,
) -> Rule:
    """Returns the `Rule` of target propagation; its feedback is V_i and c_i by the name of the kernel of layer i.

    With one hidden layer, dtp has no inverses: it is backprop with another learning rate for that layer.

    Args:
      network: a `Chain` of dense stages, without norms and dropout.
      loss: a mean over the batch; with sdtp and ao_sdtp, of softmax outputs.
      init_feedback: draws V_i, such as `feedback.layerwise`; c_i starts at zero.
      variant: `dtp`, `sdtp`, `ao_sdtp`, `drl` or `l_drl`.
      step_size: alpha, above 0, per example: some programs apply theirs to the mean loss, and it is larger by the batch
        size. None for sdtp and ao_sdtp.
      sigma: standard deviation of the noise, above 0.
      inner_steps: K, the number of steps that V_i and c_i take on a batch, each with noise of its own.
      inner_rate: the learning rate of these steps, which are plain gradient descent; the feedback then needs an
        optimizer of rate 1. With l_drl, the targets of a batch use the inverses after its steps, so it needs this rate
        with any K. None with one step in the others, which the feedback optimizer takes.
      auxiliary_units: of ao_sdtp; None for the others.

    Raises:
      BadOption: if an option is out of range or has no effect, the network is not of this form, or the variant is not
        defined with the loss.
    """
    _, activations = require_plain_stages(network)
    chosen = choose("variant", variant, VARIANTS)
    if chosen.from_labels:
        _require_softmax_outputs(variant, loss)
    alpha = _step_size(variant, step_size, needed=not chosen.from_labels)
    sigma = number("sigma", sigma, above=0)
    inner_steps = integer("inner_steps", inner_steps, least=1)
    takes_steps = inner_steps > 1 or chosen.learns_first
    rate = _inner_rate(variant, inner_rate, needed=takes_steps)
    units = _auxiliary_units(variant, auxiliary_units)
    passes = Passes(network, chosen, activations, units)

    def init(key):
        params, feedback_key = network.init(key), stream(key, Stream.FEEDBACK)
        kernels = require_all_kernels(network, init_feedback(network, feedback_key, params))
        feedback: dict[str, PyTree] = {}
        for name in passes.inverted:
            bias = {} if chosen.inverse is activation_inside else {"bias": jnp.zeros(kernels[name].shape[:-1])}
            feedback[name] = {"kernel": kernels[name], **bias}
        if units:
            last = list(network.kernel_shapes)[-1]
            fans = {"units": kernels[last].shape[0], "kernel": network.outputs + units}
            keys = jax.random.split(jax.random.fold_in(feedback_key, len(network.kernel_shapes)))
            feedback[AUXILIARY] = {
                name: fan_uniform(key, (fans["units"], units), fan, 1.0)
                for key, (name, fan) in zip(keys, fans.items(), strict=True)
            }
        return params, feedback

    def gradients(params, feedback, batch):
        """Returns the sum of the gradients of the K steps."""
        layers = passes.forward(params, feedback, batch)

        def gradient(k, total):
            current = feedback if inner_steps == 1 else _descended(feedback, total, rate)
            key = jax.random.fold_in(batch.key, k)
            return jax.tree.map(jnp.add, total, jax.grad(passes.reconstruction_loss)(current, layers, key, sigma))

        zeros = jax.tree.map(jnp.zeros_like, feedback)
        return gradient(0, zeros) if inner_steps == 1 else jax.lax.fori_loop(0, inner_steps, gradient, zeros)

    def backward(params, feedback, batch):
        if chosen.learns_first:
            feedback = _descended(feedback, gradients(params, feedback, batch), rate)
        layers, size = passes.forward(params, feedback, batch), len(batch.inputs)
        error = size * jax.grad(loss)(layers[-1].preactivation[:, : network.outputs], batch.targets)
        if chosen.from_gradient:
            first = -alpha * error @ layers[-1].kernel.T
        elif chosen.from_labels:
            first = batch.targets - layers[-1].output[:, : network.outputs]
        else:
            first = -alpha * error
        displacements = passes.send_down(feedback, layers, first)
        return {"signals": network.hiddens_from_order([-chosen.factor / size * d for d in displacements])}

    def learn(params, feedback, batch, updates):
        del updates
        total = gradients(params, feedback, batch)
        return jax.tree.map(lambda g: rate * g, total) if takes_steps else total

    def weight_pairs(params, feedback):
        weights = network.kernels(params)
        return {name: (feedback[name]["kernel"], weights[name]) for name in passes.inverted}

    readout_scale = chosen.factor * alpha if chosen.at_logits else 1.0
    rule = backward_rule(
        network,
        lambda logits, targets: readout_scale * loss(logits, targets),
        init=init,
        backward=backward,
        weight_pairs=weight_pairs,
        needs_classes=chosen.from_labels,
        fixed_feedback=frozenset({(AUXILIARY, "units")} if units else ()),
        check_feedback_optimizer=must_be_plain if takes_steps else None,
    )
    return rule._replace(learn=learn)


def _descended(feedback: PyTree, gradient: PyTree, rate: float) -> PyTree:
    return jax.tree.map(lambda v, g: v - rate * g, feedback, gradient)


def require_plain_stages(network: Network) -> tuple[Chain, list[Function]]:
    """Returns the `Chain` of a network and the activation functions of its hidden layers.

    Raises:
      BadOption: unless its stages are dense, without norms and dropout, with activation functions in `DIFFERENCES`.
    """
    chain = require_dense_stages(network)
    stages = list(each_stage(chain))
    dense = [stage for stage in stages if isinstance(stage, DenseStage)]
    if len(dense) < len(stages):
        raise BadOption("needs stages of one dense layer each, such as those of mlp")
    if any(stage.dropout or stage.input_dropout for stage in dense):
        raise BadOption("is not defined with dropout; it needs dropout=0 and input_dropout=0")
    for stage in dense:
        difference_of(stage.activation)
    return chain, [stage.activation for stage in dense]


def _require_softmax_outputs(variant: str, loss: LossFunction) -> None:
    """Raises `BadOption` unless a loss is stationary where the softmax of the logits is the label, the first target."""
    with jax.ensure_compile_time_eval():  # numbers of the rule may be traced, but the loss is not
        logits = jnp.asarray([[0.3, -1.2, 0.7]])
        is_softmax = jnp.allclose(jax.grad(loss)(logits, jax.nn.softmax(logits)), 0, atol=1e-6)
    if not is_softmax:
        reason = "unless the loss is one of softmax outputs, such as cross_entropy"
        raise BadOption(f"must be dtp, drl or l_drl {reason}; got {variant}", "variant")


def _step_size(variant: str, step_size: float | None, *, needed: bool) -> float:
    if needed:
        return number("step_size", step_size, above=0)
    unused("step_size", step_size, f"with variant={variant}, whose first target is the label")
    return 0.0


def _inner_rate(variant: str, rate: float | None, *, needed: bool) -> float:
    if needed:
        return number("inner_rate", rate, above=0)
    unused("inner_rate", rate, f"with variant={variant} and one inner step")
    return 0.0


def _auxiliary_units(variant: str, units: int | None) -> int:
    if variant == "ao_sdtp":
        return integer("auxiliary_units", units, least=1)
    unused("auxiliary_units", units, "unless variant=ao_sdtp")
    return 0
