"""`Network` is its Flax module: same values, every kind of derivative, layers in the order of the forward pass."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.core import Stream, stream
from fa_jax.losses import cross_entropy
from fa_jax.network import Network, parameter_count
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.backward import gradient, hidden_gradient
from tests.conftest import CNN, MLP, assert_trees_close, assert_trees_equal, filled, random_batch, to_float64
from tests.rules import reference

LOSS = cross_entropy().value
SMALL_CNN = {**CNN, "topology": "conv2x3p2-conv2x2v-3"}
NETWORKS = {
    "mlp": mlp((5,), 3, hidden=[4, 3], dropout=0.0, **MLP),
    "scanned mlp": mlp((3,), 3, hidden=[3] * 9, dropout=0.0, **MLP),
    "cnn": cnn((5, 5, 1), 3, **SMALL_CNN),
    "locally connected": cnn((5, 5, 1), 3, **{**SMALL_CNN, "shared_weights": False}),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def draw(network):
    """Params, a direction in their space, and a batch, in float64."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params, direction = to_float64(filled(shapes)), to_float64(filled(shapes, seed=1, scale=1.0))
    return params, direction, random_batch(network.input_shape, 3, size=4, dtype=np.float64)


def bare_apply(network, params, inputs):
    return network.module.apply({"params": params}, inputs)


def test_init_draws_from_the_stream_of_initial_params(network):
    key, inputs = jax.random.key(3), jnp.zeros((1, *network.input_shape))
    expected = network.module.init(stream(key, Stream.INIT), inputs)["params"]
    assert_trees_equal(network.init(key), expected)
    assert parameter_count(network, expected) == sum(p.size for p in jax.tree.leaves(expected))


def test_apply_equals_that_of_the_module(network):
    params, batch = network.init(jax.random.key(0)), random_batch(network.input_shape)
    np.testing.assert_array_equal(network.apply(params, batch.inputs), bare_apply(network, params, batch.inputs))


def test_forward_mode_matches_the_module(float64, network):
    def jvp(apply):
        return jax.jit(functools.partial(jax.jvp, apply))

    params, direction, batch = draw(network)
    inputs_direction = jax.random.normal(jax.random.key(2), batch.inputs.shape)
    for point, tangent in (
        ((params, batch.inputs), (direction, inputs_direction)),
        ((params, batch.inputs), (direction, jnp.zeros_like(batch.inputs))),
    ):
        value, derivative = jvp(network.apply)(point, tangent)
        expected_value, expected = jvp(functools.partial(bare_apply, network))(point, tangent)
        np.testing.assert_allclose(value, expected_value, rtol=1e-12)
        np.testing.assert_allclose(derivative, expected, rtol=1e-10, atol=1e-13)


