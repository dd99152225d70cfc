"""Helpers of the references for both Forward-Forward rules, in numpy: float64, no autodiff."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.conftest import CNN, MLP

RELU_MLP = {**MLP, "activation": "relu", "dropout": 0.0}
"""Options of an `mlp` that the rules are defined on, without `hidden`."""
LOCAL = {**CNN, **RELU_MLP, "topology": "conv5x3v-conv6x2v", "shared_weights": False}
"""Options of a `cnn` that the rules are defined on."""


def to_numpy(tree):
    """A tree of numpy arrays in double precision."""
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def random_readouts(rule):
    """Params and feedback as the rule draws them, but with random readouts in place of those of zeros."""
    params, feedback = rule.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 9))
    shapes = {name: part["kernel"].shape for name, part in params.items() if name.startswith("readouts_")}
    readouts = {name: {"kernel": jax.random.normal(next(keys), shape)} for name, shape in shapes.items()}
    return {**params, **readouts}, feedback


def hard_negative_labels(rule, params, batch):
    """The wrong labels that a step draws by the readouts' probabilities."""
    logits = jax.jit(rule.extras.network.apply)(params, batch.inputs)
    drawn = jax.random.categorical(batch.key, jnp.where(batch.targets > 0, -jnp.inf, logits))
    return np.asarray(jax.nn.one_hot(drawn, batch.targets.shape[-1]))


def divide_by_rms(a):
    """Each example divided by its root mean square."""
    return a / (1e-8 + np.sqrt((a**2).mean(tuple(range(1, a.ndim)), keepdims=True)))


def patches(images, window):
    """The windows of images, `[batch, rows, columns, height, width, channels]`."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (window, window), (1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3)


def local_patches(images, window):
    """The windows in the order of Flax's locally connected layers, `[batch, rows, columns, channels * window]`."""
    windows = patches(images, window).transpose(0, 1, 2, 5, 3, 4)
    return windows.reshape(*windows.shape[:3], -1)
