"""Local error signals: every stage learns from a loss of its own activation; no gradient passes from stage to stage.

    h_l = f_l(sg(g_{l-1})),   g_l = dropout and pooling of h_l,   sg: stop gradient
    L = sum_l [(1 - beta) pred(h_l) + beta sim(h_l)] + (1 - beta) loss(W sg(g_L), y)         `predsim`

`pred` and `sim` have that loss alone, with weight 1, and so has their readout W. The losses are those of `losses`. They
read a stage right after its activation function, which is where the network of this rule has its `Hidden`. Residual
blocks are stages, where the authors' residual networks have a loss after each convolution.

Mono-Forward is `pred` whose predictions have no bias and do not start at zero, and whose readout is the prediction of
the last stage.

Nøkland, Eidnes, "Training Neural Networks with Local Error Signals", ICML 2019 (arXiv 1901.06656); Gong, Li, Abdulla,
"Mono-Forward", arXiv 2501.09238, 2025, whose paper was not available to us: a reimplementation was. Dropout of
convolutions, which drops whole channels in the code of Nøkland and Eidnes, drops single units here.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, unused
from fa_jax.core import Extras, LossFunction, Measure, Metric, PyTree, Rule, Stream, stream
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, unstack
from fa_jax.networks.fast_gradients import grad
from fa_jax.rules.local_loss.losses import TORCH_UNIFORM, StageLoss
from fa_jax.rules.stagewise import require_chain, stages_marked_before_dropout

METRICS = {
    "prediction_loss": Metric("prediction_loss", "prediction loss"),
    "similarity_loss": Metric("similarity_loss", "similarity loss"),
}
OBJECTIVES = {
    "pred": ("prediction_loss",),
    "sim": ("similarity_loss",),
    "predsim": ("prediction_loss", "similarity_loss"),
    "mono_forward": ("prediction_loss",),
}
"""The losses of each objective."""
SIMILARITY_WEIGHT = 0.99
"""beta of the authors' code."""
HEAD_FEATURES = 2048
"""Of the feature maps that predictions read, at most, as in the authors' code."""


