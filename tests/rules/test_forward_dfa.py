"""Forward direct feedback alignment: its feedback is an estimate of the mean Jacobian, in numpy without autodiff."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.core import FeedbackOptimizer
from fa_jax.feedback import direct_zeros
from fa_jax.losses import squared_error
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.forward_dfa import forward_dfa, jacobian_estimate
from fa_jax.rules.forward_gradient import activity_noise, activity_signals, exact
from tests.conftest import CNN, MLP, RANDOM_WEIGHTS, assert_trees_close, compiled, filled, random_batch, to_float64
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = squared_error(output="linear", derivative="exact").value


@functools.cache
def make(activation="tanh", hidden=(4, 3), size=4):
    """A rule on a small network, random params, feedback of zeros, and a batch."""
    options = {**MLP, **RANDOM_WEIGHTS, "activation": activation, "dropout": 0.0}
    network = mlp((5,), 3, hidden=list(hidden), **options)
    rule = forward_dfa(network, LOSS, init_feedback=direct_zeros)
    params, shapes = jax.eval_shape(rule.init, jax.random.key(1))
    feedback = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes)
    return network, compiled(rule), to_float64(filled(params)), feedback, random_batch((5,), 3, size, dtype=np.float64)


def jacobians(network, params, batch, activation):
    """The Jacobian of the logits with respect to each hidden layer, of each example: `[batch, outputs, width]`."""
    weights, biases = reference.weights_and_biases(network, params)
    preactivations, _ = reference.forward(weights, biases, np.asarray(batch.inputs), activation)
    _, derivative = reference.ACTIVATIONS[activation]
    above = [np.broadcast_to(weights[-1].T, (len(batch.inputs), *weights[-1].T.shape))]
    for w, a in zip(reversed(weights[1:-1]), reversed(preactivations[1:-1]), strict=True):
        above.insert(0, above[0] * derivative(a)[:, None] @ w.T)
    return above


def noise_of(network, params, batch):
    def draw(params, batch):
        return activity_noise(network, params, batch, batch.key, jax.random.normal, spare_silent=False)

    return jax.jit(draw)(params, batch)


@pytest.mark.parametrize("hidden", [(4, 3), (4,) * 9], ids=["unrolled", "scanned"])
def test_feedback_follows_the_derivatives_of_the_logits_along_the_noise(hidden):
    network, rule, params, feedback, batch = make(hidden=hidden)
    feedback = filled(feedback)
    noise = noise_of(network, params, batch)
    u = reference.unstack(network.hidden_shapes, noise)
    tangent = sum(
        np.einsum("nck,nk->nc", j, x) for j, x in zip(jacobians(network, params, batch, "tanh"), u, strict=True)
    )
    learned = rule.learn(params, feedback, batch, rule.updates(params, feedback, batch))
    learned, before = (reference.unstack(network.hidden_shapes, tree) for tree in (learned, feedback))
    for b, step, x in zip(before, learned, u, strict=True):
        np.testing.assert_allclose(step, b - tangent.T @ x / len(x), rtol=1e-10, atol=1e-13)


def test_the_mean_estimate_over_a_basis_is_the_mean_jacobian():
    network, _, params, _, batch = make("relu")
    rows = np.sqrt(7) * np.eye(7)
    noise = {"stages_0/hidden": rows[:, :4], "stages_1/hidden": rows[:, 4:]}
    noise = {name: jnp.broadcast_to(u[:, None], (7, 4, u.shape[-1])) for name, u in noise.items()}
    estimates = jax.jit(jax.vmap(lambda u: jacobian_estimate(network, params, batch, u)))(noise)
    expected = jacobians(network, params, batch, "relu")
    for estimate, jacobian in zip(estimates.values(), expected, strict=True):
        np.testing.assert_allclose(estimate.mean(0), jacobian.mean(0), rtol=1e-10, atol=1e-14)


def mean_jacobians(network, params, batch, activation):
    expected = jacobians(network, params, batch, activation)
    return {name: jnp.asarray(j.mean(0)) for name, j in zip(network.hidden_shapes, expected, strict=True)}


@pytest.mark.parametrize(
    ("activation", "size", "is_backprop"), [("tanh", 4, False), ("tanh", 1, True), ("linear", 4, True)]
)
def test_with_the_mean_jacobian_as_feedback_the_last_hidden_layer_learns_by_backprop(activation, size, is_backprop):
    """And every other one too if the Jacobian is the same for all examples."""
    network, rule, params, _, batch = make(activation, size=size)
    feedback = mean_jacobians(network, params, batch, activation)
    updates, gradient = rule.updates(params, feedback, batch), compiled(bp(network, LOSS)).updates(params, (), batch)
    for name in ("stages_1", "readout"):
        assert_trees_close(updates[name], gradient[name], rtol=1e-10, atol=1e-14)
    kernels = [tree["stages_0"]["linear"]["kernel"] for tree in (updates, gradient)]
    assert np.allclose(*kernels, rtol=1e-9, atol=1e-13) == is_backprop


def test_one_estimate_of_one_example_sends_the_forward_gradient():
    network, rule, params, feedback, batch = make(size=1)
    learned = rule.learn(params, feedback, batch, None)
    estimate = jax.tree.map(jnp.subtract, feedback, learned)  # a step of rate 1
    signals = activity_signals(network, LOSS, params, batch, noise_of(network, params, batch), exact)
    assert_trees_close(rule.extras.signals(params, estimate, batch), signals, rtol=1e-10, atol=1e-14)


def test_gradient_descent_from_zero_is_a_moving_average_of_estimates():
    network, rule, params, feedback, batch = make()
    optimizer, rate, estimates = optax.sgd(0.2), 0.2, []
    state = optimizer.init(feedback)
    for i in range(4):
        step_batch = batch._replace(key=jax.random.key(i))
        estimates.append(jacobian_estimate(network, params, step_batch, noise_of(network, params, step_batch)))
        changes, state = optimizer.update(rule.learn(params, feedback, step_batch, None), state, feedback)
        feedback = optax.apply_updates(feedback, changes)
    average = jax.tree.map(lambda *e: rate * sum((1 - rate) ** (3 - t) * x for t, x in enumerate(e)), *estimates)
    assert_trees_close(feedback, average, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scaling": "optax.trace"}, "^must be sgd, or adam"),
        ({"weight_decay": 0.1}, "^must be sgd, or adam"),
        ({"clips": True}, "^clip must be null: clipped steps make no moving average"),
    ],
)
def test_an_optimizer_that_makes_no_moving_average_is_refused(change, message):
    check = make()[1].extras.check_feedback_optimizer
    for scaling in ("optax.identity", "optax.scale_by_adam"):
        optimizer = FeedbackOptimizer(
            shared=False, scaling=scaling, weight_decay=0.0, clips=False, params_clip=False, is_plain=False
        )
        check(optimizer)
        with pytest.raises(BadOption, match=message):
            check(optimizer._replace(**change))


def test_from_zero_feedback_only_the_readout_moves():
    _, rule, params, feedback, batch = make()
    updates = rule.updates(params, feedback, batch)
    assert not any(np.any(u) for name in ("stages_0", "stages_1") for u in jax.tree.leaves(updates[name]))
    assert np.any(updates["readout"]["kernel"])


@pytest.mark.parametrize("size", [1, 2])
def test_over_all_signs_the_estimate_is_even_and_has_the_variance_of_the_formula(size):
    """Entry (c, k) of layer l: mean over examples of sum_mj J_m[c, j]^2 - J_l[c, k]^2, divided by their number."""
    network, _, params, _, batch = make(hidden=(2, 1), size=size)
    signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=3 * size))).reshape(-1, size, 3)
    noise = {"stages_0/hidden": signs[..., :2], "stages_1/hidden": signs[..., 2:]}
    estimates = jax.jit(jax.vmap(lambda u: jacobian_estimate(network, params, batch, u)))(noise)
    expected = jacobians(network, params, batch, "tanh")
    total = sum((j**2).sum(2) for j in expected)
    for estimate, j in zip(estimates.values(), expected, strict=True):
        np.testing.assert_allclose(estimate, estimate[::-1], rtol=1e-12, atol=1e-15)  # the order of signs mirrors them
        np.testing.assert_allclose(estimate.mean(0), j.mean(0), rtol=1e-10)
        variance = (total[..., None] - j**2).mean(0) / size
        np.testing.assert_allclose(estimate.var(0), variance, rtol=1e-9, atol=1e-15)


def test_feedback_of_a_feature_map_is_that_of_every_position():
    network = cnn((4, 4, 1), 3, **{**CNN, "topology": "conv2x3p2"})
    rule = compiled(forward_dfa(network, LOSS, init_feedback=direct_zeros))
    params, feedback = to_float64(rule.init(jax.random.key(0)))
    assert not any(np.any(b) for b in jax.tree.leaves(feedback))
    batch = random_batch((4, 4, 1), 3, size=2, dtype=np.float64)
    (u,) = noise_of(network, params, batch).values()
    # The readout alone is above this layer.
    tangent = np.asarray(u).reshape(2, -1) @ params["readout"]["linear"]["kernel"]
    (learned,) = rule.learn(params, feedback, batch, None).values()
    assert learned.shape == (3, 2, 2, 2)
    np.testing.assert_allclose(learned, -np.tensordot(tangent, u, (0, 0)) / 2, rtol=1e-10)
