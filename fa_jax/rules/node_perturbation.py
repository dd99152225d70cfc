"""Node perturbation: hidden units wiggle, and a wiggle that lowered the loss is reinforced.

    signal_i = (L(h + xi) - L(h)) / sigma^2 * xi_i         xi ~ N(0, sigma^2)

an estimate of dL/dh from two scalars. The readout learns by the delta rule on the unperturbed pass, whose loss is the
baseline. This is the "reinforcement" of Lillicrap et al. (arXiv 1411.0247, 2014, fig. 1d), who give only its name and
two references (Williams, 1992; Werfel, Xie, Seung, 2005): the equation is the standard one, not printed there.
"""

import jax

from fa_jax.checks import number
from fa_jax.core import LossFunction, Rule, Stream, stream
from fa_jax.network import Network, gradient
from fa_jax.networks.chain import require_hidden


def node_perturbation(network: Network, loss: LossFunction, *, sigma: float) -> Rule:
    """Returns the `Rule` of node perturbation; its feedback is `()`.

    All hidden layers are perturbed at once, each example with noise of its own.

    Args:
      network: one that marks its hidden layers with `Hidden`.
      loss: a mean over the batch.
      sigma: standard deviation of the perturbation, in units of the activations, above 0.
    """
    require_hidden(network)
    sigma = number("rule.sigma", sigma, above=0)
    losses = jax.vmap(lambda logits, targets: loss(logits[None], targets[None]))

    def updates(params, feedback, batch):
        del feedback
        logits, hiddens = network.forward(params, batch.inputs, key=batch.key)
        noise = {
            name: sigma * jax.random.normal(jax.random.fold_in(batch.key, i), h.shape, h.dtype)
            for i, (name, h) in enumerate(hiddens.items())
        }
        noisy = network.apply(network.nudge(params, noise), batch.inputs, key=batch.key)
        change = (losses(noisy, batch.targets) - losses(logits, batch.targets)) / len(batch.inputs)

        def credit(name):
            return change.reshape(-1, *[1] * len(network.hiddens[name].shape)) * noise[name] / sigma**2

        return gradient(network, loss, params, batch, signals={name: credit(name) for name in noise})

    return Rule(lambda key: (network.init(stream(key, Stream.INIT)), ()), updates, network.apply)
