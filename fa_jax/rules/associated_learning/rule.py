"""Associated learning: every stage learns from a loss of its own, between its activation and a code of the label.

    s_i = f_i(sg(s_{i-1})),    t_i = g_i(sg(t_{i-1})),    s_0 = x, t_0 = y one-hot, sg: stop gradient
    A_i = mean (b_i(s_i) - sg(t_i))^2         trains the stage f_i and the bridge b_i
    R_i = mean (h_i(t_i) - sg(t_{i-1}))^2     trains the label's encoder g_i and decoder h_i
    y_hat = h_1(... h_L(b_L(f_L(... f_1(x)))))

A prediction passes the stages f up, the last bridge b, and the decoders h down to the label. Means are over the batch
and over all units. Nothing travels back from one stage to another, so that stage i can work on one batch while stage
i - 1 works on the next. There is no output error; labels enter only as t_0.

Kao, Chen, "Associated Learning: Decomposing End-to-end Backpropagation based on Auto-encoders and Target Propagation",
Neural Computation 33(1), 2021 (arXiv 1906.05560); losses and shapes are those of the authors' code.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, integer, number, sequence
from fa_jax.core import Extras, LossFunction, Measure, Metric, Rule
from fa_jax.network import Network
from fa_jax.networks.chain import each_stage, unstack
from fa_jax.networks.fast_gradients import grad
from fa_jax.rules.stagewise import add_weight_decay, multipliers, require_chain

LABEL_SIDE = ("encoders", "decoders")
PARTS = ("stages", "bridges", *LABEL_SIDE)
"""The kinds of parts; each stage has one of every kind. Their params are named `stages_0`, `bridges_0` and so on."""
METRICS = (
    Metric("associated_loss", "associated loss", logarithmic=False),
    Metric("inverse_loss", "inverse loss", logarithmic=False),
)


class Bridge(nn.Module):
    """Maps the flattened activation of a stage to the code of the label, by dense layers of sigmoid units."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        s = s.reshape(len(s), -1)
        for i, width in enumerate(self.widths):
            s = nn.sigmoid(nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"dense_{i}")(s))
        return s


class Associated(nn.Module):
    """A chain whose stages each have a bridge, and an encoder and a decoder of labels; its forward pass predicts.

    Attributes:
      stages: f, those of the chain, from the input on.
      bridges, encoders, decoders: b, g and h, one of each per stage. Encoders and decoders are the linear layers of
        sigmoid units.
      exit: the number of stages that a prediction passes.
    """

    stages: Sequence[nn.Module]
    bridges: Sequence[nn.Module]
    encoders: Sequence[nn.Module]
    decoders: Sequence[nn.Module]
    exit: int

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits `[batch, classes]`, the prediction without the last sigmoid."""
        for stage in self.stages[: self.exit]:
            x = stage(x)
        code = self.bridges[self.exit - 1](x)
        for decode in reversed(self.decoders[1 : self.exit]):
            code = nn.sigmoid(decode(code))
        return self.decoders[0](code)

    def losses(self, x: jax.Array, y: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        """Returns the associated and the inverse losses, `(A, R)`, by stage."""
        associated, inverse = [], []
        s, t = x, y
        for f, b, g, h in zip(self.stages, self.bridges, self.encoders, self.decoders, strict=True):
            s, t, a, r = local_losses(f, b, g, h, s, t)
            associated.append(a)
            inverse.append(r)
        return associated, inverse


def local_losses(f, b, g, h, s: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Runs one stage on the output of the stage below; returns its own output and its two losses.

    Args:
      f, b, g, h: stage, bridge, encoder and decoder, functions of one array.
      s: `[batch, ...]`, the activation below; no gradient passes.
      t: `[batch, width]`, the code of the label below; no gradient passes.

    Returns:
      `(s, t, A, R)` of the stage.
    """
    s, below = f(jax.lax.stop_gradient(s)), jax.lax.stop_gradient(t)
    t = nn.sigmoid(g(below))
    associated = jnp.mean(jnp.square(b(s) - jax.lax.stop_gradient(t)))
    return s, t, associated, jnp.mean(jnp.square(nn.sigmoid(h(t)) - below))


