"""Shared helpers of rules that need a network of stages: checks, learning-rate multipliers and weight decays.

The params of a rule with one loss per stage are a dict of parts, `stages_0`, `stages_1`, ..., `readouts_1` and so on;
`stages` and `readouts` are the kinds of these parts.
"""

from collections.abc import Mapping
from typing import Any

import jax

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, each_stage


def require_chain(network: Network) -> Chain:
    """Returns the `Chain` of a network.

    Raises:
      BadOption: if its module is none.
    """
    if not isinstance(network.module, Chain):
        name = type(network.module).__name__
        example = "Chain(stages=(Stage(), Stage()), repeats=(1, 1), readout=nn.Dense(outputs))"
        raise BadOption(
            f"needs a network of stages, a fa_jax.networks.chain.Chain; got {name}; write {example}, where each stage "
            "is a Flax module that ends in fa_jax.primitives.Hidden(), or use architecture=mlp"
        )
    return network.module


def require_dense_stages(network: Network) -> Chain:
    """Returns the `Chain` of a network.

    Raises:
      BadOption: unless each stage is one dense layer without a norm.
    """
    chain = require_chain(network)
    kernels = list(network.kernel_shapes.values())
    if [(k.stack, k.shape[1:]) for k in kernels[:-1]] != [(h.stack, h.shape) for h in network.hidden_shapes.values()]:
        raise BadOption(
            "needs stages of one dense layer each, such as those of mlp; "
            f"got {len(kernels) - 1} linear layers in {len(network.hidden_shapes)} stages"
        )
    require_no_norm(chain)
    return chain


def require_no_norm(chain: Chain) -> None:
    """Raises `BadOption` if a stage has a norm."""
    if any(getattr(stage, "norm", None) is not None for stage in chain.stages):
        raise BadOption("is not defined for normalised layers; it needs norm=none")


def stages_marked_before_dropout(network: Network) -> list[Any]:
    """Returns the stages of a network, each with its `Hidden` right after the activation function.

    That is before dropout and pooling. The params and the random streams of the stages stay the same.

    Raises:
      BadOption: if the network is no `Chain`, a stage has no method `with_hidden_before_dropout`, or an option places
        `Hidden` elsewhere.
    """
    stages = list(each_stage(require_chain(network)))
    others = [type(stage).__name__ for stage in stages if not hasattr(stage, "with_hidden_before_dropout")]
    if others:
        raise BadOption(
            "reads activations before dropout and pooling, so it needs stages with a method "
            f"with_hidden_before_dropout, such as those of mlp, cnn and resnet8; got {others[0]}"
        )
    layers = [layer for stage in stages for layer in getattr(stage, "layers", [stage])]
    if any(getattr(layer, "hidden_position", None) == "before_pooling" for layer in layers):
        raise BadOption("reads activations before dropout and pooling in any case; leave hidden_position=after_pooling")
    return [stage.with_hidden_before_dropout() for stage in stages]


def multipliers(params: PyTree, by_kind: Mapping[str, float]) -> PyTree:
    """Returns a tree like the params with the multiplier of each param's kind of part, 1 for kinds not named."""
    return jax.tree_util.tree_map_with_path(lambda path, _: by_kind.get(_kind(path), 1.0), params)


def add_weight_decay(updates: PyTree, params: PyTree, by_part: Mapping[str, float]) -> PyTree:
    """Returns updates with `decay * kernel` added to those of the kernels of each part that is named."""

    def decayed(path, update, param):
        decay = by_part.get(path[0].key, 0.0)
        return update + decay * param if decay and path[-1].key == "kernel" else update

    return jax.tree_util.tree_map_with_path(decayed, updates, params)


def _kind(path) -> str:
    return path[0].key.rpartition("_")[0]
