"""What layers have in common, held against Flax's own."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from fa_jax.networks.layers import max_pool


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
def test_maxima_and_their_gradient_are_flax_s_also_among_equals(window, strides):
    random = np.random.default_rng(0)
    x = random.integers(0, 4, (3, 7, 8, 2)).astype(np.float32)
    ours, pull = jax.vjp(lambda x: max_pool(x, window, strides), x)
    theirs, other = jax.vjp(lambda x: nn.max_pool(x, window, strides), x)
    np.testing.assert_array_equal(ours, theirs)
    cotangent = random.integers(-9, 9, ours.shape).astype(np.float32)
    np.testing.assert_array_equal(pull(cotangent)[0], other(cotangent)[0])


def test_what_is_not_a_number_is_the_maximum():
    x = np.zeros((1, 2, 2, 1), np.float32)
    for place in ((0, 0, 0, 0), (0, 1, 1, 0)):
        broken = x.copy()
        broken[place] = np.nan
        assert np.isnan(max_pool(broken, (2, 2), (2, 2)))
