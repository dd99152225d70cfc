"""Forward-Forward: every layer learns, by itself, to be active on real data and quiet on false.

    y_l = relu(n_{l-1} W_l + b_l),   n_l = y_l / rms(y_l),   G_l = sum_j y_lj^2,   p_l = logistic(G_l - theta_l)
    positive data:  D_l = (1 - p_l) y_l + lambda (mean_j m_l - m_l)
    negative data:  D_l = -p_l y_l
    dW_l = -n_{l-1}^T D_l / batch,   db_l = -sum D_l / batch,   summed over both

theta_l is the number of units, m_l a running mean of y_l on positive data. Data are images whose first pixels are
overwritten by a one-hot label: the true one, or a wrong one. A softmax readout of the normalised activities of all
layers but the first, on images with a neutral label, learns beside them and chooses the wrong labels.

Without labels, data are the images themselves, and false ones are hybrids of two: one of them shows through a mask of
random coherent regions, the other around it. The readout then learns on the images as they are.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345, 2022; equations and scales
as in his published code, which leaves out the factor 2 of the gradient of log p. Two things differ from that code: the
decay of weights passes through the optimizer as the gradient does, and the order of batches is the training loop's.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.core import LossFunction, PyTree, Rule, Stream, stream
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, each_stage, unstacked
from fa_jax.options import BadOption, choose, integer, number
from fa_jax.perturbations import hybrids

TINY = 1e-8


class Layer(NamedTuple):
    """A layer's pass over a batch."""

    below: jax.Array
    """`[batch, inputs]`: the normalised activity of the layer below."""
    activity: jax.Array
    """`[batch, units]`, before it is normalised."""

    @property
    def excess(self) -> jax.Array:
        """Goodness minus threshold, `[batch]`."""
        return jnp.sum(jnp.square(self.activity), -1) - self.activity.shape[-1]


class ForwardForward(nn.Module):
    """Dense stages with normalised activities between them, and a linear readout of each stage but the first.

    Called, it returns the logits of the readouts, on images with a neutral label if there are labels in them at all.
    """

    stages: Sequence[nn.Module]
    heads: Sequence[nn.Module]
    labelled: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits, `[batch, classes]`."""
        classes = self.heads[0].features
        neutral = jnp.full((len(x), classes), 1 / classes)
        layers = self.passed(with_label(x, neutral) if self.labelled else x.reshape(len(x), -1))
        votes = [head(normalised(layer.activity)) for head, layer in zip(self.heads, layers[1:], strict=True)]
        return functools.reduce(jnp.add, votes)

    def passed(self, x: jax.Array) -> list[Layer]:
        """Returns each layer's pass over flattened images, that have their label in them if they are to have one."""
        layers, n = [], normalised(x)
        for stage in self.stages:
            layers.append(Layer(n, stage(n)))
            n = normalised(layers[-1].activity)
        return layers


def normalised(y: jax.Array) -> jax.Array:
    """Returns the rows divided by the root of their mean square; no mean is taken out, a row of zeros stays."""
    power = jnp.mean(jnp.square(y), -1, keepdims=True)
    # The root of 0 has no derivative, and where it is not taken it must not be differentiated either.
    return y / (TINY + jnp.where(power > 0, jnp.sqrt(jnp.where(power > 0, power, 1)), 0))


def with_label(x: jax.Array, label: jax.Array) -> jax.Array:
    """Returns inputs `[batch, ...]` flattened, the first of them overwritten by a label `[batch, classes]`."""
    return jnp.concatenate([label, x.reshape(len(x), -1)[:, label.shape[-1] :]], -1)


def told(layer: Layer, sign: float) -> jax.Array:
    """Returns what moves goodness up (sign 1) or down (sign -1), `[batch, units]`: D of Hinton's code.

    `(1 - p) y` and `-p y`, less and less where the goodness is there already.
    """
    return sign * jax.nn.sigmoid(-sign * layer.excess)[:, None] * layer.activity


def contrast(positive: Sequence[Layer], negative: Sequence[Layer], sign: float) -> dict[str, jax.Array]:
    """Returns, by layer, the mean goodness of positive and negative data and how often they are the wrong way round.

    `positive_goodness_i` and `negative_goodness_i` in units of the threshold; `pairwise_error_i` in %.
    """
    found = {}
    for i, (true, false) in enumerate(zip(positive, negative, strict=True)):
        units = true.activity.shape[-1]
        found[f"positive_goodness_{i}"] = true.excess.mean() / units + 1
        found[f"negative_goodness_{i}"] = false.excess.mean() / units + 1
        found[f"pairwise_error_{i}"] = 100 * jnp.mean(sign * (true.excess - false.excess) <= 0)
    return found


