"""Forward-Forward: every layer learns, by itself, to be active on real data and quiet on false.

    y_l = relu(n_{l-1} W_l + b_l),   n_l = y_l / rms(y_l),   G_l = sum_j y_lj^2,   p_l = logistic(G_l - theta_l)
    positive data:  D_l = (1 - p_l) y_l + lambda (mean_j m_l - m_l)
    negative data:  D_l = -p_l y_l
    dW_l = -n_{l-1}^T D_l / batch,   db_l = -sum D_l / batch,   summed over both

theta_l is the number of units, m_l a running mean of y_l on positive data. Data are images whose first pixels are
overwritten by a one-hot label: the true one, or a wrong one. A softmax readout of the normalised activities of all
layers but the first, on images with a neutral label, learns beside them and chooses the wrong labels. With local
receptive fields the matrix product is that of the layer, and a layer is normalised as a whole.

Without labels, data are the images themselves, and false ones are hybrids of two: one of them shows through a mask of
random coherent regions, the other around it. The readout then learns on the images as they are.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022; equations and scales
as in his published code, which leaves out the factor 2 of the gradient of log p. Two things differ from that code: the
decay of weights passes through the optimizer as the gradient does, and the order of batches is the training loop's.
"""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number
from fa_jax.core import LossFunction, PyTree, Rule, Stream, stream
from fa_jax.network import Network
from fa_jax.networks.chain import unstacked
from fa_jax.networks.layers import straight
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
    with_label,
    wrong_labels,
)
from fa_jax.tasks.augmentation import hybrids

CLOCK = "clock"
"""The number of steps, among the feedback where it is needed."""


class ForwardForward(nn.Module):
    """Stages with normalised activities between them, and linear readouts of the last of them.

    Called, it returns the logits of the readouts, on images with a neutral label if there are labels in them at all.
    """

    stages: Sequence[nn.Module]
    heads: Sequence[nn.Module]
    labelled: bool
    normalise: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits, `[batch, classes]`."""
        classes = self.heads[0].features
        neutral = jnp.full((len(x), classes), 1 / classes)
        activities = self.passed(with_label(x, neutral) if self.labelled else x)
        sent = [self.normalise(y).reshape(len(x), -1) for y in activities[-len(self.heads) :]]
        return functools.reduce(jnp.add, [head(n) for head, n in zip(self.heads, sent, strict=True)])

    def passed(self, x: jax.Array) -> list[jax.Array]:
        """Returns each layer's activity on inputs that have their label in them if they are to have one."""
        activities = []
        for i in range(len(self.stages)):
            activities.append(self.activity(self.normalise(activities[-1] if activities else x), i))
        return activities

    def activity(self, n: jax.Array, i: int) -> jax.Array:
        """Returns the activity of layer i on what it is sent."""
        return self.stages[i](n)