def test_forward_over_reverse_mode_matches_the_module(float64, network):
    params, direction, batch = draw(network)

    def hessian_product(apply):
        def loss_gradient(params):
            return jax.grad(lambda p: LOSS(apply(p, batch.inputs), batch.targets))(params)

        return jax.jit(lambda p, d: jax.jvp(loss_gradient, (p,), (d,))[1])(params, direction)

    product, expected = (hessian_product(f) for f in (network.apply, functools.partial(bare_apply, network)))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(expected))
    assert_trees_close(product, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_hessian_matches_the_module(float64, name):
    network = NETWORKS[name]
    params, _, batch = draw(network)

    def hessian(apply):
        def value(readout):
            return LOSS(apply({**params, "readout": readout}, batch.inputs), batch.targets)

        return jax.jit(jax.hessian(value))(params["readout"])

    computed, expected = (hessian(f) for f in (network.apply, functools.partial(bare_apply, network)))
    assert_trees_close(computed, expected, rtol=1e-9, atol=1e-12)


def test_gradient_with_respect_to_params_and_inputs_matches_the_module(float64, network):
    params, _, batch = draw(network)

    def gradients(apply):
        gradient_of = jax.grad(lambda p, x: LOSS(apply(p, x), batch.targets), argnums=(0, 1))
        return jax.jit(gradient_of)(params, batch.inputs)

    computed, expected = (gradients(f) for f in (network.apply, functools.partial(bare_apply, network)))
    assert_trees_close(computed, expected, rtol=1e-10, atol=1e-14)
    by_network = jax.jit(lambda params: gradient(network, LOSS, params, batch))(params)
    assert_trees_close(by_network, expected[0], rtol=1e-10, atol=1e-14)


def test_hidden_gradient_is_the_chain_rule(float64):
    network = NETWORKS["mlp"]
    params, _, batch = draw(network)
    weights, biases = reference.weights_and_biases(network, params)
    preactivations, _ = reference.forward(weights, biases, np.asarray(batch.inputs), "tanh")
    error = np.asarray(jax.grad(LOSS)(jnp.asarray(preactivations[-1]), batch.targets))
    backward = [w.T for w in weights[1:]]
    deltas = reference.layerwise_deltas(backward, preactivations, error, "tanh")
    computed = reference.unstack(network.hidden_shapes, hidden_gradient(network, LOSS, params, batch))
    for signal, delta, w in zip(computed, deltas[1:], backward, strict=True):
        np.testing.assert_allclose(signal, delta @ w, rtol=1e-10, atol=1e-14)


def test_perturbations_are_added_to_hidden_activations(float64, network):
    params, _, batch = draw(network)
    zeros = network.hidden_zeros(batch.inputs)
    keys = iter(jax.random.split(jax.random.key(2), len(zeros)))
    perturbations = {name: 1e-6 * jax.random.normal(next(keys), zero.shape) for name, zero in zeros.items()}

    def value(perturbations):
        return LOSS(network.apply(params, batch.inputs, perturbations=perturbations), batch.targets)

    _, hiddens = network.forward(params, batch.inputs)
    _, perturbed = network.forward(params, batch.inputs, perturbations=perturbations)
    first = next(iter(network.hidden_shapes))
    np.testing.assert_allclose(perturbed[first] - hiddens[first], perturbations[first], rtol=1e-6, atol=1e-15)
    gradients = hidden_gradient(network, LOSS, params, batch)
    change = sum(jnp.vdot(gradients[name], perturbations[name]) for name in zeros)
    np.testing.assert_allclose(value(perturbations) - value(zeros), change, rtol=1e-3)


def test_a_state_is_what_the_layers_above_receive_and_no_more(float64, network):
    params, _, batch = draw(network)
    logits, hiddens = network.forward(params, batch.inputs)
    same_logits, predictions = network.forward(params, batch.inputs, states=hiddens)
    np.testing.assert_array_equal(same_logits, logits)
    assert_trees_equal(predictions, hiddens)
    *_, last = network.hidden_shapes
    others = {**hiddens, last: hiddens[last] + 1.0}
    other_logits, predictions = network.forward(params, batch.inputs, states=others)
    # Of a scanned stack, each layer but the first is predicted from the state of the one below.
    unchanged = (lambda h: h[:1]) if network.hidden_shapes[last].stack else lambda h: h
    np.testing.assert_array_equal(unchanged(predictions[last]), unchanged(hiddens[last]))
    assert np.all(np.abs(other_logits - logits) > 1e-6)
    gradients = jax.grad(lambda p: LOSS(network.apply(p, batch.inputs, states=hiddens), batch.targets))(params)
    assert [name for name, kernel in network.kernels(gradients).items() if np.any(kernel)] == [
        list(network.kernel_shapes)[-1]
    ]


def test_layers_are_listed_in_the_order_of_the_forward_pass_although_names_sort_otherwise():
    class Named(nn.Module):
        @nn.compact
        def __call__(self, x):
            for name in ("middle", "first", "zero"):
                x = nn.Dense(4, name=name)(x)
            return nn.Dense(3, name="a_readout")(x)

    network = Network(Named(), (5,))
    order = ["middle", "first", "zero", "a_readout"]
    assert list(network.kernel_shapes) == order
    params = jax.jit(network.init)(jax.random.key(0))
    assert list(params) == sorted(order)
    assert list(network.kernels(params)) == order
    deep = mlp((5,), 3, hidden=list(range(20, 8, -1)), dropout=0.0, **MLP)
    hiddens = jax.eval_shape(deep.hidden_zeros, jnp.ones((2, 5)))
    assert list(hiddens) != list(deep.hidden_shapes)
    assert [h.shape for h in deep.hiddens_in_order(hiddens)] == [(2, width) for width in range(20, 8, -1)]