def forward_forward(
    network: Network,
    loss: LossFunction,
    *,
    goodness: str,
    negatives: str,
    blurs: int,
    peer_strength: float,
    peer_rate: float,
    head_rate: float,
    weight_decay: float,
    head_decay: float,
    inference: str,
) -> Rule:
    """Returns the `Rule` of Forward-Forward.

    Its params are those of the network's stages, unstacked where they are scanned, and of a readout `heads_i` of each
    stage but the first; the network's own readout has no part in it. Its feedback holds the running means m_l,
    `[units]` each, for an optimizer at rate 1.

    Args:
      network: an `mlp` of ReLU layers, at least two.
      loss: a mean over the batch; the readouts descend it.
      goodness: `maximised` on positive data, or `minimised`, with the signs of all but the peers' term turned.
      negatives: how wrong labels are drawn: `hard`, by the readouts' own probabilities, or `uniform`; or else `hybrid`:
        there are no labels in the images, and false ones are made of two (section 3.2).
      blurs: how often the masks of hybrids are blurred, at least 0.
      peer_strength: lambda, at least 0.
      peer_rate: how much of a running mean a batch replaces, from 0 to 1.
      head_rate: the learning rate of the readouts, as a multiple of the others'.
      weight_decay: of the stages' kernels, added to their updates.
      head_decay: of the readouts'.
      inference: `softmax`: one pass with a neutral label and the readouts; `goodness`: a pass for each label, its logit
        the sum of the goodness of all layers but the first, less their thresholds.

    Raises:
      BadOption: if an option is out of range, or the network is another.
    """
    chain, stages = _stages(network)
    sign = choose("rule.goodness", goodness, {"maximised": 1.0, "minimised": -1.0})
    hard = choose("rule.negatives", negatives, {"hard": True, "uniform": False, "hybrid": None})
    blurs = integer("rule.blurs", blurs, least=0)
    by_softmax = choose("rule.inference", inference, {"softmax": True, "goodness": False})
    strength, heads_rate = (
        number("rule.peer_strength", peer_strength, least=0),
        number("rule.head_rate", head_rate, above=0),
    )
    replaced = number("rule.peer_rate", peer_rate, least=0, most=1)
    decays = {
        part: number(f"rule.{option}", decay, least=0)
        for part, option, decay in (("stages", "weight_decay", weight_decay), ("heads", "head_decay", head_decay))
    }
    heads = [nn.Dense(network.outputs, use_bias=False, kernel_init=nn.initializers.zeros) for _ in stages[1:]]
    labelled = hard is not None or _check_hybrid(network, by_softmax)
    own = Network(ForwardForward(stages, heads, labelled), network.input_shape)

    def init(key):
        drawn = own.init(stream(key, Stream.INIT))
        params = {**drawn, **unstacked(chain, network.init(stream(key, Stream.INIT)))}
        return params, {f"stages_{i}": jnp.full(stage.features, 0.5, jnp.float32) for i, stage in enumerate(stages)}

    def passed(params, inputs, label) -> list[Layer]:
        return own.call("passed", params, with_label(inputs, label))

    def true(params, batch) -> list[Layer]:
        if labelled:
            return passed(params, batch.inputs, batch.targets)
        return own.call("passed", params, batch.inputs.reshape(len(batch.inputs), -1))

    def false(params, batch) -> list[Layer]:
        if labelled:
            return passed(params, batch.inputs, wrong_labels(params, batch))
        made = hybrids(batch.key, batch.inputs, blurs)
        return own.call("passed", params, made.reshape(len(made), -1))

    def wrong_labels(params, batch):
        logits = own.apply(params, batch.inputs) if hard else jnp.zeros_like(batch.targets)
        drawn = jax.random.categorical(batch.key, jnp.where(batch.targets > 0, -jnp.inf, logits))
        return jax.nn.one_hot(drawn, network.outputs, dtype=batch.inputs.dtype)

    def means(feedback, positive):
        named = {f"stages_{i}": layer for i, layer in enumerate(positive)}
        return {n: (1 - replaced) * feedback[n] + replaced * layer.activity.mean(0) for n, layer in named.items()}

    def updates(params, feedback, batch):
        positive, negative = true(params, batch), false(params, batch)
        of_heads = {name: p for name, p in params.items() if name.startswith("heads_")}
        found = jax.grad(lambda p: loss(own.apply({**params, **p}, batch.inputs), batch.targets))(of_heads)
        followed = means(feedback, positive)
        for i in range(len(stages)):
            mean = followed[f"stages_{i}"]
            up, down = told(positive[i], sign), told(negative[i], -sign)
            pulled = up + strength * (mean.mean() - mean)
            kernel = positive[i].below.T @ pulled + negative[i].below.T @ down
            found[f"stages_{i}"] = {"linear": {"kernel": -kernel / len(up), "bias": -(pulled + down).sum(0) / len(up)}}
            if "hidden" in params[f"stages_{i}"]:  # a nudge: what the layer is told of the data as they are
                found[f"stages_{i}"]["hidden"] = {"nudge": -up / len(up)}
        return _decayed(found, params, decays)

    def learn(params, feedback, batch, updates):
        del updates
        return jax.tree.map(jnp.subtract, feedback, means(feedback, true(params, batch)))

    def by_goodness(params, inputs):
        def of(label):
            layers = passed(params, inputs, jnp.broadcast_to(label, (len(inputs), network.outputs)))
            return sign * functools.reduce(jnp.add, [layer.excess for layer in layers[1:]])

        return jax.lax.map(of, jnp.eye(network.outputs)).T

    def report(params, feedback, batch):
        del feedback
        found = contrast(true(params, batch), false(params, batch), sign)
        if not labelled:
            return found
        chosen = (by_goodness if by_softmax else own.apply)(params, batch.inputs).argmax(-1)
        name = f"probe_error_by_{'goodness' if by_softmax else 'softmax'}"
        return {**found, name: 100 * jnp.mean(chosen != batch.targets.argmax(-1))}

    predict = own.apply if by_softmax else by_goodness
    return Rule(
        init,
        updates,
        predict,
        learn=learn,
        report=report,
        rates=functools.partial(_rates, heads_rate),
        network=own,
        needs_classes=True,
    )


