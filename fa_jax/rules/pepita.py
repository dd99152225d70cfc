"""PEPITA: a second forward pass, on an input modulated by the output error, tells every layer how to change.

    first pass:   h_i = f(W_i h_{i-1}),   h_{-1} = x,            e = dL/dlogits of each example
    second pass:  k_i = f(W_i k_{i-1}),   k_{-1} = x + F e,      with the dropout masks of the first pass
    dW_i = (h_i - k_i) k_{i-1}^T,         dW_L = e_2 k_{L-1}^T,  e_2: the error of the second pass

F is random and fixed. No derivative f' occurs: for small F, `h_i - k_i` is `-f'(a_i) * (W_i ... W_0 F e)`, which is
direct feedback alignment with feedback that moves with the weights. Since it descends if `W_{L-1} ... W_0 F` is aligned
with `-W_L^T`, the product of all weights turns away from `F^T`; with `x - F e` it turns towards it.

Dellaferrera, Kreiman, "Error-driven Input Modulation: Solving the Credit Assignment Problem without a Backward Pass",
ICML 2022 (arXiv 2201.11665). Equations are those of the authors' dense programs, extended to biases and convolutions.
Their convolutional program adds the update of the kernels with the other sign and divides it by the batch twice, so
that its kernels stay where they are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose
from fa_jax.core import Extras, LayerArrays, LossFunction, Measure, Metric, PyTree, Rule, Stream, stream
from fa_jax.feedback import INPUT, InitFeedback
from fa_jax.metrics.alignment import angle
from fa_jax.network import Network
from fa_jax.networks.fast_gradients import observe_with_fast_gradient
from fa_jax.rules.projection import forward_paths, project
from fa_jax.rules.stagewise import require_chain, require_no_norm

SIGNS = {"plus": 1.0, "minus": -1.0}
METRIC = Metric(
    "input_feedback_angle", "angle of F to the transposed product of the weights", "degrees", bounds=(0, 180)
)


class Passes(NamedTuple):
    """What the two passes leave."""

    modulated: jax.Array
    """The input of the second pass, `[batch, *input_shape]`."""
    differences: LayerArrays
    """`(h - k) / batch` by the name of a hidden layer."""
    errors: tuple[jax.Array, jax.Array]
    """dL/dlogits of the first and of the second pass, `[batch, outputs]`, with the `1/batch` of the mean loss."""


def pepita(
    network: Network, loss: LossFunction, *, init_feedback: InitFeedback, output_error: str, sign: str, positions: str
) -> Rule:
    """Returns the `Rule` of PEPITA.

    Args:
      network: a `Chain` of stages of one linear layer each without a norm, marked before any pooling.
      loss: a mean over the batch.
      init_feedback: draws F, such as `feedback.to_input`.
      output_error: the error that the readout learns from, of the `first` or the `second` pass.
      sign: `plus`: the second pass is on `x + F e`; `minus`: on `x - F e`.
      positions: whether the update of a convolution is the `sum` or the `mean` over the positions that share it.

    Raises:
      BadOption: if an option is out of range, or the network is not of this form.
    """
    names = _hidden_layers(network)
    of_second = choose("output_error", output_error, {"first": False, "second": True})
    direction = choose("sign", sign, SIGNS)
    shares = _shares(network, names, choose("positions", positions, {"sum": False, "mean": True}))
    readout = list(network.kernel_shapes)[-1]

    def init(key):
        params = network.init(key)
        feedback = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        if set(feedback) != {INPUT}:
            raise BadOption("needs feedback to the input alone, such as to_input")
        return params, feedback

    def passes(params, feedback, batch):
        # The difference of two nearly equal activations needs all digits of the products.
        with jax.default_matmul_precision("float32"):
            logits, h = network.forward(params, batch.inputs, key=batch.key)
            error = jax.grad(loss)(logits, batch.targets)
            shift = project(error * len(error), feedback[INPUT].astype(error.dtype))
            modulated = batch.inputs + direction * shift
            second_logits, k = network.forward(params, modulated, key=batch.key)
        differences = {name: (h[name] - k[name]) / len(error) for name in h}
        return Passes(modulated, differences, (error, jax.grad(loss)(second_logits, batch.targets)))

    def preactivations(params, inputs, batch):
        """Returns a_i by the name of a linear layer; its gradient reaches that layer alone."""
        with jax.default_matmul_precision("float32"):
            return network.observe_linear(params, inputs, observe_with_fast_gradient, {"dropout": batch.key})

    def updates(params, feedback, batch):
        modulated, differences, errors = passes(params, feedback, batch)
        changes = {name: differences[hidden] / shares[name] for name, hidden in names.items()}
        changes[readout] = errors[of_second]

        def inner_products(params):
            a = preactivations(params, modulated, batch)
            return sum(jnp.sum(changes[name] * a[name]) for name in changes)

        return jax.grad(inner_products)(params)  # the outer product of `changes` and the input of the layer

    def signals(params, feedback, batch):
        """Returns `a_i - W_i k_{i-1}`, which for small F is the substitute for dL/dh: f' maps it to `h - k`."""
        a, second = (
            preactivations(params, inputs, batch)
            for inputs in (batch.inputs, passes(params, feedback, batch).modulated)
        )
        return {hidden: (a[name] - second[name]) / len(batch.inputs) for name, hidden in names.items()}

    def weight_pairs(params, feedback):
        paths = forward_paths(network, params)
        if paths is None:
            return {}
        sent = _sent_up(network, params, -direction * feedback[INPUT].reshape(network.outputs, -1))
        return {name: (sent[name], paths[name]) for name in paths}

    def measure(params, feedback, batch):
        del batch
        paths = forward_paths(network, params)
        if paths is None:
            return {}
        first_kernel = next(iter(network.kernels(params).values()))
        product = next(iter(paths.values())) @ first_kernel.T
        return {METRIC.name: angle(feedback[INPUT].reshape(product.shape), product)}

    def train_predict(params, inputs, key=None):
        with jax.default_matmul_precision("float32"):  # so that training metrics share the first pass of the updates
            return network.apply(params, inputs, key=key)

    extras = Extras(
        signals=signals,
        weight_pairs=weight_pairs,
        measure=Measure((METRIC,), measure),
        train_predict=train_predict,
    )
    return Rule(init, updates, network.apply, extras=extras)


