"""Shared helpers of rules with one loss per stage: their networks, learning-rate multipliers and weight decays.

The params of such a rule are a dict of parts, `stages_0`, `stages_1`, ..., `readouts_1` and so on; `stages` and
`readouts` are the kinds of these parts.
"""

from collections.abc import Mapping

import jax

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.network import Network
from fa_jax.networks.chain import Chain


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
