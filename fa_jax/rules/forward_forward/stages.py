"""The networks that Forward-Forward is defined on: chains of ReLU layers, dense or with local receptive fields."""

import jax

from fa_jax.checks import BadOption, integer
from fa_jax.network import Network
from fa_jax.networks.chain import DenseStage, each_stage
from fa_jax.networks.cnn import ConvolutionStage
from fa_jax.networks.layers import max_pool
from fa_jax.rules.stagewise import require_chain

Stage = DenseStage | ConvolutionStage


def relu_stages(network: Network) -> list[Stage]:
    """Returns the stages of a network.

    Raises:
      BadOption: unless each stage is one dense, convolutional or locally connected ReLU layer with biases, without
        dropout and norm, with max pooling if any, and marked after the pooling.
    """
    every = list(each_stage(require_chain(network)))
    stages = [stage for stage in every if isinstance(stage, DenseStage | ConvolutionStage)]
    if len(stages) < len(every):
        raise BadOption("needs stages of one dense or local layer each, as those of mlp, cnn or locally_connected")
    if any(stage.activation is not jax.nn.relu for stage in stages):
        raise BadOption("needs activation=relu")
    if any(stage.dropout or stage.input_dropout for stage in stages):
        raise BadOption("is not defined with dropout; it needs dropout=0 and input_dropout=0")
    if not all(stage.use_bias if isinstance(stage, DenseStage) else stage.initial["use_bias"] for stage in stages):
        raise BadOption("needs biases=true")
    if any(stage.norm is not None for stage in stages):
        raise BadOption("normalises by itself; it needs norm=none")
    local = [stage for stage in stages if isinstance(stage, ConvolutionStage)]
    if any(stage.hidden_position != "after_pooling" for stage in local):
        raise BadOption("needs hidden_position=after_pooling")
    if any(stage.pooling is not max_pool and stage.shape.pool > 1 for stage in local):
        raise BadOption("is not defined with average pooling; it needs pooling=max")
    return stages


def check_first_readout_layer(layer: int, layers: int) -> int:
    """Returns the first layer with a readout, from 0 to the last.

    Raises:
      BadOption: if there is no such layer.
    """
    if integer("first_readout_layer", layer, least=0) >= layers:
        raise BadOption(
            f"must be below {layers}, the number of hidden layers, so that one has a readout; got {layer}",
            "first_readout_layer",
        )
    return layer