def _sent_up(network: Network, params: PyTree, matrix: jax.Array) -> LayerArrays:
    """Returns a matrix `[outputs, inputs]` times the kernels up to each hidden layer, `[*stack, outputs, width]`."""
    sent = {}
    for hidden, kernel in zip(network.hidden_shapes, network.kernels(params).values(), strict=False):
        if kernel.ndim == 3:
            matrix, sent[hidden] = jax.lax.scan(lambda m, w: (m @ w, m @ w), matrix, kernel)
        else:
            matrix = sent[hidden] = matrix @ kernel
    return sent


def _hidden_layers(network: Network) -> dict[str, str]:
    """Returns the name of the hidden layer in which each linear layer but the last ends.

    Raises:
      BadOption: unless every stage is one linear layer, without a norm, and is marked before its pooling.
    """
    chain = require_chain(network)
    layers = list(network.kernel_shapes)[:-1]
    if len(layers) != len(network.hidden_shapes):
        raise BadOption(
            "needs stages of one linear layer each, such as those of mlp and cnn; "
            f"got {len(layers)} linear layers in {len(network.hidden_shapes)} stages"
        )
    require_no_norm(chain)

    def outputs(params, inputs):
        return network.observe_linear(params, inputs, lambda layer, x, a: (a, a), {"dropout": jax.random.key(0)})

    params = jax.eval_shape(network.init, jax.random.key(0))
    shapes = jax.eval_shape(outputs, params, jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32))
    pairs = dict(zip(layers, network.hidden_shapes, strict=True))
    for layer, hidden in pairs.items():
        shape = (*network.hidden_shapes[hidden].stack, 1, *network.hidden_shapes[hidden].shape)
        if shapes[layer].shape != shape:
            raise BadOption("compares activations before the pooling; it needs hidden_position=before_pooling")
    return pairs


def _shares(network: Network, names: dict[str, str], mean: bool) -> dict[str, int]:
    """Returns by what the update of each hidden linear layer is divided: 1, or the positions that share its kernel.

    Raises:
      BadOption: if a mean over positions has no convolution to act on.
    """
    shares = {}
    for layer, hidden in names.items():
        shape, kernel = network.hidden_shapes[hidden].shape, network.kernel_shapes[layer]
        shared = mean and len(shape) == 3 and len(kernel.shape) == 4
        shares[layer] = math.prod(shape[:-1]) if shared else 1
    if mean and set(shares.values()) == {1}:
        raise BadOption("must be sum unless the network has convolutions; got mean", "positions")
    return shares
