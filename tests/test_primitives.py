"""The two primitives change the backward pass as they state, and nothing else."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.primitives import replace_cotangent, with_backward_weights
from tests.conftest import assert_trees_close, assert_trees_equal

LAYERS = {
    "dense": (nn.Dense(4), (5, 6)),
    "dense without bias": (nn.Dense(4, use_bias=False), (5, 6)),
    "general dense": (nn.DenseGeneral((3, 2), axis=(-2, -1)), (5, 6, 2)),
    "einsum": (nn.Einsum((2, 6, 3), "nti,tio->nto"), (5, 2, 6)),
    "transposed convolution": (nn.ConvTranspose(4, (3, 3), strides=(2, 2)), (3, 5, 6, 2)),
    "convolution of strided windows": (nn.Conv(4, (2, 3), strides=(2, 3)), (3, 7, 6, 2)),
    "valid convolution": (nn.Conv(4, (3, 3), padding="VALID"), (3, 7, 6, 2)),
    "one-dimensional convolution": (nn.Conv(4, (3,)), (3, 7, 2)),
    "grouped convolution": (nn.Conv(4, (3, 3), feature_group_count=2), (3, 7, 6, 2)),
    "locally connected": (nn.ConvLocal(4, (2, 3), strides=(2, 3)), (3, 7, 6, 2)),
    "valid locally connected": (nn.ConvLocal(4, (3, 3), padding="VALID"), (3, 7, 6, 2)),
}


def draw(layer, input_shape):
    """Random params, feedback, input and output cotangent of a layer."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=input_shape))
    output, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    params = jax.tree.map(lambda p: random.normal(size=p.shape), variables["params"])
    feedback = {"kernel": random.normal(size=params["kernel"].shape)}
    return params, feedback, x, random.normal(size=output.shape)


@functools.partial(jax.jit, static_argnums=0)
def output_and_cotangents(function, cotangent, *arguments):
    """The output of a function, and the cotangents of its arguments."""
    output, pullback = jax.vjp(function, *arguments)
    return output, pullback(cotangent)


@pytest.mark.parametrize("name", LAYERS)
def test_cotangent_passes_through_the_backward_weights_and_params_get_their_gradient(float64, name):
    layer, input_shape = LAYERS[name]
    params, feedback, x, cotangent = draw(layer, input_shape)

    def with_feedback(params, feedback, x):
        return with_backward_weights(layer, params, feedback, x)

    def alone(params, x):
        return layer.apply({"params": params}, x)

    output, (d_params, d_feedback, d_x) = output_and_cotangents(with_feedback, cotangent, params, feedback, x)
    expected_output, (expected_d_params, true_d_x) = output_and_cotangents(alone, cotangent, params, x)
    _, (_, feedback_d_x) = output_and_cotangents(alone, cotangent, {**params, **feedback}, x)
    assert_trees_equal(output, expected_output)
    assert_trees_close(d_params, expected_d_params, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(d_x, feedback_d_x, rtol=1e-9, atol=1e-12)
    assert not np.allclose(d_x, true_d_x)
    assert not np.any(d_feedback["kernel"])


@pytest.mark.parametrize("name", LAYERS)
def test_layer_with_its_kernel_as_backward_weights_is_the_layer_itself(name):
    layer, input_shape = LAYERS[name]
    params, _, x, cotangent = jax.tree.map(jnp.asarray, draw(layer, input_shape))
    feedback = {"kernel": params["kernel"]}
    computed = output_and_cotangents(lambda p, x: with_backward_weights(layer, p, feedback, x), cotangent, params, x)
    expected = output_and_cotangents(lambda p, x: layer.apply({"params": p}, x), cotangent, params, x)
    assert_trees_equal(computed, expected)


def test_signal_replaces_the_cotangent():
    h, signal = jnp.asarray([1.0, -2.0]), jnp.asarray([0.3, 0.4])
    output, pullback = jax.vjp(replace_cotangent, h, signal)
    np.testing.assert_array_equal(output, h)
    d_h, d_signal = pullback(jnp.asarray([5.0, 6.0]))
    np.testing.assert_array_equal(d_h, signal)
    np.testing.assert_array_equal(d_signal, 0)
