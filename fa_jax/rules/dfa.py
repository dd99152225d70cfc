"""Direct feedback alignment: every hidden layer receives the output error through a random matrix of its own.

    d_i = (B_i e) * f'(a_i)                   e = dL/dlogits, B_i random and fixed

No layer waits for the error of another: all can learn as soon as e is known. With one hidden layer this is feedback
alignment, `fa`. As with `fa`, signals reach every hidden layer from zero weights too, where those of backprop are zero.

`B_i e` replaces dL/dh_i. From h_i, autodiff carries it through the dropout, pooling, activation function and
normalisation of layer i to its weights, as in the author's code. What comes to h_{i-1} is discarded, and `B_{i-1} e`
takes its place.

Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, eq. 7 and fig. 1c.
"""

from collections.abc import Callable

import jax

from fa_jax.core import Batch, LossFunction, PyTree, Rule, Stream, stream
from fa_jax.feedback import InitFeedback, require_all_hidden
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule
from fa_jax.rules.projection import forward_paths, project_all


def dfa(network: Network, loss: LossFunction, *, init_feedback: InitFeedback) -> Rule:
    """Returns the `Rule` of direct feedback alignment.

    Args:
      network: marks its hidden layers with `Hidden`.
      loss: a mean over the batch.
      init_feedback: draws a matrix `[*stack, outputs, *shape]` for each hidden layer, such as `feedback.direct`.

    Raises:
      BadOption: if the network marks no hidden layer.
    """
    return direct_rule(network, lambda params, batch: output_error(network, loss, params, batch), loss, init_feedback)


def direct_rule(
    network: Network,
    output_signal: Callable[[PyTree, Batch], jax.Array],
    loss: LossFunction,
    init_feedback: InitFeedback,
) -> Rule:
    """Returns the rule that sends a signal of the output directly to every hidden layer.

    Args:
      network, loss, init_feedback: as for `dfa`.
      output_signal: `(params, batch) -> [batch, outputs]`, in place of the output error; includes the `1/batch` of the
        mean loss and has the sign of a gradient.
    """

    def init(key):
        params = network.init(key)
        feedback = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        return params, require_all_hidden(network, feedback)

    def backward(params, feedback, batch):
        return {"signals": project_all(network, output_signal(params, batch), feedback)}

    def weight_pairs(params, feedback):
        paths = forward_paths(network, params)
        return {} if paths is None else {name: (matrix, paths[name]) for name, matrix in feedback.items()}

    return backward_rule(network, loss, init=init, backward=backward, weight_pairs=weight_pairs)


def output_error(network: Network, loss: LossFunction, params: PyTree, batch: Batch) -> jax.Array:
    """Returns `e = dL/dlogits`, `[batch, outputs]`, with the dropout that `batch.key` draws."""
    return jax.grad(loss)(network.apply(params, batch.inputs, key=batch.key), batch.targets)