def _decayed(updates: PyTree, params: PyTree, decays: Mapping[str, float]) -> PyTree:
    """Adds to the updates of kernels what decays them; `decays` of the stages and the heads."""

    def of(path, update, value):
        decay = decays[path[0].key.rpartition("_")[0]]
        return update + decay * value if decay and path[-1].key == "kernel" else update

    return jax.tree_util.tree_map_with_path(of, updates, params)


def _rates(heads_rate: float, params: PyTree) -> PyTree:
    """The readouts' rate, and 1 for all else."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: heads_rate if path[0].key.startswith("heads_") else 1.0, params
    )


def _check_hybrid(network: Network, by_softmax: bool) -> bool:
    """Refuses what has no meaning without labels in the data; returns that they have none: False."""
    if len(network.input_shape) != 3:
        shape = "x".join(map(str, network.input_shape))
        raise BadOption(f"rule.negatives=hybrid needs images, such as task=mnist; the inputs of this task are {shape}")
    if not by_softmax:
        raise BadOption("rule.negatives=hybrid puts no label into images; rule.inference must be softmax; got goodness")
    return False


def _stages(network: Network) -> tuple[Chain, list[DenseStage]]:
    """Returns the chain and the stages of a network that the rule has a definition for, and refuses others."""
    chain = network.module
    found = list(each_stage(chain)) if isinstance(chain, Chain) else []
    stages = [stage for stage in found if isinstance(stage, DenseStage) and stage.use_bias]
    if not isinstance(chain, Chain) or len(stages) < len(found):
        raise BadOption("rule=forward_forward needs architecture=mlp with architecture.biases=true")
    if len(stages) < 2:
        widths = [stage.features for stage in stages]
        raise BadOption(
            f"rule=forward_forward needs two hidden layers or more, such as architecture.hidden=[100,100]; got {widths}"
        )
    if any(stage.dropout or stage.input_dropout for stage in stages):
        raise BadOption("rule=forward_forward has no definition for dropout; architecture.dropout must be 0")
    if any(stage.activation is not jax.nn.relu for stage in stages):
        raise BadOption("rule=forward_forward needs architecture.activation=relu")
    size = math.prod(network.input_shape)
    if size < network.outputs:
        raise BadOption(f"rule=forward_forward writes {network.outputs} classes into inputs of {size} numbers: too few")
    return chain, stages
