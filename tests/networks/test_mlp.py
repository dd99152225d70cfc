"""The multilayer perceptron has the layers, initial values and shapes that its options state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.networks.mlp import mlp
from tests.conftest import MLP


def build(**options):
    return mlp((12,), 4, **{**MLP, "hidden": [9, 8], "dropout": 0.0, **options})


def test_layers_are_listed_in_the_order_of_the_forward_pass():
    network = build(hidden=list(range(20, 8, -1)))
    assert list(network.hidden_shapes) == [f"stages_{i}/hidden" for i in range(12)]
    assert [kernel.shape for kernel in network.kernel_shapes.values()] == [
        (a, b) for a, b in zip([12, *range(20, 8, -1)], [*range(20, 8, -1), 4], strict=True)
    ]


def test_deep_stack_of_equal_layers_is_scanned_but_for_the_first():
    network = build(hidden=[240] * 100)
    assert [(k.stack, k.shape) for k in network.kernel_shapes.values()] == [
        ((), (12, 240)),
        ((99,), (240, 240)),
        ((), (240, 4)),
    ]


def test_scanned_stack_equals_its_layers_one_by_one():
    network = build(hidden=[9] * 12)
    params = network.init(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    h = np.tanh(x @ params["stages_0"]["linear"]["kernel"] + params["stages_0"]["linear"]["bias"])
    stack = params["stages_1"]["linear"]
    for w, b in zip(stack["kernel"], stack["bias"], strict=True):
        h = np.tanh(h @ w + b)
    expected = h @ params["readout"]["kernel"] + params["readout"]["bias"]
    np.testing.assert_allclose(network.apply(params, jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


def test_layers_of_a_scanned_stack_start_from_different_weights():
    stack = build(hidden=[9] * 12).init(jax.random.key(0))["stages_1"]["linear"]["kernel"]
    assert len(np.unique(np.asarray(stack), axis=0)) == len(stack)


def test_initial_weights_and_biases_have_their_distribution_layer_by_layer():
    network = build(
        hidden=[300, 200],
        init=["normal", "uniform", "fan_uniform"],
        init_scale=[0.2, 0.01, 1.0],
        bias_init=["uniform", "normal", "constant"],
        bias_scale=[0.3, 0.2, 0.1],
    )
    params = network.init(jax.random.key(0))
    first, second, readout = network.kernels(params).values()
    assert abs(np.std(first) - 0.2) < 0.01
    assert 0.0099 < abs(np.asarray(second)).max() <= 0.01
    assert 0.99 * 200**-0.5 < abs(np.asarray(readout)).max() <= 200**-0.5
    uniform, normal = (np.asarray(params[f"stages_{i}"]["linear"]["bias"]) for i in range(2))
    assert 0.29 < abs(uniform).max() <= 0.3
    assert abs(np.std(normal) - 0.2) < 0.03
    assert (np.asarray(params["readout"]["bias"]) == np.float32(0.1)).all()


def test_removed_connections_are_zero():
    network = build(hidden=[300, 200], density=0.5)
    weights = network.kernels(network.init(jax.random.key(0)))
    assert abs(np.mean(np.asarray(weights["stages_1/linear"]) == 0) - 0.5) < 0.02


def test_biases_start_at_0():
    assert not np.any(build().init(jax.random.key(0))["readout"]["bias"])


def test_network_without_biases_has_kernels_alone():
    assert set(build(biases=False).init(jax.random.key(0))["readout"]) == {"kernel"}


def test_dropout_drops_its_fraction_only_with_a_key():
    network = build(hidden=[2000], activation="linear", dropout=0.3)
    params = network.init(jax.random.key(0))
    x = jnp.ones((4, 12))
    _, without_key = network.forward(params, x)
    _, with_key = network.forward(params, x, key=jax.random.key(1))
    assert np.all(np.asarray(without_key["stages_0/hidden"]) != 0)
    assert abs(np.mean(np.asarray(with_key["stages_0/hidden"]) == 0) - 0.3) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 20}, r"^hidden must be a list such as \[800,800\]; got 20"),
        ({"hidden": []}, r"^hidden must be a list of widths such as \[800,800\]; got \[\]"),
        ({"hidden": [20, 0]}, "^hidden must be an integer of at least 1; got 0"),
        ({"hidden": [2.5]}, "^hidden must be an integer of at least 1; got 2.5"),
        ({"activation": "tan"}, "^activation must be one of .* did you mean 'tanh'"),
        ({"init": "norml"}, "^init must be one of .* did you mean 'normal'"),
        ({"dropout": 1.0}, "^dropout must be a finite number at least 0 and below 1; got 1.0"),
        ({"dropout": [0.1]}, "^dropout must be one value or a list of 2"),
        ({"biases": "yes"}, "^biases must be true or false; got 'yes'"),
        (
            {"biases": False, "bias_scale": 0.1},
            "^biases must be true, unless bias_init=constant and bias_scale=null; got false and bias_init=constant and "
            "bias_scale=0.1",
        ),
        (
            {"biases": False, "bias_init": "normal"},
            "^biases must be true, .*; got false and bias_init=normal and bias_scale=null",
        ),
        ({"bias_init": "normal"}, "^bias_init must be constant without bias_scale, the size of the biases; got 'nor"),
        ({"bias_init": ["constant", "constant", "uniform"]}, "^bias_init must be constant without bias_scale"),
        ({"density": 0}, "^density must be a finite number above 0 and at most 1; got 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        build(**options)
