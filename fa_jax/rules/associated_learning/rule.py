"""Associated learning: every stage learns from a loss of its own, between its activation and a code of the label.

    s_i = f_i(sg(s_{i-1})),    t_i = g_i(sg(t_{i-1})),    s_0 = x, t_0 = y one-hot, sg: no gradient
    A_i = mean (b_i(s_i) - sg(t_i))^2         moves the stage f_i and the bridge b_i
    R_i = mean (h_i(t_i) - sg(t_{i-1}))^2     moves the label's encoder g_i and decoder h_i
    y_hat = h_1(... h_L(b_L(f_L(... f_1(x)))))

Means over the batch and over all units. Nothing travels back from one stage to another, so that stage i can work on
one batch while stage i - 1 works on the next. There is no output error: labels enter only as t_0.

Kao, Chen, "Associated Learning: Decomposing End-to-end Backpropagation based on Auto-encoders and Target Propagation",
Neural Computation 33(1), 2021 (arXiv 1906.05560); losses and shapes are those of the authors' code.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, integer, number
from fa_jax.core import LossFunction, PyTree, Rule, Stream, stream
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, each_stage, unstacked

LABEL_SIDE = ("encoders", "decoders")
PARTS = ("stages", "bridges", *LABEL_SIDE)
"""What each stage has one of; their params are named `stages_0`, `bridges_0` and so on."""


class Bridge(nn.Module):
    """From the activation of a stage, flattened, to the code of the label: dense layers of logistic units."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        s = s.reshape(len(s), -1)
        for i, width in enumerate(self.widths):
            s = nn.sigmoid(nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"dense_{i}")(s))
        return s


class Associated(nn.Module):
    """A chain whose stages each have a bridge, and an encoder and a decoder of labels; called, it predicts.

    Attributes:
      stages: those of the chain, from the input on: f.
      bridges, encoders, decoders: b, g and h, one of each a stage; encoders and decoders are the linear layers, whose
        units are logistic.
      exit: the number of stages that a prediction goes through.
      weight_decay: times the stages' kernels, what is added to their updates.
    """

    stages: Sequence[nn.Module]
    bridges: Sequence[nn.Module]
    encoders: Sequence[nn.Module]
    decoders: Sequence[nn.Module]
    exit: int
    weight_decay: float

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits `[batch, classes]`: the output without the last decoder's logistic function."""
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
    """Runs one stage on what the stage below sends up, and returns what it sends up with its two losses.

    Args:
      f, b, g, h: stage, bridge, encoder and decoder, functions of one array.
      s: `[batch, ...]`, the activation below; no gradient reaches it.
      t: `[batch, width]`, the code of the labels below; nor it.

    Returns:
      `(s, t, A, R)` of the stage.
    """
    s, below = f(jax.lax.stop_gradient(s)), jax.lax.stop_gradient(t)
    t = nn.sigmoid(g(below))
    associated = jnp.mean(jnp.square(b(s) - jax.lax.stop_gradient(t)))
    return s, t, associated, jnp.mean(jnp.square(nn.sigmoid(h(t)) - below))


def component(associated: Network, index: int) -> Callable:
    """Returns a stage by itself, `(params, s, t, key) -> (A + R, s, t)`: given what comes from below, what goes up.

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


def decayed(associated: Network, updates: PyTree, params: PyTree) -> PyTree:
    """Returns the updates of params, all or some, with the weight decay in them."""
    decay = associated.module.weight_decay

    def one(path, update, value):
        of_a_stage = path[0].key.startswith("stages_") and path[-1].key == "kernel"
        return update + decay * value if of_a_stage else update

    return jax.tree_util.tree_map_with_path(one, updates, params) if decay else updates


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

    Its params are those of the network's stages, unstacked where they are scanned, and of bridges, encoders and
    decoders; the network's readout has no part in it. `Rule.network` is what predicts: the stages up to the exit, the
    bridge there and the decoders, the effective params; all others serve training alone.

    Args:
      network: one whose module is a `Chain`; a stage is trained by backpropagation within.
      loss: what backprop would minimise on the network that predicts, to compare with; it is not used in training.
      width: n, of the codes of labels.
      bridge: widths of the bridges' hidden layers; None: one of 5 n.
      label_rate: the learning rate of encoders and decoders, as a multiple of the others', above 0.
      weight_decay: times the stages' kernels, added to their updates.
      exit_stage: how many stages predictions go through; None: all.

    Raises:
      BadOption: if an option is out of range, or the network is no `Chain`.
    """
    del loss
    chain = network.module
    if not isinstance(chain, Chain):
        raise BadOption(
            f"rule=associated_learning needs a network in stages, a fa_jax.networks.chain.Chain; got "
            f"{type(chain).__name__}"
        )
    n = integer("rule.width", width, least=1)
    hidden = [5 * n] if bridge is None else bridge
    if not isinstance(hidden, list | tuple):
        raise BadOption(f"rule.bridge must be a list of widths such as [640], or null; got {bridge!r}")
    widths = (*(integer("rule.bridge", one, least=1) for one in hidden), n)
    rate = number("rule.label_rate", label_rate, above=0)
    stages = list(each_stage(chain))
    count = len(stages)
    last = count if exit_stage is None else integer("rule.exit_stage", exit_stage, least=1)
    if last > count:
        raise BadOption(f"rule.exit_stage must be at most {count}, the number of stages; got {exit_stage}")

    def dense(features):
        return nn.Dense(features, kernel_init=nn.initializers.he_normal())

    whole = Associated(
        stages=stages,
        bridges=[Bridge(widths) for _ in stages],
        encoders=[dense(n) for _ in stages],
        decoders=[dense(n if i else network.outputs) for i in range(count)],
        exit=count,
        weight_decay=number("rule.weight_decay", weight_decay, least=0),
    )
    associated = Network(whole, network.input_shape)
    predicting = associated if last == count else Network(whole.clone(exit=last), network.input_shape)

    def init(key):
        key = stream(key, Stream.INIT)
        x, y = jnp.zeros((1, *network.input_shape)), jnp.zeros((1, network.outputs))
        drawn = whole.init(key, x, y, method="losses")["params"]
        return {**drawn, **unstacked(chain, network.init(key))}, ()

    def losses(params, batch, key=None):
        return associated.call("losses", params, batch.inputs, batch.targets, key=key)

    def updates(params, feedback, batch):
        del feedback
        found = jax.grad(lambda p: sum(map(sum, losses(p, batch, batch.key))))(params)
        return decayed(associated, found, params)

    def rates(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: rate if path[0].key.rpartition("_")[0] in LABEL_SIDE else 1.0, params
        )

    def report(params, feedback, batch):
        del feedback
        kinds = zip(("associated_loss", "inverse_loss"), losses(params, batch), strict=True)
        return {f"{kind}_{i}": value for kind, values in kinds for i, value in enumerate(values)}

    return Rule(init, updates, predicting.apply, network=predicting, rates=rates, report=report, needs_classes=True)