def component(associated: Network, index: int) -> Callable:
    """Returns one stage as a function `(params, s, t, key) -> (A + R, s, t)` of the output of the stage below.

    Args:
      associated: the network of `associated_learning`.
      index: of the stage, from 0.
    """
    parts = [getattr(associated.module, kind)[index].clone(parent=None, name=None) for kind in PARTS]

    def run(params, s, t, key):
        def function(part, kind):
            return lambda x: part.apply({"params": params[f"{kind}_{index}"]}, x, rngs={"dropout": key})

        f, b, g, h = (function(part, kind) for part, kind in zip(parts, PARTS, strict=True))
        s, t, associated_loss, inverse_loss = local_losses(f, b, g, h, s, t)
        return associated_loss + inverse_loss, s, t

    return run


def associated_learning(
    network: Network,
    loss: LossFunction,
    *,
    width: int,
    bridge: list[int] | None,
    label_rate: float,
    weight_decay: float,
    exit_stage: int | None,
) -> Rule:
    """Returns the `Rule` of associated learning; its feedback is `()`.

    Its params are those of the network's stages (unstacked if scanned), bridges, encoders and decoders; the network's
    own readout is not used. The network that predicts has the stages up to the exit, the bridge there and the decoders:
    the effective params. All other params serve training alone.

    Args:
      network: a `Chain`, each stage of which is trained by backprop within.
      loss: for the comparison with backprop on the network that predicts; not used in training.
      width: n, of the codes of labels.
      bridge: widths of the bridges' hidden layers; None: one of 5 n.
      label_rate: multiplier of the learning rate for encoders and decoders, above 0.
      weight_decay: of the stages' kernels, added to their updates.
      exit_stage: the number of stages that predictions pass, fewer than there are; None: all.

    Raises:
      BadOption: if an option is out of range, the network is no `Chain`, or it has batch statistics and an exit.
    """
    chain = require_chain(network)
    n = integer("width", width, least=1)
    hidden = [5 * n] if bridge is None else sequence("bridge", bridge, "[640], or null")
    widths = (*(integer("bridge", hidden_width, least=1) for hidden_width in hidden), n)
    label_rate = number("label_rate", label_rate, above=0)
    decay = number("weight_decay", weight_decay, least=0)
    stages = list(each_stage(chain))
    count = len(stages)
    last = count if exit_stage is None else integer("exit_stage", exit_stage, least=1)
    if exit_stage is not None and last >= count:  # one value for one thing, or two conditions would be the same
        problem = f"must be below {count}, the number of stages, or null for all of them; got {exit_stage}"
        raise BadOption(problem, "exit_stage")

    def dense(features):
        return nn.Dense(features, kernel_init=nn.initializers.he_normal())

    module = Associated(
        stages=stages,
        bridges=[Bridge(widths) for _ in stages],
        encoders=[dense(n) for _ in stages],
        decoders=[dense(n if i else network.outputs) for i in range(count)],
        exit=count,
    )
    associated = Network(module, network.input_shape)
    if last < count and associated.statistics_paths:
        problem = "must be null with batch statistics, which are not kept above an exit; or use norm=none or group"
        raise BadOption(problem, "exit_stage")
    predicting = associated if last == count else Network(module.clone(exit=last), network.input_shape)

    def init(key):
        drawn = associated.init(key, jnp.zeros((1, network.outputs)), method="losses")
        return {**drawn, **unstack(chain, network.init(key))}, ()

    def losses(params, batch, **options):
        return associated.call("losses", params, batch.inputs, batch.targets, **options)

    def total_loss(params, batch, perturbations=None):
        associated, inverse = losses(params, batch, key=batch.key, perturbations=perturbations)
        return sum(associated) + sum(inverse)

    def updates(params, feedback, batch):
        del feedback
        gradient = grad(total_loss)(params, batch)
        return add_weight_decay(gradient, params, {f"stages_{i}": decay for i in range(count)})

    def signals(params, feedback, batch):
        del feedback
        zeros = predicting.hidden_zeros(batch.inputs)
        return grad(lambda p: total_loss(params, batch, perturbations=p))(zeros)

    def measure(params, feedback, batch):
        del feedback
        metrics = {}
        for metric, of_stages in zip(METRICS, losses(params, batch), strict=True):
            metrics |= {f"{metric.name}_{i}": of_stage for i, of_stage in enumerate(of_stages)}
        return metrics

    extras = Extras(
        signals=signals,
        measure=Measure(METRICS, measure),
        learning_rate_multipliers=lambda params: multipliers(params, dict.fromkeys(LABEL_SIDE, label_rate)),
        network=predicting,
        needs_classes=True,
    )
    return Rule(init, updates, predicting.apply, extras=extras)
