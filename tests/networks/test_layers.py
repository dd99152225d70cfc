"""Max pooling equals Flax's."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from fa_jax.networks.layers import max_pool


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
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
