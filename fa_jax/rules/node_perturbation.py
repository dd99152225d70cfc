"""Node perturbation: noise in the hidden units is reinforced if it lowers the loss.

    signal_i = (L(h + xi) - L(h)) / sigma^2 * xi_i         xi ~ N(0, sigma^2)

This estimates dL/dh from two scalars. The readout learns from its true gradient on the unperturbed pass, whose loss is
the baseline. It is the "reinforcement" of Lillicrap et al. (arXiv 1411.0247, 2014, fig. 1d), who give only the name and
two references (Williams, 1992; Werfel, Xie, Seung, 2005); the equation is the standard one and is not printed there.
"""

import jax

from fa_jax.checks import number
from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import require_hidden
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule


def node_perturbation(network: Network, loss: LossFunction, *, sigma: float) -> Rule:
    """Returns the `Rule` of node perturbation; its feedback is `()`.

    All hidden layers are perturbed at once, each example with noise of its own.

    Args:
      network: marks its hidden layers with `Hidden`.
      loss: a mean over the batch.
      sigma: standard deviation of the noise, in units of the activations, above 0.

    Raises:
      BadOption: if sigma is out of range, or the network marks no hidden layer.
    """
    require_hidden(network)
    sigma = number("sigma", sigma, above=0)
    losses = jax.vmap(lambda logits, targets: loss(logits[None], targets[None]))

    def backward(params, feedback, batch):
        del feedback
        logits, hiddens = network.forward(params, batch.inputs, key=batch.key)
        noise = {
            name: sigma * jax.random.normal(jax.random.fold_in(batch.key, i), h.shape, h.dtype)
            for i, (name, h) in enumerate(hiddens.items())
        }
        noisy_logits = network.apply(params, batch.inputs, key=batch.key, perturbations=noise)
        change = (losses(noisy_logits, batch.targets) - losses(logits, batch.targets)) / len(batch.inputs)

        def signal(name):
            # One number per example, in front of the axes of an activation.
            return change.reshape(-1, *[1] * len(network.hidden_shapes[name].shape)) * noise[name] / sigma**2

        return {"signals": {name: signal(name) for name in noise}}

    return backward_rule(network, loss, init=lambda key: (network.init(key), ()), backward=backward)
