"""Counter-current learning: a second network, from the classes down, meets the first at every hidden layer.

    G_L = I, one row per class,        G_{i-1} = f(V_i sg(G_i)),        sg: stop gradient
    Q_i = c (256 / n_i) mean_{jk} (h_ij . G_ik - y_jk)^2                          dot, for dense networks
    Q_i = c mean_{jk} (u_ij . v_ik - y_jk)^2 + s mean_{jk} (u_ij . u_ik - [j = k])^2
                                             + s mean_{jk} (v_ij . v_ik - [j = k])^2    cosine, for convolutional ones

h_ij is the activation of example j, u and v are h and G divided by their lengths, n_i is the width. Every layer of both
networks descends the loss of its own level alone, towards each other; the readout descends the loss of the task. So G_i
is a linear readout of hidden layer i, which is trained together with it. The second network is the feedback: it has no
biases, and its layers have the shapes of the first one's, from the readout down to the second. Upsampling by nearest
neighbours takes the place of pooling and strides.

Kao, Hariharan, "Counter-Current Learning: A Biologically Plausible Dual Network Approach for Deep Learning", NeurIPS
2024 (arXiv 2409.19841). Losses are those of the authors' code; the paper prints one normalised loss for all networks.
Their level at the input is omitted: it trains a layer that nothing else depends on, but for a norm that is clipped, to
which it adds little. Their warm-up of the rate, their filter of examples and their centring of gradients, which their
convolutional networks have, are omitted too.
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, number, switch, unused
from fa_jax.core import LayerArrays, LossFunction, Measure, Metric, Rule, Stream, stream
from fa_jax.feedback import InitFeedback, require_all_kernels
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage, each_stage
from fa_jax.networks.cnn import ConvolutionStage
from fa_jax.rules.backward import backward_rule
from fa_jax.rules.square_root import square_root
from fa_jax.rules.stagewise import require_chain, require_no_norm

METRIC = Metric("level_loss", "loss of the level", logarithmic=True)
WIDTH = 256
"""The width for which the factor of the dot loss is c."""
EPSILON = 1e-8
"""Added to the lengths of rows."""

LevelLoss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(h [batch, n], G [classes, n], targets [batch, classes]) -> Q`."""


def counter_current(
    network: Network,
    loss: LossFunction,
    *,
    init_feedback: InitFeedback,
    level_loss: str,
    scale: float,
    decorrelation: float | None,
    learned: bool,
) -> Rule:
    """Returns the `Rule` of counter-current learning.

    Args:
      network: a `Chain` of dense and convolutional stages without norms and dropout; convolutions are padded, and
        images are marked after the pooling, which divides their sides.
      loss: of the readout, a mean over the batch.
      init_feedback: draws V_i in the shape of the kernel of layer i, such as `feedback.layerwise`.
      level_loss: `dot` or `cosine`.
      scale: c, above 0.
      decorrelation: s, at least 0; None for dot.
      learned: whether the second network learns; False: the control with fixed random readouts.

    Raises:
      BadOption: if an option is out of range or has no effect, or the network is not of this form.
    """
    activations = [stage.activation for stage in each_stage(_require_stages(network))]
    level = _level_loss(level_loss, scale, decorrelation)
    shapes = [h.shape for h in network.hidden_shapes.values() for _ in range(*h.stack or (1,))]

    def init(key):
        params = network.init(key)
        feedback = init_feedback(network, stream(key, Stream.FEEDBACK), params)
        return params, turned(require_all_kernels(network, feedback))

    def rows(feedback):
        """Returns G of each hidden layer, `[classes, *shape]`; the gradient of each reaches its own V alone."""
        kernels, activities = network.kernels_in_order(feedback), []
        g = jnp.eye(network.outputs, dtype=kernels[-1].dtype)
        for kernel, shape, activation in reversed(list(zip(kernels, shapes, activations, strict=True))):
            g = activation(sent_down(jax.lax.stop_gradient(g), kernel, shape))
            activities.insert(0, g)
        return activities

    def levels(hiddens, feedback, batch):
        """Returns Q of each hidden layer."""
        flat = [(h.reshape(len(h), -1), g.reshape(len(g), -1)) for h, g in zip(hiddens, rows(feedback), strict=True)]
        return [level(h, g, batch.targets) for h, g in flat]

    def hidden_layers(params, batch):
        return network.hiddens_in_order(network.forward(params, batch.inputs, key=batch.key)[1])

    def backward(params, feedback, batch):
        hiddens = hidden_layers(params, batch)
        signals = jax.grad(lambda hiddens: sum(levels(hiddens, feedback, batch)))(hiddens)
        return {"signals": network.hiddens_from_order(signals)}

    def learn(params, feedback, batch, updates):
        del updates
        hiddens = hidden_layers(params, batch)
        return jax.grad(lambda feedback: sum(levels(hiddens, feedback, batch)))(feedback)

    def weight_pairs(params, feedback):
        weights = network.kernels(params)
        return {name: (v, weights[name]) for name, v in turned(feedback).items()}

    def measure(params, feedback, batch):
        losses = levels(hidden_layers(params, batch), feedback, batch)
        return {f"{METRIC.name}_{i}": value for i, value in enumerate(losses)}

    rule = backward_rule(
        network,
        loss,
        init=init,
        backward=backward,
        weight_pairs=weight_pairs,
        measure=Measure((METRIC,), measure),
        needs_classes=True,
    )
    return rule._replace(learn=learn if switch("learned", learned) else None)


