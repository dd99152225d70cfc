"""The gradients that `transport` writes out are those of the layers themselves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.network import Network
from fa_jax.primitives import transport


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [None, 1, 2, (2, 3)])
@pytest.mark.parametrize("window", [(3, 3), (2, 3), (5, 5), (1, 1)])
@pytest.mark.parametrize("image", [(7, 6), (5, 9)])
def test_a_convolution_s_gradient_is_jax_s(float64, image, window, strides, padding):
    random = np.random.default_rng(0)
    layer = nn.Conv(4, window, strides=strides, padding=padding)
    x = random.normal(size=(3, *image, 2))
    params = layer.init(jax.random.key(0), x)["params"]
    params = {"kernel": np.asarray(params["kernel"], np.float64), "bias": random.normal(size=4)}
    cotangent = random.normal(size=layer.apply({"params": params}, x).shape)
    ours = jax.vjp(lambda p, x: transport(layer, p, {"kernel": p["kernel"]}, x), params, x)[1](cotangent)
    theirs = jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)[1](cotangent)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_inside_a_loop_a_convolution_s_gradient_is_the_same(float64):
    random = np.random.default_rng(0)
    layer = nn.Conv(3, (3, 3), use_bias=False)
    x, cotangent = random.normal(size=(4, 8, 8, 2)), random.normal(size=(4, 8, 8, 3))
    start = layer.init(jax.random.key(0), x)["params"]

    def step(_, params):
        gradient, _ = jax.vjp(lambda p, x: transport(layer, p, p, x), params, x)[1](cotangent)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    start = jax.tree.map(lambda p: np.asarray(p, np.float64), start)
    looped = jax.jit(lambda p: jax.lax.fori_loop(0, 2, step, p))(start)
    np.testing.assert_allclose(looped["kernel"], step(1, step(0, start))["kernel"], rtol=1e-9)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [None, 2, (2, 3)])
@pytest.mark.parametrize("window", [(3, 3), (2, 3), (1, 1)])
def test_a_local_layer_s_gradient_is_jax_s_and_its_cotangent_crosses_the_feedback(float64, window, strides, padding):
    random = np.random.default_rng(0)
    layer = nn.ConvLocal(4, window, strides=strides, padding=padding)
    x = random.normal(size=(3, 7, 6, 2))
    params = layer.init(jax.random.key(0), x)["params"]
    params = {name: np.asarray(p, np.float64) for name, p in params.items()}
    feedback = {"kernel": random.normal(size=params["kernel"].shape)}
    cotangent = random.normal(size=layer.apply({"params": params}, x).shape)
    to_params, to_x = jax.vjp(lambda p, x: transport(layer, p, feedback, x), params, x)[1](cotangent)
    expected, _ = jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)[1](cotangent)
    for name in params:
        np.testing.assert_allclose(to_params[name], expected[name], rtol=1e-9, atol=1e-12)
    _, expected = jax.vjp(lambda p, x: layer.apply({"params": p}, x), {**params, **feedback}, x)[1](cotangent)
    np.testing.assert_allclose(to_x, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", [nn.Conv, nn.ConvLocal])
@pytest.mark.parametrize("options", [{"dtype": jnp.bfloat16}, {"param_dtype": jnp.bfloat16}])
def test_layers_of_low_precision_have_jax_s_gradients(layer, options):
    network = Network(nn.Sequential([layer(4, (3, 3), **options), lambda x: x.reshape(len(x), -1)]), (5, 5, 2))
    params, x = network.init(jax.random.key(0)), jnp.ones((3, 5, 5, 2))
    ours = jax.grad(lambda p: jnp.sum(network.apply(p, x).astype(jnp.float32) ** 2))(params)
    theirs = jax.grad(lambda p: jnp.sum(network.module.apply({"params": p}, x).astype(jnp.float32) ** 2))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def test_images_with_more_than_one_batch_axis_are_convolved():
    layer = nn.Conv(4, (3, 3))
    network = Network(layer, (2, 5, 5, 2))
    params, x = network.init(jax.random.key(0)), jnp.ones((3, 2, 5, 5, 2))
    ours = jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2))(params)
    theirs = jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, x) ** 2))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
