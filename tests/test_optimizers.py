"""The optimizers against recurrences written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hydra.utils import instantiate

from fa_jax.optimizers import at_rates, constant, cosine, descend, keep_removed, staircase

GRADIENTS = np.random.default_rng(0).normal(size=(30, 5)) * 10.0 ** np.arange(-6, -1)
"""Steps by params; the first ones so small that the place of epsilon shows."""


def walk(optimizer, start=0.3):
    """The params after each step."""
    p = jnp.full(5, start)
    state = optimizer.init(p)
    places = []
    for gradient in GRADIENTS:
        update, state = optimizer.update(jnp.asarray(gradient), state, p)
        p = optax.apply_updates(p, update)
        places.append(p)
    return np.asarray(places)


@pytest.mark.usefixtures("float64")
def test_rmsprop_is_torch_s_recurrence(compose):
    optimizer = instantiate(compose("task=digits", "optimizer=rmsprop").optimizer, _convert_="all")(len(GRADIENTS))
    p, m, expected = np.full(5, 0.3), np.zeros(5), []
    for g in GRADIENTS:
        m = 0.99 * m + 0.01 * g**2
        p = p - 0.001 * g / (np.sqrt(m) + 1e-8)
        expected.append(p)
    np.testing.assert_allclose(walk(optimizer), expected, rtol=1e-12)
    # From an average of zero, the first step is ten times the rate wherever the gradient stands out from epsilon.
    np.testing.assert_allclose(abs(expected[0] - 0.3)[2:], 10 * 0.001, rtol=2e-2)


@pytest.mark.usefixtures("float64")
def test_momentum_with_weight_decay_and_clipping_is_the_recurrence_in_that_order(compose):
    words = [
        "task=digits",
        "optimizer=momentum",
        "optimizer.weight_decay=0.2",
        "optimizer.clip=0.01",
        "optimizer.learning_rate=0.5",
    ]
    optimizer = instantiate(compose(*words).optimizer, _convert_="all")(len(GRADIENTS))
    p, v, expected = np.full(5, 0.3), np.zeros(5), []
    for g in GRADIENTS:
        clipped = g * min(1, 0.01 / np.linalg.norm(g))
        v = 0.9 * v + clipped + 0.2 * p
        p = p - 0.5 * v
        expected.append(p)
    np.testing.assert_allclose(walk(optimizer), expected, rtol=1e-12)


def test_schedules_begin_and_end_where_they_say():
    assert constant(0.3, 100)(99) == 0.3
    warmed = cosine(0.3, 100, final=0.1, warmup=0.2)
    np.testing.assert_allclose([warmed(0), warmed(10), warmed(20), warmed(100)], [0, 0.15, 0.3, 0.03], atol=1e-7)
    np.testing.assert_allclose(cosine(0.3, 100, final=0.0, warmup=0.0)(50), 0.15, rtol=1e-6)
    stairs = staircase(0.3, 100, drops=[[0.5, 0.1], [0.75, 0.5]])
    np.testing.assert_allclose([stairs(49), stairs(51), stairs(99)], [0.3, 0.03, 0.015], rtol=1e-6)


def test_removed_connections_stay_removed_and_biases_and_zero_kernels_move():
    params = {
        "a": {"kernel": jnp.asarray([[0.0, 1.0]]), "bias": jnp.zeros(2)},
        "b": {"kernel": jnp.zeros((1, 2))},
    }
    updates = jax.tree.map(jnp.ones_like, params)
    optimizer = keep_removed()
    moved, _ = optimizer.update(updates, optimizer.init(params))
    np.testing.assert_array_equal(moved["a"]["kernel"], [[0, 1]])
    np.testing.assert_array_equal(moved["a"]["bias"], [1, 1])
    np.testing.assert_array_equal(moved["b"]["kernel"], [[1, 1]])


def test_running_statistics_do_not_decay_at_any_rate():
    params = {"norm": {"scale": jnp.ones(2), "mean": jnp.ones(2), "var": jnp.ones(2)}, "linear": {"bias": jnp.ones(2)}}
    zero = jax.tree.map(jnp.zeros_like, params)
    plain = descend(optax.identity(), learning_rate=0.1, schedule=constant, weight_decay=0.5, clip=None)(10)
    for rate, optimizer in ((1.0, plain), (3.0, at_rates(plain, lambda p: jax.tree.map(lambda _: 3.0, p), params))):
        steps, _ = optimizer.update(zero, optimizer.init(params), params)
        for name, moved in (("scale", 1), ("mean", 0), ("var", 0)):
            np.testing.assert_allclose(steps["norm"][name], -0.05 * rate * moved, rtol=1e-6)
        np.testing.assert_allclose(steps["linear"]["bias"], -0.05 * rate, rtol=1e-6)
