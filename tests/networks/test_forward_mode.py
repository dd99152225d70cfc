"""Fast gradients equal JAX's also with feedback, and leave networks their forward mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.networks import fast_gradients
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from tests.conftest import CNN, MLP, assert_trees_close, assert_trees_equal, filled, random_batch, to_float64

NETWORKS = {
    "mlp": lambda: mlp((12,), 4, hidden=[9, 8, 8, 8], dropout=0.0, **MLP),
    "cnn": lambda: cnn((8, 8, 2), 4, **CNN),
    "locally_connected": lambda: cnn((8, 8, 2), 4, **{**CNN, "shared_weights": False}),
}


@pytest.fixture(params=NETWORKS)
def example(float64, request):
    return make_example(request.param)


@functools.cache
def make_example(name):
    """A network, params, a tangent and a batch in float64."""
    network = NETWORKS[name]()
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params, tangent = (to_float64(filled(shapes, seed)) for seed in (0, 1))
    return network, params, tangent, random_batch(network.input_shape, size=5, dtype=np.float64)


def losses(network, batch):
    """The squared error as a function of params, by the network and by its bare Flax module."""

    def network_loss(params):
        return jnp.sum((network.apply(params, batch.inputs) - batch.targets) ** 2)

    def module_loss(params):
        return jnp.sum((network.module.apply({"params": params}, batch.inputs) - batch.targets) ** 2)

    return network_loss, module_loss


def test_fast_grad_of_a_network_with_feedback_matches_jax_grad(example):
    network, params, tangent, batch = example
    feedback = network.kernels(tangent)

    def loss(params):
        return jnp.sum((network.apply(params, batch.inputs, backward_kernels=feedback) - batch.targets) ** 2)

    gradient = jax.jit(jax.grad(loss))(params)
    assert_trees_close(jax.jit(fast_gradients.grad(loss))(params), gradient, rtol=1e-9, atol=1e-12)
    true_gradient = jax.jit(jax.grad(losses(network, batch)[0]))(params)
    first = next(iter(network.kernel_shapes))
    assert not np.allclose(network.kernels(gradient)[first], network.kernels(true_gradient)[first])


def test_network_jacobian_in_forward_mode_equals_flax_module_jacobian(example):
    network, params, _, batch = example
    network_jacobian = jax.jit(jax.jacfwd(lambda x: network.apply(params, x)))(batch.inputs)
    module_jacobian = jax.jit(jax.jacfwd(lambda x: network.module.apply({"params": params}, x)))(batch.inputs)
    assert_trees_equal(network_jacobian, module_jacobian)


def test_network_supports_forward_mode_after_fast_grad(example):
    network, params, tangent, batch = example
    jax.eval_shape(fast_gradients.grad(losses(network, batch)[0]), params)
    jvps = (jax.jit(lambda p, t, loss=loss: jax.jvp(loss, (p,), (t,))) for loss in losses(network, batch))
    network_jvp, module_jvp = (jvp(params, tangent) for jvp in jvps)
    assert_trees_equal(network_jvp, module_jvp)
