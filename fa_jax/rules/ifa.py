"""Indirect feedback alignment: the error enters at the first hidden layer and travels up through the forward weights.

    d_0 = (B e) * f'(a_0),     d_i = (W_i d_{i-1}) * f'(a_i)

Only the first hidden layer has feedback, random and fixed. The signal of a later layer is the change that the signal of
the first causes there, so the forward weights are used in their own direction alone. With one hidden layer this is
direct feedback alignment, `dfa`.

Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, eq. 8 and fig. 1d.
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.core import Batch, LayerArrays, LossFunction, PyTree, Rule, Stream, stream
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule
from fa_jax.rules.dfa import output_error
from fa_jax.rules.projection import forward_paths, project_all
from fa_jax.rules.stagewise import require_dense_stages


def ifa(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of indirect feedback alignment.

    Args:
      network: a `Chain` of stages of one dense layer each; those between the first and the readout do not start at
        zero.
      loss: a mean over the batch.
      init_feedback: draws a matrix `[outputs, width]` for the first hidden layer alone, such as
        `feedback.first_layer`.

    Raises:
      BadOption: if the network is not of this form.
    """
    _check(network)
    first = next(iter(network.hidden_shapes))

    def init(key):
        params = network.init(key)
        feedback = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        if set(feedback) != {first}:
            raise BadOption("needs feedback to the first hidden layer alone, such as first_layer")
        return params, feedback

    def backward(params, feedback, batch):
        signal = project_all(network, output_error(network, loss, params, batch), feedback)[first]
        return {"signals": _sent_up(network, params, batch, signal)}

    def weight_pairs(params, feedback):
        paths = forward_paths(network, params)
        return {} if paths is None else {first: (feedback[first], paths[first])}

    return backward_rule(network, loss, init=init, backward=backward, weight_pairs=weight_pairs)


def _sent_up(network: Network, params: PyTree, batch: Batch, signal: jax.Array) -> LayerArrays:
    """Returns the signal of every hidden layer, given that of the first.

    The derivative of the later pre-activations in the direction of `signal` at the first is `W_i d_{i-1}`: the signal
    before the factor `f'(a_i)` of their own layer.
    """
    names = list(network.kernel_shapes)[:-1]

    def preactivations(shift):
        def observe(layer, x, y):
            del x
            a = y + shift if "/".join(layer.path) == names[0] else y
            return a, a

        return network.observe_linear(params, batch.inputs, observe, {"dropout": batch.key})

    # Forward-mode differentiation from a_0 on multiplies by f'(a) and W, layer by layer.
    _, tangents = jax.jvp(preactivations, (jnp.zeros_like(signal),), (signal,))
    return {hidden: tangents[name] for hidden, name in zip(network.hidden_shapes, names, strict=True)}


def _check(network: Network) -> None:
    """Raises `BadOption` unless the rule is defined on the network and can learn there."""
    require_dense_stages(network)
    weights = network.kernels(network.init(jax.random.key(0)))
    zero = [name for name in list(weights)[1:-1] if not jnp.any(weights[name])]
    if zero:
        raise BadOption(
            f"cannot learn if {zero[0]} starts at zero: the signal travels up through these weights, so none arrives, "
            "and they stay at zero; it needs init_scale above 0"
        )
