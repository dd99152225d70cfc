"""Convolutional networks have the layers that their topology says, and a mistake in it is pointed at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.network import pick
from fa_jax.networks.cnn import Convolution, cnn, parse
from fa_jax.rules.bp import bp
from tests.conftest import random_batch
from tests.rules.test_images_against_reference import CNN

NOKLAND = "conv96x5p3-conv128x5p3-conv256x5p3-2048-2048"


def build(shape=(8, 8, 2), outputs=4, **options):
    return cnn(shape, outputs, **{**CNN, **options})


def test_the_paper_s_network_has_its_maps_and_its_ten_million_params():
    network = build((32, 32, 3), 10, topology=NOKLAND)
    assert [h.shape for h in network.hiddens.values()] == [(15, 15, 96), (7, 7, 128), (3, 3, 256), (2048,), (2048,)]
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(params)) == 10_071_562


def test_a_topology_is_read_layer_by_layer():
    assert parse("conv96x5p3-conv16x7vs2+conv8x1s2p4-300+20") == [
        [Convolution(96, 5, "SAME", 1, 3)],
        [Convolution(16, 7, "VALID", 2, 1), Convolution(8, 1, "SAME", 2, 4)],
        [300, 20],
    ]


def test_joined_layers_are_one_stage_and_compute_the_same():
    apart, joined = build(topology="conv8x3-conv6x3p2-50-20"), build(topology="conv8x3+conv6x3p2-50+20")
    params, x = apart.init(jax.random.key(0)), random_batch((8, 8, 2)).inputs
    merged = {f"stages_{i}": {f"layers_{j}": params[f"stages_{2 * i + j}"] for j in (0, 1)} for i in (0, 1)} | {
        "readout": params["readout"]
    }
    np.testing.assert_allclose(joined.apply(merged, x), apart.apply(params, x), rtol=1e-6)
    assert [h.shape for h in apart.hiddens.values()] == [(8, 8, 8), (4, 4, 6), (50,), (20,)]
    assert [h.shape for h in joined.hiddens.values()] == [(4, 4, 6), (20,)]


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("conv96y5", "cannot be read at character 7, 'y5'"),
        ("conv8x3-conv8xp2", "cannot be read at character 15, 'p2'"),
        ("conv8x3-conv", "cannot be read at character 13, 'the end'"),
        ("con8x3", "cannot be read at character 1, 'con8x3'"),
        ("conv96x5q3", "cannot be read at character 9, 'q3'"),
        ("conv8x3--10", "cannot be read at character 9, 'the end'"),
        ("", "cannot be read at character 1, 'the end'"),
        ("conv8x3p2-10-conv8x3", "conv8x3 at character 14 is a convolution after a dense layer"),
        ("conv8x3-conv12x3", "architecture.norm=group needs channels in groups of 8; got 12"),
        ("conv0x3", "conv0x3 at character 1 has a size of 0"),
        ("conv8x3p3-conv8x5v", "the image is 3x3 at layer 1, too small for its window of 5x5"),
        ("conv8x3p2-conv8x3p2-conv8x3p2-conv8x3p2", "the image is 1x1 at layer 3, too small for its pooling of 2x2"),
    ],
)
def test_a_topology_that_cannot_be_is_refused_where_it_goes_wrong(topology, message):
    with pytest.raises(BadOption, match=r"architecture\.topology") as caught:
        build(topology=topology, norm="group")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("topology", ["conv3x3s2p2", "conv3x5vp2", "conv3x1s3p2", "conv3x4s2", "conv3x4vs3p3"])
def test_the_sizes_foreseen_are_those_that_come_out(topology):
    """A window as large as the last image fits, and one larger does not."""
    (hidden,) = build((13, 13, 1), topology=topology).hiddens.values()
    height = hidden.shape[0]
    build((13, 13, 1), topology=f"{topology}-conv2x{height}v")
    with pytest.raises(BadOption, match=f"the image is {height}x{height} at layer 1"):
        build((13, 13, 1), topology=f"{topology}-conv2x{height + 1}v")


def test_vectors_are_no_images():
    with pytest.raises(BadOption, match="a convolution needs images; this task has inputs of shape"):
        build((30,))


def test_untied_weights_see_the_same_windows_with_weights_of_their_own():
    tied, untied = build(topology="conv3x3"), build(topology="conv3x3", shared_weights=False)
    params, own = tied.init(jax.random.key(0)), untied.init(jax.random.key(0))
    kernel = params["stages_0"]["linear"]["kernel"]
    assert own["stages_0"]["linear"]["kernel"].shape == (8, 8, 18, 3)
    # Flax's local convolution takes the channels of a window before its places.
    same = jnp.broadcast_to(kernel.transpose(2, 0, 1, 3).reshape(18, 3), (8, 8, 18, 3))
    bias = jnp.broadcast_to(params["stages_0"]["linear"]["bias"], (8, 8, 3))
    own = {"stages_0": {"linear": {"kernel": same, "bias": bias}}, "readout": params["readout"]}
    x = random_batch((8, 8, 2)).inputs
    np.testing.assert_allclose(untied.apply(own, x), tied.apply(params, x), rtol=1e-4, atol=1e-5)


def test_both_kinds_of_weights_start_with_the_same_spread():
    for shared in (True, False):
        network = build((8, 8, 40), topology="conv50x3", shared_weights=shared)
        kernel = network.init(jax.random.key(0))["stages_0"]["linear"]["kernel"]
        np.testing.assert_allclose(np.std(kernel), 1.2 / np.sqrt(360), rtol=0.05)
        assert network.kernels["stages_0/linear"][2:] == (360, 450)


def test_pooling_norms_and_dropout_are_where_they_belong():
    x = random_batch((8, 8, 2)).inputs
    averaged = build(topology="conv8x3p2", pooling="average", activation="linear")
    params = averaged.init(jax.random.key(0))
    _, hiddens = averaged.forward(params, x)
    whole = build(topology="conv8x3", activation="linear")
    _, unpooled = whole.forward({**whole.init(jax.random.key(0)), "stages_0": params["stages_0"]}, x)
    expected = np.asarray(unpooled["stages_0/hidden"]).reshape(len(x), 4, 2, 4, 2, 8).mean((2, 4))
    np.testing.assert_allclose(hiddens["stages_0/hidden"], expected, rtol=1e-5, atol=1e-6)

    normed = build(topology="conv8x3", norm="layer", activation="linear")
    _, hiddens = normed.forward(normed.init(jax.random.key(0)), x)
    flat = np.asarray(hiddens["stages_0/hidden"])
    np.testing.assert_allclose(flat.mean(-1), 0, atol=1e-5)
    dropped = build(topology="conv8x3-50", dropout=0.5, input_dropout=0.2)
    params = dropped.init(jax.random.key(0))
    _, hiddens = dropped.forward(params, x, key=jax.random.key(1))
    for h in hiddens.values():
        assert 0.4 < np.mean(np.asarray(h) == 0) < 0.6


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_norm_s_own_params_learn(norm):
    network = build(topology="conv8x3", norm=norm)
    updates = bp(network, cross_entropy().value).updates(network.init(jax.random.key(0)), (), random_batch((8, 8, 2)))
    (scale,) = pick(updates, "scale").values()
    assert np.abs(scale).max() > 0


def test_batch_norm_whitens_a_batch_in_training_and_by_running_statistics_in_evaluation():
    network = build(topology="conv8x3", norm="batch", activation="linear")
    params, batch = network.init(jax.random.key(0)), random_batch((8, 8, 2))
    plain = build(topology="conv8x3", activation="linear")
    _, before = plain.forward(
        {"stages_0": {"linear": params["stages_0"]["linear"]}, "readout": params["readout"]}, batch.inputs
    )
    a = np.asarray(before["stages_0/hidden"], np.float64)
    mean, var = a.mean((0, 1, 2)), a.var((0, 1, 2))
    _, trained = network.forward(params, batch.inputs, key=batch.key)
    np.testing.assert_allclose(trained["stages_0/hidden"], (a - mean) / np.sqrt(var + 1e-5), rtol=1e-3, atol=1e-4)

    followed = network.follow(network.follow(params, batch), batch)
    running_mean, running_var = 0.19 * mean, 0.81 + 0.19 * var
    np.testing.assert_allclose(*pick(followed, "mean").values(), running_mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(*pick(followed, "var").values(), running_var, rtol=1e-4)
    _, evaluated = network.forward(followed, batch.inputs)
    expected = (a - running_mean) / np.sqrt(running_var + 1e-5)
    np.testing.assert_allclose(evaluated["stages_0/hidden"], expected, rtol=1e-3, atol=1e-4)


def test_following_a_batch_moves_running_statistics_and_nothing_else():
    network = build(topology="conv8x3", norm="batch")
    params, batch = network.init(jax.random.key(0)), random_batch((8, 8, 2))
    followed = network.follow(params, batch)
    moved = jax.tree_util.tree_map_with_path(lambda path, a, b: (path[-1].key, bool(np.any(a != b))), params, followed)
    assert dict(jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, tuple))) == {
        "kernel": False,
        "bias": False,
        "scale": False,
        "mean": True,
        "var": True,
    }
    without = build(topology="conv8x3", norm="group")
    params = without.init(jax.random.key(0))
    assert without.follow(params, batch) is params
