"""Backpropagation: the true gradient, to which every other rule is compared.

    d_i = (W_{i+1}^T d_{i+1}) * f'(a_i)

The backward pass uses the transposes of the forward weights. In a brain or on a chip these would be other synapses,
which would have to be kept equal to the forward ones: the weight transport problem, which most other rules avoid.

Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule


def bp(network: Network, loss: LossFunction) -> Rule:
    """Returns the `Rule` whose updates are the gradient of the mean loss; its feedback is `()`."""

    def weight_pairs(params, feedback):
        del feedback
        # Backward weights are the forward weights: the angle is reported, as 0.
        return {name: (w, w) for name, w in list(network.kernels(params).items())[1:]}

    return backward_rule(
        network,
        loss,
        init=lambda key: (network.init(key), ()),
        backward=lambda params, feedback, batch: {},
        weight_pairs=weight_pairs,
    )
