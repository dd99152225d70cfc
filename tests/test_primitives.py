"""The two primitives change the backward pass as they state, and nothing else."""

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
    params = jax.tree.map(lambda p: random.normal(size=p.shape), layer.init(jax.random.key(0), x)["params"])
    feedback = {"kernel": random.normal(size=params["kernel"].shape)}
    return params, feedback, x, random.normal(size=layer.apply({"params": params}, x).shape)


@pytest.mark.parametrize("name", LAYERS)
def test_cotangent_passes_through_the_backward_weights_and_params_get_their_gradient(float64, name):
    layer, input_shape = LAYERS[name]
    params, feedback, x, cotangent = draw(layer, input_shape)
    output, pullback = jax.vjp(lambda p, b, x: with_backward_weights(layer, p, b, x), params, feedback, x)
    d_params, d_feedback, d_x = pullback(cotangent)

    expected_output, layer_pullback = jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)
    expected_d_params, true_d_x = layer_pullback(cotangent)
    _, feedback_pullback = jax.vjp(lambda x: layer.apply({"params": {**params, **feedback}}, x), x)
    assert_trees_equal(output, expected_output)
    assert_trees_close(d_params, expected_d_params, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(d_x, feedback_pullback(cotangent)[0], rtol=1e-9, atol=1e-12)
    assert not np.allclose(d_x, true_d_x)
    assert not np.any(d_feedback["kernel"])


@pytest.mark.parametrize("name", LAYERS)
def test_layer_with_its_kernel_as_backward_weights_is_the_layer_itself(name):
    layer, input_shape = LAYERS[name]
    params, _, x, cotangent = jax.tree.map(jnp.asarray, draw(layer, input_shape))
    feedback = {"kernel": params["kernel"]}
    output, pullback = jax.vjp(lambda p, x: with_backward_weights(layer, p, feedback, x), params, x)
    expected_output, expected_pullback = jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)
    assert_trees_equal(output, expected_output)
    assert_trees_equal(pullback(cotangent), expected_pullback(cotangent))


def test_signal_replaces_the_cotangent():
    h, signal = jnp.asarray([1.0, -2.0]), jnp.asarray([0.3, 0.4])
    output, pullback = jax.vjp(replace_cotangent, h, signal)
    np.testing.assert_array_equal(output, h)
    d_h, d_signal = pullback(jnp.asarray([5.0, 6.0]))
    np.testing.assert_array_equal(d_h, signal)
    np.testing.assert_array_equal(d_signal, 0)
