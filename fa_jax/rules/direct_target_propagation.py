"""Direct target propagation: direct feedback alignment whose feedback learns to invert the path to the output.

    t_i = h_i + Q_i (t_L - a_L),    t_L = a_L - alpha e       so that h_i - t_i = alpha Q_i e
    d_i = (Q_i e) * f'(a_i),        e = dL/dlogits
    R_i = mean_{jk} (Q_i (a_L(h_i + xi_i) - a_L) - xi_i)^2 / sigma^2,    xi_i ~ N(0, sigma^2)    trains Q_i

a_L are the logits, a_L(h) those of the layers above on h; the mean is over examples and units, and every layer is
perturbed by itself. With linear layers above, Q_i approaches the pseudoinverse of their product, by which the step is
that of Gauss-Newton; weight decay of the feedback damps it. A step alpha would multiply all updates alike, and is left
to the learning rate.

Meulemans, Carzaniga, Suykens, Sacramento, Grewe, "A Theoretical Framework for Target Propagation", NeurIPS 2020 (arXiv
2006.14331): DDTP-linear, with equations of the authors' code.
"""

import math

import jax
import jax.numpy as jnp

from fa_jax.checks import number
from fa_jax.core import LossFunction, Rule
from fa_jax.feedback import InitFeedback
from fa_jax.network import Network
from fa_jax.rules.dfa import dfa
from fa_jax.rules.projection import project


def direct_target_propagation(
    network: Network, loss: LossFunction, *, init_feedback: InitFeedback, sigma: float
) -> Rule:
    """Returns the `Rule` of direct target propagation.

    Args:
      network, loss, init_feedback: as for `dfa`.
      sigma: standard deviation of the noise, in units of the activations, above 0. The smaller it is, the fewer digits
        the change of the logits has.

    Raises:
      BadOption: if sigma is out of range, or the network marks no hidden layer.
    """
    sigma = number("sigma", sigma, above=0)

    def learn(params, feedback, batch, updates):
        del updates
        noise = {}
        for i, (name, zeros) in enumerate(network.hidden_zeros(batch.inputs).items()):
            noise[name] = sigma * jax.random.normal(jax.random.fold_in(batch.key, i), zeros.shape, zeros.dtype)

        def logits(perturbations):
            with jax.default_matmul_precision("float32"):
                return network.apply(params, batch.inputs, key=batch.key, perturbations=perturbations)

        clean = logits({})

        def change(name, xi):
            """Returns the change of the logits with noise in one layer at a time, `[*stack, batch, outputs]`."""
            if not network.hidden_shapes[name].stack:
                return logits({name: xi}) - clean
            return jax.vmap(lambda j: logits({name: jnp.zeros_like(xi).at[j].set(xi[j])}) - clean)(jnp.arange(len(xi)))

        changes = {name: change(name, xi) for name, xi in noise.items()}

        def reconstruction(feedback):
            total = jnp.zeros(())
            for name, q in feedback.items():
                send = jax.vmap(project) if network.hidden_shapes[name].stack else project
                error = jnp.square(send(changes[name], q) - noise[name])
                total += jnp.sum(error) / math.prod(error.shape[len(network.hidden_shapes[name].stack) :])
            return total / sigma**2

        return jax.grad(reconstruction)(feedback)

    return dfa(network, loss, init_feedback=init_feedback)._replace(learn=learn)