def turned(kernels: LayerArrays) -> LayerArrays:
    """Returns kernels with the windows of convolutions turned round, as the transpose of a convolution has them."""
    return {name: kernel[..., ::-1, ::-1, :, :] if kernel.ndim > 3 else kernel for name, kernel in kernels.items()}


def sent_down(g: jax.Array, kernel: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns V g, `[classes, *shape]`: through a dense layer, or by upsampling and a padded convolution.

    Args:
      g: `[classes, ...]`, the activation of the second network above.
      kernel: V^T in the shape of the forward kernel, `[in, out]` or, `turned`, `[height, width, in, out]`.
      shape: of the hidden layer below.
    """
    if kernel.ndim == 2:
        return (g.reshape(len(g), -1) @ kernel.T).reshape(len(g), *shape)
    for axis in (1, 2):
        g = jnp.repeat(g, shape[axis - 1] // g.shape[axis], axis)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(g, kernel.swapaxes(2, 3), (1, 1), "SAME", dimension_numbers=layout)


def dot_loss(h: jax.Array, g: jax.Array, targets: jax.Array, scale: float) -> jax.Array:
    """Returns Q of plain inner products."""
    return scale * (WIDTH / h.shape[1]) * jnp.mean(jnp.square(h @ g.T - targets))


def cosine_loss(h: jax.Array, g: jax.Array, targets: jax.Array, scale: float, decorrelation: float) -> jax.Array:
    """Returns Q of normalised rows, with the terms that decorrelate examples and classes."""
    u, v = _normalised(h), _normalised(g)
    apart = sum(jnp.mean(jnp.square(rows @ rows.T - jnp.eye(len(rows), dtype=rows.dtype))) for rows in (u, v))
    return scale * jnp.mean(jnp.square(u @ v.T - targets)) + decorrelation * apart


def _normalised(rows: jax.Array) -> jax.Array:
    return rows / (square_root(jnp.sum(jnp.square(rows), 1, keepdims=True)) + EPSILON)


def _level_loss(name: str, scale: float, decorrelation: float | None) -> LevelLoss:
    c = number("scale", scale, above=0)
    if choose("level_loss", name, {"dot": False, "cosine": True}):
        s = number("decorrelation", decorrelation, least=0)
        return lambda h, g, targets: cosine_loss(h, g, targets, c, s)
    unused("decorrelation", decorrelation, "with level_loss=dot")
    return lambda h, g, targets: dot_loss(h, g, targets, c)


def _require_stages(network: Network) -> Chain:
    """Returns the `Chain` of a network.

    Raises:
      BadOption: unless the rule is defined on it.
    """
    chain = require_chain(network)
    shared = [stage for stage in chain.stages if isinstance(stage, DenseStage) or getattr(stage, "shared", False)]
    stages = [stage for stage in shared if isinstance(stage, DenseStage | ConvolutionStage)]
    if len(stages) < len(chain.stages) or len(network.kernel_shapes) != len(stages) + 1:
        raise BadOption("needs stages of one dense or convolutional layer each, as those of mlp or cnn")
    require_no_norm(chain)
    if any(stage.dropout or stage.input_dropout for stage in stages):
        raise BadOption("is not defined with dropout; it needs dropout=0 and input_dropout=0")
    images = [(stage, h.shape) for stage, h in zip(stages, network.hidden_shapes.values(), strict=True)]
    images = [(stage, shape) for stage, shape in images if isinstance(stage, ConvolutionStage)]
    if any(stage.hidden_position != "after_pooling" and stage.shape.pool > 1 for stage, _ in images):
        raise BadOption("compares activations after the pooling; it needs hidden_position=after_pooling")
    for (_, below), (stage, shape) in itertools.pairwise(images):
        if stage.shape.padding != "SAME" or below[0] % shape[0] or below[1] % shape[1]:
            raise BadOption(
                "needs padded convolutions after the first, with strides and pooling that divide the image; "
                f"got {below[0]}x{below[1]} and then {shape[0]}x{shape[1]}"
            )
    hiddens, (_, *kernels) = network.hidden_shapes.values(), network.kernel_shapes.values()
    for hidden, kernel in zip(hiddens, kernels, strict=True):
        if len(kernel.shape) == 2 and kernel.shape[0] != math.prod(hidden.shape):
            raise BadOption("needs dense layers on flattened images, not on averages over their positions")
    return chain
