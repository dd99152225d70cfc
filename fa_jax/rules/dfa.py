"""Direct feedback alignment: every hidden layer is sent the output error itself, through a random matrix of its own.

    d_i = (B_i e) * f'(a_i)                   e = dL/dlogits, B_i random and fixed

Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, eq. 7 and fig. 1c. With
one hidden layer it is feedback alignment.
"""

import jax

from fa_jax.core import LossFunction, Network, Rule, Stream, gradient, stream
from fa_jax.feedback import direct_matrices, forward_paths, project_all


def dfa(network: Network, loss: LossFunction, *, distribution, scale, kept) -> Rule:
    """Returns the `Rule` of direct feedback alignment.

    Its feedback holds an array `[*stack, outputs, *shape]` by the name of each hidden layer.

    Args:
      network: one that marks its hidden layers with `Hidden`.
      loss: a mean over the batch.
      distribution, scale, kept: of the feedback weights, as in `fa_jax.feedback.direct_matrices`.

    Raises:
      BadOption: if the network marks no hidden layer.
    """
    draw = direct_matrices(network, distribution=distribution, scale=scale, kept=kept)

    def init(key):
        return network.init(stream(key, Stream.INIT)), draw(stream(key, Stream.FEEDBACK))

    def updates(params, feedback, batch):
        logits = network.apply(params, batch.inputs, key=batch.key)
        error = jax.grad(loss)(logits, batch.targets)
        return gradient(network, loss, params, batch, signals=project_all(network, error, feedback))

    def crossing(params, feedback):
        paths = forward_paths(network, params)
        return {} if paths is None else {name: (feedback[name], paths[name]) for name in network.hiddens}

    return Rule(init, updates, network.apply, crossing=crossing)
