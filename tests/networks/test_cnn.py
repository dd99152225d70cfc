"""Convolutional networks have the layers of their topology, and a mistake in it is located."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.cnn import cnn
from fa_jax.networks.topology import Convolution, parse
from fa_jax.networks.variables import leaves_named
from fa_jax.rules.bp import bp
from tests.conftest import CNN, compiled, filled, random_batch

NOKLAND = "conv96x5p3-conv128x5p3-conv256x5p3-2048-2048"


def build(shape=(8, 8, 2), outputs=4, **options):
    return cnn(shape, outputs, **{**CNN, **options})


def noise(network):
    """Random params."""
    return filled(jax.eval_shape(network.init, jax.random.key(0)))


def forward(network, params, x, key=None):
    return jax.jit(network.forward)(params, x, key=key)


def test_network_of_the_paper_has_its_channels_and_its_ten_million_params():
    network = build((32, 32, 3), 10, topology=NOKLAND)
    shapes = [h.shape for h in network.hidden_shapes.values()]
    assert shapes == [(15, 15, 96), (7, 7, 128), (3, 3, 256), (2048,), (2048,)]
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(params)) == 10_071_562


@pytest.mark.parametrize(("topology", "stage"), [("conv8x3v", "readout"), ("conv8x3v-5", "stages_1")])
def test_layer_above_the_last_convolution_reads_averages_over_positions(topology, stage):
    network, x = build(topology=topology, average_positions=True), random_batch((8, 8, 2)).inputs
    params = noise(network)
    logits, hiddens = forward(network, params, x)
    averages = np.asarray(hiddens["stages_0/hidden"]).mean((1, 2))
    linear = params[stage]["linear"]
    expected = averages @ linear["kernel"] + linear["bias"]
    got = logits if stage == "readout" else np.arctanh(hiddens["stages_1/hidden"])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_averages_over_positions_are_refused_without_convolutions():
    with pytest.raises(BadOption, match=r"^average_positions must be false: the topology has no convolution$"):
        build(topology="20-10", average_positions=True)


def test_lenet_of_biotorch_for_cifar_has_its_params():
    network = build((32, 32, 3), 10, topology="conv32x3vp2-conv64x3vp2-conv128x3v-256", average_positions=True)
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(params)) == 128_842


def test_topology_is_parsed_layer_by_layer():
    assert parse("conv96x5p3-conv16x7vs2+conv8x1s2p4-300+20") == [
        [Convolution(96, 5, "SAME", 1, 3)],
        [Convolution(16, 7, "VALID", 2, 1), Convolution(8, 1, "SAME", 2, 4)],
        [300, 20],
    ]


def test_joined_layers_are_one_stage_and_compute_the_same():
    separate, joined = build(topology="conv8x3-conv6x3p2-50-20"), build(topology="conv8x3+conv6x3p2-50+20")
    params, x = noise(separate), random_batch((8, 8, 2)).inputs
    stages = {f"stages_{i}": {f"layers_{j}": params[f"stages_{2 * i + j}"] for j in (0, 1)} for i in (0, 1)}
    joined_params = {**stages, "readout": params["readout"]}
    logits = [forward(*pair, x)[0] for pair in ((joined, joined_params), (separate, params))]
    np.testing.assert_allclose(*logits, rtol=1e-6)
    assert [h.shape for h in separate.hidden_shapes.values()] == [(8, 8, 8), (4, 4, 6), (50,), (20,)]
    assert [h.shape for h in joined.hidden_shapes.values()] == [(4, 4, 6), (20,)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_stride": 3}, "^pool_stride must be null with topology=conv4x3-6, which pools nothing; got 3"),
        ({"pooling": "average"}, "^pooling must be null with topology=conv4x3-6, which pools nothing; got 'average'"),
        ({"topology": "6", "shared_weights": False}, "^shared_weights must be true: the topology has no convolution"),
    ],
)
def test_an_option_that_has_no_effect_is_refused(options, message):
    with pytest.raises(BadOption, match=message):
        cnn((8, 8, 2), 4, **{**CNN, "topology": "conv4x3-6", **options})


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("conv96y5", "character 7, 'y5', cannot be read"),
        ("conv8x3-conv8xp2", "character 15, 'p2', cannot be read"),
        ("conv8x3-conv", "character 13, 'the end', cannot be read"),
        ("con8x3", "character 1, 'con8x3', cannot be read"),
        ("conv96x5q3", "character 9, 'q3', cannot be read"),
        ("conv8x3--10", "character 9, 'the end', cannot be read"),
        ("", "character 1, 'the end', cannot be read"),
        ("conv8x3p2-10-conv8x3", "conv8x3 at character 14 is a convolution after a dense layer"),
        ("conv8x3-conv12x3", "must be a multiple of 8 with norm=group; got 12"),
        ("conv0x3", "conv0x3 at character 1 has a size of 0"),
        ("conv8x3p3-conv8x5v", "the image is 3x3 at layer 1, too small for its window of 5x5"),
        ("conv8x3p2-conv8x3p2-conv8x3p2-conv8x3p2", "the image is 1x1 at layer 3, too small for its pooling of 2x2"),
    ],
)
def test_wrong_topology_is_refused_with_the_position_of_the_mistake(topology, message):
    with pytest.raises(BadOption, match=r"^topology (?:cannot|must) be ") as caught:
        build(topology=topology, norm="group")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("topology", ["conv3x3s2p2", "conv3x5vp2", "conv3x1s3p2", "conv3x4s2", "conv3x4vs3p3"])
def test_checked_sizes_are_those_of_the_activations(topology):
    """A window as large as the last image fits, and a larger one does not."""
    (hidden,) = build((13, 13, 1), topology=topology).hidden_shapes.values()
    height = hidden.shape[0]
    build((13, 13, 1), topology=f"{topology}-conv2x{height}v")
    with pytest.raises(BadOption, match=f"the image is {height}x{height} at layer 1"):
        build((13, 13, 1), topology=f"{topology}-conv2x{height + 1}v")


def test_vectors_are_refused():
    with pytest.raises(BadOption, match=r"^needs images; the inputs of the task have shape \(30,\)"):
        build((30,))


def test_locally_connected_layer_with_equal_weights_is_a_convolution():
    shared, local = build(topology="conv3x3"), build(topology="conv3x3", shared_weights=False)
    params, local_params = noise(shared), noise(local)
    kernel, bias = params["stages_0"]["linear"]["kernel"], params["stages_0"]["linear"]["bias"]
    assert local_params["stages_0"]["linear"]["kernel"].shape == (8, 8, 18, 3)
    # Flax's local convolution has the channels of a window before its positions.
    equal_kernels = jnp.broadcast_to(kernel.transpose(2, 0, 1, 3).reshape(18, 3), (8, 8, 18, 3))
    equal_layer = {"kernel": equal_kernels, "bias": jnp.broadcast_to(bias, (8, 8, 3))}
    local_params = {"stages_0": {"linear": equal_layer}, "readout": params["readout"]}
    x = random_batch((8, 8, 2)).inputs
    logits = [forward(*pair, x)[0] for pair in ((local, local_params), (shared, params))]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_initial_weights_have_the_fan_in_of_the_window(shared):
    network = build((8, 8, 40), topology="conv50x3", shared_weights=shared)
    kernel = network.init(jax.random.key(0))["stages_0"]["linear"]["kernel"]
    np.testing.assert_allclose(np.std(kernel), 1.2 / np.sqrt(360), rtol=0.05)
    described = network.kernel_shapes["stages_0/linear"]
    assert (described.fan_in, described.fan_out) == (360, 450)


def test_pooling_averages_activations():
    x = random_batch((8, 8, 2)).inputs
    pooled = build(topology="conv8x3p2", pooling="average", activation="linear")
    params = noise(pooled)
    _, hiddens = forward(pooled, params, x)
    unpooled = build(topology="conv8x3", activation="linear")
    _, unpooled_hiddens = forward(unpooled, {**noise(unpooled), "stages_0": params["stages_0"]}, x)
    expected = np.asarray(unpooled_hiddens["stages_0/hidden"]).reshape(len(x), 4, 2, 4, 2, 8).mean((2, 4))
    np.testing.assert_allclose(hiddens["stages_0/hidden"], expected, rtol=1e-5, atol=1e-6)


def test_norm_is_before_the_activation_function():
    x = random_batch((8, 8, 2)).inputs
    network = build(topology="conv8x3", norm="layer", activation="linear")
    params = network.init(jax.random.key(0))
    _, hiddens = forward(network, params, x)
    normalised = np.asarray(hiddens["stages_0/hidden"])
    np.testing.assert_allclose(normalised.mean(-1), 0, atol=1e-5)
    _, hiddens = forward(build(topology="conv8x3", norm="layer", activation="tanh"), params, x)
    np.testing.assert_allclose(hiddens["stages_0/hidden"], np.tanh(normalised), rtol=1e-5, atol=1e-6)


def test_dropout_is_in_every_hidden_layer():
    network = build(topology="conv8x3-50", dropout=0.5, input_dropout=0.2)
    _, hiddens = forward(network, noise(network), random_batch((8, 8, 2)).inputs, jax.random.key(1))
    for h in hiddens.values():
        assert 0.4 < np.mean(np.asarray(h) == 0) < 0.6


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_params_of_a_norm_learn(norm):
    network = build(topology="conv8x3", norm=norm)
    rule = compiled(bp(network, cross_entropy().value))
    updates = rule.updates(network.init(jax.random.key(0)), (), random_batch((8, 8, 2)))
    (scale,) = leaves_named(updates, "scale").values()
    assert np.abs(scale).max() > 0


def test_batch_norm_uses_batch_statistics_in_training_and_running_ones_in_evaluation():
    network = build(topology="conv8x3", norm="batch", activation="linear")
    params, batch = network.init(jax.random.key(0)), random_batch((8, 8, 2))
    plain = build(topology="conv8x3", activation="linear")
    plain_params = {"stages_0": {"linear": params["stages_0"]["linear"]}, "readout": params["readout"]}
    _, preactivations = forward(plain, plain_params, batch.inputs)
    a = np.asarray(preactivations["stages_0/hidden"], np.float64)
    mean, var = a.mean((0, 1, 2)), a.var((0, 1, 2))
    _, hiddens = forward(network, params, batch.inputs, batch.key)
    expected = (a - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(hiddens["stages_0/hidden"], expected, rtol=1e-3, atol=1e-4)

    updated = network.update_statistics(network.update_statistics(params, batch), batch)
    running_mean, running_var = 0.19 * mean, 0.81 + 0.19 * var
    np.testing.assert_allclose(*leaves_named(updated, "mean").values(), running_mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(*leaves_named(updated, "var").values(), running_var, rtol=1e-4)
    _, hiddens = forward(network, updated, batch.inputs)
    expected = (a - running_mean) / np.sqrt(running_var + 1e-5)
    np.testing.assert_allclose(hiddens["stages_0/hidden"], expected, rtol=1e-3, atol=1e-4)


def test_update_statistics_changes_running_statistics_alone():
    network = build(topology="conv8x3", norm="batch")
    params, batch = network.init(jax.random.key(0)), random_batch((8, 8, 2))
    updated = network.update_statistics(params, batch)
    changed = jax.tree_util.tree_map_with_path(lambda path, a, b: (path[-1].key, bool(np.any(a != b))), params, updated)
    assert dict(jax.tree.leaves(changed, is_leaf=lambda x: isinstance(x, tuple))) == {
        "kernel": False,
        "bias": False,
        "scale": False,
        "mean": True,
        "var": True,
    }
    without = build(topology="conv8x3", norm="group")
    params = without.init(jax.random.key(0))
    assert without.update_statistics(params, batch) is params


def test_stage_with_its_hidden_layer_before_the_dropout_has_the_same_params_masks_and_output():
    network = build(topology="conv8x3+conv6x3p2-20", dropout=0.5)
    stages = [stage.with_hidden_before_dropout() for stage in network.module.stages]
    moved = Network(network.module.clone(stages=stages), network.input_shape)
    params, x, key = noise(network), jnp.ones((2, *network.input_shape)), jax.random.key(1)
    (logits, ended), (same_logits, hiddens) = (forward(n, params, x, key) for n in (network, moved))
    np.testing.assert_array_equal(logits, same_logits)
    assert list(hiddens) == list(ended)
    first, second = hiddens.values()
    assert first.shape == (2, *network.input_shape[:2], 6)
    dropped = np.asarray(list(ended.values())[1]) == 0
    assert 0 < dropped.mean() < 1
    assert np.all(np.asarray(second) != 0)
