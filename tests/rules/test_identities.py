"""What the rules have to do with each other, bit for bit where the mathematics says so."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.network import Network, gradient
from fa_jax.networks.chain import Hidden
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.ifa import ifa
from fa_jax.rules.node_perturbation import node_perturbation
from fa_jax.rules.shallow import shallow
from tests.conftest import assert_trees_equal, random_batch
from tests.rules.test_contract import MLP

LOSS = cross_entropy().value
FEEDBACK = {"distribution": "uniform", "scale": 0.5, "kept": 1.0}


class Convolutional(nn.Module):
    """A small CNN that knows nothing of fa_jax."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), padding="VALID")(x))
        x = nn.relu(nn.Dense(8)(x.reshape(x.shape[0], -1)))
        return nn.Dense(4)(x)


class Scanned(nn.Module):
    """Equal layers scanned by hand, likewise."""

    @nn.compact
    def __call__(self, x):
        layer = nn.scan(
            lambda dense, h, _: (jnp.tanh(dense(h)), None), {"params": 0, "feedback": 0}, split_rngs={"params": True}
        )
        h, _ = layer(nn.Dense(12), x, jnp.zeros(5))
        return nn.Dense(4)(h)


def mlp_of(hidden):
    return mlp((12,), 4, hidden=hidden, dropout=0.0, **MLP)


@pytest.mark.parametrize(
    "network",
    [mlp_of([9, 8]), mlp_of([6] * 12), Network(Convolutional(), (8, 8, 1)), Network(Scanned(), (12,))],
    ids=["mlp", "deep", "convolutional", "scanned"],
)
def test_fa_with_the_weights_as_feedback_is_backprop(network):
    params = network.init(jax.random.key(0))
    batch = random_batch(network.input_shape)
    feedback = {name: network.weights(params)[name] for name in list(network.kernels)[1:]}
    rule = fa(network, LOSS, **FEEDBACK)
    assert_trees_equal(rule.updates(params, feedback, batch), bp(network, LOSS).updates(params, (), batch))


