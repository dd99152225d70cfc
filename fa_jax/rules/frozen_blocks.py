"""Frozen blocks: hidden blocks keep their initial weights; the first layer and the readout learn by backprop.

    dW_0, dW_L = the true gradient            dW_i = 0 for 0 < i < L

The gradient of the first layer passes through the frozen blocks. The control of deep networks: what is above it has
learned something in the hidden blocks. A rule can have a signal near backprop's and still be below it.

The first layer is the embedding: the first stage of a `Chain`, such as the first dense layer of `mlp`, the first
convolution of `cnn` and the stem of `resnet8` with their norms, and the dense layer at the bottom of `residual_mlp`. Of
a stage that joins several layers it is the first of these, such as the patch embedding and the positions of
`transformer`, without the first block. All other stages are frozen, dense ones above convolutions included, with their
norms unless `train_norms`; running statistics are still updated. The readout learns, and so does a norm in it.
With one hidden layer there is no block in between, and in a recurrent network the layer that reads the input is
recurrent itself: there the control is `shallow`.

It is stronger than `shallow`, whose first layer is random too. How much stronger depends on the network: the embedding
of a residual network is linear, and its blocks are near the identity at the start, so that what learns is close to a
linear classifier of the inputs. In an `mlp` without residuals the first layer is a hidden layer, which here learns by
backprop: with two hidden layers that is half of backprop, and a rule below it may well have learned. There `shallow` is
the control of whether hidden layers learn at all.

Hao, Wan, Zhai, "What Accuracy and Gradient Cosine Miss", arXiv 2606.21126, 2026, whose baseline keeps embedding, final
norm and readout trainable in pre-norm residual networks. Its definition for other networks is ours.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, switch
from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import require_hidden
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, JoinedStage
from fa_jax.networks.variables import leaves_named
from fa_jax.rules.backward import backward_rule, hidden_gradient
from fa_jax.rules.freezing import Path, freeze


def frozen_blocks(network: Network, loss: LossFunction, *, train_norms: bool) -> Rule:
    """Returns the `Rule` in which the first layer and the readout learn by backprop; its feedback is `()`.

    Of its signals, that of the first hidden layer is backprop's, and those of the others, which do not learn, are zero.

    Args:
      network: a `Chain` of at least two hidden layers, the first of which is not repeated.
      loss: a mean over the batch.
      train_norms: whether the scales and biases of norms within the frozen blocks learn by backprop too.

    Raises:
      BadOption: if the network is not of this form.
    """
    is_frozen = _hidden_blocks(network, train_norms=switch("train_norms", train_norms))
    first = next(iter(network.hidden_shapes))

    def signals(params, feedback, batch):
        del feedback
        gradients = hidden_gradient(network, loss, params, batch)
        return {name: g if name == first else jnp.zeros_like(g) for name, g in gradients.items()}

    rule = backward_rule(
        network, loss, init=lambda key: (network.init(key), ()), backward=lambda params, feedback, batch: {}
    )
    return freeze(rule._replace(extras=rule.extras._replace(signals=signals)), is_frozen)


def _hidden_blocks(network: Network, *, train_norms: bool) -> Callable[[Path], bool]:
    """Returns `(path of a param) -> bool`: whether it is in a hidden block, for `freeze`.

    Raises:
      BadOption: if the network has no first layer of its own, no hidden block above it, or no norms to train.
    """
    chain = network.module
    if not isinstance(chain, Chain):
        raise BadOption(
            "needs a network of stages, a fa_jax.networks.chain.Chain, whose first layer is the embedding; "
            f"got {type(chain).__name__}; its control is rule=shallow"
        )
    require_hidden(network)
    first = chain.stages[0]
    layers = len(first.layers) if isinstance(first, JoinedStage) else 1
    if len(chain.stages) == layers == chain.repeats[0] == 1:
        raise BadOption("would be bp with one hidden layer, which has no block above it; its control is rule=shallow")
    if chain.repeats[0] > 1:
        raise BadOption(f"needs a first stage that is not repeated, the embedding; got repeats {list(chain.repeats)}")
    embedding = ("stages_0", "layers_0") if layers > 1 else ("stages_0",)

    def is_block(path: Path) -> bool:
        return path[0].startswith("stages_") and path[: len(embedding)] != embedding

    params = jax.eval_shape(network.init, jax.random.key(0))
    norms = {tuple(name.split("/")) for name in leaves_named(params, "scale")} if train_norms else set()
    if train_norms and not any(is_block(norm) for norm in norms):
        raise BadOption("must be false: no hidden block has a norm", "train_norms")
    return lambda path: is_block(path) and path[:-1] not in norms
