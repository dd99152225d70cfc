"""Direct feedback alignment: every hidden layer is sent the output error itself, through a random matrix of its own.

    d_i = (B_i e) * f'(a_i)                   e = dL/dlogits, B_i random and fixed

Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, eq. 7 and fig. 1c. With
one hidden layer it is feedback alignment. Between two `Hidden`s the error is backpropagated: through the activation
function, the dropout, the pooling and the normalisation of that layer, as in the author's code.
"""

from collections.abc import Callable

import jax

from fa_jax.core import Batch, LossFunction, PyTree, Rule, Stream, stream
from fa_jax.feedback import direct_matrices, forward_paths, project_all
from fa_jax.network import Network, gradient


def dfa(network: Network, loss: LossFunction, **feedback) -> Rule:
    """Returns the `Rule` of direct feedback alignment.

    Its feedback holds an array `[*stack, outputs, *shape]` by the name of each hidden layer.

    Args:
      network: one that marks its hidden layers with `Hidden`.
      loss: a mean over the batch.
      **feedback: how it is drawn, as in `fa_jax.feedback.direct_matrices`.

    Raises:
      BadOption: if the network marks no hidden layer.
    """
    return direct(network, loss, lambda params, batch: output_error(network, loss, params, batch), **feedback)


def direct(network: Network, loss: LossFunction, teaching: Callable[[PyTree, Batch], jax.Array], **feedback) -> Rule:
    """Returns the rule that sends `teaching`, `(params, batch) -> [batch, outputs]`, to every hidden layer.

    Other arguments as for `dfa`; `teaching` carries the `1/batch` of the mean loss and the sign of a gradient.
    """
    draw = direct_matrices(network, **feedback)

    def init(key):
        return network.init(stream(key, Stream.INIT)), draw(stream(key, Stream.FEEDBACK))

    def updates(params, feedback, batch):
        signals = project_all(network, teaching(params, batch), feedback)
        return gradient(network, loss, params, batch, signals=signals)

    def crossing(params, feedback):
        paths = forward_paths(network, params)
        return {} if paths is None else {name: (feedback[name], paths[name]) for name in network.hiddens}

    return Rule(init, updates, network.apply, crossing=crossing)


def output_error(network: Network, loss: LossFunction, params: PyTree, batch: Batch) -> jax.Array:
    """Returns `e = dL/dlogits`, `[batch, outputs]`, with the dropout of the pass that teaches."""
    return jax.grad(loss)(network.apply(params, batch.inputs, key=batch.key), batch.targets)
