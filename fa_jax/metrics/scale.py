"""How large the hidden states are, and how much one layer amplifies them.

    scale_i = median over examples of |h_i|        growth = max over i of scale_{i+1} / scale_i

The growth is over depth, at one state of the params. Where hidden states explode from layer to layer, backprop's signal
to the lower layers falls towards the numerical floor behind a normalisation of the last one, and an angle to it means
little. Growth over training is `scale_i` relative to its value before the first step, which tables show beside it.

Hao, Wan, Zhai, "What Accuracy and Gradient Cosine Miss: Evaluating Feedback Alignment via Scale Stability, Reference
Validity, and Depth Utility", arXiv 2606.21126, 2026: scale stability. There, h_0 is a residual stream before the first
block, and h_i the stream after block i. The limit of 50 is theirs; their notes have at most 25 for backprop, and at
least 100 for direct feedback alignment in these networks. Their norm is over the last axis of an array. Ours is over
all units of an example, so that feature maps have one number per example. Where the number of units changes from layer
to layer, so does the norm, with its root.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, Flag, LossFunction, Measure, Metric, PyTree, Rule
from fa_jax.metrics.alignment import by_layer, median_norms
from fa_jax.network import Network

LARGEST_GROWTH = 50.0
"""The largest growth that is not marked."""
EXPLODES = f"a layer makes the hidden state more than {LARGEST_GROWTH:g} times larger"


def layer_scales(
    rule: Rule, network: Network, loss: LossFunction, params: PyTree, feedback: PyTree, batch: Batch
) -> dict[str, jax.Array]:
    """Returns `scale_i` of each hidden layer in the order of the forward pass, and from two layers on, `growth`.

    The pass is that of a prediction: without dropout, with running statistics. A layer after one whose scale is zero
    has no growth, which is NaN if there is no other.

    Args:
      rule, network, loss: the rule with the network and the loss that it was built for.
      params, feedback: of one seed.
      batch: the probe.
    """
    del rule, loss, feedback
    if not network.hidden_shapes:
        return {}
    _, hiddens = network.forward(params, batch.inputs)
    scales = median_norms([(hiddens[name], h.stack) for name, h in network.hidden_shapes.items()])
    return by_layer("scale", scales) | ({"growth": growth(scales)} if len(scales) > 1 else {})


def growth(scales: jax.Array) -> jax.Array:
    """Returns the largest ratio of a scale to the one before, of `[layers]` from two on; those after 0 do not count."""
    below, above = scales[:-1], scales[1:]
    return jnp.nanmax(jnp.where(below > 0, above / jnp.where(below > 0, below, 1), jnp.nan))


SCALE = Measure(
    (
        Metric("scale", "norm of the hidden state", "", "neither", True, plotted=False),
        Metric(
            "growth",
            "largest growth of the hidden state by one layer",
            better="neither",
            logarithmic=True,
            flag=Flag("growth", (None, LARGEST_GROWTH), EXPLODES),
        ),
    ),
    layer_scales,
)
