"""Pooling and dropout equal Flax's."""

import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest

from fa_jax.networks.layers import Dropout, max_pool

QUICK = ((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 3), (3, 2))
"""The windows and strides that are tested without `-m slow`: apart, overlapping and unequal."""


@pytest.mark.parametrize(
    ("window", "strides"),
    [
        pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product([(1, 1), (2, 2), (3, 3), (2, 3)], [(1, 1), (2, 2), (3, 2)])
    ],
)
def test_max_pool_and_its_gradient_match_flax_also_among_equal_values(window, strides):
    random = np.random.default_rng(0)
    x = random.integers(0, 4, (3, 7, 8, 2)).astype(np.float32)
    pooled, pullback = jax.vjp(lambda x: max_pool(x, window, strides), x)
    flax_pooled, flax_pullback = jax.vjp(lambda x: nn.max_pool(x, window, strides), x)
    np.testing.assert_array_equal(pooled, flax_pooled)
    cotangent = random.integers(-9, 9, pooled.shape).astype(np.float32)
    np.testing.assert_array_equal(pullback(cotangent)[0], flax_pullback(cotangent)[0])


@pytest.mark.parametrize("position", [(0, 0, 0, 0), (0, 1, 1, 0)])
def test_nan_is_the_maximum(position):
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[position] = np.nan
    assert np.isnan(max_pool(x, (2, 2), (2, 2)))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dropout_is_flax_s_bit_for_bit_and_takes_a_traced_rate(rate):
    x, streams = jax.random.normal(jax.random.key(0), (4, 50)), {"dropout": jax.random.key(1)}
    expected = nn.Dropout(rate, deterministic=False).apply({}, x, rngs=streams)
    np.testing.assert_array_equal(Dropout(rate).apply({}, x, rngs=streams), expected)
    np.testing.assert_array_equal(Dropout(rate).apply({}, x), x)
    traced = jax.jit(lambda rate: Dropout(rate).apply({}, x, rngs=streams))(rate)
    np.testing.assert_allclose(traced, expected, rtol=1e-6)
