"""FA and DFA as Hao, Wan and Zhai (2026) train them: each layer descends a loss of its own, on a signal of fixed size.

    L_i = mean over the batch of <f_i(h_{i-1}), a_i / rms(a_i)>      h_0 = f_0(x),  h_i = h_{i-1} + f_i(h_{i-1}) above
    DFA:  a_i = B_i e                                                e = dL/dlogits
    FA:   a_L = dL/dh_L,  a_i = B_{i+1} a_{i+1}                      B square, in place of the whole block above

The a_i are constants, so that the gradient of L_i is what layer i learns if `a_i / rms(a_i)` replaces dL/dh_i of each
example. The readout descends the true loss. They have one AdamW for each block: since its steps are those of single
weights, one for all blocks is the same.

The authors' notes leave open what is read here as follows: a_i belongs to the state after block i; the embedding f_0
learns by a signal like the blocks; DFA's last block has a random signal, too. They do not say over what the root mean
square is taken: in `fa` and `dfa` over the units of each example, so that its signal has one size however small its
error is; in `fa_by_batch` and `dfa_by_batch` over those of all examples of a batch.

Hao, Wan, Zhai, arXiv 2606.21126, 2026, by the authors' public notes.
"""

import itertools

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, number, unused
from fa_jax.core import Batch, LayerArrays, LossFunction, PyTree, Rule, Stream, stream
from fa_jax.feedback import InitFeedback, require_all_hidden
from fa_jax.initializers import DISTRIBUTIONS, sparsify
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule, hidden_gradient
from fa_jax.rules.dfa import output_error
from fa_jax.rules.projection import project_all

OF_EXAMPLE, OF_BATCH = (1,), (0, 1)
"""The axes of signals `[batch, units]` over which a root mean square is taken."""


def dfa(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of DFA with the signal of each example divided by its root mean square.

    Args:
      network, loss, init_feedback: as for `fa_jax.rules.dfa.dfa`.

    Raises:
      BadOption: as that does.
    """
    return _direct(network, loss, init_feedback, OF_EXAMPLE)


def dfa_by_batch(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns `dfa` with signals divided by their root mean square over the batch."""
    return _direct(network, loss, init_feedback, OF_BATCH)


def fa(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of FA from hidden state to hidden state, the signal of each divided by its root mean square.

    Args:
      network: marks its hidden layers with `Hidden`; they have one width and are not scanned.
      loss: a mean over the batch.
      init_feedback: draws a matrix for each hidden layer but the first, such as `between_states`.

    Raises:
      BadOption: when params are drawn, if `init_feedback` does not return these matrices.
    """
    return _layer_by_layer(network, loss, init_feedback, OF_EXAMPLE)


def fa_by_batch(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns `fa` with signals divided by their root mean square over the batch."""
    return _layer_by_layer(network, loss, init_feedback, OF_BATCH)


def between_states(
    network: Network,
    key: jax.Array,
    params: PyTree,
    *,
    distribution: str,
    scale: float,
    density: float,
    rank: None,
    fan: None,
) -> LayerArrays:
    """Draws a square matrix for each hidden layer but the first, which sends the signal of its state to the one below.

    Args:
      network, key, params, distribution, scale, density: as for `feedback.layerwise`, one value for all layers.
      rank: None, since all have full rank.
      fan: None, since both fans are equal here.

    Returns:
      B^T, `[width, width]`, by the name of the layer that the signal comes from.

    Raises:
      BadOption: if an option is out of range, or the hidden layers are scanned or differ in width.
    """
    unused("rank", rank, "between hidden states, where feedback has full rank")
    unused("fan", fan, "between hidden states, where both fans are the width")
    draw = choose("distribution", distribution, DISTRIBUTIONS).draw
    size, kept = number("scale", scale, above=0), number("density", density, above=0, most=1)
    shapes = {(*hidden.stack, *hidden.shape) for hidden in network.hidden_shapes.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 1:
        raise BadOption("feedback from state to state needs hidden layers of one width that are not scanned")
    (width,) = shape
    dtype = jax.tree.leaves(params)[0].dtype
    keys = jax.random.split(key, (len(network.hidden_shapes), 2))
    return {
        name: sparsify(keys[i, 1], draw(keys[i, 0], (width, width), width, size), kept).astype(dtype)
        for i, name in enumerate(network.hidden_shapes)
        if i
    }


def normalised(signal: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns signals divided by their root mean square and by the batch size; a signal of exactly 0 stays 0.

    Args:
      signal: `[batch, units]`.
      axes: over which the root mean square is taken, `OF_EXAMPLE` or `OF_BATCH`.
    """
    largest = jnp.max(jnp.abs(signal), axes, keepdims=True)
    # Divided by its largest entry first: squares of small and of large signals leave the range of float32.
    scaled = signal / jnp.where(largest == 0, 1, largest)
    rms = jnp.sqrt(jnp.mean(scaled**2, axes, keepdims=True))
    return scaled / jnp.where(largest == 0, 1, rms) / len(signal)


def _direct(network: Network, loss: LossFunction, init_feedback: InitFeedback, axes: tuple[int, ...]) -> Rule:
    def init(key):
        params = network.init(key)
        return params, require_all_hidden(network, init_feedback(network, stream(key, Stream.FEEDBACK), params))

    def backward(params, feedback, batch):
        sent = project_all(network, output_error(network, loss, params, batch), feedback)
        return {"signals": {name: normalised(signal, axes) for name, signal in sent.items()}}

    return backward_rule(network, loss, init=init, backward=backward)


def _layer_by_layer(network: Network, loss: LossFunction, init_feedback: InitFeedback, axes: tuple[int, ...]) -> Rule:
    names = list(network.hidden_shapes)

    def init(key):
        params = network.init(key)
        feedback = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        if set(feedback) != set(names[1:]):
            raise BadOption("needs a matrix of each hidden layer but the first, such as between_states draws")
        return params, feedback

    def backward(params: PyTree, feedback: LayerArrays, batch: Batch) -> dict[str, LayerArrays]:
        signal = hidden_gradient(network, loss, params, batch)[names[-1]]
        signals = {names[-1]: normalised(signal, axes)}
        for upper, lower in itertools.pairwise(reversed(names)):
            signal = signal @ feedback[upper]
            signals[lower] = normalised(signal, axes)
        return {"signals": signals}

    return backward_rule(network, loss, init=init, backward=backward)
