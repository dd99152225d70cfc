"""The multilayer perceptron: dense layers of any widths, one activation function, a linear readout."""

import itertools

import flax.linen as nn

from fa_jax.checks import BadOption, choose, integer, per_layer, switch
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage
from fa_jax.networks.layers import NORMS, activation_function, check_groups, drop_rate, initials

SCANNED_FROM = 8
"""Equal layers in a row are scanned from this many on; fewer run faster side by side and compile as fast."""


def mlp(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    hidden: list[int],
    activation,
    biases: bool,
    dropout,
    norm: str = "none",
    input_dropout: float = 0.0,
    **initial,
) -> Network:
    """Returns a `Network` whose module is a `Chain` of dense stages; inputs are flattened.

    Args:
      input_shape: of one example.
      outputs: the number of outputs.
      hidden: widths from the input on, each at least 1.
      activation: a name in `ACTIVATIONS`, or a list of one a hidden layer.
      biases: whether units have one.
      norm: a name in `NORMS`, between the dense layer and the activation function.
      dropout: the probability that a hidden unit is dropped, in [0, 1); or a list of one a hidden layer.
      input_dropout: the probability that an input is.
      **initial: how weights and biases start, as in `fa_jax.networks.layers.initials`.

    Raises:
      BadOption: if an option is none of these.
    """
    if not isinstance(hidden, list | tuple) or not hidden:
        raise BadOption(f"architecture.hidden must be a list of widths such as [800,800]; got {hidden!r}")
    widths = [integer("architecture.hidden", width, least=1) for width in hidden]
    functions = per_layer("architecture.activation", activation, len(widths), activation_function)
    rates = per_layer("architecture.dropout", dropout, len(widths), drop_rate)
    chosen_norm = choose("architecture.norm", norm, NORMS)
    for width in widths:
        check_groups(norm, width, f"in architecture.hidden={widths}")
    input_rate = drop_rate("architecture.input_dropout", input_dropout)
    use_bias = switch("architecture.biases", biases)
    inits = initials(len(widths) + 1, **initial)

    stages, repeats = [], []
    for _, row in itertools.groupby(range(len(widths)), lambda i: (widths[i], functions[i], rates[i], inits[i])):
        first, *rest = row
        # The first stage of all never joins a stack: it is where indirect feedback enters. Nor does one that changes
        # the width, which a scan cannot.
        alone = first == 0 or widths[first] != widths[first - 1]
        scanned = rest if alone else [first, *rest]
        lengths = [1] * alone + ([len(scanned)] if len(scanned) >= SCANNED_FROM else [1] * len(scanned))
        stages += [
            DenseStage(
                widths[first],
                functions[first],
                use_bias,
                dropout=rates[first],
                input_dropout=input_rate if first == 0 and i == 0 else 0.0,
                norm=chosen_norm,
                **inits[first].keywords(),
            )
            for i in range(len(lengths))
        ]
        repeats += lengths
    readout = nn.Dense(outputs, use_bias, **inits[-1].keywords())
    return Network(Chain(tuple(stages), tuple(repeats), readout), tuple(input_shape))
