"""Every rule equals its equations, in float64, without autodiff on the other side."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.feedback import backward_kernels
from fa_jax.losses import binary_cross_entropy, cross_entropy, squared_error
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.brsf import brsf
from fa_jax.rules.dfa import dfa
from fa_jax.rules.direct_kolen_pollack import direct_kolen_pollack
from fa_jax.rules.drtp import drtp
from fa_jax.rules.fa import fa
from fa_jax.rules.frsf import frsf
from fa_jax.rules.ifa import ifa
from fa_jax.rules.kolen_pollack import kolen_pollack
from fa_jax.rules.node_perturbation import node_perturbation
from fa_jax.rules.sdfa import sdfa
from fa_jax.rules.shallow import shallow
from fa_jax.rules.usf import usf
from tests.conftest import random_batch
from tests.rules import reference

FEEDBACK = {"distribution": "normal", "scale": 0.7, "kept": 0.8}
NETS = [
    ([9], "linear", False),
    ([9], "logistic", True),
    ([9, 8, 7], "tanh", True),
    ([9, 9, 9], "relu", True),
    ([6] * 12, "tanh", True),  # scanned
]

pytestmark = pytest.mark.usefixtures("float64")


def double(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)


def network_of(hidden, activation, biases):
    return mlp(
        (12,),
        4,
        hidden=hidden,
        activation=activation,
        biases=biases,
        init="fan_normal",
        init_scale=1.2,
        kept=1.0,
        bias_init="uniform",
        bias_scale=0.3,
        dropout=0.0,
    )


def layers(network, params, leaf="kernel"):
    """The weights or biases of all layers in order, stacks taken apart; zeros where there are no biases."""
    flat = []
    for name, kernel in network.kernels.items():
        node = params
        for part in name.split("/"):
            node = node[part]
        values = np.asarray(node[leaf]) if leaf in node else np.zeros((*kernel.stack, kernel.shape[-1]))
        flat += list(values) if kernel.stack else [values]
    return flat


def unstacked(shapes, named):
    """The arrays of a dict in the order of the forward pass, stacks taken apart."""
    there = [(shape, np.asarray(named[name])) for name, shape in shapes.items() if name in named]
    return [one for shape, a in there for one in (a if shape.stack else [a])]


def check(network, got, deltas, inputs):
    weights, biases = reference.updates(deltas, inputs)
    for ours, truth in zip(layers(network, got), weights, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-10, atol=1e-12)
    if "bias" in got["readout"]:
        for ours, truth in zip(layers(network, got, "bias"), biases, strict=True):
            np.testing.assert_allclose(ours, truth, rtol=1e-10, atol=1e-12)


@pytest.fixture(params=NETS, ids=lambda net: f"{len(net[0])}x{net[0][0]}-{net[1]}")
def case(request):
    """(network, params, batch, pre-activations, layer inputs, error, activation), the loss being half the square."""
    network = network_of(*request.param)
    params = double(network.init(jax.random.key(1)))
    batch = random_batch(dtype=np.float64)
    pre, inputs = reference.forward(
        layers(network, params), layers(network, params, "bias"), np.asarray(batch.inputs), request.param[1]
    )
    error = (pre[-1] - np.asarray(batch.targets)) / len(batch.inputs)
    return network, params, batch, pre, inputs, error, request.param[1]


LOSS = squared_error(output="linear", derivative="exact").value


def test_bp_is_the_chain_rule(case):
    network, params, batch, pre, inputs, error, activation = case
    got = bp(network, LOSS).updates(params, (), batch)
    backward = [w.T for w in layers(network, params)[1:]]
    check(network, got, reference.deltas_backward(backward, pre, error, activation), inputs)


def test_fa_sends_the_error_back_through_b(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = fa(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    got = rule.updates(params, feedback, batch)
    backward = [b.T for b in unstacked(network.kernels, feedback)]
    check(network, got, reference.deltas_backward(backward, pre, error, activation), inputs)


def test_dfa_sends_the_error_to_every_layer(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = dfa(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    got = rule.updates(params, feedback, batch)
    check(network, got, reference.deltas_direct(unstacked(network.hiddens, feedback), pre, error, activation), inputs)


def test_ifa_sends_the_error_up_from_the_first_layer(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = ifa(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    got = rule.updates(params, feedback, batch)
    (matrix,) = map(np.asarray, feedback.values())
    check(
        network,
        got,
        reference.deltas_indirect(matrix, layers(network, params), pre, error, activation),
        inputs,
    )


def test_sdfa_sends_the_signs_of_the_error(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = sdfa(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    deltas = reference.deltas_direct(
        unstacked(network.hiddens, feedback), pre, np.sign(error) / len(batch.inputs), activation
    )
    check(network, rule.updates(params, feedback, batch), [*deltas[:-1], error], inputs)


def test_drtp_sends_minus_the_target(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = drtp(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    target = np.asarray(batch.targets) / len(batch.inputs)
    deltas = reference.deltas_direct(unstacked(network.hiddens, feedback), pre, -target, activation)
    check(network, rule.updates(params, feedback, batch), [*deltas[:-1], error], inputs)


def test_usf_crosses_the_signs_times_the_initial_standard_deviation(case):
    network, params, batch, pre, inputs, error, activation = case
    got = usf(network, LOSS, distribution="fan_uniform", scale=0.7).updates(params, (), batch)
    backward = [0.7 / np.sqrt(3 * len(w)) * np.sign(w).T for w in layers(network, params)[1:]]
    check(network, got, reference.deltas_backward(backward, pre, error, activation), inputs)


def test_frsf_crosses_the_signs_times_fixed_magnitudes(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = frsf(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    weights, sizes = layers(network, params)[1:], unstacked(network.kernels, feedback)
    assert all((size >= 0).all() for size in sizes)
    backward = [(size * np.sign(w)).T for size, w in zip(sizes, weights, strict=True)]
    got = rule.updates(params, feedback, batch)
    check(network, got, reference.deltas_backward(backward, pre, error, activation), inputs)


def test_brsf_crosses_the_signs_times_magnitudes_of_the_batch_s_own_key(case):
    network, params, batch, pre, inputs, error, activation = case
    drawn = backward_kernels(network, fan="forward_fan", **FEEDBACK)(batch.key, params)
    backward = [
        (np.abs(m) * np.sign(w)).T
        for m, w in zip(unstacked(network.kernels, drawn), layers(network, params)[1:], strict=True)
    ]
    got = brsf(network, LOSS, **FEEDBACK).updates(params, (), batch)
    check(network, got, reference.deltas_backward(backward, pre, error, activation), inputs)


def test_direct_kolen_pollack_s_feedback_learns_like_a_readout_from_each_layer(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = direct_kolen_pollack(network, LOSS, zero=True, **FEEDBACK)
    _, feedback = rule.init(jax.random.key(2))
    assert not any(np.any(b) for b in feedback.values())
    drawn = double(dfa(network, LOSS, **FEEDBACK).init(jax.random.key(2))[1])
    got = rule.updates(params, drawn, batch)
    check(network, got, reference.deltas_direct(unstacked(network.hiddens, drawn), pre, error, activation), inputs)
    learned = unstacked(network.hiddens, rule.learn(params, drawn, batch, got))
    for ours, h in zip(learned, inputs[1:], strict=True):
        np.testing.assert_allclose(ours, error.T @ h, rtol=1e-10, atol=1e-12)


def test_kolen_pollack_s_feedback_takes_the_steps_of_the_weights_it_stands_for(case):
    network, params, batch, pre, inputs, error, activation = case
    rule = kolen_pollack(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    got = rule.updates(params, feedback, batch)
    backward = [b.T for b in unstacked(network.kernels, feedback)]
    deltas = reference.deltas_backward(backward, pre, error, activation)
    check(network, got, deltas, inputs)
    steps, _ = reference.updates(deltas, inputs)
    learned = unstacked(network.kernels, rule.learn(params, feedback, batch, got))
    for ours, truth in zip(learned, steps[1:], strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-10, atol=1e-12)


def test_the_gap_of_kolen_pollack_shrinks_by_the_decay_and_by_nothing_else():
    network = network_of([9, 8], "tanh", True)
    rule = kolen_pollack(network, LOSS, **FEEDBACK)
    params, feedback = double(rule.init(jax.random.key(2)))
    gap = {name: b - network.weights(params)[name] for name, b in feedback.items()}
    optimizer = optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1))
    slots, their_slots = optimizer.init(params), optimizer.init(feedback)
    for i in range(20):
        batch = random_batch(seed=i, dtype=np.float64)
        updates = rule.updates(params, feedback, batch)
        changes, their_slots = optimizer.update(rule.learn(params, feedback, batch, updates), their_slots, feedback)
        updates, slots = optimizer.update(updates, slots, params)
        params, feedback = optax.apply_updates(params, updates), optax.apply_updates(feedback, changes)
    for name, before in gap.items():
        after = feedback[name] - network.weights(params)[name]
        np.testing.assert_allclose(after, (1 - 0.1 * 0.3) ** 20 * before, rtol=1e-10, atol=1e-14)


def test_shallow_learning_teaches_the_readout_alone(case):
    network, params, batch, pre, inputs, error, _ = case
    got = shallow(network, LOSS).updates(params, (), batch)
    check(network, got, [np.zeros_like(a) for a in pre[:-1]] + [error], inputs)


def test_node_perturbation_credits_the_noise_with_the_change_of_the_loss():
    network = network_of([9, 8], "tanh", True)
    params, batch, sigma = double(network.init(jax.random.key(1))), random_batch(dtype=np.float64), 0.05
    got = node_perturbation(network, LOSS, sigma=sigma).updates(params, (), batch)

    weights, biases = layers(network, params), layers(network, params, "bias")
    x, t = np.asarray(batch.inputs), np.asarray(batch.targets)
    pre, inputs = reference.forward(weights, biases, x, "tanh")
    noise = [
        sigma * np.asarray(jax.random.normal(jax.random.fold_in(batch.key, i), h.shape, jnp.float64))
        for i, h in enumerate(inputs[1:])
    ]
    h = x
    for w, b, xi in zip(weights[:-1], biases[:-1], noise, strict=True):
        h = np.tanh(h @ w + b) + xi
    noisy = h @ weights[-1] + biases[-1]
    change = 0.5 * ((noisy - t) ** 2).sum(1) - 0.5 * ((pre[-1] - t) ** 2).sum(1)
    signals = [change[:, None] * xi / sigma**2 / len(x) for xi in noise]
    deltas = [s * (1 - np.tanh(a) ** 2) for s, a in zip(signals, pre[:-1], strict=True)]
    check(network, got, [*deltas, (pre[-1] - t) / len(x)], inputs)


def test_node_perturbation_estimates_the_gradient():
    network, sigma = network_of([6], "tanh", True), 1e-4
    params, batch = double(network.init(jax.random.key(1))), random_batch(dtype=np.float64)
    rule = node_perturbation(network, LOSS, sigma=sigma)
    keys = jax.random.split(jax.random.key(3), 4000)
    many = jax.jit(
        jax.vmap(lambda key: rule.updates(params, (), batch._replace(key=key))["stages_0"]["linear"]["kernel"])
    )
    estimates = np.asarray(many(keys))
    truth = np.asarray(bp(network, LOSS).updates(params, (), batch)["stages_0"]["linear"]["kernel"])
    # Six standard errors of the mean of 4000 draws, entry by entry.
    assert np.all(np.abs(estimates.mean(0) - truth) < 6 * estimates.std(0) / np.sqrt(len(keys)))


@pytest.mark.parametrize(
    ("loss", "error"),
    [
        (squared_error(output="linear", derivative="exact"), lambda z, y, t: y - t),
        (squared_error(output="logistic", derivative="exact"), lambda z, y, t: (y - t) * y * (1 - y)),
        (squared_error(output="logistic", derivative="omitted"), lambda z, y, t: y - t),
        (squared_error(output="softmax", derivative="omitted"), lambda z, y, t: y - t),
        (
            squared_error(output="softmax", derivative="exact"),
            lambda z, y, t: y * ((y - t) - ((y - t) * y).sum(1, keepdims=True)),
        ),
        (binary_cross_entropy(), lambda z, y, t: y - t),
        (cross_entropy(), lambda z, y, t: y - t),
    ],
    ids=["linear", "logistic-exact", "logistic-omitted", "softmax-omitted", "softmax-exact", "binary", "categorical"],
)
def test_the_error_at_the_logits_is_that_of_the_loss(loss, error):
    batch = random_batch(dtype=np.float64)
    z = np.random.default_rng(3).normal(size=batch.targets.shape)
    y = np.asarray(loss.outputs(jnp.asarray(z)))
    got = jax.grad(loss.value)(jnp.asarray(z), batch.targets)
    np.testing.assert_allclose(got, error(z, y, np.asarray(batch.targets)) / len(z), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("derivative", ["exact", "omitted"])
def test_half_the_squared_error_has_its_value_with_either_derivative(derivative):
    batch = random_batch(dtype=np.float64)
    z = np.random.default_rng(3).normal(size=batch.targets.shape)
    y = 1 / (1 + np.exp(-z))
    truth = 0.5 * np.mean(((y - np.asarray(batch.targets)) ** 2).sum(1))
    got = squared_error(output="logistic", derivative=derivative).value(jnp.asarray(z), batch.targets)
    np.testing.assert_allclose(got, truth, rtol=1e-12)
