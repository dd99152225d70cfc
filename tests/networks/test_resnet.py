"""Residual networks have the depth, the shapes and the shortcuts that they are named for."""

import jax
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.network import gradient
from fa_jax.networks.resnet import resnet
from fa_jax.rules.shallow import shallow
from tests.conftest import random_batch
from tests.rules.test_images_against_reference import RESIDUAL


def test_depth_counts_the_layers_but_for_shortcuts():
    for depth in (20, 56):
        network = resnet((32, 32, 3), 10, **{**RESIDUAL, "depth": depth, "width": 16})
        assert sum("shortcut" not in name for name in network.kernels) == depth
        shapes = [h.shape for h in network.hiddens.values()]
        assert len(shapes) == 1 + (depth - 2) // 2
        assert (shapes[0], shapes[-1]) == ((32, 32, 16), (8, 8, 64))


def test_dense_layers_stand_above_the_average():
    network = resnet((8, 8, 3), 4, **{**RESIDUAL, "dense": [6, 5]})
    assert [h.shape for h in network.hiddens.values()][-2:] == [(6,), (5,)]
    params, batch = network.init(jax.random.key(0)), random_batch((8, 8, 3))
    logits, hiddens = network.forward(params, batch.inputs)
    *_, block, first, second = hiddens.values()
    for below, above, name in ((block.mean((1, 2)), first, "stages_4"), (first, second, "stages_5")):
        linear = params[name]["linear"]
        np.testing.assert_allclose(np.tanh(below @ linear["kernel"]), above, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second @ params["readout"]["linear"]["kernel"], logits, rtol=1e-5, atol=1e-6)


def test_nothing_leaks_past_a_taught_layer():
    """Shallow learning teaches zeros at every sum; a leak through a shortcut would show below."""
    network = resnet((8, 8, 3), 4, **RESIDUAL)
    params, batch = network.init(jax.random.key(0)), random_batch((8, 8, 3))
    updates = shallow(network, cross_entropy().value).updates(params, (), batch)
    assert not any(
        np.any(leaf) for name, tree in updates.items() if name != "readout" for leaf in jax.tree.leaves(tree)
    )
    truth = gradient(network, cross_entropy().value, params, batch)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(truth))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 21}, "architecture.depth must be 6 n \\+ 2, such as 20 or 56; got 21"),
        ({"dense": 500}, r"architecture.dense must be a list of widths such as \[500,100\], or \[\]; got 500"),
        ({"dense": [0]}, "architecture.dense must be an integer of at least 1; got 0"),
        ({"norm": "group", "width": 8, "dense": [12]}, r"got 12 from architecture.dense=\[12\]"),
        ({"depth": 2}, "architecture.depth must be an integer of at least 8"),
        (
            {"norm": "group", "width": 12},
            "architecture.norm=group needs channels in groups of 8; got 12 from architecture.width=12",
        ),
        ({"norm": "bach"}, "architecture.norm must be one of none, layer, group, batch, batch_tensorflow; got 'bach'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        resnet((8, 8, 3), 4, **{**RESIDUAL, **options})
