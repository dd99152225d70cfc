"""Recurrent Forward-Forward: layers also receive the layer above, and settle while image and label are held constant.

    a_l(t) = n_{l-1}(t-1) W_l + n_{l+1}(t-1) V_l + b_l,   y_l(t) = d y_l(t-1) + (1 - d) relu(a_l(t))
    n_0 = norm(image),   n_{L+1} = norm(label),   n_l = norm(y_l),   all layers at once, t = 1 to T
    L = mean over t of sum_l mean [L_l(y_l(t) with the true label) + L_l(y_l(t) with a wrong label)]
        - mean over t of sum_l mean [lambda (mean_j m_l - m_l) . a_l(t) with the true label]
        + the loss of the readouts

with L_l of `goodness`; everything from before an iteration is held constant, so nothing is sent back through time. The
image comes up and the label down; activity is high where they agree. States start from one pass upward, without a
label. A label is predicted by the goodness that it reaches over some of the iterations, or in one pass upward by
softmax readouts of all layers but the first, which also draw the wrong labels.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022, sections 3.4 and 4.
The paper leaves open, and we chose: which iterations train, separate weights for each direction, the goodness of all
layers as evidence for a label, and running means m_l over all iterations that train. Units are pulled towards the means
from before the batch, since those with it are known only after the last iteration.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number
from fa_jax.core import Batch, Extras, LayerArrays, LossFunction, Measure, PyTree, Rule
from fa_jax.network import Network
from fa_jax.networks.chain import unstack
from fa_jax.networks.fast_gradients import grad
from fa_jax.networks.layers import drop_rate
from fa_jax.optimizers import must_be_plain
from fa_jax.rules.forward_forward.goodness import (
    CONVENTIONS,
    METRICS,
    Goodness,
    PeerNormalisation,
    decays,
    error_of_other_inference,
    goodness_of,
    peer_normalisation,
)
from fa_jax.rules.forward_forward.negatives import wrong_labels
from fa_jax.rules.forward_forward.recurrent_network import States, damped, recurrent_network
from fa_jax.rules.forward_forward.stages import check_first_readout_layer, relu_stages
from fa_jax.rules.stagewise import add_weight_decay, multipliers, require_chain


class Settling(NamedTuple):
    """A recurrent network that settles by iterations, its losses, and which iterations count."""

    network: Network
    goodness: Goodness
    peers: PeerNormalisation
    iterations: int
    """T, the number of iterations."""
    first_training_iteration: int
    eval_iterations: tuple[int, int]
    """The first and the last iteration whose goodness is evidence for a label."""

    def weight(self, t: jax.Array) -> jax.Array:
        """Returns the weight of an iteration in a mean over those that train."""
        return (t >= self.first_training_iteration) / (self.iterations - self.first_training_iteration + 1)

    def goodness_loss(self, preactivations: States, states: States, *, positive: bool) -> tuple[jax.Array, States]:
        """Returns the sum of L_l after an iteration, and the states after it."""
        states = damped(self.network.module.damping, states, preactivations)
        losses = [self.goodness.loss(i, y, positive=positive) for i, y in enumerate(states)]
        return functools.reduce(jnp.add, losses), states

    def loss(self, layers, params, means, inputs, label, states, positive: bool) -> tuple[jax.Array, States]:
        """Returns L of one iteration as a function of the params of the layers, and the states after it."""
        a = self.network.call("preactivations", {**params, **layers}, inputs, label, states)
        total, states = self.goodness_loss(a, states, positive=positive)
        if positive:
            scales = self.goodness.scales
            total += sum(s * self.peers.loss(m, a_l) for s, m, a_l in zip(scales, means, a, strict=True))
        return total, states

    def gradient(self, layers: PyTree, params: PyTree, means: States, batch: Batch, wrong: jax.Array) -> PyTree:
        """Returns the gradient of L with respect to the params of the layers, averaged over iterations."""
        gradient = grad(self.loss, has_aux=True)

        def iteration(carry, t):
            total, (states, wrong_states) = carry
            update, states = gradient(layers, params, means, batch.inputs, batch.targets, states, True)
            wrong_update, wrong_states = gradient(layers, params, means, batch.inputs, wrong, wrong_states, False)
            for new in (update, wrong_update):
                total = jax.tree.map(lambda a, u: a + self.weight(t) * u, total, new)
            return (total, (states, wrong_states)), None

        states = self.network.call("upward", params, batch.inputs)
        start = jax.tree.map(jnp.zeros_like, layers), (states, states)
        (total, _), _ = jax.lax.scan(iteration, start, jnp.arange(1, self.iterations + 1))
        return total

    def signals(self, params: PyTree, batch: Batch) -> LayerArrays:
        """Returns dL/da of the goodness with the true label, without peer normalisation, averaged like the gradient."""
        gradient = jax.grad(lambda a, states: self.goodness_loss(a, states, positive=True), has_aux=True)

        def iteration(carry, t):
            total, states = carry
            a = self.network.call("preactivations", params, batch.inputs, batch.targets, states)
            signal, states = gradient(a, states)
            return ([s + self.weight(t) * new for s, new in zip(total, signal, strict=True)], states), None

        states = self.network.call("upward", params, batch.inputs)
        start = [jnp.zeros_like(y) for y in states], states
        (total, _), _ = jax.lax.scan(iteration, start, jnp.arange(1, self.iterations + 1))
        return dict(zip(self.network.hidden_shapes, total, strict=True))

    def mean_states(self, params: PyTree, batch: Batch) -> States:
        """Returns the states with the true label, averaged over the iterations that train."""

        def iteration(carry, t):
            total, states = carry
            states = self.network.call("iterate", params, batch.inputs, batch.targets, states)
            return ([mean + self.weight(t) * y for mean, y in zip(total, states, strict=True)], states), None

        states = self.network.call("upward", params, batch.inputs)
        start = [jnp.zeros_like(y) for y in states], states
        (mean, _), _ = jax.lax.scan(iteration, start, jnp.arange(1, self.iterations + 1))
        return mean

    def predict(self, params: PyTree, inputs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Returns the evidence for each label, `[batch, classes]`: its goodness, averaged over `eval_iterations`."""
        del key
        first, last = self.eval_iterations
        start = self.network.call("upward", params, inputs)

        def evidence(label):
            labels = jnp.broadcast_to(label, (len(inputs), self.network.outputs))

            def iteration(states, _):
                states = self.network.call("iterate", params, inputs, labels, states)
                return states, self.goodness.evidence(states)

            _, by_iteration = jax.lax.scan(iteration, start, length=last)
            return by_iteration[first - 1 :].mean(0)

        return jax.lax.map(evidence, jnp.eye(self.network.outputs)).T

    def probe_metrics(self, params: PyTree, batch: Batch, wrong: jax.Array) -> dict[str, jax.Array]:
        """Returns `Goodness.probe_metrics` of the states that true and wrong labels lead to."""
        start = self.network.call("upward", params, batch.inputs)

        def settled(labels):
            def iteration(_, states):
                return self.network.call("iterate", params, batch.inputs, labels, states)

            return jax.lax.fori_loop(0, self.eval_iterations[1], iteration, start)

        return self.goodness.probe_metrics(settled(batch.targets), settled(wrong))


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
    first_training_iteration: int,
    eval_iterations: list[int],
    negatives: str,
    peer_strength: float,
    peer_rate: float,
    readout_rate: float,
    weight_decay: float,
    readout_decay: float,
    first_readout_layer: int,
    inference: str,
) -> Rule:
    """Returns the `Rule` of recurrent Forward-Forward.

    Its params are those of the network's stages (unstacked if scanned), `downs_i` from the layer above layer i or from
    the label, and `readouts_i` of the layers from `first_readout_layer` on. Between layers with local fields of the
    same height and width, the way down has local fields of the same size; else it is dense. Its feedback holds the
    running means m_l, shaped like the activities; it needs a feedback optimizer of rate 1.

    Args:
      network: an `mlp`, or convolutional or with local fields but without pooling, of ReLU layers.
      loss: of the readouts, a mean over the batch.
      goodness, convention, threshold, temperature: as for `goodness.goodness_of`.
      damping: d, the share of its activity that a layer keeps at each iteration, in [0, 1).
      iterations: T, at least 1.
      first_training_iteration: the first iteration that trains, from 1 to T.
      eval_iterations: the first and the last iteration whose goodness is evidence for a label, from 1 to T.
      negatives: how wrong labels are drawn: `hard`, by the readouts' probabilities, or `uniform`.
      peer_strength, peer_rate: as for `forward_forward`.
      readout_rate: multiplier of the learning rate for the readouts.
      weight_decay: of the kernels of the stages and of the way down, added to their updates.
      readout_decay: of the readouts' kernels.
      first_readout_layer: the first layer with a readout, from 0; all layers vote.
      inference: `softmax`: one pass upward and the readouts; `goodness`: all iterations up to the last of
        `eval_iterations` for each label. Training metrics are always by softmax.

    Raises:
      BadOption: if an option is out of range, or the network is not of this form.
    """
    stages, chain = relu_stages(network), require_chain(network)
    if any(getattr(stage, "shape", None) is not None and stage.shape.pool > 1 for stage in stages):
        raise BadOption("is not defined with pooling in the topology")
    first = check_first_readout_layer(first_readout_layer, len(stages))
    hard = choose("negatives", negatives, {"hard": True, "uniform": False})
    by_softmax = choose("inference", inference, {"softmax": True, "goodness": False})
    _check_iterations(iterations, first_training_iteration, eval_iterations)
    peers = peer_normalisation(peer_strength, peer_rate)
    multiplier = number("readout_rate", readout_rate, above=0)
    normalise = choose("convention", convention, CONVENTIONS).normalise
    recurrent = recurrent_network(network, stages, first, normalise, drop_rate("damping", damping))
    options = {"goodness": goodness, "convention": convention, "threshold": threshold, "temperature": temperature}
    good = goodness_of(recurrent, **options, first_readout_layer=0)
    decay = decays(good, weight_decay, readout_decay)
    evaluated = eval_iterations[0], eval_iterations[1]
    settling = Settling(recurrent, good, peers, iterations, first_training_iteration, evaluated)
    other_inference_error = error_of_other_inference(recurrent.apply, settling.predict, by_softmax=by_softmax)
    names = [f"stages_{i}" for i in range(len(stages))]

    def init(key):
        params = {**recurrent.init(key), **unstack(chain, network.init(key))}
        hiddens = recurrent.hidden_shapes.values()
        return params, {name: jnp.full(h.shape, 0.5, jnp.float32) for name, h in zip(names, hiddens, strict=True)}

    def wrong(params, batch):
        logits = recurrent.apply(params, batch.inputs) if hard else jnp.zeros_like(batch.targets)
        return wrong_labels(logits, batch)

    def readout_loss(readouts, params, batch):
        return loss(recurrent.apply({**params, **readouts}, batch.inputs), batch.targets)

    def updates(params, feedback, batch):
        readouts = {name: part for name, part in params.items() if name.startswith("readouts_")}
        layers = {name: part for name, part in params.items() if name not in readouts}
        means = [feedback[name] for name in names]
        gradient = settling.gradient(layers, params, means, batch, wrong(params, batch))
        gradient |= grad(readout_loss)(readouts, params, batch)
        return add_weight_decay(gradient, params, decay)

    def learn(params, feedback, batch, updates):
        del updates
        means = dict(zip(names, settling.mean_states(params, batch), strict=True))
        return {name: feedback[name] - peers.update(feedback[name], means[name]) for name in names}

    def measure(params, feedback, batch):
        del feedback
        return settling.probe_metrics(params, batch, wrong(params, batch)) | other_inference_error(params, batch)

    extras = Extras(
        signals=lambda params, feedback, batch: settling.signals(params, batch),
        measure=Measure(METRICS, measure),
        learning_rate_multipliers=lambda params: multipliers(params, {"readouts": multiplier}),
        network=recurrent,
        check_feedback_optimizer=must_be_plain,
        train_predict=recurrent.apply,
        train_predict_label="" if by_softmax else "softmax",
        needs_classes=True,
    )
    return Rule(init, updates, recurrent.apply if by_softmax else settling.predict, learn, extras)


def _check_iterations(iterations: int, first_training_iteration: int, eval_iterations: list[int]) -> None:
    """Raises `BadOption` unless all are between 1 and T."""
    integer("iterations", iterations, least=1)
    if integer("first_training_iteration", first_training_iteration, least=1) > iterations:
        raise BadOption(
            f"must be at most iterations={iterations}; got {first_training_iteration}", "first_training_iteration"
        )
    pair = (
        isinstance(eval_iterations, list) and len(eval_iterations) == 2 and all(type(t) is int for t in eval_iterations)
    )
    if not pair or not 1 <= eval_iterations[0] <= eval_iterations[1] <= iterations:
        raise BadOption(
            f"must be the first and the last iteration, from 1 to iterations={iterations}, such as [3,5]; "
            f"got {eval_iterations!r}",
            "eval_iterations",
        )