@pytest.mark.parametrize("network", [mlp_of([9, 8]), Network(Convolutional(), (8, 8, 1))], ids=["mlp", "convolutional"])
def test_backprop_is_the_gradient_of_the_bare_module(network):
    params, batch = network.init(jax.random.key(0)), random_batch(network.input_shape)
    truth = jax.grad(lambda p: LOSS(network.module.apply({"params": p}, batch.inputs), batch.targets))(params)
    for ours, theirs in zip(
        jax.tree.leaves(bp(network, LOSS).updates(params, (), batch)), jax.tree.leaves(truth), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_feedback_drawn_as_a_copy_of_the_weights_is_backprop():
    network, key, batch = mlp_of([9, 8]), jax.random.key(0), random_batch()
    rule = fa(network, LOSS, distribution="weights", scale=1.0, kept=1.0)
    params, feedback = rule.init(key)
    assert_trees_equal(rule.updates(params, feedback, batch), bp(network, LOSS).updates(params, (), batch))


def test_with_one_hidden_layer_fa_dfa_and_ifa_are_the_same_algorithm():
    network, batch = mlp_of([9]), random_batch()
    got = []
    for factory in (fa, dfa, ifa):
        rule = factory(network, LOSS, **FEEDBACK)
        got.append(rule.updates(*rule.init(jax.random.key(0)), batch))
    for other in got[1:]:
        for a, b in zip(jax.tree.leaves(got[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_fa_sends_a_convolution_s_error_through_the_transposed_convolution_with_b():
    """Written out with loops over the window: the error at each input is what its outputs send back through B."""
    network = Network(Convolutional(), (8, 8, 1))
    rule = fa(network, LOSS, **FEEDBACK)
    params, feedback = rule.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 4))
    alone = Network(nn.Conv(6, (3, 3), padding="VALID"), (4, 4, 4))

    class Wrapped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(6, (3, 3), padding="VALID", name="conv")(x)

    wrapped = Network(Wrapped(), alone.input_shape)
    b = feedback["Conv_1"]
    conv = {"conv": params["Conv_1"]}
    out, pull = jax.vjp(lambda x: wrapped.apply(conv, x, feedback={"conv": b}), x)
    cotangent = np.asarray(jax.random.normal(jax.random.key(2), out.shape))
    truth = np.zeros(x.shape)
    for i in range(3):
        for j in range(3):
            truth[:, i : i + 2, j : j + 2] += cotangent @ np.asarray(b)[i, j].T
    np.testing.assert_allclose(pull(jnp.asarray(cotangent))[0], truth, rtol=1e-5, atol=1e-5)


def test_an_unmodified_cnn_trains_under_fa_better_than_with_its_readout_alone():
    network = Network(Convolutional(), (8, 8, 1))
    rule = fa(network, LOSS, distribution="fan_uniform", scale=1.0, kept=1.0)
    batch = random_batch(network.input_shape, size=64)
    params, feedback = rule.init(jax.random.key(0))

    def train(params, chosen):
        def step(params, _):
            updates = rule.updates(params, feedback, batch)
            new = {name: jax.tree.map(lambda p, u: p - 0.3 * u, params[name], updates[name]) for name in chosen}
            return {**params, **new}, None

        return jax.lax.scan(step, params, None, 1000)[0]

    whole = LOSS(network.apply(jax.jit(lambda p: train(p, list(p)))(params), batch.inputs), batch.targets)
    readout = LOSS(network.apply(jax.jit(lambda p: train(p, ["Dense_1"]))(params), batch.inputs), batch.targets)
    assert whole < 0.5 * readout


def test_dropout_is_the_same_in_the_pass_that_finds_the_error_and_the_one_that_teaches():
    network = mlp((12,), 4, hidden=[9, 8], dropout=0.5, **MLP)
    rule = dfa(network, LOSS, **FEEDBACK)
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch()
    ours = rule.updates(params, feedback, batch)["readout"]
    theirs = gradient(network, LOSS, params, batch)["readout"]
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("factory", [dfa, ifa])
def test_dropout_multiplies_the_signals_too(factory):
    network = mlp((12,), 4, hidden=[9, 8], dropout=0.5, input_dropout=0.2, **MLP)
    rule, batch = factory(network, LOSS, **FEEDBACK), random_batch()
    params, feedback = rule.init(jax.random.key(0))
    logits, hiddens = network.forward(params, batch.inputs, key=batch.key)
    error = np.asarray(jax.grad(LOSS)(logits, batch.targets))
    first, second = map(np.asarray, hiddens.values())
    # Units that are kept count twice; the slope of tanh is taken at what they were before.
    slopes = [2.0 * (h != 0) * (1 - (h / 2) ** 2) for h in (first, second)]
    matrices = [np.asarray(matrix) for matrix in feedback.values()]
    below = (error @ matrices[0]) * slopes[0]
    up = below @ params["stages_1"]["linear"]["kernel"] if factory is ifa else error @ matrices[1]
    above = up * slopes[1]
    got = rule.updates(params, feedback, batch)
    assert 0 < np.mean(first == 0) < 1
    np.testing.assert_allclose(got["stages_1"]["linear"]["kernel"], first.T @ above, rtol=1e-4, atol=1e-6)
    for name, delta in (("stages_0", below), ("stages_1", above)):
        np.testing.assert_allclose(got[name]["linear"]["bias"], delta.sum(0), rtol=1e-4, atol=1e-6)


def test_from_zero_weights_direct_feedback_alone_has_signals_everywhere():
    network = mlp((12,), 4, hidden=[9, 8], dropout=0.0, **{**MLP, "init_scale": 0.0})
    batch = random_batch()

    def signals(rule):
        params, feedback = rule.init(jax.random.key(0))
        _, hiddens = network.forward(params, batch.inputs)
        nudged = network.nudge(params, jax.tree.map(jnp.zeros_like, hiddens))
        return feedback, rule.updates(params, feedback, batch), network.nudges(rule.updates(nudged, feedback, batch))

    _, _, by_bp = signals(bp(network, LOSS))
    assert not any(np.any(signal) for signal in by_bp.values())
    _, _, by_fa = signals(fa(network, LOSS, **FEEDBACK))
    assert all(np.any(signal) for signal in by_fa.values())
    feedback, updates, by_dfa = signals(dfa(network, LOSS, **FEEDBACK))
    error = (1 / 4 - np.asarray(batch.targets)) / len(batch.inputs)
    for name, matrix in feedback.items():
        np.testing.assert_allclose(by_dfa[name], error @ matrix, rtol=1e-5, atol=1e-7)
    kernels = network.weights(updates)
    assert [bool(np.any(kernel)) for kernel in kernels.values()] == [True, False, False]
    assert all(np.any(updates[name]["linear"]["bias"]) for name in ("stages_0", "stages_1"))
    assert np.any(updates["readout"]["bias"])
    with pytest.raises(BadOption, match="rule=ifa cannot learn where stages_1/linear starts at zero"):
        ifa(network, LOSS, **FEEDBACK)


def test_ifa_refuses_layers_that_are_normalised():
    with pytest.raises(BadOption, match="rule=ifa has no definition for normalised layers"):
        ifa(mlp((12,), 4, hidden=[9, 8], dropout=0.0, norm="layer", **MLP), LOSS, **FEEDBACK)


def test_a_rule_that_teaches_hidden_layers_refuses_a_network_that_marks_none():
    with pytest.raises(BadOption, match="marks none"):
        dfa(Network(Convolutional(), (8, 8, 1)), LOSS, **FEEDBACK)


@pytest.mark.parametrize("factory", [shallow, functools.partial(node_perturbation, sigma=0.1)])
def test_so_do_those_without_feedback(factory):
    with pytest.raises(BadOption, match="marks none"):
        factory(Network(Convolutional(), (8, 8, 1)), LOSS)


def test_a_layer_derived_from_dense_keeps_its_own_gradient():
    class Normalised(nn.Dense):
        """Makes other use of its kernel than `nn.Dense`: divided by its norm."""

        @nn.compact
        def __call__(self, inputs):
            kernel = self.param("kernel", nn.initializers.normal(), (inputs.shape[-1], self.features))
            return inputs @ (kernel / jnp.linalg.norm(kernel))

    class Wrapped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(Normalised(5)(inputs=x))

    network = Network(Wrapped(), (12,))
    params, batch = network.init(jax.random.key(0)), random_batch()
    truth = jax.grad(lambda p: LOSS(network.module.apply({"params": p}, batch.inputs), batch.targets))(params)
    ours = bp(network, LOSS).updates(params, (), batch)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


def test_a_layer_may_be_called_by_keyword():
    class Keyword(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(inputs=nn.Dense(5)(inputs=x))

    network = Network(Keyword(), (12,))
    rule = fa(network, LOSS, distribution="weights", scale=1.0, kept=1.0)
    params, feedback = rule.init(jax.random.key(0))
    assert_trees_equal(
        rule.updates(params, feedback, random_batch()), bp(network, LOSS).updates(params, (), random_batch())
    )


def test_ifa_refuses_a_network_that_is_no_chain():
    class Marked(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(Hidden()(jnp.tanh(nn.Dense(5)(x))))

    with pytest.raises(BadOption, match="rule=ifa needs an architecture that is a Chain"):
        ifa(Network(Marked(), (12,)), LOSS, **FEEDBACK)
