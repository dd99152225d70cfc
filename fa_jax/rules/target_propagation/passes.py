"""The passes of target propagation: up through the layers on a batch, and down through their inverses."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fa_jax.core import Batch, PyTree
from fa_jax.network import Network
from fa_jax.networks.layers import ACTIVATIONS
from fa_jax.networks.variables import leaves_named
from fa_jax.rules.target_propagation.differences import Function
from fa_jax.rules.target_propagation.variants import Inverse, Layer, Variant

AUXILIARY = "auxiliary"
"""The entry of the feedback that holds the auxiliary units: their fixed kernel, and the part of V_L that reads them."""


@dataclasses.dataclass(frozen=True)
class Passes:
    """The passes of a variant on a network of dense stages."""

    network: Network
    variant: Variant
    activations: Sequence[Function]
    """The activations of the hidden layers."""
    auxiliary_units: int
    """0: none."""

    @property
    def inverted(self) -> list[str]:
        """The names of the layers that have an inverse."""
        names = list(self.network.kernel_shapes)
        return names[1:-1] if self.variant.from_gradient else names[1:]

    def forward(self, params: PyTree, feedback: PyTree, batch: Batch) -> list[Layer]:
        """Returns the layers on a batch; the auxiliary units are further units of the readout."""
        units, outputs = self.auxiliary_units, self.network.outputs
        kernels = self.network.kernels_in_order(self.network.kernels(params))
        biases = self.network.kernels_in_order(leaves_named(params, "bias")) or [0.0] * len(kernels)
        if units:
            kernels[-1] = jnp.concatenate([kernels[-1], jax.lax.stop_gradient(feedback[AUXILIARY]["units"])], 1)
            biases[-1] = jnp.concatenate([biases[-1] + jnp.zeros(outputs), jnp.zeros(units)])
        layers, h = [], batch.inputs.reshape(len(batch.inputs), -1)
        for kernel, bias, function in zip(kernels, biases, [*self.activations, self._readout], strict=True):
            a = h @ kernel + bias
            layers.append(Layer(kernel, bias, function, h, a, function(a)))
            h = layers[-1].output
        return layers

    def send_down(self, feedback: PyTree, layers: Sequence[Layer], first: jax.Array) -> list[jax.Array]:
        """Returns target minus activation of every hidden layer, `[batch, width]`.

        Args:
          feedback: the inverses.
          layers: as from `forward`.
          first: target minus activation of the last layer that has an inverse, or else of the last hidden layer.
        """
        inverses = self._inverses(feedback, layers)
        displacements = [first]
        for layer, inverse in reversed(list(zip(layers[1:], inverses, strict=False))):
            u = jnp.pad(displacements[0], ((0, 0), (0, layer.output.shape[1] - displacements[0].shape[1])))
            displacements.insert(0, inverse.change(layer.output, u))  # the auxiliary units are the same in the target
        return displacements[: len(self.activations)]

    def reconstruction_loss(self, feedback: PyTree, layers: Sequence[Layer], key: jax.Array, sigma: float) -> jax.Array:
        """Returns the sum of the losses of the inverses; the gradient of each reaches that inverse alone."""
        trained, fixed = (self._inverses(f, layers) for f in (feedback, jax.lax.stop_gradient(feedback)))
        total = jnp.zeros(())
        for i in range(len(trained)):
            above = layers[i + 1 :]
            xi, zeta = noise(jax.random.fold_in(key, i), sigma, above[0])
            total += self.variant.reconstruction(above, [trained[i], *fixed[i + 1 :]], xi, zeta, sigma)
        return total

    def _inverses(self, feedback: PyTree, layers: Sequence[Layer]) -> list[Inverse]:
        parts = self.network.kernels_in_order(feedback)
        if self.auxiliary_units:
            kernel = jnp.concatenate([parts[-1]["kernel"], feedback[AUXILIARY]["kernel"]], 1)
            parts[-1] = {**parts[-1], "kernel": kernel}
        return [self.variant.inverse(part, layers[i + 1], layers[i]) for i, part in enumerate(parts)]

    @property
    def _readout(self) -> Function:
        """Maps the preactivations of the readout to what its inverse reads."""
        if not self.variant.from_labels:
            return ACTIVATIONS["linear"]
        outputs, activation = self.network.outputs, self.activations[-1]
        return lambda a: jnp.concatenate([jax.nn.softmax(a[:, :outputs]), activation(a[:, outputs:])], 1)


def noise(key: jax.Array, sigma: float, layer: Layer) -> tuple[jax.Array, jax.Array]:
    """Returns the noise at the input and at the output of a layer."""
    arrays = zip(jax.random.split(key), (layer.below, layer.output), strict=True)
    xi, zeta = (sigma * jax.random.normal(k, a.shape, a.dtype) for k, a in arrays)
    return xi, zeta
