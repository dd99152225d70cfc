"""The fast gradients of dense, convolutional and locally connected layers equal those of JAX."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.network import Network
from fa_jax.networks import fast_gradients
from fa_jax.networks.fast_gradients import INNER, apply_linear
from tests.conftest import assert_trees_close


def draw(layer, input_shape):
    """Random params, input and output cotangent of a layer, in float64."""
    random = np.random.default_rng(0)
    x = random.normal(size=input_shape)
    output, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    params = jax.tree.map(lambda p: random.normal(size=p.shape), variables["params"])
    return params, x, random.normal(size=output.shape)


def assert_gradients_match_jax(kind, input_shape, *arguments, **options):
    """Asserts that a layer has JAX's gradients with respect to params and input."""
    layer = kind(*arguments, name=INNER, **options)
    params, x, cotangent = draw(layer, input_shape)

    @jax.jit
    def both(params, x, cotangent):
        gradients = jax.vjp(lambda p, x: apply_linear(layer, p, x), params, x)[1](cotangent)
        return gradients, jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)[1](cotangent)

    gradients, expected = both(params, x, cotangent)
    assert_trees_close(gradients, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("input_shape", [(5, 6), (3, 5, 6)])
def test_dense_gradient_matches_jax(float64, input_shape, use_bias):
    assert_gradients_match_jax(nn.Dense, input_shape, 4, use_bias=use_bias)


def grid(**factors):
    """All combinations of factors; all are slow but a few that together have each pair of values of two factors."""
    combinations = list(itertools.product(*factors.values()))
    pairs = [set(itertools.combinations(enumerate(map(str, values)), 2)) for values in combinations]
    missing, chosen = set().union(*pairs), []
    while missing:
        chosen.append(max(range(len(pairs)), key=lambda i: len(pairs[i] & missing)))
        missing -= pairs[chosen[-1]]
    marks = [() if i in chosen else pytest.mark.slow for i in range(len(pairs))]
    marked = [pytest.param(*values, marks=mark) for values, mark in zip(combinations, marks, strict=True)]
    return pytest.mark.parametrize(tuple(factors), marked)


@grid(
    padding=["SAME", "VALID"],
    strides=[None, 1, 2, (2, 3)],
    window=[(3, 3), (2, 3), (5, 5), (1, 1)],
    image=[(7, 6), (5, 9)],
)
def test_conv_gradient_matches_jax(float64, image, window, strides, padding):
    assert_gradients_match_jax(nn.Conv, (3, *image, 2), 4, window, strides=strides, padding=padding)


@grid(padding=["SAME", "VALID"], strides=[None, 2, (2, 3)], window=[(3, 3), (2, 3), (1, 1)])
def test_local_gradient_matches_jax(float64, window, strides, padding):
    assert_gradients_match_jax(nn.ConvLocal, (3, 7, 6, 2), 4, window, strides=strides, padding=padding)


def test_conv_gradient_inside_a_loop_equals_that_outside(float64):
    layer = nn.Conv(3, (3, 3), use_bias=False, name=INNER)
    start, x, cotangent = draw(layer, (4, 8, 8, 2))

    def step(_, params):
        gradient, _ = jax.vjp(lambda p, x: apply_linear(layer, p, x), params, x)[1](cotangent)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    looped = jax.jit(lambda p: jax.lax.fori_loop(0, 2, step, p))(start)
    np.testing.assert_allclose(looped["kernel"], step(1, step(0, start))["kernel"], rtol=1e-9)


class Layers(nn.Module):
    """All kinds of layers with fast gradients, called in every way."""

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Conv(4, (3, 3), strides=2)(x))
        x = jnp.tanh(nn.ConvLocal(3, (2, 2))(inputs=x))
        shared = nn.Dense(5)
        x = jnp.tanh(shared(x.reshape(len(x), -1)))
        return nn.Dense(3)(jnp.tanh(nn.Dense(5)(x)) + x)


def test_grad_of_a_module_matches_jax_with_respect_to_params_and_inputs(float64):
    module = Layers()
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 2))
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), module.init(jax.random.key(0), x)["params"])

    def value(params, x):
        return jnp.sum(jnp.sin(module.apply({"params": params}, x)))

    gradients = jax.jit(fast_gradients.grad(value, argnums=(0, 1)))(params, x)
    assert_trees_close(gradients, jax.jit(jax.grad(value, argnums=(0, 1)))(params, x), rtol=1e-9, atol=1e-12)
    (d_params, auxiliary) = jax.jit(fast_gradients.grad(lambda p: (value(p, x), 7), has_aux=True))(params)
    assert_trees_close(d_params, gradients[0], rtol=1e-12)
    assert auxiliary == 7


def test_grad_uses_the_fast_gradients_and_jax_does_not(monkeypatch):
    calls = []
    original = fast_gradients._dense_gradient
    monkeypatch.setattr(fast_gradients, "_dense_gradient", lambda *args: calls.append(None) or original(*args))
    layer = nn.Dense(4)
    params, x = layer.init(jax.random.key(0), jnp.ones((3, 5))), jnp.ones((3, 5))
    jax.grad(lambda p: jnp.sum(layer.apply(p, x)))(params)
    assert not calls
    fast_gradients.grad(lambda p: jnp.sum(layer.apply(p, x)))(params)
    assert len(calls) == 1


def network_gradients(network, x):
    """The gradients of a function of a network's output: fast ones, and those of the bare module by JAX."""
    params = network.init(jax.random.key(0))

    def value(params):
        return jnp.sum(network.apply(params, x).astype(jnp.float32) ** 2)

    def bare_value(params):
        return jnp.sum(network.module.apply({"params": params}, x).astype(jnp.float32) ** 2)

    return jax.jit(fast_gradients.grad(value))(params), jax.jit(jax.grad(bare_value))(params)


@pytest.mark.parametrize("layer", [nn.Conv, nn.ConvLocal])
@pytest.mark.parametrize("options", [{"dtype": jnp.bfloat16}, {"param_dtype": jnp.bfloat16}])
def test_gradients_of_low_precision_layers_match_jax(layer, options):
    network = Network(nn.Sequential([layer(4, (3, 3), **options), lambda x: x.reshape(len(x), -1)]), (5, 5, 2))
    gradients, expected = network_gradients(network, jnp.ones((3, 5, 5, 2)))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"kernel_dilation": 2}, id="kernel dilation"),
        pytest.param({"input_dilation": 2, "padding": 1}, id="input dilation"),
        pytest.param({"feature_group_count": 2}, id="groups"),
        pytest.param({"padding": "CIRCULAR"}, id="circular padding"),
        pytest.param({"padding": ((1, 0), (0, 2))}, id="explicit padding"),
        pytest.param({"mask": np.tri(3)[:, :, None, None] * np.ones((3, 3, 2, 4))}, id="mask"),
    ],
)
def test_gradients_of_unusual_convolutions_match_jax(options):
    network = Network(nn.Sequential([nn.Conv(4, (3, 3), **options), lambda x: x.reshape(len(x), -1)]), (5, 6, 2))
    x = jax.random.normal(jax.random.key(1), (3, 5, 6, 2))
    assert_trees_close(*network_gradients(network, x), rtol=1e-5, atol=1e-5)


def test_images_with_more_than_one_batch_axis_are_convolved():
    network = Network(nn.Conv(4, (3, 3)), (2, 5, 5, 2))
    gradients, expected = network_gradients(network, jnp.ones((3, 2, 5, 5, 2)))
    assert_trees_close(gradients, expected, rtol=0)
