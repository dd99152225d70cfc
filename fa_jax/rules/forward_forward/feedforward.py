"""Forward-Forward: every layer learns by itself to be active on positive data and quiet on negative data.

    a_l = sg(n_{l-1}) W_l + b_l,   y_l = relu(a_l),   n_l = y_l / rms(y_l),   sg: stop gradient
    L = sum_l mean [L_l(y_l on positive data) + L_l(y_l on negative data)]     with L_l of `goodness`
        - sum_l mean [sg(lambda (mean_j m_l - m_l)) . a_l on positive data]    peer normalisation
        + the loss of the readouts

m_l is a running mean of y_l on positive data. Positive data are images whose first pixels are replaced by their one-hot
label, negative data those with a wrong label. A softmax readout of n_l, l > 0, on images with a neutral label learns
beside the layers and draws the wrong labels. With local receptive fields the product with W_l is that of the layer, and
a layer is normalised as a whole.

With `contrast=pairs`, a layer has SymBa's loss of a pair, an image with its own and with a wrong label.

Without labels, positive data are the images themselves and negative data are hybrids of two images; the readout then
learns on the images as they are.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022; equations and scales
are those of his published code, with two differences: weight decay passes through the optimizer like the gradient, and
the order of batches is that of the training loop.
"""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number
from fa_jax.core import Extras, LossFunction, Measure, PyTree, Rule
from fa_jax.network import Network
from fa_jax.networks.chain import unstack
from fa_jax.networks.fast_gradients import grad
from fa_jax.optimizers import must_be_plain
from fa_jax.rules.forward_forward.goodness import (
    CONVENTIONS,
    METRICS,
    Goodness,
    PeerNormalisation,
    alpha_of_pairs,
    decays,
    error_of_other_inference,
    goodness_of,
    peer_normalisation,
    straight_through_relu,
)
from fa_jax.rules.forward_forward.negatives import data_of, with_label, with_neutral_label
from fa_jax.rules.forward_forward.stages import check_first_readout_layer, relu_stages
from fa_jax.rules.stagewise import add_weight_decay, multipliers, require_chain

STEP_COUNT = "step_count"
"""The entry of the feedback that counts steps, if phases alternate."""


