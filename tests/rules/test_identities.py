"""Identities between rules, and between a rule and its signals; bit for bit where the mathematics allows it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.cli.groups import choices
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.networks.recurrent import recurrent
from fa_jax.networks.residual_mlp import residual_mlp
from fa_jax.primitives import Hidden
from fa_jax.rules.backward import gradient
from fa_jax.rules.bp import bp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.ifa import ifa
from fa_jax.rules.node_perturbation import node_perturbation
from fa_jax.rules.shallow import shallow
from tests.conftest import (
    CNN,
    MLP,
    RECURRENT,
    RESIDUAL_MLP,
    SECOND_PASS,
    SETTLING,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    compiled_rule,
    direct,
    filled,
    first_layer,
    initial_state,
    layerwise,
    random_batch,
    to_float64,
)
from tests.rules import reference

LOSS = cross_entropy().value
DENSE = {"distribution": "uniform", "scale": 0.5, "density": 1.0}
FA = functools.partial(fa, init_feedback=layerwise(**DENSE))
DFA = functools.partial(dfa, init_feedback=direct(**DENSE))
IFA = functools.partial(ifa, init_feedback=first_layer(**DENSE))
COPY = {"distribution": "weights", "scale": 1.0, "density": 1.0}


class Convolutional(nn.Module):
    """A small CNN that does not use fa_jax."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), padding="VALID")(x))
        x = nn.relu(nn.Dense(8)(x.reshape(x.shape[0], -1)))
        return nn.Dense(4)(x)


class Scanned(nn.Module):
    """Equal layers under an `nn.scan` of the user's own."""

    @nn.compact
    def __call__(self, x):
        layer = nn.scan(lambda dense, h, _: (jnp.tanh(dense(h)), None), {"params": 0}, split_rngs={"params": True})
        h, _ = layer(nn.Dense(12), x, jnp.zeros(5))
        return nn.Dense(4)(h)


def make_mlp(*hidden, **options):
    return mlp((12,), 4, hidden=list(hidden), **{"dropout": 0.0, **MLP, **options})


NETWORKS = {
    "mlp": make_mlp(9, 8),
    "deep mlp": make_mlp(*[6] * 12),
    "convolutional": Network(Convolutional(), (8, 8, 1)),
    "scanned": Network(Scanned(), (12,)),
}


def noise(init):
    """Random numbers in the shapes of an initial state."""
    return filled(jax.eval_shape(init, jax.random.key(0)))


def bare_gradient(network, params, batch):
    """The gradient of the Flax module, without any code of fa_jax."""
    return jax.jit(jax.grad(lambda p: LOSS(network.module.apply({"params": p}, batch.inputs), batch.targets)))(params)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))
def test_fa_with_the_weights_as_feedback_is_backprop(float64, network):
    params, batch = to_float64(noise(network.init)), random_batch(network.input_shape, dtype=np.float64)
    feedback = {name: network.kernels(params)[name] for name in network.crossed_kernels}
    updates = jax.jit(FA(network, LOSS).updates)(params, feedback, batch)
    assert_trees_close(updates, bare_gradient(network, params, batch), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))
def test_fa_with_other_feedback_is_not_backprop_below_the_readout(float64, network):
    params, batch = to_float64(noise(network.init)), random_batch(network.input_shape, dtype=np.float64)
    rule = FA(network, LOSS)
    updates = jax.jit(rule.updates)(params, to_float64(noise(rule.init)[1]), batch)
    gradients = network.kernels(bare_gradient(network, params, batch))
    *hidden, readout = ((name, np.asarray(kernel)) for name, kernel in network.kernels(updates).items())
    for name, update in hidden:
        assert np.linalg.norm(update - gradients[name]) > 0.1 * np.linalg.norm(gradients[name]), name
    np.testing.assert_allclose(readout[1], gradients[readout[0]], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))