def forward_forward(
    network: Network,
    loss: LossFunction,
    *,
    goodness: str,
    convention: str,
    threshold: float | None,
    temperature: float,
    negatives: str,
    blurs: int,
    peer_strength: float,
    peer_rate: float,
    head_rate: float,
    weight_decay: float,
    head_decay: float,
    sleep: int,
    read_from: int,
    inference: str,
) -> Rule:
    """Returns the `Rule` of Forward-Forward.

    Its params are those of the network's stages, unstacked where they are scanned, and of readouts `heads_i` of the
    layers from `read_from` on; the network's own readout has no part in it. Its feedback holds the running means m_l,
    shaped like the activities, and the number of steps if it is to sleep, for an optimizer at rate 1.

    Args:
      network: an `mlp`, or convolutional or with local fields, of ReLU layers.
      loss: a mean over the batch; the readouts descend it.
      goodness, convention, threshold, temperature: as for `fa_jax.rules.forward_forward.goodness.goodness_of`.
      negatives: how wrong labels are drawn: `hard`, by the readouts' own probabilities, or `uniform`; or else `hybrid`:
        there are no labels in the images, and false ones are made of two (section 3.2).
      blurs: how often the masks of hybrids are blurred, at least 0.
      peer_strength: lambda, at least 0; it and the decay of weights have the scale of the convention.
      peer_rate: how much of a running mean a batch replaces, from 0 to 1.
      head_rate: the learning rate of the readouts, as a multiple of the others'.
      weight_decay: of the stages' kernels, added to their updates.
      head_decay: of the readouts'.
      sleep: steps of a phase: so many on positive data alone, awake, are followed by as many on negative data alone,
        asleep (section 5), while the means follow positive data all along; 0: both at every step.
      read_from: the first layer that has a readout and a vote, from 0; the paper's is 1.
      inference: `softmax`: one pass with a neutral label and the readouts; `goodness`: a pass for each label, its logit
        the sum of the goodness of those layers, less their thresholds, over the temperature. Training batches are
        scored by softmax, which takes one pass, in either case.

    Raises:
      BadOption: if an option is out of range, or the network is another.
    """
    chain, stages = relu_stages(network, "forward_forward")
    hard = choose("rule.negatives", negatives, {"hard": True, "uniform": False, "hybrid": None})
    blurs, sleep = integer("rule.blurs", blurs, least=0), integer("rule.sleep", sleep, least=0)
    by_softmax = choose("rule.inference", inference, {"softmax": True, "goodness": False})
    _check(network, hard is not None, by_softmax)
    first = first_read(read_from, len(stages))
    peers = peers_of(peer_strength, peer_rate)
    own_rates = functools.partial(rates, number("rule.head_rate", head_rate, above=0))
    normalise = choose("rule.convention", convention, CONVENTIONS).normalise
    heads = [nn.Dense(network.outputs, use_bias=False, kernel_init=nn.initializers.zeros) for _ in stages[first:]]
    own = Network(ForwardForward(stages, heads, hard is not None, normalise), network.input_shape)
    taught = Network(own.module.clone(stages=[stage.clone(activation=straight) for stage in stages]), own.input_shape)
    options = {"goodness": goodness, "convention": convention, "threshold": threshold, "temperature": temperature}
    good = goodness_of(own, **options, read_from=first)
    decays = decays_of(good, weight_decay, head_decay)
    true, false = _data(own, hard, blurs)
    by_goodness = functools.partial(_by_goodness, own, good)
    names = [f"stages_{i}" for i in range(len(stages))]

    def init(key):
        drawn = own.init(stream(key, Stream.INIT))
        params = {**drawn, **unstacked(chain, network.init(stream(key, Stream.INIT)))}
        hiddens = own.hiddens.values()
        means = {name: jnp.full(h.shape, 0.5, jnp.float32) for name, h in zip(names, hiddens, strict=True)}
        return params, {**means, CLOCK: jnp.zeros(())} if sleep else means

    def updates(params, feedback, batch):
        of_heads = {name: p for name, p in params.items() if name.startswith("heads_")}
        found = jax.grad(lambda p: loss(own.apply({**params, **p}, batch.inputs), batch.targets))(of_heads)
        awake = feedback[CLOCK] // sleep % 2 == 0 if sleep else None
        sent = [normalise(true(batch)), normalise(false(params, batch))]
        for i, name in enumerate(names):

            def activity(p, i=i, name=name, sent=sent):
                return [taught.call("activity", {**params, name: p}, n, i) for n in sent]

            (positive, negative), pull = jax.vjp(activity, params[name])
            up, down = good.told(i, positive, True), good.told(i, negative, False)
            told = up + good.scales[i] * peers.pull(peers.follow(feedback[name], positive)), down
            if awake is not None:
                told = jnp.where(awake, told[0], 0), jnp.where(awake, 0, told[1])
            (found[name],) = pull([-d / len(d) for d in told])
            if "hidden" in params[name]:  # a nudge: what the layer is told of the data as they are
                found[name]["hidden"]["nudge"] = -up / len(up)
            sent = [normalise(positive), normalise(negative)]
        return decayed(found, params, decays)

    def learn(params, feedback, batch, updates):
        del updates
        activities = taught.call("passed", params, true(batch))  # as in updates, so that it is computed once
        changed = {n: feedback[n] - peers.follow(feedback[n], y) for n, y in zip(names, activities, strict=True)}
        return {**changed, CLOCK: -jnp.ones(())} if sleep else changed

    def report(params, feedback, batch):
        del feedback
        both = (own.call("passed", params, data) for data in (true(batch), false(params, batch)))
        found = good.contrast(*both)
        if hard is None:
            return found
        chosen = (by_goodness if by_softmax else own.apply)(params, batch.inputs).argmax(-1)
        name = f"probe_error_by_{'goodness' if by_softmax else 'softmax'}"
        return {**found, name: 100 * jnp.mean(chosen != batch.targets.argmax(-1))}

    return Rule(
        init,
        updates,
        own.apply if by_softmax else by_goodness,
        learn=learn,
        report=report,
        rates=own_rates,
        network=own,
        needs_classes=True,
        glance=own.apply,
    )


def _data(own: Network, hard: bool | None, blurs: int) -> tuple[Callable, Callable]:
    """Returns `batch -> true data` and `(params, batch) -> false data`, both `[batch, *input_shape]`.

    Args:
      own: the network whose readouts choose the labels of hard ones.
      hard: whether wrong labels are; None: there are no labels.
      blurs: of the masks of hybrids.
    """

    def true(batch):
        return batch.inputs if hard is None else with_label(batch.inputs, batch.targets)

    def false(params, batch):
        if hard is None:
            return hybrids(batch.key, batch.inputs, blurs)
        logits = own.apply(params, batch.inputs) if hard else jnp.zeros_like(batch.targets)
        return with_label(batch.inputs, wrong_labels(logits, batch))

    return true, false


def _by_goodness(own: Network, good: Goodness, params: PyTree, inputs: jax.Array) -> jax.Array:
    """Returns how true each label seems to be of each input, `[batch, classes]`."""

    def of(label):
        labels = jnp.broadcast_to(label, (len(inputs), own.outputs))
        return good.vote(own.call("passed", params, with_label(inputs, labels)))

    return jax.lax.map(of, jnp.eye(own.outputs)).T


def _check(network: Network, labelled: bool, by_softmax: bool) -> None:
    """Refuses inputs without room for a label, and what needs one without it."""
    size = math.prod(network.input_shape)
    if size < network.outputs:
        raise BadOption(f"rule=forward_forward writes {network.outputs} classes into inputs of {size} numbers: too few")
    if labelled:
        return
    if len(network.input_shape) != 3:
        shape = "x".join(map(str, network.input_shape))
        raise BadOption(f"rule.negatives=hybrid needs images, such as task=mnist; the inputs of this task are {shape}")
    if not by_softmax:
        raise BadOption("rule.negatives=hybrid puts no label into images; rule.inference must be softmax; got goodness")
