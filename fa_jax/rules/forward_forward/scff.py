"""Self-contrastive Forward-Forward: layers learn to be active on an image beside itself, not beside another; no labels.

    x_+ = [x_i; x_i],   x_- = [x_i; x_{i+k}],   k one random shift of the batch
    z_0 = W_0 u + W_0 v + 2 b_0   of the two halves u, v of norm(x_+) or norm(x_-)
    z_l = W_l norm(sg(h_{l-1})) + b_l,   h_l = relu(z_l - mean_j z_lj),   G_l = mean_j relu(z_lj)^2,   sg: stop gradient
    L = sum_l mean [softplus(theta_+ - G_l(x_+)) + softplus(G_l(x_-) - theta_-) + lambda G_l(x_+)]
        + the loss of a linear readout of norm(h_l) of all layers, on x_+

norm subtracts the mean of an example and divides by its standard deviation. Images are normalised before they are
joined, and the pair again as a whole.

Chen, Liu, Laydevant, Grollier, "Self-Contrastive Forward-Forward algorithm", Nature Communications 16:5978, 2025 (arXiv
2409.11593); equations are those of the authors' program. Differences: the readout learns beside the layers, not after
them, and without dropout; both halves of a positive pair are the same view of an image, whereas their MNIST program
shifts each half independently. Their convolutional layers, with reflected borders, are left out.
"""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, per_layer
from fa_jax.core import Batch, Extras, LossFunction, Measure, Metric, Rule
from fa_jax.network import Network
from fa_jax.networks.chain import DenseStage, unstack
from fa_jax.networks.fast_gradients import grad
from fa_jax.networks.layers import ACTIVATIONS
from fa_jax.optimizers import must_be_plain
from fa_jax.primitives import Hidden
from fa_jax.rules.forward_forward.stages import relu_stages
from fa_jax.rules.stagewise import multipliers, require_chain

STEP_COUNT = "step_count"
"""The feedback's one entry."""
SENT = {"triangle": lambda z: jax.nn.relu(z - z.mean(-1, keepdims=True)), "relu": jax.nn.relu}
"""What a layer sends up, given z, `[batch, units]`."""
METRICS = (
    Metric("self_pair_goodness", "goodness of an image beside itself", better="neither"),
    Metric("mixed_pair_goodness", "goodness of an image beside another", better="neither"),
)


def standardise(x: jax.Array) -> jax.Array:
    """Returns examples `[batch, n]` less their mean, over their standard deviation, the unbiased one."""
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-10)


def partners(batch: Batch) -> jax.Array:
    """Returns another image of the batch for each; with a batch of one, the image itself."""
    shift = jax.random.randint(batch.key, (), 1, max(2, len(batch.inputs)))
    return jnp.roll(batch.inputs, -shift, 0)


def goodness(z: jax.Array) -> jax.Array:
    """Returns the goodness, `[batch]`, of pre-activations `[batch, units]`."""
    return jnp.mean(jnp.square(jax.nn.relu(z)), -1)


