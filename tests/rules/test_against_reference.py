"""Every rule equals its equations on multilayer perceptrons, in float64; the reference uses no autodiff."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.core import Batch
from fa_jax.feedback import deviations, direct_zeros
from fa_jax.losses import binary_cross_entropy, cross_entropy, squared_error
from fa_jax.network import Network
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.brsf import brsf
from fa_jax.rules.dfa import dfa
from fa_jax.rules.direct_kolen_pollack import direct_kolen_pollack
from fa_jax.rules.drtp import drtp
from fa_jax.rules.fa import fa
from fa_jax.rules.frozen_blocks import frozen_blocks
from fa_jax.rules.frsf import frsf
from fa_jax.rules.ifa import ifa
from fa_jax.rules.kolen_pollack import kolen_pollack
from fa_jax.rules.node_perturbation import node_perturbation
from fa_jax.rules.sdfa import sdfa
from fa_jax.rules.shallow import shallow
from fa_jax.rules.usf import usf
from tests.conftest import (
    MLP,
    RANDOM_WEIGHTS,
    WITHOUT_BIASES,
    assert_trees_close,
    direct,
    first_layer,
    layerwise,
    magnitudes,
    random_batch,
    to_float64,
)
from tests.rules import reference

pytestmark = pytest.mark.usefixtures("float64")

LOSS = squared_error(output="linear", derivative="exact").value
NETWORKS = [
    ([9], "linear", False),
    ([9], "sigmoid", True),
    ([9, 8, 7], "tanh", True),
    ([9, 9, 9], "relu", True),
    ([6] * 12, "tanh", True),  # scanned
]


def make_network(hidden, activation, biases):
    options = {"hidden": hidden, "activation": activation, **({} if biases else WITHOUT_BIASES)}
    return mlp((12,), 4, dropout=0.0, **{**MLP, **RANDOM_WEIGHTS, **options})


class Case(NamedTuple):
    """A network on a batch, with its forward pass by the reference; the loss is half the squared error."""

    network: Network
    params: dict
    batch: Batch
    activation: str
    preactivations: list
    inputs: list
    """Of each linear layer."""
    error: np.ndarray

    def feedback(self, rule):
        """Returns the feedback that a rule draws, in float64."""
        return to_float64(rule.init(jax.random.key(2))[1])

    def weights(self):
        return reference.weights_and_biases(self.network, self.params)[0]

    def kernels(self, named):
        return reference.unstack(self.network.kernel_shapes, named)

    def hiddens(self, named):
        return reference.unstack(self.network.hidden_shapes, named)

    def layerwise_deltas(self, kernels):
        backward = [kernel.T for kernel in kernels]
        return reference.layerwise_deltas(backward, self.preactivations, self.error, self.activation)

    def direct_deltas(self, matrices, teaching):
        deltas = reference.direct_deltas(matrices, self.preactivations, teaching, self.activation)
        return [*deltas[:-1], self.error]

    def check(self, updates, deltas):
        """Asserts that updates are those of the errors at the pre-activations."""
        weights, biases = reference.weights_and_biases(self.network, updates)
        expected_weights, expected_biases = reference.updates(deltas, self.inputs)
        assert_all_close(weights, expected_weights)
        if "bias" in updates["readout"]:
            assert_all_close(biases, expected_biases)


def assert_all_close(arrays, expected):
    for array, expected_array in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, expected_array, rtol=1e-10, atol=1e-12)


@pytest.fixture(params=range(len(NETWORKS)), ids=[f"{len(n)}x{n[0]}-{activation}" for n, activation, _ in NETWORKS])
def case(request):
    return make_case(request.param)


@functools.cache
def make_case(index):
    network = make_network(*NETWORKS[index])
    params = to_float64(network.init(jax.random.key(1)))
    batch = random_batch(dtype=np.float64)
    activation = NETWORKS[index][1]
    weights, biases = reference.weights_and_biases(network, params)
    preactivations, inputs = reference.forward(weights, biases, np.asarray(batch.inputs), activation)
    error = (preactivations[-1] - np.asarray(batch.targets)) / len(batch.inputs)
    return Case(network, params, batch, activation, preactivations, inputs, error)


def test_bp_is_the_chain_rule(case):
    updates = bp(case.network, LOSS).updates(case.params, (), case.batch)
    case.check(updates, case.layerwise_deltas(case.weights()[1:]))


def test_fa_sends_the_error_back_through_feedback(case):
    rule = fa(case.network, LOSS, init_feedback=layerwise())
    feedback = case.feedback(rule)
    updates = rule.updates(case.params, feedback, case.batch)
    case.check(updates, case.layerwise_deltas(case.kernels(feedback)))


def test_dfa_sends_the_error_to_every_hidden_layer(case):
    rule = dfa(case.network, LOSS, init_feedback=direct())
    feedback = case.feedback(rule)
    updates = rule.updates(case.params, feedback, case.batch)
    case.check(updates, case.direct_deltas(case.hiddens(feedback), case.error))


def test_ifa_sends_the_error_up_from_the_first_layer(case):
    rule = ifa(case.network, LOSS, init_feedback=first_layer())
    feedback = case.feedback(rule)
    (matrix,) = map(np.asarray, feedback.values())
    forward_pass = case.preactivations, case.error, case.activation
    deltas = reference.indirect_deltas(matrix, case.weights(), *forward_pass)
    case.check(rule.updates(case.params, feedback, case.batch), deltas)


def test_sdfa_sends_the_signs_of_the_error(case):
    rule = sdfa(case.network, LOSS, init_feedback=direct())
    feedback = case.feedback(rule)
    signs = np.sign(case.error) / len(case.batch.inputs)
    case.check(rule.updates(case.params, feedback, case.batch), case.direct_deltas(case.hiddens(feedback), signs))


def test_drtp_sends_minus_the_target(case):
    rule = drtp(case.network, LOSS, init_feedback=direct())
    feedback = case.feedback(rule)
    targets = np.asarray(case.batch.targets) / len(case.batch.inputs)
    case.check(rule.updates(case.params, feedback, case.batch), case.direct_deltas(case.hiddens(feedback), -targets))


def test_usf_sends_the_error_through_signs_times_the_initial_standard_deviation(case):
    def init_feedback(network, key, params):
        return deviations(network, key, params, distribution="fan_uniform", scale=0.7)

    rule = usf(case.network, LOSS, init_feedback=init_feedback)
    feedback = init_feedback(case.network, jax.random.key(2), case.params)  # float64, like the params
    assert_trees_close(case.feedback(rule), feedback, rtol=1e-7)
    updates = rule.updates(case.params, feedback, case.batch)
    kernels = [0.7 / np.sqrt(3 * len(w)) * np.sign(w) for w in case.weights()[1:]]
    case.check(updates, case.layerwise_deltas(kernels))


def test_frsf_sends_the_error_through_signs_times_fixed_magnitudes(case):
    rule = frsf(case.network, LOSS, init_feedback=magnitudes())
    feedback = case.feedback(rule)
    sizes = case.kernels(feedback)
    assert all((size >= 0).all() for size in sizes)
    kernels = [size * np.sign(w) for size, w in zip(sizes, case.weights()[1:], strict=True)]
    case.check(rule.updates(case.params, feedback, case.batch), case.layerwise_deltas(kernels))


def test_brsf_sends_the_error_through_signs_times_magnitudes_drawn_by_the_key_of_the_batch(case):
    drawn = case.kernels(magnitudes()(case.network, case.batch.key, case.params))
    kernels = [np.abs(m) * np.sign(w) for m, w in zip(drawn, case.weights()[1:], strict=True)]
    updates = brsf(case.network, LOSS, init_feedback=magnitudes()).updates(case.params, (), case.batch)
    case.check(updates, case.layerwise_deltas(kernels))


def test_direct_kolen_pollack_feedback_learns_like_a_readout_of_each_layer(case):
    rule = direct_kolen_pollack(case.network, LOSS, init_feedback=direct_zeros)
    zeros = case.feedback(rule)
    assert {name: b.shape for name, b in zeros.items()} == {
        name: (*h.stack, 4, *h.shape) for name, h in case.network.hidden_shapes.items()
    }
    assert not any(np.any(b) for b in zeros.values())
    feedback = case.feedback(dfa(case.network, LOSS, init_feedback=direct()))
    updates = rule.updates(case.params, feedback, case.batch)
    case.check(updates, case.direct_deltas(case.hiddens(feedback), case.error))
    learned = case.hiddens(rule.learn(case.params, feedback, case.batch, updates))
    assert_all_close(learned, [case.error.T @ h for h in case.inputs[1:]])


def test_kolen_pollack_feedback_takes_the_updates_of_the_weights(case):
    rule = kolen_pollack(case.network, LOSS, init_feedback=layerwise())
    feedback = case.feedback(rule)
    updates = rule.updates(case.params, feedback, case.batch)
    deltas = case.layerwise_deltas(case.kernels(feedback))
    case.check(updates, deltas)
    expected, _ = reference.updates(deltas, case.inputs)
    assert_all_close(case.kernels(rule.learn(case.params, feedback, case.batch, updates)), expected[1:])


def test_kolen_pollack_gap_shrinks_by_the_weight_decay_alone():
    network = make_network([9, 8], "tanh", True)
    rule = kolen_pollack(network, LOSS, init_feedback=layerwise())
    params, feedback = to_float64(rule.init(jax.random.key(2)))
    gaps = {name: b - network.kernels(params)[name] for name, b in feedback.items()}
    optimizer = optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1))
    state, feedback_state = optimizer.init(params), optimizer.init(feedback)
    for i in range(20):
        batch = random_batch(seed=i, dtype=np.float64)
        updates = rule.updates(params, feedback, batch)
        changes = rule.learn(params, feedback, batch, updates)
        changes, feedback_state = optimizer.update(changes, feedback_state, feedback)
        updates, state = optimizer.update(updates, state, params)
        params, feedback = optax.apply_updates(params, updates), optax.apply_updates(feedback, changes)
    for name, gap in gaps.items():
        final_gap = feedback[name] - network.kernels(params)[name]
        np.testing.assert_allclose(final_gap, (1 - 0.1 * 0.3) ** 20 * gap, rtol=1e-10, atol=1e-14)


def test_shallow_learning_trains_the_readout_alone(case):
    updates = shallow(case.network, LOSS).updates(case.params, (), case.batch)
    case.check(updates, [np.zeros_like(a) for a in case.preactivations[:-1]] + [case.error])


def test_frozen_blocks_train_the_first_layer_and_the_readout_by_backprop(case):
    if len(case.preactivations) == 2:
        with pytest.raises(BadOption, match=r"would be bp with one hidden layer.*its control is rule=shallow"):
            frozen_blocks(case.network, LOSS, train_norms=False)
        return
    updates = frozen_blocks(case.network, LOSS, train_norms=False).updates(case.params, (), case.batch)
    first, *blocks, readout = case.layerwise_deltas(case.weights()[1:])
    case.check(updates, [first, *map(np.zeros_like, blocks), readout])


def test_node_perturbation_reinforces_noise_by_the_change_of_the_loss():
    network = make_network([9, 8], "tanh", True)
    params, batch, sigma = to_float64(network.init(jax.random.key(1))), random_batch(dtype=np.float64), 0.05
    updates = node_perturbation(network, LOSS, sigma=sigma).updates(params, (), batch)

    weights, biases = reference.weights_and_biases(network, params)
    x, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    preactivations, inputs = reference.forward(weights, biases, x, "tanh")
    noise = [
        sigma * np.asarray(jax.random.normal(jax.random.fold_in(batch.key, i), h.shape, jnp.float64))
        for i, h in enumerate(inputs[1:])
    ]
    h = x
    for w, b, xi in zip(weights[:-1], biases[:-1], noise, strict=True):
        h = np.tanh(h @ w + b) + xi
    noisy_logits = h @ weights[-1] + biases[-1]
    change = 0.5 * ((noisy_logits - targets) ** 2).sum(1) - 0.5 * ((preactivations[-1] - targets) ** 2).sum(1)
    signals = [change[:, None] * xi / sigma**2 / len(x) for xi in noise]
    error = (preactivations[-1] - targets) / len(x)
    case = Case(network, params, batch, "tanh", preactivations, inputs, error)
    case.check(updates, [*reference.hidden_deltas(signals, preactivations, "tanh"), error])


def test_node_perturbation_estimates_the_gradient():
    network, sigma = make_network([6], "tanh", True), 1e-4
    params, batch = to_float64(network.init(jax.random.key(1))), random_batch(dtype=np.float64)
    rule = node_perturbation(network, LOSS, sigma=sigma)

    def estimate(key):
        return rule.updates(params, (), batch._replace(key=key))["stages_0"]["linear"]["kernel"]

    keys = jax.random.split(jax.random.key(3), 4000)
    estimates = np.asarray(jax.jit(jax.vmap(estimate))(keys))
    gradient = np.asarray(bp(network, LOSS).updates(params, (), batch)["stages_0"]["linear"]["kernel"])
    # Six standard errors of the mean of 4000 draws, entry by entry.
    assert np.all(np.abs(estimates.mean(0) - gradient) < 6 * estimates.std(0) / np.sqrt(len(keys)))


@pytest.mark.parametrize(
    ("loss", "error"),
    [
        (squared_error(output="linear", derivative="exact"), lambda y, t: y - t),
        (squared_error(output="sigmoid", derivative="exact"), lambda y, t: (y - t) * y * (1 - y)),
        (squared_error(output="sigmoid", derivative="straight_through"), lambda y, t: y - t),
        (squared_error(output="softmax", derivative="straight_through"), lambda y, t: y - t),
        (
            squared_error(output="softmax", derivative="exact"),
            lambda y, t: y * ((y - t) - ((y - t) * y).sum(1, keepdims=True)),
        ),
        (binary_cross_entropy(), lambda y, t: y - t),
        (cross_entropy(), lambda y, t: y - t),
    ],
    ids=[
        "linear",
        "sigmoid-exact",
        "sigmoid-straight-through",
        "softmax-straight-through",
        "softmax-exact",
        "binary",
        "categorical",
    ],
)
def test_error_at_the_logits_is_that_of_the_loss(loss, error):
    batch = random_batch(dtype=np.float64)
    logits = np.random.default_rng(3).normal(size=batch.targets.shape)
    outputs = np.asarray(loss.output_units(jnp.asarray(logits)))
    gradient = jax.grad(loss.value)(jnp.asarray(logits), batch.targets)
    expected = error(outputs, np.asarray(batch.targets)) / len(logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("derivative", ["exact", "straight_through"])
def test_squared_error_has_its_value_with_either_derivative(derivative):
    batch = random_batch(dtype=np.float64)
    logits = np.random.default_rng(3).normal(size=batch.targets.shape)
    outputs = reference.sigmoid(logits)
    expected = 0.5 * np.mean(((outputs - np.asarray(batch.targets)) ** 2).sum(1))
    loss = squared_error(output="sigmoid", derivative=derivative)
    np.testing.assert_allclose(loss.value(jnp.asarray(logits), batch.targets), expected, rtol=1e-12)