def test_backprop_is_the_gradient_of_the_bare_module(float64, network):
    params, batch = to_float64(noise(network.init)), random_batch(network.input_shape, dtype=np.float64)
    updates = jax.jit(bp(network, LOSS).updates)(params, (), batch)
    assert_trees_close(updates, bare_gradient(network, params, batch), rtol=1e-10, atol=1e-14)


def test_fa_with_a_copy_of_the_weights_drawn_as_feedback_is_backprop():
    network, batch = make_mlp(9, 8), random_batch()
    rule, backprop = compiled(fa(network, LOSS, init_feedback=layerwise(**COPY))), compiled(bp(network, LOSS))
    params, feedback = rule.init(jax.random.key(0))
    assert_trees_equal(rule.updates(params, feedback, batch), backprop.updates(params, (), batch))


def test_fa_dfa_and_ifa_are_equal_with_one_hidden_layer():
    network, batch = make_mlp(9), random_batch()
    rules = [compiled(factory(network, LOSS)) for factory in (FA, DFA, IFA)]
    fa_updates, *others = (rule.updates(*rule.init(jax.random.key(0)), batch) for rule in rules)
    for updates in others:
        assert_trees_close(updates, fa_updates, rtol=1e-6, atol=1e-8)


def test_fa_sends_the_error_of_a_convolution_through_the_transposed_convolution_with_feedback():
    """The signal at each input is the sum over the window of what its outputs send back through the feedback."""

    class OneConvolution(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(6, (3, 3), padding="VALID", name="conv")(x)

    network = Network(Convolutional(), (8, 8, 1))
    params, feedback = FA(network, LOSS).init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 4))
    one_layer, kernel = Network(OneConvolution(), (4, 4, 4)), feedback["Conv_1"]
    layer_params = {"conv": params["Conv_1"]}
    out, pullback = jax.vjp(lambda x: one_layer.apply(layer_params, x, backward_kernels={"conv": kernel}), x)
    cotangent = np.asarray(jax.random.normal(jax.random.key(2), out.shape))
    expected = np.zeros(x.shape)
    for i in range(3):
        for j in range(3):
            expected[:, i : i + 2, j : j + 2] += cotangent @ np.asarray(kernel)[i, j].T
    np.testing.assert_allclose(pullback(jnp.asarray(cotangent))[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_fa_trains_an_unmodified_cnn_better_than_its_readout_alone():
    network = Network(Convolutional(), (8, 8, 1))
    rule = fa(network, LOSS, init_feedback=layerwise(distribution="fan_uniform", scale=1.0, density=1.0))
    batch = random_batch(network.input_shape, size=64)
    params, feedback = rule.init(jax.random.key(0))

    def final_loss(trained_layers):
        def step(params, _):
            updates = rule.updates(params, feedback, batch)
            trained = {
                name: jax.tree.map(lambda p, u: p - 0.3 * u, params[name], updates[name]) for name in trained_layers
            }
            return {**params, **trained}, None

        final = jax.jit(lambda params: jax.lax.scan(step, params, None, 1000)[0])(params)
        return LOSS(network.apply(final, batch.inputs), batch.targets)

    assert final_loss(list(params)) < 0.5 * final_loss(["Dense_1"])


def test_dropout_is_equal_in_the_pass_that_computes_the_error_and_the_one_that_teaches():
    network, batch = make_mlp(9, 8, dropout=0.5), random_batch()
    rule = compiled(DFA(network, LOSS))
    params, feedback = noise(rule.init)
    updates = rule.updates(params, feedback, batch)["readout"]
    expected = jax.jit(lambda params, batch: gradient(network, LOSS, params, batch))(params, batch)["readout"]
    assert_trees_close(updates, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("factory", [DFA, IFA], ids=["dfa", "ifa"])
def test_dropout_multiplies_the_signals_too(factory):
    network, batch = make_mlp(9, 8, dropout=0.5, input_dropout=0.2), random_batch()
    rule = compiled(factory(network, LOSS))
    params, feedback = noise(rule.init)
    logits, hiddens = jax.jit(network.forward)(params, batch.inputs, key=batch.key)
    error = np.asarray(jax.grad(LOSS)(logits, batch.targets))
    first, second = map(np.asarray, hiddens.values())
    # Units that are kept count twice; the derivative of tanh is taken at their value before the dropout.
    derivatives = [2.0 * (h != 0) * (1 - (h / 2) ** 2) for h in (first, second)]
    matrices = [np.asarray(matrix) for matrix in feedback.values()]
    first_delta = (error @ matrices[0]) * derivatives[0]
    is_indirect = factory is IFA
    signal = first_delta @ params["stages_1"]["linear"]["kernel"] if is_indirect else error @ matrices[1]
    second_delta = signal * derivatives[1]
    updates = rule.updates(params, feedback, batch)
    assert 0 < np.mean(first == 0) < 1
    np.testing.assert_allclose(updates["stages_1"]["linear"]["kernel"], first.T @ second_delta, rtol=1e-4, atol=1e-6)
    for name, delta in (("stages_0", first_delta), ("stages_1", second_delta)):
        np.testing.assert_allclose(updates[name]["linear"]["bias"], delta.sum(0), rtol=1e-4, atol=1e-6)


def test_from_zero_weights_only_direct_feedback_reaches_every_layer():
    network, batch = make_mlp(9, 8, init_scale=0.0), random_batch()

    def signals_and_updates(rule):
        rule = compiled(rule)
        params, feedback = rule.init(jax.random.key(0))
        return feedback, rule.extras.signals(params, feedback, batch), rule.updates(params, feedback, batch)

    _, bp_signals, _ = signals_and_updates(bp(network, LOSS))
    assert not any(np.any(signal) for signal in bp_signals.values())
    _, fa_signals, _ = signals_and_updates(FA(network, LOSS))
    assert all(np.any(signal) for signal in fa_signals.values())
    feedback, dfa_signals, updates = signals_and_updates(DFA(network, LOSS))
    error = (1 / 4 - np.asarray(batch.targets)) / len(batch.inputs)
    for name, matrix in feedback.items():
        np.testing.assert_allclose(dfa_signals[name], error @ matrix, rtol=1e-5, atol=1e-7)
    assert [bool(np.any(kernel)) for kernel in network.kernels(updates).values()] == [True, False, False]
    assert all(np.any(updates[name]["linear"]["bias"]) for name in ("stages_0", "stages_1"))
    assert np.any(updates["readout"]["bias"])
    with pytest.raises(BadOption, match="cannot learn if stages_1/linear starts at zero"):
        IFA(network, LOSS)


RULES = sorted(choices("rule"))


@pytest.mark.parametrize(
    "hidden", [pytest.param((9, 8), id="unrolled"), pytest.param((6,) * 10, id="scanned", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", RULES)
def test_signals_explain_the_updates(float64, name, hidden):
    """The update of a hidden layer is `h_{i-1}^T (signal_i f'(a_i))`; other rules have signals of the same shapes."""
    network, rule = compiled_rule(name, hidden=hidden)
    if rule.extras.signals is None:
        pytest.skip("provides no signals")
    params, feedback = to_float64(initial_state(name, hidden=hidden))
    batch = random_batch(dtype=np.float64)
    signals = rule.extras.signals(params, feedback, batch)
    shapes = {layer: h.shape for layer, h in (rule.extras.network or network).hidden_zeros(batch.inputs).items()}
    assert {layer: signal.shape for layer, signal in signals.items()} == shapes
    assert all(np.all(np.isfinite(signal)) for signal in signals.values())
    if rule.extras.network is not None or name in SECOND_PASS:
        assert all(np.any(signal) for signal in signals.values())
        return
    if name in SETTLING:
        return
    weights, biases = reference.weights_and_biases(network, params)
    preactivations, inputs = reference.forward(weights, biases, np.asarray(batch.inputs), "tanh")
    deltas = reference.hidden_deltas(reference.unstack(network.hidden_shapes, signals), preactivations, "tanh")
    expected_weights, expected_biases = reference.updates(deltas, inputs[:-1])
    updated_weights, updated_biases = reference.weights_and_biases(network, rule.updates(params, feedback, batch))
    # Node perturbation divides rounding errors of the loss by the variance of its noise.
    largest = max(np.abs(w).max() for w in expected_weights)
    for computed, expected in ((updated_weights, expected_weights), (updated_biases, expected_biases)):
        for layer, expected_layer in zip(computed[:-1], expected, strict=True):
            np.testing.assert_allclose(layer, expected_layer, rtol=1e-9, atol=1e-11 * largest)


def test_ifa_refuses_normalised_layers():
    with pytest.raises(BadOption, match="is not defined for normalised layers; it needs norm=none"):
        IFA(make_mlp(9, 8, norm="layer"), LOSS)


def test_ifa_refuses_a_network_that_is_no_chain():
    class Marked(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(Hidden()(jnp.tanh(nn.Dense(5)(x))))

    with pytest.raises(BadOption, match=r"needs a network of stages, a fa_jax\.networks\.chain\.Chain; got Marked"):
        IFA(Network(Marked(), (12,)), LOSS)


def test_ifa_refuses_feedback_to_all_layers():
    with pytest.raises(BadOption, match="needs feedback to the first hidden layer alone, such as first_layer"):
        ifa(make_mlp(9, 8), LOSS, init_feedback=direct(**DENSE)).init(jax.random.key(0))


NORMED = {**CNN, "norm": "batch", "dropout": 0.3}


@pytest.mark.parametrize(
    "network",
    [
        make_mlp(9, 8, dropout=0.3),
        cnn((8, 8, 1), 4, **NORMED),
        recurrent((5, 3), 4, **RECURRENT),
        residual_mlp((12,), 4, **RESIDUAL_MLP),
    ],
    ids=["dropout", "batch norm", "recurrent", "residual"],
)
def test_shallow_learning_is_learning_from_signals_of_zero(float64, network):
    params, batch = to_float64(noise(network.init)), random_batch(network.input_shape, dtype=np.float64)
    updates = jax.jit(shallow(network, LOSS).updates)(params, (), batch)
    zeros = network.hidden_zeros(batch.inputs)
    of_zeros = jax.jit(lambda params, batch: gradient(network, LOSS, params, batch, signals=zeros))(params, batch)
    assert_trees_close(updates, of_zeros, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "factory",
    [
        lambda *arguments: DFA(*arguments).init(jax.random.key(0)),
        shallow,
        functools.partial(node_perturbation, sigma=0.1),
    ],
    ids=["dfa", "shallow", "node_perturbation"],
)
def test_rule_that_teaches_hidden_layers_refuses_a_network_that_marks_none(factory):
    with pytest.raises(BadOption, match="marks none"):
        factory(Network(Convolutional(), (8, 8, 1)), LOSS)


def test_subclass_of_dense_keeps_its_gradient():
    class Normalised(nn.Dense):
        """Divides the kernel by its norm."""

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
    updates = compiled(bp(network, LOSS)).updates(params, (), batch)
    assert_trees_close(updates, bare_gradient(network, params, batch), rtol=1e-5, atol=1e-8)


def test_layer_may_be_called_by_keyword():
    class Keyword(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(inputs=nn.Dense(5)(inputs=x))

    network, batch = Network(Keyword(), (12,)), random_batch()
    rule, backprop = compiled(fa(network, LOSS, init_feedback=layerwise(**COPY))), compiled(bp(network, LOSS))
    params, feedback = rule.init(jax.random.key(0))
    assert_trees_equal(rule.updates(params, feedback, batch), backprop.updates(params, (), batch))
