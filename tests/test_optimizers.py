"""Optimizers equal recurrences written out in numpy; schedules, multipliers and sparse kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hydra.utils import instantiate

from fa_jax.checks import BadOption, is_on, number
from fa_jax.optimizers import (
    clips,
    constant,
    constant_then_linear,
    cosine,
    descend,
    is_plain,
    keep_removed,
    linear,
    step_decay,
    with_fixed,
    with_multipliers,
)

GRADIENTS = np.random.default_rng(0).normal(size=(30, 5)) * 10.0 ** np.arange(-6, -1)
"""`[steps, params]`; the first params have gradients so small that the position of epsilon matters."""


def trajectory(optimizer, start=0.3):
    """The params after each step."""
    p = jnp.full(5, start)
    state = optimizer.init(p)
    params = []
    for gradient in GRADIENTS:
        update, state = optimizer.update(jnp.asarray(gradient), state, p)
        p = optax.apply_updates(p, update)
        params.append(p)
    return np.asarray(params)


def make(compose, *overrides):
    config = compose("task=digits", *overrides)
    return instantiate(config.optimizer, _convert_="all")(len(GRADIENTS))


@pytest.mark.usefixtures("float64")
def test_rmsprop_is_the_recurrence_of_torch(compose):
    p, m, expected = np.full(5, 0.3), np.zeros(5), []
    for g in GRADIENTS:
        m = 0.99 * m + 0.01 * g**2
        p = p - 0.001 * g / (np.sqrt(m) + 1e-8)
        expected.append(p)
    np.testing.assert_allclose(trajectory(make(compose, "optimizer=rmsprop")), expected, rtol=1e-12)
    # The average starts at zero, so the first step is ten times the rate where the gradient is far above epsilon.
    np.testing.assert_allclose(abs(expected[0] - 0.3)[2:], 10 * 0.001, rtol=2e-2)


@pytest.mark.usefixtures("float64")
def test_adamw_decays_weights_apart_from_the_scaled_update(compose):
    p, m, v, expected = np.full(5, 0.3), np.zeros(5), np.zeros(5), []
    for t, g in enumerate(GRADIENTS, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        scaled = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        p = p - 0.02 * (scaled + 0.3 * p)
        expected.append(p)
    optimizer = make(compose, "optimizer=adamw", "optimizer.learning_rate=0.02", "optimizer.weight_decay=0.3")
    np.testing.assert_allclose(trajectory(optimizer), expected, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_momentum_clips_then_adds_weight_decay_then_accumulates(compose):
    options = ["weight_decay=0.2", "clip=0.01", "learning_rate=0.5"]
    optimizer = make(compose, "optimizer=momentum", *(f"optimizer.{option}" for option in options))
    p, v, expected = np.full(5, 0.3), np.zeros(5), []
    for g in GRADIENTS:
        clipped = g * min(1, 0.01 / np.linalg.norm(g))
        v = 0.9 * v + clipped + 0.2 * p
        p = p - 0.5 * v
        expected.append(p)
    np.testing.assert_allclose(trajectory(optimizer), expected, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_ema_averages_gradients_without_bias_correction(compose):
    optimizer = make(compose, "optimizer=ema", "optimizer.learning_rate=0.5")
    p, m, expected = np.full(5, 0.3), np.zeros(5), []
    for g in GRADIENTS:
        m = 0.9 * m + 0.1 * g
        p = p - 0.5 * m
        expected.append(p)
    np.testing.assert_allclose(trajectory(optimizer), expected, rtol=1e-12)


def test_constant_linear_cosine_and_step_decay_schedules():
    assert constant(0.3, 100)(99) == 0.3
    falling = linear(0.3, 100, final=0.1)
    np.testing.assert_allclose([falling(0), falling(50), falling(100)], [0.3, 0.165, 0.03], rtol=1e-6)
    warmed_up = cosine(0.3, 100, final=0.1, warmup=0.2)
    rates = [warmed_up(step) for step in (0, 10, 20, 100)]
    np.testing.assert_allclose(rates, [0, 0.15, 0.3, 0.03], atol=1e-7)
    np.testing.assert_allclose(cosine(0.3, 100, final=0.0, warmup=0.0)(50), 0.15, rtol=1e-6)
    stepped = step_decay(0.3, 100, drops=[[0.5, 0.1], [0.75, 0.5]])
    np.testing.assert_allclose([stepped(49), stepped(51), stepped(99)], [0.3, 0.03, 0.015], rtol=1e-6)


def test_constant_then_linear_schedule_is_constant_for_half_of_the_run_and_then_falls_in_equal_steps():
    schedule = constant_then_linear(0.5, 100 * 7, steps_down=100)
    factors = {epoch: float(schedule((epoch - 1) * 7 + 3)) / 0.5 for epoch in (1, 50, 51, 75, 100)}
    for epoch, factor in {1: 1.0, 50: 1.0, 51: 0.99, 75: 0.51, 100: 0.01}.items():
        assert factors[epoch] == pytest.approx(factor)
    long = constant_then_linear(1.0, 3_750_000, steps_down=2000)
    np.testing.assert_allclose(float(long(3_749_000)), 1 / 2000, rtol=1e-5)
    short = constant_then_linear(1.0, 50, steps_down=5)
    rates = [float(short(step)) for step in (0, 10, 20, 30, 49)]
    np.testing.assert_allclose(rates, [1, 1, 1, 0.6, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (step_decay, {"drops": [0.5, 0.1]}, r"^schedule\.drops must be pairs such as"),
        (step_decay, {"drops": [[1.5, 0.1]]}, r"^schedule\.drops must be a finite number"),
        (linear, {"final": 2}, r"^schedule\.final must be a finite number"),
        (cosine, {"final": 2, "warmup": 0}, r"^schedule\.final must be a finite number"),
        (cosine, {"final": 0, "warmup": -1}, r"^schedule\.warmup must be a finite number"),
        (constant_then_linear, {"steps_down": 0}, r"^schedule\.steps_down must be a finite number above 0; got 0"),
    ],
)
def test_bad_options_of_schedules_are_named(schedule, options, message):
    with pytest.raises(BadOption, match=message):
        schedule(0.1, 100, **options)


def test_removed_connections_stay_removed_while_biases_and_zero_kernels_move():
    params = {
        "sparse": {"kernel": jnp.asarray([[0.0, 1.0]]), "bias": jnp.zeros(2)},
        "zero": {"kernel": jnp.zeros((1, 2))},
    }
    updates = jax.tree.map(jnp.ones_like, params)
    optimizer = keep_removed(optax.sgd(1.0))
    deltas, _ = optimizer.update(updates, optimizer.init(params))
    np.testing.assert_array_equal(deltas["sparse"]["kernel"], [[0, -1]])
    np.testing.assert_array_equal(deltas["sparse"]["bias"], [-1, -1])
    np.testing.assert_array_equal(deltas["zero"]["kernel"], [[-1, -1]])
    every = keep_removed(optax.sgd(1.0), lambda path: True)
    deltas, _ = every.update({"layer": jnp.ones(2)}, every.init({"layer": jnp.asarray([0.0, 2.0])}))
    np.testing.assert_array_equal(deltas["layer"], [0, -1])


def test_removed_connections_have_no_part_in_the_norm_that_is_clipped():
    params = {"kernel": jnp.asarray([[0.0, 1.0]])}
    clipped = descend(optax.identity(), learning_rate=1.0, schedule=constant, weight_decay=0.0, clip=1.0)(10)
    optimizer = keep_removed(clipped)
    deltas, _ = optimizer.update({"kernel": jnp.asarray([[1000.0, 3.0]])}, optimizer.init(params), params)
    np.testing.assert_allclose(deltas["kernel"], [[0, -1]], rtol=1e-6)


NOISY = optax.chain(optax.add_noise(1.0, 0.0, 0), optax.adamw(0.1, weight_decay=10.0))


@pytest.mark.parametrize("optimizer", [NOISY, optax.sgd(0.1, momentum=0.9)])
def test_an_optimizer_of_any_kind_leaves_fixed_arrays_and_removed_connections_as_they_are(optimizer):
    params = {"norm": {"mean": jnp.ones(2)}, "linear": {"kernel": jnp.asarray([[0.0, 1.0]])}}
    wrapped = keep_removed(with_fixed(optimizer, {("norm", "mean")}))
    state, trained = wrapped.init(params), params
    for _ in range(3):
        deltas, state = wrapped.update(jax.tree.map(jnp.ones_like, trained), state, trained)
        trained = optax.apply_updates(trained, deltas)
    assert trained["norm"]["mean"].tobytes() == params["norm"]["mean"].tobytes()
    assert trained["linear"]["kernel"][0, 0] == 0
    assert trained["linear"]["kernel"][0, 1] != 1


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.sgd(0.1), False),
        (optax.adam(0.1), False),
        (optax.chain(optax.clip(1.0), optax.sgd(0.1)), False),
        (optax.chain(optax.clip_by_global_norm(100.0), optax.sgd(0.1)), True),
        (optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1)), True),
    ],
)
def test_an_optimizer_clips_if_the_step_of_one_array_depends_on_the_updates_of_another(optimizer, expected):
    assert clips(optimizer) == expected


STATISTICS = {("norm", "mean"), ("norm", "var")}
MULTIPLIERS = {1.0: lambda optimizer: optimizer}
MULTIPLIERS[3.0] = lambda optimizer: with_multipliers(optimizer, lambda p: jax.tree.map(lambda _: 3.0, p))


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
def test_running_statistics_do_not_decay(multiplier):
    """They are known by their paths: a layer's own param named `mean` decays."""
    ones = jnp.ones(2)
    params = {"norm": {"scale": ones, "mean": ones, "var": ones}, "linear": {"bias": ones, "mean": ones}}
    zero_updates = jax.tree.map(jnp.zeros_like, params)
    plain = descend(optax.identity(), learning_rate=0.1, schedule=constant, weight_decay=0.5, clip=None)
    optimizer = MULTIPLIERS[multiplier](with_fixed(plain(10), STATISTICS))
    steps, _ = optimizer.update(zero_updates, optimizer.init(params), params)
    decayed = -0.05 * multiplier
    expected = {"norm": {"scale": decayed, "mean": 0, "var": 0}, "linear": {"bias": decayed, "mean": decayed}}
    for part, leaves in expected.items():
        for name, step in leaves.items():
            np.testing.assert_allclose(steps[part][name], step, rtol=1e-6, err_msg=f"{part}/{name}")


