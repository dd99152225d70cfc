"""Recurrent Forward-Forward: layers see the one above too, and settle while image and label are held still.

    r_l(t) = relu(n_{l-1}(t-1) W_l + n_{l+1}(t-1) V_l + b_l),   y_l(t) = d y_l(t-1) + (1 - d) r_l(t)
    n_0 = norm(image),   n_{L+1} = norm(label),   n_l = norm(y_l),   all layers at once, t = 1 to T
    D_l(t) = (1 - d) (1 - p) y_l(t) [r_l(t) > 0] + lambda (mean_j m_l - m_l) on the true label, and so on
    dW_l = -mean over t and examples of n_{l-1}(t-1)^T D_l(t),   dV_l likewise with n_{l+1}

as the image, repeated, comes up and the label down: activity is high where they agree. States start from one pass
upward, with no label. What was a step before is held constant, so nothing is sent back through time. A label is chosen
by the goodness that it comes to over some of the iterations; or in one pass upward, by softmax readouts of all layers
but the first, which also choose the wrong labels.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022, sections 3.4 and 4,
which leave open what is chosen here: the iterations that are learned from, weights of their own for each direction, the
goodness of all layers for a label, and the running means m_l, of all iterations that are learned from. Units are pulled
towards their means as they were before the batch, since those with it are known only once all iterations are over.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number
from fa_jax.core import Batch, LossFunction, PyTree, Rule, Stream, stream
from fa_jax.network import Network
from fa_jax.networks.chain import DenseStage, Hidden, unstacked
from fa_jax.networks.cnn import ConvolutionStage
from fa_jax.networks.layers import ACTIVATIONS, drop_rate
from fa_jax.rules.forward_forward.goodness import (
    CONVENTIONS,
    Goodness,
    decayed,
    decays_of,
    first_read,
    goodness_of,
    peers_of,
    rates,
    relu_stages,
    wrong_labels,
)
from fa_jax.rules.forward_forward.recurrent_network import Recurrent, States, downs


class Settling(NamedTuple):
    """How a recurrent network comes to rest, and which of its iterations count."""

    own: Network
    good: Goodness
    iterations: int
    learned_from: int
    """The first that is learned from."""
    scored: tuple[int, int]
    """The first and the last that chooses a label."""

    def share(self, t: jax.Array) -> jax.Array:
        """Returns by what an iteration enters a mean over those that are learned from."""
        return (t >= self.learned_from) / (self.iterations - self.learned_from + 1)

    def run(self, params: PyTree, inputs: jax.Array, labels: jax.Array, states: States, of: Callable, length: int):
        """Returns what `of(t, states)` comes to in all after each of so many iterations, and the last states."""

        def iteration(carry, t):
            total, states = carry
            states = self.own.call("iterated", params, inputs, labels, states)
            return (jax.tree.map(jnp.add, total, of(t, states)), states), None

        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of, 1, states))
        return jax.lax.scan(iteration, (nothing, states), jnp.arange(1, length + 1))[0]

    def by_goodness(self, params: PyTree, inputs: jax.Array) -> jax.Array:
        """Returns how true each label seems to be of each input, `[batch, classes]`."""
        first, last = self.scored

        def votes(t, states):
            return jnp.where(t >= first, self.good.vote(states), 0)

        states = self.own.call("upward", params, inputs)

        def of(label):
            labels = jnp.broadcast_to(label, (len(inputs), self.own.outputs))
            return self.run(params, inputs, labels, states, votes, last)[0] / (last - first + 1)

        return jax.lax.map(of, jnp.eye(self.own.outputs)).T

    def report(self, params: PyTree, batch: Batch, wrong: jax.Array, by_softmax: bool) -> dict[str, jax.Array]:
        """Returns the goodness that true and wrong labels come to, and the error of the inference that is not used."""
        states = self.own.call("upward", params, batch.inputs)
        labels, length = (batch.targets, wrong), self.scored[1]
        both = [self.run(params, batch.inputs, label, states, lambda t, s: (), length)[1] for label in labels]
        chosen = (self.by_goodness if by_softmax else self.own.apply)(params, batch.inputs).argmax(-1)
        name = f"probe_error_by_{'goodness' if by_softmax else 'softmax'}"
        return {**self.good.contrast(*both), name: 100 * jnp.mean(chosen != batch.targets.argmax(-1))}

    def told(self, damping: float, states: States, inputs: States, true: bool, pulls: States) -> States:
        """Returns what each layer is told of its new inputs, `[batch, ...]` each."""
        found = []
        for i, (y, r, pull) in enumerate(zip(states, inputs, pulls, strict=True)):
            gated = (1 - damping) * jnp.where(r > 0, self.good.told(i, y, true), 0)
            found.append(gated + pull if true else gated)
        return found


def recurrent_forward_forward(
    network: Network,
    loss: LossFunction,
    *,
    goodness: str,
    convention: str,
    threshold: float | None,
    temperature: float,
    damping: float,
    iterations: int,
    learned_from: int,
    scored: list[int],
    negatives: str,
    peer_strength: float,
    peer_rate: float,
    head_rate: float,
    weight_decay: float,
    head_decay: float,
    read_from: int,
    inference: str,
) -> Rule:
    """Returns the `Rule` of recurrent Forward-Forward.

    Its params are those of the network's stages, unstacked where they are scanned, `downs_i` from the layer above
    layer i, or from the label, and readouts `heads_i` of the layers from `read_from` on. A layer with local fields gets
    from one above of the same height and width through local fields as large as its own, from others from everywhere.
    Its feedback holds the running means m_l, shaped like the activities, for an optimizer at rate 1.

    Args:
      network: an `mlp`, or convolutional or with local fields but without pooling, of ReLU layers.
      loss: a mean over the batch; the readouts descend it.
      goodness, convention, threshold, temperature: as for `fa_jax.rules.forward_forward.goodness.goodness_of`.
      damping: d, how much of its activity a layer keeps at each iteration, at least 0 and below 1.
      iterations: T, at least 1.
      learned_from: the first iteration that is learned from, from 1 to T.
      scored: the first and the last iteration whose goodness chooses a label, from 1 to T.
      negatives: how wrong labels are drawn: `hard`, by the readouts' own probabilities, or `uniform`.
      peer_strength, peer_rate: as for `forward_forward`.
      head_rate: the learning rate of the readouts, as a multiple of the others'.
      weight_decay: of the kernels of stages and the way down, added to their updates.
      head_decay: of the readouts'.
      read_from: the first layer that has a readout, from 0; all have a vote.
      inference: `softmax`: one pass upward and the readouts; `goodness`: all iterations up to the last that is scored,
        for each label, its logit the mean over iterations of the sum of the layers' goodness less their thresholds.
        Training batches are scored by softmax in either case.

    Raises:
      BadOption: if an option is out of range, or the network is another.
    """
    chain, stages = relu_stages(network, "recurrent_forward_forward")
    _check(stages)
    first = first_read(read_from, len(stages))
    hard = choose("rule.negatives", negatives, {"hard": True, "uniform": False})
    by_softmax = choose("rule.inference", inference, {"softmax": True, "goodness": False})
    _check_iterations(iterations, learned_from, scored)
    kept = drop_rate("rule.damping", damping)
    peers = peers_of(peer_strength, peer_rate)
    own_rates = functools.partial(rates, number("rule.head_rate", head_rate, above=0))
    own = _network(network, stages, first, choose("rule.convention", convention, CONVENTIONS).normalise, kept)
    options = {"goodness": goodness, "convention": convention, "threshold": threshold, "temperature": temperature}
    good = goodness_of(own, **options, read_from=0)
    decays = decays_of(good, weight_decay, head_decay)
    settling = Settling(own, good, iterations, learned_from, (scored[0], scored[1]))
    names = [f"stages_{i}" for i in range(len(stages))]

    def init(key):
        drawn = own.init(stream(key, Stream.INIT))
        params = {**drawn, **unstacked(chain, network.init(stream(key, Stream.INIT)))}
        hiddens = own.hiddens.values()
        return params, {name: jnp.full(h.shape, 0.5, jnp.float32) for name, h in zip(names, hiddens, strict=True)}

    def wrong(params, batch):
        return wrong_labels(own.apply(params, batch.inputs) if hard else jnp.zeros_like(batch.targets), batch)

    def updates(params, feedback, batch):
        of_heads, learning = _parted(params)
        found = jax.grad(lambda p: loss(own.apply({**params, **p}, batch.inputs), batch.targets))(of_heads)
        both = (batch.targets, True), (wrong(params, batch), False)
        pulls = [s * peers.pull(feedback[name]) for s, name in zip(good.scales, names, strict=True)]

        def iteration(carry, t):
            total, states = carry
            after = []
            for (label, true), before in zip(both, states, strict=True):

                def of(p, label=label, before=before):
                    return own.call("inputs", {**params, **p}, batch.inputs, label, before)

                inputs, pull = jax.vjp(of, learning)
                after.append(own.call("damped", params, before, inputs))
                (update,) = pull([-d / len(d) for d in settling.told(kept, after[-1], inputs, true, pulls)])
                update = update if true else _without_signals(update)
                total = jax.tree.map(lambda a, u: a + settling.share(t) * u, total, update)
            return (total, after), None

        states = own.call("upward", params, batch.inputs)
        nothing = jax.tree.map(jnp.zeros_like, learning)
        (total, _), _ = jax.lax.scan(iteration, (nothing, [states, states]), jnp.arange(1, iterations + 1))
        for i, pull in enumerate(pulls):
            if f"hiddens_{i}" in total:  # a nudge, whose signal is what the layer is told of the data as they are
                total[f"hiddens_{i}"]["nudge"] += pull / len(batch.inputs)
        return decayed({**found, **total}, params, decays)

    def learn(params, feedback, batch, updates):
        del updates

        def of(t, states):
            return {name: settling.share(t) * y for name, y in zip(names, states, strict=True)}

        states = own.call("upward", params, batch.inputs)
        means, _ = settling.run(params, batch.inputs, batch.targets, states, of, iterations)
        return {name: feedback[name] - peers.follow(feedback[name], means[name]) for name in names}

    def report(params, feedback, batch):
        del feedback
        return settling.report(params, batch, wrong(params, batch), by_softmax)

    predict = own.apply if by_softmax else settling.by_goodness
    more = {"learn": learn, "report": report, "rates": own_rates, "network": own, "glance": own.apply}
    return Rule(init, updates, predict, **more, needs_classes=True)


def _parted(params: PyTree) -> tuple[PyTree, PyTree]:
    """The params of the readouts, and all others."""
    heads = {name: p for name, p in params.items() if name.startswith("heads_")}
    return heads, {name: p for name, p in params.items() if name not in heads}


def _without_signals(updates: PyTree) -> PyTree:
    """Updates with none of nudges: a learning signal is that of true data."""

    def of(path, update):
        return jnp.zeros_like(update) if path[-1].key == "nudge" else update

    return jax.tree_util.tree_map_with_path(of, updates)


def _check_iterations(iterations: int, learned_from: int, scored: list[int]) -> None:
    """Refuses iterations that there are not."""
    integer("rule.iterations", iterations, least=1)
    if integer("rule.learned_from", learned_from, least=1) > iterations:
        raise BadOption(f"rule.learned_from must be at most rule.iterations={iterations}; got {learned_from}")
    whole = isinstance(scored, list) and len(scored) == 2 and all(type(t) is int for t in scored)
    if not whole or not 1 <= scored[0] <= scored[1] <= iterations:
        raise BadOption(
            f"rule.scored must be the first and the last iteration, from 1 to rule.iterations={iterations}, such as "
            f"[3,5]; got {scored!r}"
        )


def _network(network: Network, stages: Sequence, first: int, normalise: Callable, damping: float) -> Network:
    """The recurrent network of the stages of another, with readouts of all from the first that is to have one."""
    heads = [nn.Dense(network.outputs, use_bias=False, kernel_init=nn.initializers.zeros) for _ in stages[first:]]
    rising, hiddens = [_rising(stage) for stage in stages], [Hidden() for _ in stages]
    whole = Recurrent(rising, hiddens, downs(network, stages), heads, normalise, damping)
    return Network(whole, network.input_shape)


def _rising(stage: DenseStage | ConvolutionStage) -> nn.Module:
    """A stage as its linear layer alone."""
    if isinstance(stage, DenseStage):
        return stage.clone(activation=ACTIVATIONS["linear"], hidden=False)
    return stage.clone(activation=ACTIVATIONS["linear"], hidden_ends=None)


def _check(stages: Sequence[DenseStage | ConvolutionStage]) -> None:
    """Refuses a network that pools."""
    if any(isinstance(stage, ConvolutionStage) and stage.shape.pool > 1 for stage in stages):
        raise BadOption("rule=recurrent_forward_forward has no definition for pooling in architecture.topology")
