"""Product feedback alignment: feedback is the product of fixed random weights and of weights that learn beside W.

    d_i = (R_{i+1}^T B_{i+1}^T d_{i+1}) * f'(a_i),     W <- (1 - l) W - r dW,     R <- (1 - l) R - r B^T dW

B_i, `[out, m]`, is random and fixed with `E[B B^T] = 1`; R_i, `[m, in]`, is learned. Under gradient descent, with or
without momentum, the difference `R - B^T W` shrinks by the weight decay alone, so the feedback B R comes to `B B^T W`,
at an angle of about atan(sqrt(out / m)) from W. With square orthogonal B it is W itself, and the rule is Kolen-Pollack
in rotated coordinates. No synapse of the backward path is the partner of one of the forward path.

A convolution has a convolution of its kernel's shape for R, and B mixes channels at each position. A layer with several
output axes, such as the queries of an attention, is one matrix to all of its outputs.

Li Ji-An, Benna, "Deep Learning without Weight Symmetry", arXiv 2405.20594, 2024. Equations are those of the authors'
code; the paper was not available to us. Their weight decay is large in the first epoch and small afterwards, as in
`conf/experiment/li2024`. R of the first layer, which carries no signal, is left out.
"""

import math

import jax
import jax.numpy as jnp

from fa_jax.checks import BadOption, choose, integer, number
from fa_jax.core import FeedbackOptimizer, LossFunction, Rule, Stream, stream
from fa_jax.initializers import orthogonal, sparsify, uniform
from fa_jax.network import Network
from fa_jax.networks.shapes import KernelShape
from fa_jax.rules.backward import backward_rule

FIXED, LEARNED = "fixed", "learned"
"""The two parts of the feedback: B^T, `[*stack, m, out]`, and R^T, `[*stack, *inputs, m]`, by kernel."""


def product_feedback_alignment(
    network: Network, loss: LossFunction, *, mixing: str, expansion: int, density: float
) -> Rule:
    """Returns the `Rule` of product feedback alignment.

    It refuses optimizers with which W and R do not take corresponding steps. Nor do they with sparse forward weights,
    since the feedback has an entry for every pair of units.

    Args:
      network: any network of Flax layers, unmodified, each one matrix or one convolution: not locally connected ones.
      loss: a mean over the batch.
      mixing: how B is drawn: `uniform`, or `orthogonal`, which needs an expansion and a density of 1.
      expansion: m / out, at least 1.
      density: the probability that an entry of B or R is kept, in (0, 1]; the others stay zero.

    Raises:
      BadOption: if an option is out of range, or a layer is no single matrix.
    """
    is_orthogonal = choose("mixing", mixing, {"uniform": False, "orthogonal": True})
    expansion = integer("expansion", expansion, least=1)
    density = number("density", density, above=0, most=1)
    for option, value in (("expansion", expansion), ("density", density)):
        if is_orthogonal and value != 1:
            raise BadOption(f"must be 1 with mixing=orthogonal; got {value}", option)
    shapes = {name: network.kernel_shapes[name] for name in network.crossed_kernels}
    for name, kernel in shapes.items():
        if kernel.fan_in != kernel.rows:
            raise BadOption(f"is not defined for locally connected layers; {name} is one, or of more than one matrix")

    def draw_fixed(key, kernel: KernelShape):
        _, out = _axes(kernel)
        if is_orthogonal:
            return orthogonal(key, out, kernel.stack)
        value_key, density_key = jax.random.split(key)
        m = expansion * out
        drawn = uniform(value_key, (*kernel.stack, m, out), m, math.sqrt(3 / (m * density)))
        return sparsify(density_key, drawn, density)

    def draw_learned(key, kernel: KernelShape):
        inputs, out = _axes(kernel)
        m = expansion * out
        value_key, density_key = jax.random.split(key)
        bound = math.sqrt(6 / (kernel.fan_in + expansion * kernel.fan_out))  # Xavier's
        return sparsify(density_key, uniform(value_key, (*kernel.stack, *inputs, m), m, bound), density)

    def init(key):
        keys = {name: jax.random.fold_in(stream(key, Stream.FEEDBACK), i) for i, name in enumerate(shapes)}
        fixed = {name: draw_fixed(jax.random.fold_in(keys[name], 0), kernel) for name, kernel in shapes.items()}
        learned = {name: draw_learned(jax.random.fold_in(keys[name], 1), kernel) for name, kernel in shapes.items()}
        return network.init(key), {FIXED: fixed, LEARNED: learned}

    def backward_kernels(feedback):
        flat = products(feedback)
        return {name: flat[name].reshape(*kernel.stack, *kernel.shape) for name, kernel in shapes.items()}

    def backward(params, feedback, batch):
        del params, batch
        return {"feedback": backward_kernels(feedback)}

    def learn(params, feedback, batch, updates):
        del params, batch
        kernels = network.kernels(updates)
        learned = {}
        for name, b in feedback[FIXED].items():
            inputs, out = _axes(shapes[name])
            kernel = kernels[name].reshape(*shapes[name].stack, *inputs, out)
            step = _mixed(kernel, jnp.swapaxes(b, -1, -2))
            learned[name] = step if density == 1 else step * (feedback[LEARNED][name] != 0)
        return {FIXED: jax.tree.map(jnp.zeros_like, feedback[FIXED]), LEARNED: learned}

    def weight_pairs(params, feedback):
        kernels = network.kernels(params)
        return {name: (product, kernels[name]) for name, product in backward_kernels(feedback).items()}

    rule = backward_rule(
        network,
        loss,
        init=init,
        backward=backward,
        weight_pairs=weight_pairs,
        fixed_feedback=frozenset((FIXED, name) for name in shapes),
        check_feedback_optimizer=_check_optimizer,
    )
    return rule._replace(learn=learn)


def products(feedback):
    """Returns the backward kernels `R^T B^T`, `[*stack, *inputs, out]`, by their names."""
    return {name: _mixed(r, feedback[FIXED][name]) for name, r in feedback[LEARNED].items()}


def _axes(kernel: KernelShape) -> tuple[tuple[int, ...], int]:
    """Returns `inputs` and `out` of a kernel as `[*inputs, out]`, with one axis for all outputs."""
    leading = kernel.shape[:-1]
    inputs = leading if math.prod(leading) == kernel.rows else (kernel.rows,)
    return inputs, math.prod(kernel.shape) // kernel.rows


def _mixed(kernel: jax.Array, matrix: jax.Array) -> jax.Array:
    """Returns the product over the last axis of a kernel, `[*stack, ..., channels]`, and a matrix per stack."""
    stack = matrix.shape[:-2]
    flat = kernel.reshape(*stack, -1, kernel.shape[-1]) @ matrix
    return flat.reshape(*kernel.shape[:-1], matrix.shape[-1])


def _check_optimizer(optimizer: FeedbackOptimizer) -> None:
    """Raises `BadOption` unless R takes the steps `B^T dW` when W takes the steps dW."""
    if not optimizer.shared:
        problem = "must be null: this feedback aligns only if it learns by the optimizer of the weights"
        raise BadOption(problem, "feedback_optimizer", complete=True)
    if optimizer.scaling not in ("optax.identity", "optax.trace", "optax.ema"):
        raise BadOption("must be sgd, momentum or ema: this feedback aligns only if steps are linear in the updates")
    if optimizer.clip is not None:
        raise BadOption("must be null: the weights and their feedback would be scaled differently", "clip")
