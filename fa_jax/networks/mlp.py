"""The multilayer perceptron: dense layers of any widths and a linear readout."""

import itertools

import flax.linen as nn

from fa_jax.checks import BadOption, choose, integer, per_layer, sequence
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage
from fa_jax.networks.layers import NORMS, activation_function, check_groups, drop_rate, initials

SCANNED_FROM = 8
"""Equal layers in a row are scanned from this many on; fewer run faster unrolled and compile as fast."""


def mlp(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    hidden: list[int],
    activation,
    biases: bool,
    dropout,
    input_dropout: float,
    norm: str,
    init,
    init_scale,
    density,
    bias_init,
    bias_scale,
) -> Network:
    """Returns a `Network` whose module is a `Chain` of dense stages; inputs are flattened.

    Args:
      input_shape: of one example.
      outputs: the number of outputs.
      hidden: widths from the input on, each at least 1.
      activation: a name in `ACTIVATIONS`; or a list of one per hidden layer.
      biases: whether layers have biases.
      dropout: the probability that a hidden unit is dropped, in [0, 1); or a list of one per hidden layer.
      norm: a name in `NORMS`, between the dense layer and the activation function.
      input_dropout: the probability that an input is dropped.
      init, init_scale, density, bias_init, bias_scale: initial weights and biases, as in `layers.initials`.

    Raises:
      BadOption: if an option is out of range.
    """
    if not sequence("hidden", hidden, "[800,800]"):
        raise BadOption(f"must be a list of widths such as [800,800]; got {hidden!r}", "hidden")
    widths = [integer("hidden", width, least=1) for width in hidden]
    functions = per_layer("activation", activation, len(widths), activation_function)
    rates = per_layer("dropout", dropout, len(widths), drop_rate)
    chosen_norm = choose("norm", norm, NORMS)
    for width in widths:
        check_groups(norm, width, "hidden")
    input_rate = drop_rate("input_dropout", input_dropout)
    inits = initials(len(widths) + 1, init, init_scale, density, biases, bias_init, bias_scale)

    stages, repeats = [], []
    for _, row in itertools.groupby(range(len(widths)), lambda i: (widths[i], functions[i], rates[i], inits[i])):
        first, *rest = row
        # The first stage is never scanned, since indirect feedback enters there; nor is one that changes the width.
        separate = first == 0 or widths[first] != widths[first - 1]
        equal = rest if separate else [first, *rest]
        lengths = [1] if separate else []
        lengths += [len(equal)] if len(equal) >= SCANNED_FROM else [1] * len(equal)
        stages += [
            DenseStage(
                widths[first],
                functions[first],
                dropout=rates[first],
                input_dropout=input_rate if first == 0 and i == 0 else 0.0,
                norm=chosen_norm,
                **inits[first].keywords(),
            )
            for i in range(len(lengths))
        ]
        repeats += lengths
    readout = nn.Dense(outputs, **inits[-1].keywords())
    return Network(Chain(tuple(stages), tuple(repeats), readout), tuple(input_shape), any(i.is_sparse for i in inits))
