"""`backward_rule` builds a rule that differs from backprop in its backward pass alone.

`gradient` and `hidden_gradient` are the gradients by that backward pass, or the true ones. `fast_gradients.grad` is
`jax.grad`, in a form that XLA compiles to faster code for CPUs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from fa_jax.core import BackwardKernels, Batch, Extras, LayerArrays, LossFunction, PyTree, Rule
from fa_jax.network import Network
from fa_jax.networks.fast_gradients import grad


def gradient(network: Network, loss: LossFunction, params: PyTree, batch: Batch, **backward: BackwardKernels) -> PyTree:
    """Returns dL/dparams on a batch, or a rule's substitute for it.

    Args:
      network, loss, params, batch: of the forward pass; `batch.key` draws the dropout.
      **backward: `signals`, `backward_kernels` or `states`, as for `Network.forward`. With none: the true gradient.
    """

    def batch_loss(params):
        return loss(network.apply(params, batch.inputs, key=batch.key, **backward), batch.targets)

    return grad(batch_loss)(params)


def hidden_gradient(
    network: Network, loss: LossFunction, params: PyTree, batch: Batch, **backward: BackwardKernels
) -> LayerArrays:
    """Returns dL/dh of every hidden layer, or a rule's substitute for it, keyed by layer.

    Each is `[*stack, batch, *shape]`. Arguments as for `gradient`. The factor `1/batch` of the mean loss is included.
    """

    def batch_loss(perturbations):
        logits = network.apply(params, batch.inputs, key=batch.key, perturbations=perturbations, **backward)
        return loss(logits, batch.targets)

    # The gradient with respect to a zero that is added to h is dL/dh.
    return grad(batch_loss)(network.hidden_zeros(batch.inputs))


def backward_rule(
    network: Network,
    loss: LossFunction,
    *,
    init: Callable[[jax.Array], tuple[PyTree, PyTree]],
    backward: Callable[[PyTree, PyTree, Batch], Mapping[str, BackwardKernels]],
    **extras: Any,
) -> Rule:
    """Returns a rule that is backprop with another backward pass.

    Args:
      network: the network to train.
      loss: a mean over the batch.
      init: as in `Rule`.
      backward: `(params, feedback, batch) -> {"signals": ...}`, `{"backward_kernels": ...}` or `{"states": ...}`: the
        arrays that replace dL/dh of hidden layers, or the kernels, in the backward pass; or activations as constants,
        which send nothing back. See `Network.forward`.
      **extras: as in `Extras`.
    """

    def updates(params, feedback, batch):
        return gradient(network, loss, params, batch, **backward(params, feedback, batch))

    def signals(params, feedback, batch):
        return hidden_gradient(network, loss, params, batch, **backward(params, feedback, batch))

    return Rule(init, updates, network.apply, extras=Extras(signals=signals, **extras))
