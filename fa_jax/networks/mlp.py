"""The multilayer perceptron: dense layers of any widths, one activation function, a linear readout."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.core import Network
from fa_jax.distributions import DISTRIBUTIONS, constant, thin, uniform
from fa_jax.networks.chain import Chain, DenseStage
from fa_jax.options import BadOption, choose, integer, number, per_layer, switch

ACTIVATIONS = {
    "linear": lambda a: a,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
BIAS_DISTRIBUTIONS = {"constant": constant, "uniform": uniform}

SCANNED_FROM = 8
"""Equal layers in a row are scanned from this many on; fewer run faster side by side and compile as fast."""


def mlp(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    hidden: list[int],
    activation: str,
    biases: bool,
    init: str,
    init_scale,
    kept,
    bias_init: str,
    bias_scale,
    dropout,
) -> Network:
    """Returns a `Network` whose module is a `Chain` of dense stages; inputs are flattened.

    Args:
      input_shape: of one example.
      outputs: the number of outputs.
      hidden: widths from the input on, each at least 1.
      activation: a name in `ACTIVATIONS`.
      biases: whether units have one.
      init: a name in `DISTRIBUTIONS`; this and the four below may be a list of one value a layer, readout included.
      init_scale: the distribution's, at least 0.
      kept: the fraction of the forward weights kept, above 0; the others are zero (and stay so: see `training`).
      bias_init: `constant` or `uniform`.
      bias_scale: the constant, or the bound of the uniform distribution.
      dropout: the probability that a hidden unit is dropped, in [0, 1); or a list of one a hidden layer.

    Raises:
      BadOption: if an option is none of these.
    """
    if not isinstance(hidden, list | tuple) or not hidden:
        raise BadOption(f"architecture.hidden must be a list of widths such as [800,800]; got {hidden!r}")
    widths = [integer("architecture.hidden", width, least=1) for width in hidden]
    function = choose("architecture.activation", activation, ACTIVATIONS)
    layers = len(widths) + 1
    draws = per_layer("architecture.init", init, layers, lambda o, got: choose(o, got, DISTRIBUTIONS))
    scales = per_layer("architecture.init_scale", init_scale, layers, lambda o, got: number(o, got, least=0))
    fractions = per_layer("architecture.kept", kept, layers, lambda o, got: number(o, got, above=0, most=1))
    bias_draws = per_layer(
        "architecture.bias_init", bias_init, layers, lambda o, got: choose(o, got, BIAS_DISTRIBUTIONS)
    )
    bias_scales = per_layer("architecture.bias_scale", bias_scale, layers, number)
    rates = per_layer("architecture.dropout", dropout, len(widths), _rate)
    use_bias = switch("architecture.biases", biases)
    inits = list(zip(draws, scales, fractions, bias_draws, bias_scales, strict=True))

    def initialisers(draw, scale, fraction, bias_draw, bias):
        def kernel_init(key, shape, dtype=jnp.float32):
            value, thinning = jax.random.split(key)
            return thin(thinning, draw(value, shape, shape[0], scale), fraction).astype(dtype)

        return {
            "kernel_init": kernel_init,
            "bias_init": lambda key, shape, dtype=jnp.float32: bias_draw(key, shape, 1, bias).astype(dtype),
        }

    stages, repeats = [], []
    for _, row in itertools.groupby(range(len(widths)), lambda i: (widths[i], rates[i], inits[i])):
        first, *rest = row
        # The first stage of all never joins a stack: it is where indirect feedback enters. Nor does one that changes
        # the width, which a scan cannot.
        alone = first == 0 or widths[first] != widths[first - 1]
        scanned = rest if alone else [first, *rest]
        lengths = [1] * alone + ([len(scanned)] if len(scanned) >= SCANNED_FROM else [1] * len(scanned))
        stages += [
            DenseStage(widths[first], function, use_bias, dropout=rates[first], **initialisers(*inits[first]))
            for _ in lengths
        ]
        repeats += lengths
    readout = nn.Dense(outputs, use_bias, **initialisers(*inits[-1]))
    return Network(Chain(tuple(stages), tuple(repeats), readout), tuple(input_shape))


def _rate(option: str, got: float) -> float:
    rate = number(option, got, least=0)
    if rate >= 1:
        raise BadOption(f"{option} must be at least 0 and below 1; got {got!r}")
    return rate
