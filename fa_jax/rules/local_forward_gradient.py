"""Local forward gradients: noise in the activities of a stage, and one loss for each group of its units.

    L_l = loss(M_l mean_p h_lp + m_l, y)                       of stage l, p: the positions of a feature map
    signal_lpc = u_lpc sum_{k in group of c} (dL_l/dh_lpk) u_lpk        u ~ N(0, 1), of each example

The sum is the derivative of L_l along the noise of one group of channels at one position, so that the noise of a unit
is multiplied by few other numbers than its own. It takes no backward pass: the head M_l is linear, so the derivative of
its output is `M_l u / positions`. Heads and the readout learn from their true gradients; no derivative passes from
stage to stage. With one group per unit and noise of signs, the signals are the gradients of the local losses.

The example n of a batch enters L_l by its own activation alone, so batch norm is allowed here.

Ren, Kornblith, Liao, Hinton, "Scaling Forward Gradient With Local Losses", ICLR 2023 (arXiv 2210.03310), section 4.
There, patches stand for positions, and the noise enters before the activation function, as here with `spare_silent`.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, switch
from fa_jax.core import Extras, LossFunction, Rule, Stream, stream
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, each_stage, unstack
from fa_jax.networks.fast_gradients import grad
from fa_jax.rules.backward import gradient
from fa_jax.rules.forward_gradient import NOISES, activity_noise, check_activity_noise, mean_over_draws
from fa_jax.rules.stagewise import require_chain

HEAD_DEVIATION = 0.1
"""The scale of the heads' initial weights, as in the authors' code."""


def local_forward_gradient(
    network: Network, loss: LossFunction, *, groups: int, noise: str, draws: int, spare_silent: bool
) -> Rule:
    """Returns the `Rule` of local forward gradients; its feedback is `()`.

    Its params are those of the network, with unstacked stages, and of a linear head `heads_i` for each stage.

    Args:
      network: a `Chain`, through each stage of which the signal at its end passes by the chain rule.
      loss: of the heads and of the readout, a mean over the batch.
      groups: the number of groups of each stage's channels; divides them all.
      noise: `normal`, or `signs`: 1 and -1.
      draws: the number of estimates that are averaged, at least 1.
      spare_silent: whether units whose activation is 0 get no noise; for ReLU units alone.

    Raises:
      BadOption: if an option is out of range, or the network is no `Chain`.
    """
    chain = require_chain(network)
    groups = integer("groups", groups, least=1)
    draw = choose("noise", noise, NOISES)
    draws = integer("draws", draws, least=1)
    spares = switch("spare_silent", spare_silent)
    check_activity_noise(network, spares)
    stages = list(each_stage(chain))
    local = Network(Chain(stages, (1,) * len(stages), chain.readout), network.input_shape)
    heads = {f"heads_{i}": name for i, name in enumerate(local.hidden_shapes)}
    for name, h in local.hidden_shapes.items():
        if h.shape[-1] % groups:
            raise BadOption(f"must divide the {h.shape[-1]} channels of {name}; got {groups}", "groups")
    head = nn.Dense(network.outputs, kernel_init=nn.initializers.normal(HEAD_DEVIATION))

    def init(key):
        params = {**local.init(key), **unstack(chain, network.init(key))}
        for i, (head_name, name) in enumerate(heads.items()):
            features = jnp.zeros((1, local.hidden_shapes[name].shape[-1]))
            params[head_name] = head.init(jax.random.fold_in(stream(key, Stream.INIT), i), features)["params"]
        return params, ()

    def logits_of(part, h) -> Any:
        return head.apply({"params": part}, h.mean(tuple(range(1, h.ndim - 1))))

    def local_signals(params, batch):
        _, hiddens = local.forward(params, batch.inputs, key=batch.key)
        errors = {n: jax.grad(loss)(logits_of(params[n], hiddens[name]), batch.targets) for n, name in heads.items()}

        def estimate(key):
            noise = activity_noise(local, params, batch, key, draw, spares)
            return {
                name: group_signal(params[n]["kernel"], errors[n], noise[name], groups) for n, name in heads.items()
            }

        return mean_over_draws(estimate, batch.key, draws)

    def updates(params, feedback, batch):
        del feedback
        _, hiddens = local.forward(params, batch.inputs, key=batch.key)

        def heads_loss(parts):
            return sum(loss(logits_of(parts[n], hiddens[name]), batch.targets) for n, name in heads.items())

        taught = gradient(local, loss, params, batch, signals=local_signals(params, batch))
        return {**taught, **grad(heads_loss)({n: params[n] for n in heads})}

    extras = Extras(
        signals=lambda params, feedback, batch: local_signals(params, batch),
        network=local,
    )
    return Rule(init, updates, local.apply, extras=extras)


def group_signal(kernel: jax.Array, error: jax.Array, noise: jax.Array, groups: int) -> jax.Array:
    """Returns noise times the derivative of the local loss along the noise of its own group, shaped like the noise.

    Args:
      kernel: M^T of the head, `[channels, classes]`.
      error: dL/dlogits of the head, `[batch, classes]`, with the `1/batch` of the mean loss.
      noise: u, `[batch, *positions, channels]`.
      groups: the number of groups of channels.
    """
    grouped = noise.reshape(len(noise), math.prod(noise.shape[1:-1]), groups, -1)
    tangents = jnp.einsum("npgk,gkc->npgc", grouped, kernel.reshape(groups, -1, kernel.shape[-1])) / grouped.shape[1]
    slopes = jnp.einsum("npgc,nc->npg", tangents, error)
    return (slopes[..., None] * grouped).reshape(noise.shape)
