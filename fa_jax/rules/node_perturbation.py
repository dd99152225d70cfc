"""Node perturbation: noise in the hidden units is reinforced if it lowers the loss.

    signal_i = (L(h + xi) - L(h)) / sigma^2 * xi_i         xi ~ N(0, sigma^2)

This estimates dL/dh from two numbers, the losses of an example with and without noise, which all units receive alike.
The estimate has no bias for small noise, but its variance grows with the number of units. It is `forward_gradient` with
noise in activities by one-sided finite differences, and equals its exact form in the limit of small noise. The readout
learns from its true gradient on the unperturbed pass, whose loss is the baseline.

Lillicrap, Cownden, Tweed, Akerman, "Random feedback weights support learning in deep neural networks", arXiv
1411.0247, 2014, fig. 1d: their "reinforcement". They give only the name and two references (Williams, 1992; Werfel,
Xie, Seung, 2005); the equation is the standard one and is not printed there.
"""

from fa_jax.core import LossFunction, Rule
from fa_jax.network import Network
from fa_jax.rules.forward_gradient import forward_gradient


def node_perturbation(network: Network, loss: LossFunction, *, sigma: float) -> Rule:
    """Returns the `Rule` of node perturbation; its feedback is `()`.

    All hidden layers are perturbed at once, each example with noise of its own.

    Args:
      network: marks its hidden layers with `Hidden`; without batch statistics.
      loss: a mean over the batch.
      sigma: standard deviation of the noise, in units of the activations, above 0.

    Raises:
      BadOption: if sigma is out of range, the network marks no hidden layer, or it has batch statistics.
    """
    options = {"perturb": "activities", "derivative": "one_sided", "noise": "normal", "draws": 1, "spare_silent": False}
    return forward_gradient(network, loss, sigma=sigma, **options)