class SelfContrastive(nn.Module):
    """Linear stages, of which the first adds both halves of a pair, and a linear readout of all that they send up.

    Its forward pass returns the logits for images, each beside itself. Its hidden layers end before the activation.
    """

    stages: Sequence[nn.Module]
    hiddens: Sequence[nn.Module]
    readouts: Sequence[nn.Module]
    sent: Sequence[Callable[[jax.Array], jax.Array]]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits, `[batch, outputs]`."""
        layers = zip(self.readouts, self.sent, self.preactivations(x, x), strict=True)
        return functools.reduce(jnp.add, [readout(standardise(send(z))) for readout, send, z in layers])

    def preactivations(self, first: jax.Array, second: jax.Array, local: bool = False) -> list[jax.Array]:
        """Returns z of each layer for pairs of images; if `local`, no gradient passes from one layer to that below."""
        images = [standardise(x.reshape(len(x), -1)) for x in (first, second)]
        halves = jnp.split(standardise(jnp.concatenate(images, -1)), 2, -1)
        result: list[jax.Array] = []
        for stage, hidden, send in zip(self.stages, self.hiddens, (None, *self.sent), strict=False):
            if send is None:
                z = 2 * stage((halves[0] + halves[1]) / 2)  # W u + W v + 2 b, with one product
            else:
                z = stage(standardise(send(jax.lax.stop_gradient(result[-1]) if local else result[-1])))
            result.append(hidden(z))
        return result


def scff(
    network: Network,
    loss: LossFunction,
    *,
    positive_threshold,
    negative_threshold,
    goodness_cost,
    sent,
    layer_steps: int,
    readout_rate: float,
) -> Rule:
    """Returns the `Rule` of self-contrastive Forward-Forward.

    Its params are those of the network's stages (unstacked if scanned) and of `readouts_i` of each layer; the network's
    own readout is not used. Its feedback counts the steps; it needs a feedback optimizer of rate 1.

    Args:
      network: an `mlp` of ReLU layers of at least two units.
      loss: of the readout, a mean over the batch.
      positive_threshold, negative_threshold: theta of positive and of negative data; or a list of one per layer.
      goodness_cost: lambda, at least 0, which bounds the goodness of positive data; or one per layer.
      sent: `triangle`: h above; or `relu`: relu(z); or one per layer.
      layer_steps: the layers learn one after another, each for so many steps and the last one to the end; 0: all at
        once. An optimizer with momentum moves a layer a little after its turn, and weight decay all layers.
      readout_rate: multiplier of the learning rate for the readout, above 0.

    Raises:
      BadOption: if an option is out of range, or the network is not of this form.
    """
    stages, chain = relu_stages(network), require_chain(network)
    widths = [stage.features for stage in stages if isinstance(stage, DenseStage)]
    if len(widths) < len(stages):
        raise BadOption("needs stages of one dense layer each, as those of mlp")
    if min(math.prod(network.input_shape), *widths) < 2:
        raise BadOption("standardises inputs and layers; it needs at least two units in each")
    count = len(stages)
    high = per_layer("positive_threshold", positive_threshold, count, number)
    low = per_layer("negative_threshold", negative_threshold, count, number)
    costs = per_layer("goodness_cost", goodness_cost, count, functools.partial(number, least=0))
    sends = per_layer("sent", sent, count, lambda option, got: choose(option, got, SENT))
    layer_steps = integer("layer_steps", layer_steps, least=0)
    multiplier = number("readout_rate", readout_rate, above=0)
    module = SelfContrastive(
        [stage.clone(activation=ACTIVATIONS["linear"], hidden=False) for stage in stages],
        [Hidden() for _ in stages],
        [nn.Dense(network.outputs, use_bias=i == 0, kernel_init=nn.initializers.zeros) for i in range(count)],
        sends,
    )
    contrastive = Network(module, network.input_shape)

    def init(key):
        params = {**contrastive.init(key), **unstack(chain, network.init(key))}
        return params, {STEP_COUNT: jnp.zeros(())}

    def positive_loss(i, z):
        return jnp.mean(jax.nn.softplus(high[i] - goodness(z)) + costs[i] * goodness(z))

    def negative_loss(i, z):
        return jnp.mean(jax.nn.softplus(goodness(z) - low[i]))

    def layer_losses(params, batch):
        """Returns L_l of each layer."""
        positive = contrastive.call("preactivations", params, batch.inputs, batch.inputs, True)
        negative = contrastive.call("preactivations", params, batch.inputs, partners(batch), True)
        pairs = enumerate(zip(positive, negative, strict=True))
        return jnp.stack([positive_loss(i, z) + negative_loss(i, other) for i, (z, other) in pairs])

    def updates(params, feedback, batch):
        turn = jnp.minimum(feedback[STEP_COUNT] // layer_steps, count - 1) if layer_steps else 0
        learns = jnp.where(jnp.arange(count) == turn, 1.0, 0.0) if layer_steps else jnp.ones(count)

        def total_loss(params):
            # No layer depends on those above, and the readout is the only part that its loss can reach.
            readouts = {name: part for name, part in params.items() if name.startswith("readouts_")}
            logits = contrastive.apply({**jax.lax.stop_gradient(params), **readouts}, batch.inputs)
            return jnp.dot(learns, layer_losses(params, batch)) + loss(logits, batch.targets)

        return grad(total_loss)(params)

    def signals(params, feedback, batch):
        """Returns the gradients of L_l with respect to z_l on positive data."""
        del feedback
        positive = contrastive.call("preactivations", params, batch.inputs, batch.inputs)
        gradients = [jax.grad(positive_loss, 1)(i, z) for i, z in enumerate(positive)]
        return dict(zip(contrastive.hidden_shapes, gradients, strict=True))

    def learn(params, feedback, batch, updates):
        del params, feedback, batch, updates
        return {STEP_COUNT: -jnp.ones(())}

    def measure(params, feedback, batch):
        del feedback
        metrics = {}
        for metric, other in zip(METRICS, (batch.inputs, partners(batch)), strict=True):
            layers = contrastive.call("preactivations", params, batch.inputs, other)
            metrics |= {f"{metric.name}_{i}": goodness(z).mean() for i, z in enumerate(layers)}
        return metrics

    extras = Extras(
        signals=signals,
        measure=Measure(METRICS, measure),
        learning_rate_multipliers=lambda params: multipliers(params, {"readouts": multiplier}),
        network=contrastive,
        check_feedback_optimizer=must_be_plain,
    )

    def predict(params, inputs, key=None):
        del key
        return contrastive.apply(params, inputs)

    return Rule(init, updates, predict, learn, extras)