class ForwardForward(nn.Module):
    """Stages with normalised activities between them, and linear readouts of the last of them.

    Its forward pass returns the logits of the readouts, on images with a neutral label if `labelled`.
    """

    stages: Sequence[nn.Module]
    readouts: Sequence[nn.Module]
    labelled: bool
    normalise: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits, `[batch, classes]`."""
        x = with_neutral_label(x, self.readouts[0].features) if self.labelled else x
        inputs = [self.normalise(y).reshape(len(x), -1) for y in self.activities(x)[-len(self.readouts) :]]
        return functools.reduce(jnp.add, [readout(n) for readout, n in zip(self.readouts, inputs, strict=True)])

    def activities(self, x: jax.Array) -> list[jax.Array]:
        """Returns the activity of each layer, on inputs that contain the label if the rule uses labels."""
        activities = []
        for i in range(len(self.stages)):
            activities.append(self.activity(self.normalise(activities[-1] if activities else x), i))
        return activities

    def activity(self, n: jax.Array, i: int) -> jax.Array:
        """Returns the activity of layer i on its normalised input."""
        return self.stages[i](n)


def forward_forward(
    network: Network,
    loss: LossFunction,
    *,
    goodness: str,
    convention: str,
    threshold: float | None,
    temperature: float,
    contrast: str,
    alpha: float | None,
    negatives: str,
    blur_steps: int | None,
    peer_strength: float,
    peer_rate: float,
    readout_rate: float,
    weight_decay: float,
    readout_decay: float,
    phase_length: int,
    first_readout_layer: int,
    inference: str,
) -> Rule:
    """Returns the `Rule` of Forward-Forward.

    Its params are those of the network's stages (unstacked if scanned), and of `readouts_i` of the layers from
    `first_readout_layer` on; the network's own readout is not used. Its feedback holds the running means m_l, shaped
    like the activities, and the number of steps if phases alternate; it needs a feedback optimizer of rate 1.

    Args:
      network: an `mlp`, or convolutional or with local fields, of ReLU layers.
      loss: of the readouts, a mean over the batch.
      goodness, convention, threshold, temperature: as for `goodness.goodness_of`.
      contrast: `threshold`, or `pairs`: SymBa's loss, without threshold, temperature and phases, which must be None, 1
        and 0.
      alpha: with pairs, the factor of the difference of goodness, above 0. If goodness is a sum of squares, it counts
        as many times as a layer has units. None with a threshold.
      negatives: how wrong labels are drawn: `hard`, by the readouts' probabilities, or `uniform`; or `hybrid`: images
        without labels, negative ones combined from two (section 3.2).
      blur_steps: of the masks of hybrids, at least 0; None: 6, and without hybrids.
      peer_strength: lambda, at least 0; it and the weight decay have the scale of the convention.
      peer_rate: the share of a running mean that a batch replaces, in [0, 1].
      readout_rate: multiplier of the learning rate for the readouts.
      weight_decay: of the stages' kernels, added to their updates.
      readout_decay: of the readouts' kernels.
      phase_length: so many steps on positive data alone alternate with as many on negative data alone (section 5),
        while the means follow positive data all the time; 0: both in every step.
      first_readout_layer: the first layer with a readout and a vote, from 0; the paper's is 1.
      inference: `softmax`: one pass with a neutral label and the readouts; `goodness`: one pass per label, whose logit
        is the signed excess of the voting layers. Training metrics are always by softmax, which takes one pass.

    Raises:
      BadOption: if an option is out of range or has no effect, or the network is not of this form.
    """
    stages, chain = relu_stages(network), require_chain(network)
    choose("negatives", negatives, {name: name for name in ("hard", "uniform", "hybrid")})
    labelled = negatives != "hybrid"
    phase_length = integer("phase_length", phase_length, least=0)
    by_softmax = choose("inference", inference, {"softmax": True, "goodness": False})
    _check_inputs(network, labelled, by_softmax)
    first = check_first_readout_layer(first_readout_layer, len(stages))
    peers = peer_normalisation(peer_strength, peer_rate)
    multiplier = number("readout_rate", readout_rate, above=0)
    readouts = [nn.Dense(network.outputs, use_bias=False, kernel_init=nn.initializers.zeros) for _ in stages[first:]]
    normalise = choose("convention", convention, CONVENTIONS).normalise
    ff = Network(ForwardForward(stages, readouts, labelled, normalise), network.input_shape)
    good = goodness_of(
        ff,
        goodness=goodness,
        convention=convention,
        threshold=threshold,
        temperature=temperature,
        first_readout_layer=first,
    )
    good = good._replace(
        alpha=alpha_of_pairs(
            contrast, alpha, threshold=(threshold, None), temperature=(temperature, 1), phase_length=(phase_length, 0)
        )
    )
    straight_ff = _straight_through(ff)
    decay = decays(good, weight_decay, readout_decay)
    predict_by_goodness = functools.partial(_predict_by_goodness, ff, good)
    other_inference_error = error_of_other_inference(ff.apply, predict_by_goodness, by_softmax=by_softmax)
    layer_gradient = grad(_layer_loss(straight_ff, good, peers), has_aux=True)
    positive_data, negative_data = data_of(ff, negatives, blur_steps)
    names = [f"stages_{i}" for i in range(len(stages))]

    def init(key):
        params = {**ff.init(key), **unstack(chain, network.init(key))}
        hidden_shapes = zip(names, ff.hidden_shapes.values(), strict=True)
        means = {name: jnp.full(h.shape, 0.5, jnp.float32) for name, h in hidden_shapes}
        return params, {**means, STEP_COUNT: jnp.zeros(())} if phase_length else means

    def readout_loss(readouts, params, batch):
        return loss(ff.apply({**params, **readouts}, batch.inputs), batch.targets)

    def updates(params, feedback, batch):
        phase = feedback[STEP_COUNT] // phase_length % 2 == 0 if phase_length else None
        readouts = {name: part for name, part in params.items() if name.startswith("readouts_")}
        gradient = grad(readout_loss)(readouts, params, batch)
        # One gradient per layer is the gradient of the sum, and needs the activities of one layer at a time.
        activities = positive_data(batch), negative_data(params, batch)
        for i, name in enumerate(names):
            inputs = [normalise(y) for y in activities]
            gradient[name], activities = layer_gradient(params[name], params, i, inputs, feedback[name], phase)
        return add_weight_decay(gradient, params, decay)

    def signals(params, feedback, batch):
        """Returns the gradients of the goodness of positive data by layer, without peer normalisation."""
        del feedback
        data = positive_data(batch), negative_data(params, batch)
        activities = zip(*(ff.call("activities", params, x) for x in data), strict=True)
        gradients = [jax.grad(good.joint_loss, 1)(i, *pair) for i, pair in enumerate(activities)]
        return dict(zip(ff.hidden_shapes, gradients, strict=True))

    def learn(params, feedback, batch, updates):
        del updates
        activities = straight_ff.call("activities", params, positive_data(batch))  # as in `updates`, so computed once
        # The feedback optimizer is gradient descent of rate 1: feedback minus its update is the new mean.
        changes = {n: feedback[n] - peers.update(feedback[n], y) for n, y in zip(names, activities, strict=True)}
        return {**changes, STEP_COUNT: -jnp.ones(())} if phase_length else changes

    def measure(params, feedback, batch):
        del feedback
        data = positive_data(batch), negative_data(params, batch)
        metrics = good.probe_metrics(*(ff.call("activities", params, x) for x in data))
        return {**metrics, **other_inference_error(params, batch)} if labelled else metrics

    extras = Extras(
        signals=signals,
        measure=Measure(METRICS, measure),
        learning_rate_multipliers=lambda params: multipliers(params, {"readouts": multiplier}),
        network=ff,
        check_feedback_optimizer=must_be_plain,
        train_predict=ff.apply,
        train_predict_label="" if by_softmax else "softmax",
        needs_classes=True,
    )
    return Rule(init, updates, ff.apply if by_softmax else predict_by_goodness, learn, extras)


def _straight_through(ff: Network) -> Network:
    """Returns the same network with straight-through relus."""
    stages = [stage.clone(activation=straight_through_relu) for stage in ff.module.stages]
    return Network(ff.module.clone(stages=stages), ff.input_shape)


def _layer_loss(straight_ff: Network, good: Goodness, peers: PeerNormalisation) -> Callable:
    """Returns the loss of one layer, as a function of its own params.

    It takes `(part, params, i, inputs, mean, phase)`: the params of layer i, those of all, its normalised inputs on
    positive and negative data, its running mean activity, and the phase: true if the layer learns positive data now,
    false if negative data, None if both. It returns the loss, and the activities of the layer on both kinds of data.
    The relus of the network are straight-through: dy/da = 1, so y stands for a in the peer term.
    """

    def loss(part, params, i, inputs, mean, phase):
        y_pos, y_neg = (straight_ff.call("activity", {**params, f"stages_{i}": part}, n, i) for n in inputs)
        pull = good.scales[i] * peers.loss(peers.update(mean, y_pos), y_pos)
        if phase is None:
            return good.joint_loss(i, y_pos, y_neg) + pull, (y_pos, y_neg)
        positive, negative = good.loss(i, y_pos, positive=True) + pull, good.loss(i, y_neg, positive=False)
        return jnp.where(phase, positive, negative), (y_pos, y_neg)

    return loss


def _predict_by_goodness(ff: Network, good: Goodness, params: PyTree, inputs: jax.Array, key=None) -> jax.Array:
    """Returns the evidence for each label, `[batch, classes]`."""
    del key

    def evidence(label):
        labels = jnp.broadcast_to(label, (len(inputs), ff.outputs))
        return good.evidence(ff.call("activities", params, with_label(inputs, labels)))

    return jax.lax.map(evidence, jnp.eye(ff.outputs)).T


def _check_inputs(network: Network, labelled: bool, by_softmax: bool) -> None:
    """Raises `BadOption` if inputs have no room for a label, or an option needs labels or images."""
    size = math.prod(network.input_shape)
    if size < network.outputs:
        raise BadOption(
            f"writes the label into the inputs: {network.outputs} classes do not fit into {size} components"
        )
    if labelled:
        return
    if len(network.input_shape) != 3:
        shape = "x".join(map(str, network.input_shape))
        raise BadOption(f"must be hard or uniform unless inputs are images; got inputs of shape {shape}", "negatives")
    if not by_softmax:
        raise BadOption("must be softmax with negatives=hybrid, which puts no label into images", "inference")
