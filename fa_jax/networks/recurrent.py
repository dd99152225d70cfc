"""Recurrent networks over the rows of an image: layers of Elman or of gated units, and a readout of their states.

    h_t = f(W x_t + V h_{t-1} + b)                                                              Elman

    r_t = s(W_r x_t + V_r h_{t-1} + b_r)          n_t = f(W_n x_t + b_n + r_t * (V_n h_{t-1} + c_n))     GRU
    z_t = s(W_z x_t + V_z h_{t-1} + b_z)          h_t = (1 - z_t) * n_t + z_t * h_{t-1},   s: sigmoid

x_t is row t of the image, or the state at time t of the layer below, and h_{-1} = 0.

`Hidden` is on the state of every time step, inside the recurrence: what it passes on is both the output of the layer
and the state at the next step. So a rule that replaces dL/dh does so for the state of each time step, and what would
come back from later steps is discarded. Direct feedback alignment through time is then

    dV = sum_t ((B e) * f'(a_t)) h_{t-1}^T        e = dL/dlogits, of the end of the sequence

without backprop through time, as in Murray (2019) and Cossu et al. (2024), whose B is the same at all times
(`feedback.shared=true`, the default here). Feedback alignment crosses one backward kernel of V at all time steps.

Elman, "Finding structure in time", Cognitive Science 14(2), 1990; Cho et al., arXiv 1406.1078, 2014, with r inside as
in cuDNN and Flax. Murray, "Local online learning in recurrent networks with random feedback", eLife 8:e43299, 2019;
Cossu, Ceni, Lomonaco, Bacciu, Gallicchio, "Direct Feedback Alignment for Recurrent Neural Networks", NeurIPS 2024
workshop MLNCP.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number, sequence
from fa_jax.network import Network
from fa_jax.networks.layers import ACTIVATIONS, initials
from fa_jax.primitives import Hidden

CELLS = {"elman": nn.SimpleCell, "gru": nn.GRUCell}
POOLINGS = {"last": lambda states: states[:, -1], "mean": lambda states: states.mean(1)}
"""What the readout receives of the states of the last layer, `[batch, time, width]`."""


class RecurrentLayer(nn.Module):
    """A cell that runs over time, `[batch, time, features]` to `[batch, time, width]`; `Hidden` is on its state."""

    cell: Any

    def setup(self):
        self.hidden = Hidden()

    def __call__(self, x: jax.Array) -> jax.Array:
        def step(layer, state, x_t):
            state, _ = layer.cell(state, x_t)
            state = layer.hidden(state)
            return state, state

        # All collections but the params, which are the same at all time steps, are stacked along a leading time axis.
        axes: Any = {True: 0}
        rngs: Any = {"params": False, True: True}
        run = nn.scan(step, axes, variable_broadcast="params", split_rngs=rngs, in_axes=1, out_axes=1)
        start = jnp.zeros((len(x), self.cell.features), x.dtype)
        return run(self, start, x)[1]


class Recurrent(nn.Module):
    """Recurrent layers, one on the states of the other, and a readout of the last state or of the mean over time.

    Attributes:
      layers: from the input on.
      pooling: one of `POOLINGS`.
      readout: maps `[batch, width]` to the logits, `[batch, outputs]`.
    """

    layers: Sequence[RecurrentLayer]
    pooling: str
    readout: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        states = x.reshape(*x.shape[:2], -1)
        for layer in self.layers:
            states = layer(states)
        return self.readout(POOLINGS[self.pooling](states))


def recurrent(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    cell: str,
    hidden: list[int],
    activation: str,
    pooling: str,
    init,
    init_scale,
    recurrent_scale: float,
    density,
    bias_init,
    bias_scale,
) -> Network:
    """Returns a `Network` of recurrent layers.

    Args:
      input_shape: of one example, `(time, ...)`: of an image, time is the row. At least two time steps.
      outputs: the number of outputs.
      cell: `elman` or `gru`.
      hidden: widths from the input on, each at least 1.
      activation: f, a name in `ACTIVATIONS`.
      pooling: what the readout receives: the `last` state, or the `mean` over time.
      init, init_scale, density, bias_init, bias_scale: initial weights and biases, as in `layers.initials`, one value
        for all layers.
      recurrent_scale: in place of `init_scale` for the recurrent weights V.

    Raises:
      BadOption: if an option is out of range, or inputs are no sequences.
    """
    if len(input_shape) < 2 or input_shape[0] < 2:
        raise BadOption(
            f"needs images, or sequences of at least two steps; the inputs of the task have shape {tuple(input_shape)}"
        )
    kind, function = choose("cell", cell, CELLS), choose("activation", activation, ACTIVATIONS)
    if not sequence("hidden", hidden, "[64]"):
        raise BadOption(f"must be a list of widths such as [64]; got {hidden!r}", "hidden")
    widths = [integer("hidden", width, least=1) for width in hidden]
    choose("pooling", pooling, POOLINGS)
    (first,) = initials(1, init, init_scale, density, True, bias_init, bias_scale)
    of_states = first._replace(scale=number("recurrent_scale", recurrent_scale, least=0))
    options = {
        "activation_fn": function,
        "kernel_init": first.keywords()["kernel_init"],
        "recurrent_kernel_init": of_states.keywords()["kernel_init"],
        "bias_init": first.keywords()["bias_init"],
    }
    layers = [RecurrentLayer(kind(width, **options)) for width in widths]
    module = Recurrent(layers, pooling, nn.Dense(outputs, **first.keywords()))
    return Network(module, tuple(input_shape), first.is_sparse)
