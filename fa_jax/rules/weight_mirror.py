"""Weight mirrors: feedback alignment whose feedback learns the forward weights from noise sent through them.

    d_i = (B_{i+1} d_{i+1}) * f'(a_i),     dB_i = -xi (W_i xi)^T / sigma^2,     xi ~ N(0, sigma^2)

The mean of `xi (W xi)^T` is `sigma^2 W^T`. With the feedback optimizer's weight decay at 1, the feedback is a running
average of such estimates, over as many steps as 1 over its learning rate, and settles around `W^T`.

Akrout, Wilson, Humphreys, Lillicrap, Tweed, "Deep Learning without Weight Transport", NeurIPS 2019 (arXiv 1904.05391),
section 3. They send the noise through bias and activation function as well, `zeta = f(W xi + b)`, which at small noise
multiplies the mean by f'(b); here it passes the linear layer alone, and its size does not matter. They let the
feedback grow or rescale it; here it decays. Every training step is followed by one mirror step with as many noise
examples as the batch has.
"""

import jax
import jax.numpy as jnp

from fa_jax.core import LossFunction, Rule
from fa_jax.network import Network
from fa_jax.rules.fa import fa

NOISE = "mirror"


def weight_mirror(network: Network, loss: LossFunction, **feedback) -> Rule:
    """Returns the `Rule` of weight mirrors; arguments and feedback as for `fa`.

    The options say how the feedback starts; weights left out of it, or a rank, do not last. Layers under an `nn.scan`
    of your own need it to split the stream `mirror` and to stack the collection `noted`, as `Chain` does.

    The updates of the feedback are minus the estimate of the forward weights, for an optimizer with weight decay.
    """

    def learn(params, feedback, batch, updates):
        del updates

        def mirror(layer, x, y):
            return y, _estimate(layer, jax.random.normal(layer.make_rng(NOISE), x.shape, x.dtype))

        estimates = network.note_linear(params, batch.inputs, mirror, {NOISE: batch.key})
        return {name: -estimates[name] for name in feedback}

    return fa(network, loss, **feedback)._replace(learn=learn)


def _estimate(layer, noise: jax.Array) -> jax.Array:
    """The correlation of noise with what a linear layer makes of it: its kernel, in the mean."""
    params = layer.variables["params"]
    alone = layer.clone(parent=None, name=None)

    def correlate(noise, answer):
        def apply(kernel):
            return alone.apply({"params": {**jax.tree.map(jnp.zeros_like, params), "kernel": kernel}}, noise)

        passed, pull = jax.vjp(apply, params["kernel"])
        return pull(passed if answer is None else jnp.full_like(passed, answer))[0]

    # How many products each entry of the kernel sums up, fewer at the padded border of an image.
    counts = correlate(jnp.ones((1, *noise.shape[1:]), noise.dtype), 1) * len(noise)
    return correlate(noise, None) / counts
