"""Product feedback alignment: feedback is the product of fixed random weights and of weights that learn beside W.

    d_i = (R_{i+1}^T B_{i+1}^T d_{i+1}) * f'(a_i),     W <- (1 - l) W - r dW,     R <- (1 - l) R - r B^T dW

B_i, `[out, m]`, is random and fixed with `E[B B^T] = I`; R_i, `[m, in]`, is learned. Under gradient descent, with or
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
from fa_jax.networks.fast_gradients import grad
from fa_jax.networks.shapes import KernelShape
from fa_jax.optimizers import must_not_clip
from fa_jax.rules.backward import backward_rule

FIXED, LEARNED = "fixed", "learned"
"""The two parts of the feedback: B^T, `[*stack, m, out]`, and R^T, `[*stack, *inputs, m]`, by kernel."""


def product_feedback_alignment(
    network: Network, loss: LossFunction, *, mixing: str, expansion: int, density: float
) -> Rule:
    """Returns the `Rule` of product feedback alignment.

    It refuses optimizers with which W and R do not take corresponding steps. Sparse forward weights are accepted, but
    the feedback, which has an entry for every pair of units, then does not follow them.

    Args:
      network: any network of Flax layers, unmodified, in which the error crosses dense layers and convolutions alone.
      loss: a mean over the batch.
      mixing: how B is drawn: `uniform`, or `orthogonal`, which needs an expansion and a density of 1.
      expansion: m / out, at least 1.
      density: the probability that an entry of B or R is kept, in (0, 1]; the others stay zero.

    Raises:
      BadOption: if an option is out of range, or the error crosses a layer for which
        `primitives.with_product_weights` is not defined.
    """
    is_orthogonal = choose("mixing", mixing, {"uniform": False, "orthogonal": True})
    expansion = integer("expansion", expansion, least=1)
    density = number("density", density, above=0, most=1)
    for option, value in (("expansion", expansion), ("density", density)):
        if is_orthogonal and value != 1:
            raise BadOption(f"must be 1 with mixing=orthogonal; got {value}", option)
    shapes = {name: network.kernel_shapes[name] for name in network.crossed_kernels}

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

    def backward(params, feedback, batch):
        del params, batch
        return {"backward_kernels": _by_layer(feedback)}

    def learn(params, feedback, batch, updates):
        del updates  # each step computes this backward pass once, here and for the updates of the weights

        def batch_loss(learned):
            factors = _by_layer({**feedback, LEARNED: learned})
            return loss(network.apply(params, batch.inputs, key=batch.key, backward_kernels=factors), batch.targets)

        changes = grad(batch_loss)(feedback[LEARNED])
        if density < 1:
            changes = jax.tree.map(lambda change, r: change * (r != 0), changes, feedback[LEARNED])
        return {FIXED: jax.tree.map(jnp.zeros_like, feedback[FIXED]), LEARNED: changes}

    def weight_pairs(params, feedback):
        kernels = network.kernels(params)
        return {
            name: (product.reshape(kernels[name].shape), kernels[name]) for name, product in products(feedback).items()
        }

    def first_logits(key, inputs):
        params, feedback = init(key)
        return network.apply(params, inputs, backward_kernels=_by_layer(feedback))

    # Refuses layers that have no product.
    jax.eval_shape(first_logits, jax.random.key(0), jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32))

    rule = backward_rule(
        network,
        loss,
        init=init,
        backward=backward,
        weight_pairs=weight_pairs,
        fixed_feedback=frozenset((FIXED, name) for name in shapes),
        check_feedback_optimizer=_check_optimizer,
    )
    partners = tuple(((LEARNED, name), (*name.split("/"), "kernel")) for name in shapes)
    return rule._replace(learn=learn, extras=rule.extras._replace(partners=partners))


def products(feedback):
    """Returns the backward kernels `R^T B^T`, `[*stack, *inputs, out]`, by their names."""
    return {name: _product(feedback[LEARNED][name], b) for name, b in feedback[FIXED].items()}


def _product(learned: jax.Array, fixed: jax.Array) -> jax.Array:
    """Returns the product over the last axis of a kernel, `[*stack, *inputs, m]`, and a matrix for each stack."""
    flat = learned.reshape(*fixed.shape[:-2], -1, learned.shape[-1]) @ fixed
    return flat.reshape(*learned.shape[:-1], fixed.shape[-1])


def _by_layer(feedback):
    """Returns both factors of each kernel by its name, as `primitives.with_product_weights` takes them."""
    return {name: {part: feedback[part][name] for part in (FIXED, LEARNED)} for name in feedback[FIXED]}


def _axes(kernel: KernelShape) -> tuple[tuple[int, ...], int]:
    """Returns `inputs` and `out` of a kernel as `[*inputs, out]`, with one axis for all outputs."""
    leading = kernel.shape[:-1]
    inputs = leading if math.prod(leading) == kernel.rows else (kernel.rows,)
    return inputs, math.prod(kernel.shape) // kernel.rows


def _check_optimizer(optimizer: FeedbackOptimizer) -> None:
    """Raises `BadOption` unless R takes the steps `B^T dW` when W takes the steps dW."""
    if not optimizer.shared:
        problem = "must be null: this feedback aligns only if it learns by the optimizer of the weights"
        raise BadOption(problem, "feedback_optimizer", complete=True)
    if optimizer.scaling not in ("optax.identity", "optax.trace", "optax.ema"):
        raise BadOption("must be sgd, momentum or ema: this feedback aligns only if steps are linear in the updates")
    must_not_clip(optimizer)