def local_loss(
    network: Network, loss: LossFunction, *, objective: str, similarity_weight: float | None, head_features: int | None
) -> Rule:
    """Returns the `Rule` of local error signals; its feedback is `()`.

    Its params are those of the network, with unstacked stages and a readout that starts at zero (dense, even in a
    network with sparse weights), and `losses_i` of each stage.

    Args:
      network: a `Chain`, each stage of which is trained by backprop within.
      loss: of the predictions and of the readout, a mean over the batch; the paper's is the cross-entropy.
      objective: `pred`, `sim`, `predsim` or `mono_forward`.
      similarity_weight: beta of `predsim`, in (0, 1); None: 0.99.
      head_features: the largest number of features of a feature map that a prediction reads (`losses.averaged`);
        None: 2048, and where no prediction reads one.

    Raises:
      BadOption: if an option is out of range or without effect, or the rule is not defined on the network.
    """
    names = choose("objective", objective, OBJECTIVES)
    weights, readout_weight = dict.fromkeys(names, 1.0), 1.0
    if objective == "predsim":
        beta = SIMILARITY_WEIGHT if similarity_weight is None else similarity_weight
        beta = number("similarity_weight", beta, above=0, below=1)
        weights, readout_weight = {"prediction_loss": 1 - beta, "similarity_loss": beta}, 1 - beta
    else:
        unused("similarity_weight", similarity_weight, f"with objective={objective}")
    if others := [name for name, h in network.hidden_shapes.items() if len(h.shape) not in (1, 3)]:
        raise BadOption(
            "is defined for vectors and feature maps; the activation of "
            f"{others[0]} has shape {list(network.hidden_shapes[others[0]].shape)}"
        )
    if "prediction_loss" not in names or all(len(h.shape) == 1 for h in network.hidden_shapes.values()):
        unused("head_features", head_features, "where no prediction reads a feature map")
    features = integer("head_features", HEAD_FEATURES if head_features is None else head_features, least=1)
    is_mono_forward = objective == "mono_forward"
    local = _mono_forward_network(network) if is_mono_forward else _local_network(network)
    # The prediction of the last stage is the readout in Mono-Forward, which therefore passes its gradient on.
    hidden_layers = list(local.hidden_shapes)[: -1 if is_mono_forward else None]
    stage_loss = StageLoss(
        loss, "prediction_loss" in names, "similarity_loss" in names, network.outputs, features, is_mono_forward
    )

    def init(key):
        params = {**local.init(key), **unstack(require_chain(network), network.init(key))}
        if not is_mono_forward:
            params["readout"] = jax.tree_util.tree_map_with_path(_zero_kernel, params["readout"])
        targets = jnp.zeros((1, network.outputs))
        for i, name in enumerate(hidden_layers):
            h = jnp.zeros((1, *local.hidden_shapes[name].shape))
            variables = stage_loss.init(jax.random.fold_in(stream(key, Stream.INIT), i), h, targets)
            params[f"losses_{i}"] = variables["params"]
        return params, ()

    def forward(params, batch, **options):
        """Returns the logits, and the losses of each stage."""
        # A zero signal at the end of a stage stops the gradient of all losses above it.
        zeros = local.hidden_zeros(batch.inputs)
        signals = {name: zeros[name] for name in hidden_layers}
        logits, hiddens = local.forward(params, batch.inputs, signals=signals, **options)
        losses: list[Any] = [
            stage_loss.apply({"params": params[f"losses_{i}"]}, hiddens[name], batch.targets)
            for i, name in enumerate(hidden_layers)
        ]
        return logits, losses

    def total_loss(params, batch, perturbations=None):
        logits, losses = forward(params, batch, key=batch.key, perturbations=perturbations)
        of_stages = sum(weights[name] * value for of_stage in losses for name, value in of_stage.items())
        return of_stages + readout_weight * loss(logits, batch.targets)

    def updates(params, feedback, batch):
        del feedback
        return grad(total_loss)(params, batch)

    def signals(params, feedback, batch):
        del feedback
        return grad(lambda p: total_loss(params, batch, p))(local.hidden_zeros(batch.inputs))

    def measure(params, feedback, batch):
        del feedback
        _, losses = forward(params, batch)
        return {f"{name}_{i}": value for i, of_stage in enumerate(losses) for name, value in of_stage.items()}

    extras = Extras(
        signals=signals,
        measure=Measure(tuple(METRICS[name] for name in names), measure),
        network=local,
        needs_classes=True,
    )
    return Rule(init, updates, local.apply, extras=extras)


def _local_network(network: Network) -> Network:
    """Returns the network with unstacked stages, whose activations are read before dropout and pooling."""
    stages = stages_marked_before_dropout(network)
    return Network(Chain(stages, (1,) * len(stages), require_chain(network).readout), network.input_shape)


def _mono_forward_network(network: Network) -> Network:
    """Returns the same with a readout as the predictions of Mono-Forward are.

    Raises:
      BadOption: unless all stages are dense layers without dropout.
    """
    local = _local_network(network)
    if any(len(h.shape) > 1 for h in local.hidden_shapes.values()):
        raise BadOption("must not be mono_forward on a network with feature maps: it needs dense layers", "objective")
    chain = require_chain(local)
    if any(stage.dropout or stage.input_dropout for stage in chain.stages):
        raise BadOption("must not be mono_forward with dropout, which its prediction does not have", "objective")
    readout = nn.Dense(network.outputs, use_bias=False, kernel_init=TORCH_UNIFORM)
    return Network(chain.clone(readout=readout), network.input_shape)


def _zero_kernel(path, param: jax.Array) -> PyTree:
    return jnp.zeros_like(param) if path[-1].key == "kernel" else param
