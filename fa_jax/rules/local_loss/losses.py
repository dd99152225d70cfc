"""The local losses of a stage: prediction of the label, and similarity of examples.

    pred = loss(P h + p, y)                   mean over the batch; P starts at zero
    sim  = mean_nm (S(E h)_nm - S(y)_nm)^2    mean over all pairs of examples of the batch, equal ones included
    S(x) = Z Z^T,   z_n = (x_n - mean_j x_nj) / (1e-8 + |x_n - mean_j x_nj|)

S is the correlation of examples, over their features. P, p and E are learned with the stage. Of feature maps, P reads
averages over windows; E is a 3x3 convolution, of which S reads the standard deviation of each channel over positions.

Nøkland, Eidnes, "Training Neural Networks with Local Error Signals", ICML 2019 (arXiv 1901.06656); all scales are those
of the authors' code. The paper prints the sum over pairs, which would leave `predsim` without a prediction loss.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.core import LossFunction
from fa_jax.rules.square_root import square_root

EPSILON = 1e-8
TORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U[-a, a] with `a = 1 / sqrt(fan_in)`, Torch's default."""


class StageLoss(nn.Module):
    """The losses of one stage, with the layers that they read its activation by.

    Attributes:
      loss: of predictions.
      prediction: whether there is a prediction loss.
      similarity: whether there is a similarity loss.
      outputs: the number of classes.
      features: the largest number of features of a feature map that a prediction reads.
      plain: whether the prediction is that of Mono-Forward: without bias, and not from zero.
    """

    loss: LossFunction
    prediction: bool
    similarity: bool
    outputs: int
    features: int
    plain: bool = False

    @nn.compact
    def __call__(self, h: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        """Returns `prediction_loss` and `similarity_loss`, those that there are.

        Args:
          h: the activation of the stage before dropout and pooling, `[batch, width]` or
            `[batch, height, width, channels]`.
          y: one-hot, `[batch, classes]`.
        """
        losses = {}
        if self.prediction:
            x = averaged(h, self.features).reshape(len(h), -1)
            bound = x.shape[-1] ** -0.5
            predict = nn.Dense(
                self.outputs,
                use_bias=not self.plain,
                kernel_init=TORCH_UNIFORM if self.plain else nn.initializers.zeros,
                bias_init=lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound),
                name="predict",
            )
            losses["prediction_loss"] = self.loss(predict(x), y)
        if self.similarity:
            width, options = h.shape[-1], {"use_bias": False, "kernel_init": TORCH_UNIFORM, "name": "encode"}
            encode = nn.Dense(width, **options) if h.ndim == 2 else nn.Conv(width, (3, 3), **options)
            losses["similarity_loss"] = jnp.mean(jnp.square(similarity(compared(encode(h))) - similarity(y)))
        return losses


def similarity(x: jax.Array) -> jax.Array:
    """Returns the correlations S of all pairs of examples, `[batch, batch]`; 0 for an example of equal features.

    Args:
      x: `[batch, features]`.
    """
    centred = x - x.mean(-1, keepdims=True)
    z = centred / (EPSILON + square_root(jnp.sum(jnp.square(centred), -1, keepdims=True)))
    return z @ z.T


def compared(x: jax.Array) -> jax.Array:
    """Returns the features of which examples are compared, `[batch, features]`.

    Those of feature maps with more than three channels and more than one row are the standard deviations of the
    channels over positions, with the divisor `positions - 1`.
    """
    if x.ndim == 2 or x.shape[1] == 1 or x.shape[-1] <= 3:
        return x.reshape(len(x), -1)
    positions = x.reshape(len(x), -1, x.shape[-1])
    centred = positions - positions.mean(1, keepdims=True)
    return square_root(jnp.sum(jnp.square(centred), 1) / (positions.shape[1] - 1))


def averaged(h: jax.Array, features: int) -> jax.Array:
    """Returns a feature map averaged over windows, so that there are at most so many features; vectors as they are.

    The window doubles its height, then its width, until there are few enough; where it does not divide the map, zeros
    around the map are averaged too.
    """
    if h.ndim == 2:
        return h
    height, width, channels = h.shape[1:]
    window, places = [1, 1], [height, width]
    while math.prod(places) * channels > features and window[0] < height:
        for axis, size in enumerate((height, width)):
            if math.prod(places) * channels > features:
                window[axis] *= 2
                places[axis] = math.ceil(size / window[axis])
    borders = [k * (n - size // k) // 2 for k, n, size in zip(window, places, (height, width), strict=True)]
    padded = jnp.pad(h, ((0, 0), *((border, border) for border in borders), (0, 0)))
    return nn.avg_pool(padded, tuple(window), tuple(window))
