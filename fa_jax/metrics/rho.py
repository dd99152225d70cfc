"""The correlation between what a rule's learning signal predicts of a loss and how the loss changes.

    rho_i = correlation over random directions v of <a_i, v> with dL(h_i + t v)/dt at t = 0

a_i is the signal that the rule puts in the place of dL/dh_i. The derivative is taken in forward mode, from the hidden
layer to the loss, so that no backward pass is involved in it: it judges backprop's signal too, which has rho = 1. With
many directions, rho of an example is the cosine of its signal angle; with K of them it deviates by about 1/sqrt(K).

Hao, Wan, Zhai (arXiv 2606.21126, 2026) measure it in their notes with 32 directions, by a difference quotient of step
1e-3. In float32, such a quotient is rounded where gradients are small, which is where the measure is needed.
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, integer
from fa_jax.core import Batch, LossFunction, Measure, Metric, PyTree, Rule
from fa_jax.metrics.alignment import REFERENCE, by_layer, norm
from fa_jax.network import Network

METRIC = Metric(
    "rho",
    "correlation of the predicted change of the loss with the true one",
    better="higher",
    bounds=(-1, 1),
    flag=REFERENCE,
)


def rho(*, directions: int) -> Measure:
    """Returns the `Measure` of `rho_i`.

    Args:
      directions: K, at least 3, drawn for each example and layer. Each costs a forward pass of the probe batch.
    """
    integer("directions", directions, least=3)

    def compute(
        rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """Returns `rho_i` of hidden layer i, from -1 to 1, mean over the examples whose signals are not zero.

        Absent if the rule does not provide its signals.

        Only networks that `require_independent_examples` accepts have it.
        """
        if rule.extras.signals is None:
            return {}
        signals = network.hiddens_in_order(rule.extras.signals(params, feedback, batch))
        zeros = network.hidden_zeros(batch.inputs)

        def losses(perturbations):
            logits = network.apply(params, batch.inputs, key=batch.key, perturbations=perturbations)
            return jax.vmap(lambda logit, target: loss(logit[None], target[None]))(logits, batch.targets)

        _, derivative = jax.linearize(losses, zeros)

        def change(key, layer):
            """Returns the predicted and the true change of the losses along one direction, `[2, examples]`."""
            drawn = [jax.random.normal(jax.random.fold_in(key, i), h.shape, h.dtype) for i, h in enumerate(signals)]
            moved = [jnp.where(layer == i, v, 0) for i, v in enumerate(drawn)]
            products = [jnp.sum((a * v).reshape(len(v), -1), 1) for a, v in zip(signals, moved, strict=True)]
            return jnp.stack([sum(products), derivative(network.hiddens_from_order(moved))])

        def correlations(layer):
            keys = jax.random.split(jax.random.fold_in(batch.key, layer), directions)
            changes = jax.lax.map(lambda key: change(key, layer), keys)  # [directions, 2, examples]
            return correlation(*jnp.moveaxis(changes, 0, -1))

        by_example = jax.lax.map(correlations, jnp.arange(len(signals)))
        return by_layer(METRIC.name, jnp.nanmean(by_example, axis=1))

    return Measure((METRIC,), compute, require_independent_examples)


def require_independent_examples(network: Network) -> None:
    """Checks that an example does not change the loss of others.

    Raises:
      BadOption: if the network has batch normalisation.
    """
    if network.statistics_paths:
        problem = "is not defined with batch normalisation, through which an example changes the loss of others"
        raise BadOption(problem, "measure.rho", complete=True)


def correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns Pearson's correlation over the last axis; NaN where one of both does not vary."""
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    lengths = norm(a), norm(b)
    a, b = (x / jnp.where(length > 0, length, 1)[..., None] for x, length in zip((a, b), lengths, strict=True))
    return jnp.where((lengths[0] > 0) & (lengths[1] > 0), jnp.sum(a * b, -1), jnp.nan)
