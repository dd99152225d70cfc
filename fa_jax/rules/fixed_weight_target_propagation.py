"""Fixed-weight target propagation: targets pass through fixed random inverses, and batch normalization scales them.

    h_i = n(f(W_i h_{i-1})),    g_i(y) = n(f(V_i y)),    V_i random and fixed,    n: batch normalization
    t_L = a_L - alpha e,        t_{i-1} = n(h_{i-1} + g_i(t_i) - g_i(h_i))
    dL/dh_i := -2 (t_i - h_i),  the readout descends |a_L - t_L|^2

n divides by the standard deviation over the batch, whose squares are summed over N - 1, and has neither params nor
running statistics. So every prediction depends on the other examples of its batch, in evaluations too, which have
batches of up to 1000 (256 in the authors' code). Without n, the small V_i of the paper would not train hidden layers.
In place of a target, its difference from the activation is sent down.

Shibuya, Inoue, Kawakami, Sato, "Fixed-Weight Difference Target Propagation", AAAI 2023 (arXiv 2212.10352);
equations are those of the authors' code (FWDTP-BN), whose layers have no biases and start from orthogonal weights.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import number, switch
from fa_jax.core import LossFunction, Rule, Stream, stream
from fa_jax.feedback import InitFeedback, require_all_kernels
from fa_jax.network import Network
from fa_jax.rules.backward import backward_rule
from fa_jax.rules.square_root import square_root
from fa_jax.rules.target_propagation.differences import difference_of
from fa_jax.rules.target_propagation.rule import require_plain_stages

EPSILON = 1e-12
"""Added to the standard deviation."""


class NormalisedReadout(nn.Module):
    """A readout whose logits are normalised over the batch."""

    readout: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalised(self.readout(x))


def fixed_weight_target_propagation(
    network: Network, loss: LossFunction, *, init_feedback: InitFeedback, step_size: float, normalised_readout: bool
) -> Rule:
    """Returns the `Rule` of fixed-weight target propagation, whose network is normalised.

    Args:
      network: a `Chain` of dense stages, without norms and dropout.
      loss: a mean over the batch.
      init_feedback: draws V_i in the shape of the kernel of layer i, such as `feedback.layerwise`.
      step_size: alpha, of one example, above 0.
      normalised_readout: whether the logits are normalised too.

    Raises:
      BadOption: if an option is out of range, or the network is not of this form.
    """
    chain, activations = require_plain_stages(network)
    alpha = number("step_size", step_size, above=0)
    stages = tuple(stage.clone(activation=_then_normalised(stage.activation)) for stage in chain.stages)
    readout = NormalisedReadout(chain.readout) if switch("normalised_readout", normalised_readout) else chain.readout
    normal = Network(chain.clone(stages=stages, readout=readout), network.input_shape)

    def init(key):
        params = normal.init(key)
        feedback = init_feedback(normal, stream(key, Stream.FEEDBACK), params)
        return params, require_all_kernels(normal, feedback)

    def backward(params, feedback, batch):
        logits, hiddens = normal.forward(params, batch.inputs, key=batch.key)
        size, layers = len(logits), [*normal.hiddens_in_order(hiddens), logits]
        displacements = [-alpha * size * jax.grad(loss)(logits, batch.targets)]
        kernels = normal.kernels_in_order(feedback)
        for h, y, v, f in reversed(list(zip(layers, layers[1:], kernels, activations, strict=False))):
            x = y @ v.T
            change = normalised_difference(f(x), difference_of(f)(x, displacements[0] @ v.T))
            displacements.insert(0, normalised_difference(h, change))  # n(h) is h
        return {"signals": normal.hiddens_from_order([-2 / size * d for d in displacements[:-1]])}

    def weight_pairs(params, feedback):
        weights = normal.kernels(params)
        return {name: (v, weights[name]) for name, v in feedback.items()}

    rule = backward_rule(
        normal,
        lambda logits, targets: 2 * alpha * loss(logits, targets),
        init=init,
        backward=backward,
        weight_pairs=weight_pairs,
    )
    return rule._replace(extras=rule.extras._replace(network=normal))


def normalised(a: jax.Array) -> jax.Array:
    """Returns each column with mean 0 and standard deviation 1 over the batch, `[batch, width]`."""
    centred = a - jnp.mean(a, 0)
    return centred / (square_root(_covariance(centred, centred)) + EPSILON)


def normalised_difference(a: jax.Array, u: jax.Array) -> jax.Array:
    """Returns `normalised(a + u) - normalised(a)` with all digits of a small u."""
    a, u = a - jnp.mean(a, 0), u - jnp.mean(u, 0)
    variance, growth = _covariance(a, a), _covariance(2 * a + u, u)
    before, after = square_root(variance), square_root(_covariance(a + u, a + u))
    change = growth / (before + after + EPSILON)  # of the deviation
    return (u - a * change / (before + EPSILON)) / (after + EPSILON)


def _covariance(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, 0) / max(len(a) - 1, 1)


def _then_normalised(function: Callable) -> Callable:
    return lambda a: normalised(function(a))