def test_multipliers_scale_the_steps_of_their_params():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    optimizer = with_multipliers(optax.sgd(0.1), lambda p: {"a": 1.0, "b": 5.0})
    steps, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(steps["a"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(steps["b"], -0.5, rtol=1e-6)


def test_the_norm_that_is_clipped_is_that_of_all_updates_before_the_multipliers():
    updates = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    clipped = descend(optax.identity(), learning_rate=0.1, schedule=constant, weight_decay=0.0, clip=1.0)(10)
    optimizer = with_multipliers(clipped, lambda p: {"a": 1.0, "b": 5.0})
    steps, _ = optimizer.update(updates, optimizer.init(updates), updates)
    np.testing.assert_allclose(steps["a"], -0.1 * 3 / 5, rtol=1e-6)
    np.testing.assert_allclose(steps["b"], -0.1 * 5 * 4 / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optimizer=sgd", "optimizer.learning_rate=1"], True),
        (["optimizer=sgd", "optimizer.learning_rate=0.5"], False),
        (["optimizer=sgd", "optimizer.learning_rate=1", "optimizer.weight_decay=1e-3"], False),
        (["optimizer=sgd", "optimizer.learning_rate=1", "optimizer.clip=100"], False),
        (["optimizer=sgd", "optimizer.learning_rate=1", "optimizer/schedule=cosine"], False),
        (["optimizer=momentum", "optimizer.learning_rate=1"], False),
        (["optimizer=adam", "optimizer.learning_rate=1"], False),
    ],
)
def test_plain_gradient_descent_has_rate_1_and_nothing_else(compose, overrides, expected):
    assert is_plain(make(compose, *overrides), len(GRADIENTS)) == expected


@pytest.mark.usefixtures("float64")
def test_weight_decay_may_change_during_the_run(compose):
    p, v, expected = np.full(5, 0.3), np.zeros(5), []
    for i, g in enumerate(GRADIENTS):
        v = 0.9 * v + g + (0.2 if i < 3 else 0.01 if i < 15 else 0.0) * p
        p = p - 0.5 * v
        expected.append(p)
    decay = "optimizer.weight_decay=[[0,0.2],[0.1,0.01],[0.5,0]]"
    optimizer = make(compose, "optimizer=momentum", "optimizer.learning_rate=0.5", decay)
    np.testing.assert_allclose(trajectory(optimizer), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("decay", "message"),
    [
        ([], "must be a number, or pairs such as"),
        ([0.1, 0.2], "must be a number, or pairs such as"),
        ([[0.1, 0.2]], "must have fractions of the run that rise from 0; got"),
        ([[0, 0.2], [0.5, 0.1], [0.4, 0]], "must have fractions of the run that rise from 0; got"),
        ([[0, -0.1]], "must be a finite number at least 0; got -0.1"),
        ([[0, 0.1], [1.5, 0]], "must be a finite number at least 0 and at most 1; got 1.5"),
    ],
)
def test_weight_decay_out_of_range_is_refused(decay, message):
    with pytest.raises(BadOption, match=f"^weight_decay {message}"):
        descend(optax.identity(), learning_rate=0.1, schedule=constant, weight_decay=decay, clip=None)


def test_numbers_that_are_not_traced_are_checked_and_traced_ones_are_not():
    with pytest.raises(BadOption, match="must be a finite number above 0; got"):
        number("learning_rate", jnp.asarray(-1.0), above=0)
    assert not is_on(0 * jnp.ones(()))
    traced = jax.jit(lambda value: jnp.asarray(is_on(number("learning_rate", value, above=0))))
    assert traced(0.0)
