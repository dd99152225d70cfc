"""Indirect feedback alignment: the error enters at the first hidden layer and travels up through the forward weights.

    d_0 = (B e) * f'(a_0),     d_i = (W_i d_{i-1}) * f'(a_i)

Only the first hidden layer has feedback, random and fixed; layers count from 0. The signal goes forward through the
learned `W_i` although `W_i` is what it teaches.

Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", NeurIPS 2016, eq. 8 and fig. 1d. With
one hidden layer it is direct feedback alignment.
"""

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption
from fa_jax.core import Batch, LossFunction, Named, PyTree, Rule, Stream, stream
from fa_jax.feedback import direct_matrices, forward_paths, project_all
from fa_jax.network import Network, gradient
from fa_jax.networks.chain import Chain


def ifa(network: Network, loss: LossFunction, **feedback) -> Rule:
    """Returns the `Rule` of indirect feedback alignment.

    Its feedback holds one array `[outputs, *shape]`, by the name of the first hidden layer.

    Args:
      network: a `Chain` of stages of one dense layer each, of which those between first and readout do not start at
        zero.
      loss: a mean over the batch.
      **feedback: how it is drawn, as in `fa_jax.feedback.direct_matrices`, but for `shared`.

    Raises:
      BadOption: if the network is no such chain, or normalises.
    """
    if not isinstance(network.module, Chain):
        raise BadOption(
            "rule=ifa needs an architecture that is a Chain of stages, such as mlp; "
            f"got {type(network.module).__name__}"
        )
    kernels = list(network.kernels.values())
    if [(k.stack, k.shape[1:]) for k in kernels[:-1]] != [(h.stack, h.shape) for h in network.hiddens.values()]:
        raise BadOption(
            "rule=ifa needs stages of one dense layer each, such as those of architecture=mlp: it is defined for no "
            f"others; got {len(kernels) - 1} linear layers in {len(network.hiddens)} stages"
        )
    if any(getattr(stage, "norm", None) is not None for stage in network.module.stages):
        raise BadOption("rule=ifa has no definition for normalised layers; architecture.norm must be none")
    weights = network.weights(network.init(jax.random.key(0)))
    still = [name for name in list(weights)[1:-1] if not jnp.any(weights[name])]
    if still:
        raise BadOption(
            f"rule=ifa cannot learn where {still[0]} starts at zero: its signal travels up through these weights, so "
            "none arrives and they stay as they are; choose architecture.init_scale above 0"
        )
    draw = direct_matrices(network, layers=1, shared=False, **feedback)
    first = next(iter(network.hiddens))

    def init(key):
        return network.init(stream(key, Stream.INIT)), draw(stream(key, Stream.FEEDBACK))

    def updates(params, feedback, batch):
        logits = network.apply(params, batch.inputs, key=batch.key)
        entering = project_all(network, jax.grad(loss)(logits, batch.targets), feedback)[first]
        return gradient(network, loss, params, batch, signals=_carried_up(network, params, batch, entering))

    def crossing(params, feedback):
        paths = forward_paths(network, params)
        return {} if paths is None else {first: (feedback[first], paths[first])}

    return Rule(init, updates, network.apply, crossing=crossing)


def _carried_up(network: Network, params: PyTree, batch: Batch, entering: jax.Array) -> Named:
    """Returns the signal of every hidden layer, given that of the first.

    A change of the first pre-activation by `entering` changes the later ones by their signals: before `f'` of their own
    layer, after that of the layer below.
    """
    names = list(network.kernels)[:-1]

    def preactivations(shift):
        def note(layer, x, y):
            del x
            a = y + shift if "/".join(layer.path) == names[0] else y
            return a, a

        return network.note_linear(params, batch.inputs, note, {"dropout": batch.key})

    _, changes = jax.jvp(preactivations, (jnp.zeros_like(entering),), (entering,))
    return {hidden: changes[name] for hidden, name in zip(network.hiddens, names, strict=True)}
