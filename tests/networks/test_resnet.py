"""Residual networks have the depth, shapes and shortcuts that their options state."""

import jax
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.resnet import resnet
from fa_jax.rules.backward import gradient
from fa_jax.rules.shallow import shallow
from tests.conftest import RESNET, filled, random_batch


def test_depth_counts_layers_without_shortcuts():
    for depth in (20, 56):
        network = resnet((32, 32, 3), 10, **{**RESNET, "depth": depth, "width": 16})
        assert sum("shortcut" not in name for name in network.kernel_shapes) == depth
        shapes = [h.shape for h in network.hidden_shapes.values()]
        assert len(shapes) == 1 + (depth - 2) // 2
        assert (shapes[0], shapes[-1]) == ((32, 32, 16), (8, 8, 64))


def test_dense_layers_are_above_the_average():
    network = resnet((8, 8, 3), 4, **{**RESNET, "dense": [6, 5]})
    assert [h.shape for h in network.hidden_shapes.values()][-2:] == [(6,), (5,)]
    params, batch = filled(jax.eval_shape(network.init, jax.random.key(0))), random_batch((8, 8, 3))
    logits, hiddens = jax.jit(network.forward)(params, batch.inputs)
    *_, block, first, second = hiddens.values()
    for inputs, outputs, name in ((block.mean((1, 2)), first, "stages_4"), (first, second, "stages_5")):
        kernel = params[name]["linear"]["kernel"]
        np.testing.assert_allclose(np.tanh(inputs @ kernel), outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second @ params["readout"]["linear"]["kernel"], logits, rtol=1e-5, atol=1e-6)


def test_no_gradient_passes_a_taught_layer():
    """Shallow learning teaches zeros at every sum; a gradient through a shortcut would reach the layers below."""
    network = resnet((8, 8, 3), 4, **RESNET)
    params, batch = filled(jax.eval_shape(network.init, jax.random.key(0))), random_batch((8, 8, 3))
    updates = jax.jit(shallow(network, cross_entropy().value).updates)(params, (), batch)
    assert not any(
        np.any(leaf) for name, tree in updates.items() if name != "readout" for leaf in jax.tree.leaves(tree)
    )
    true_gradient = jax.jit(lambda params: gradient(network, cross_entropy().value, params, batch))(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(true_gradient))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 21}, r"^depth must be 6 n \+ 2, such as 20 or 56; got 21"),
        ({"dense": 500}, r"^dense must be a list such as \[500,100\] or \[\]; got 500"),
        ({"dense": [0]}, "^dense must be an integer of at least 1; got 0"),
        ({"norm": "group", "width": 8, "dense": [12]}, "^dense must be a multiple of 8 with norm=group; got 12"),
        ({"depth": 2}, "^depth must be an integer of at least 8"),
        ({"norm": "group", "width": 12}, "^width must be a multiple of 8 with norm=group; got 12"),
        ({"normed_shortcuts": True}, "^normed_shortcuts must be null with norm=none; got True"),
        ({"norm": "layer", "normed_shortcuts": 1}, "^normed_shortcuts must be true or false; got 1"),
        ({"norm": "bach"}, "^norm must be one of none, layer, group, batch, batch_tensorflow; got 'bach'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        resnet((8, 8, 3), 4, **{**RESNET, **options})
