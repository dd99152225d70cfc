"""Local error signals: their gradients in numpy without autodiff, and the identities that no accuracy reveals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.networks.resnet import resnet
from fa_jax.networks.transformer import transformer
from fa_jax.rules.bp import bp
from fa_jax.rules.local_loss.losses import averaged, compared, similarity
from fa_jax.rules.local_loss.rule import local_loss
from tests.conftest import (
    CNN,
    MLP,
    RANDOM_WEIGHTS,
    RESNET,
    TRANSFORMER,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    random_batch,
    to_float64,
)
from tests.rules.images import convolve, input_signal, kernel_update
from tests.rules.reference import leaf

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value
BETA = 0.99
WEIGHTS = {"pred": (1, 0, 1), "sim": (0, 1, 1), "predsim": (1 - BETA, BETA, 1 - BETA), "mono_forward": (1, 0, 1)}
"""Of prediction, similarity and readout."""
KEEP = 0.6


def make(objective="predsim", hidden=(5, 4, 6), *, network=None, head_features=None, **options):
    network = network or mlp((7,), 3, hidden=list(hidden), **{"dropout": 0.0, **MLP, **options})
    rule = compiled(local_loss(network, LOSS, objective=objective, similarity_weight=None, head_features=head_features))
    params = rule.init(jax.random.key(0))[0]
    # Heads and readout start at zero, and norms at one: random numbers instead.
    drawn = [jax.random.normal(jax.random.key(i), p.shape) for i, p in enumerate(jax.tree.leaves(params))]
    params = jax.tree.unflatten(jax.tree.structure(params), [0.5 * p for p in drawn])
    return network, rule, to_float64(params)


def make_batch(size=6, **options):
    return random_batch(**{"inputs": (7,), "outputs": 3, "size": size, "dtype": np.float64, **options})


def softmax_error(logits, y):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True) - y) / len(y)


def correlations(x):
    """S, with the centred rows and their norms."""
    centred = x - x.mean(1, keepdims=True)
    r = np.sqrt((centred**2).sum(1, keepdims=True))
    z = centred / (1e-8 + r)
    return z @ z.T, z, centred, r


def similarity_delta(x, y):
    """The gradient of the mean of (S(x) - S(y))^2 with respect to x."""
    s, z, centred, r = correlations(x)
    g = 2 * (s - correlations(y)[0]) / len(x) ** 2
    dz = (g + g.T) @ z
    d = dz / (1e-8 + r) - centred * (dz * centred).sum(1, keepdims=True) / (r * (1e-8 + r) ** 2)
    return d - d.mean(1, keepdims=True)


def normalise(a, scale, bias):
    """Batch norm; returns its output, and the function that sends an error back to `a`, scale and bias."""
    centred, deviation = a - a.mean(0), np.sqrt(a.var(0) + 1e-5)
    x = centred / deviation

    def send_back(d):
        dx = d * scale
        return (dx - dx.mean(0) - x * (dx * x).mean(0)) / deviation, (d * x).sum(0), d.sum(0)

    return scale * x + bias, send_back


def train_stage_by_stage(params, batch, masks, objective, rate):
    """One step in the order of the authors' program: each stage steps, then hands on what it computed before.

    For dense stages of tanh units, with batch norm if the params have one. `masks` are those of the dropout.
    """
    of_prediction, of_similarity, of_readout = WEIGHTS[objective]
    new, y, g = jax.tree.map(np.array, params), np.asarray(batch.targets), np.asarray(batch.inputs)
    for i, mask in enumerate(masks):
        stage, heads = new[f"stages_{i}"], new.get(f"losses_{i}", {})
        a = g @ stage["linear"]["kernel"] + stage["linear"]["bias"]
        norm = stage.get("BatchNorm_0", {}).get("norm")
        x, send_back = (a, None) if norm is None else normalise(a, norm["scale"], norm["bias"])
        h = np.tanh(x)
        signal = np.zeros_like(h)
        if "predict" in heads or (objective == "mono_forward" and i == len(masks) - 1):
            part = heads.get("predict", new["readout"])
            error = of_prediction * softmax_error(h @ part["kernel"] + part.get("bias", 0), y)
            signal += error @ part["kernel"].T
            step(part, {"kernel": h.T @ error, **({"bias": error.sum(0)} if "bias" in part else {})}, rate)
        if "encode" in heads:
            delta = of_similarity * similarity_delta(h @ heads["encode"]["kernel"], y)
            signal += delta @ heads["encode"]["kernel"].T
            step(heads["encode"], {"kernel": h.T @ delta}, rate)
        delta = signal * (1 - h**2)
        if norm is not None:
            delta, d_scale, d_bias = send_back(delta)
            step(norm, {"scale": d_scale, "bias": d_bias}, rate)
        step(stage["linear"], {"kernel": g.T @ delta, "bias": delta.sum(0)}, rate)
        g = h * mask
    if objective != "mono_forward":
        error = of_readout * softmax_error(g @ new["readout"]["kernel"] + new["readout"]["bias"], y)
        step(new["readout"], {"kernel": g.T @ error, "bias": error.sum(0)}, rate)
    return new


def step(part, gradient, rate):
    assert set(gradient) <= set(part)
    for name, value in gradient.items():
        part[name] = part[name] - rate * value


def dropout_masks(network, params, batch):
    """The factor of each hidden unit, from the hidden layers of the network itself, which end after the dropout."""
    _, hiddens = network.forward(params, batch.inputs, key=batch.key)
    masks = [(np.asarray(h) != 0) / KEEP for h in hiddens.values()]
    assert all(0 < np.mean(mask == 0) < 1 for mask in masks)
    return masks


@pytest.mark.parametrize("objective", WEIGHTS)
def test_a_step_is_that_of_the_authors_program_which_steps_stage_by_stage(objective):
    _, rule, params = make(objective)
    batch = make_batch()
    updates = rule.updates(params, (), batch)
    expected = train_stage_by_stage(params, batch, [1, 1, 1], objective, 0.3)
    assert_trees_close(jax.tree.map(lambda p, u: p - 0.3 * u, params, updates), expected, rtol=1e-10, atol=1e-13)


def test_a_step_with_batch_norm_and_dropout():
    """The loss reads activations before the dropout, the next stage and the readout after it."""
    network, rule, params = make("predsim", dropout=1 - KEEP, norm="batch")
    batch = make_batch(size=9)
    updates = rule.updates(params, (), batch)
    expected = train_stage_by_stage(params, batch, dropout_masks(network, params, batch), "predsim", 1.0)
    assert_trees_close(jax.tree.map(lambda p, u: p - u, params, updates), expected, rtol=1e-9, atol=1e-12)
    # A bias before a batch norm has no effect.
    assert all(np.abs(updates[f"stages_{i}"]["linear"]["bias"]).max() < 1e-15 for i in range(3))


def deviation_delta(x, delta):
    """Sends an error back through the deviation of each channel over positions; returns the deviations too."""
    positions = x.reshape(len(x), -1, x.shape[-1])
    centred = positions - positions.mean(1, keepdims=True)
    deviation = np.sqrt((centred**2).sum(1) / (positions.shape[1] - 1))
    back = delta(deviation)[:, None] * centred / deviation[:, None] / (positions.shape[1] - 1)
    return back.reshape(x.shape)


def test_convolutional_stages_are_compared_by_the_deviations_of_channels_before_the_pooling():
    options = {**CNN, "topology": "conv5x3p2-4", "dropout": 0.0}
    network, rule, params = make("predsim", network=cnn((6, 6, 2), 3, **options), head_features=30)
    batch = make_batch(inputs=(6, 6, 2))
    updates = rule.updates(params, (), batch)
    x, y, heads = np.asarray(batch.inputs), np.asarray(batch.targets), params["losses_0"]
    linear = params["stages_0"]["linear"]
    kernel, bias, encoder = (
        np.asarray(linear["kernel"]),
        np.asarray(linear["bias"]),
        np.asarray(heads["encode"]["kernel"]),
    )
    h = np.tanh(convolve(x, kernel, bias, "SAME"))
    # 6 x 6 x 5 features become 2 x 3 x 5, by windows of 4 x 2 on a map with two rows of zeros above and below.
    padded = np.pad(h, ((0, 0), (2, 0), (0, 0), (0, 0)))
    flat = padded.reshape(6, 2, 4, 3, 2, 5).mean((2, 4)).reshape(6, 30)
    error = (1 - BETA) * softmax_error(flat @ heads["predict"]["kernel"] + heads["predict"]["bias"], y)
    signal = np.repeat(np.repeat((error @ heads["predict"]["kernel"].T).reshape(6, 2, 3, 5) / 8, 4, 1), 2, 2)[:, 2:]
    encoded = convolve(h, encoder, 0, "SAME")
    delta = deviation_delta(encoded, lambda deviation: BETA * similarity_delta(deviation, y))
    signal = signal + input_signal(delta, encoder, "SAME", h.shape)
    expected = {
        "stages_0/linear/kernel": kernel_update(x, signal * (1 - h**2), kernel, "SAME"),
        "losses_0/encode/kernel": kernel_update(h, delta, encoder, "SAME"),
        "losses_0/predict/kernel": flat.T @ error,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(leaf(updates, name), value, rtol=1e-9, atol=1e-13, err_msg=name)
    signals = rule.extras.signals(params, (), batch)
    np.testing.assert_allclose(signals["stages_0/hidden"], signal, rtol=1e-9, atol=1e-13)
    assert network.hidden_shapes["stages_0/hidden"].shape == (3, 3, 5)


def test_maps_of_several_rows_and_more_than_three_channels_are_compared_by_deviations():
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 4))
    np.testing.assert_allclose(compared(jnp.asarray(x)), x.std((1, 2), ddof=1), rtol=1e-5)
    for other in (x[:, :1], x[..., :3], x[:, 0, 0]):
        np.testing.assert_array_equal(compared(other), other.reshape(5, -1))


def test_similarity_is_the_correlation_of_examples():
    x = np.random.default_rng(0).normal(size=(5, 7))
    s = np.asarray(similarity(jnp.asarray(x)))
    np.testing.assert_allclose(s, np.corrcoef(x), rtol=1e-6)
    np.testing.assert_allclose(s, similarity(jnp.asarray(3 * x + 2)), rtol=1e-6)
    one_hot = np.asarray(similarity(jnp.eye(4)[jnp.array([0, 1, 1, 3])]))
    np.testing.assert_allclose(one_hot, np.where(np.array([0, 1, 1, 3])[:, None] == [0, 1, 1, 3], 1, -1 / 3), rtol=1e-6)


def test_an_example_of_equal_features_correlates_with_none_and_has_a_finite_gradient():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5))).at[1].set(0.0)
    assert not np.any(similarity(x)[1])
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: jnp.sum(similarity(x) ** 2)))(x)))
    maps = jnp.zeros((2, 3, 3, 4))
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: jnp.sum(compared(x))))(maps)))


def test_the_gradient_of_the_similarity_loss_has_no_mean_and_is_orthogonal_to_each_example():
    _, rule, params = make("sim", hidden=(5,))
    batch = make_batch()
    identity = {**params, "losses_0": {"encode": {"kernel": jnp.eye(5)}}}
    signal = np.asarray(rule.extras.signals(identity, (), batch)["stages_0/hidden"])
    _, hiddens = rule.extras.network.forward(params, batch.inputs)
    assert np.abs(signal).max() > 1e-3
    np.testing.assert_allclose(signal.sum(1), 0, atol=1e-15)
    # Orthogonal to the order of the epsilon in S, relative to the deviation of an example.
    h = np.asarray(hiddens["stages_0/hidden"])
    cosines = (signal * h).sum(1) / np.linalg.norm(signal, axis=1) / np.linalg.norm(h, axis=1)
    assert np.all(np.abs(cosines) < 2e-8 / np.linalg.norm(h - h.mean(1, keepdims=True), axis=1))


def test_predsim_is_the_weighted_sum_of_pred_and_sim():
    batch, updates = make_batch(), {}
    _, _, params = make("predsim")
    for objective in ("pred", "sim", "predsim"):
        updates[objective] = make(objective)[1].updates(params, (), batch)
    for i in range(3):
        parts = [updates[objective][f"stages_{i}"] for objective in ("pred", "sim", "predsim")]
        mixed = jax.tree.map(lambda p, s: (1 - BETA) * p + BETA * s, *parts[:2])
        assert_trees_close(parts[2], mixed, rtol=1e-9, atol=1e-15)
    assert_trees_equal(updates["pred"]["readout"], updates["sim"]["readout"])
    scaled = jax.tree.map(lambda u: (1 - BETA) * u, updates["pred"]["readout"])
    assert_trees_close(updates["predsim"]["readout"], scaled, rtol=1e-9, atol=1e-15)


def test_a_prediction_with_the_readout_of_the_network_trains_the_last_stage_by_backprop():
    network, rule, params = make("pred")
    params["losses_2"]["predict"] = params["readout"]
    batch = make_batch()
    updates = rule.updates(params, (), batch)
    gradient = bp(network, LOSS).updates({n: p for n, p in params.items() if "losses" not in n}, (), batch)
    for name in ("stages_2", "readout"):
        assert_trees_close(updates[name], gradient[name], rtol=1e-10, atol=1e-14)
    kernels = [tree["stages_1"]["linear"]["kernel"] for tree in (updates, gradient)]
    assert np.linalg.norm(kernels[0] - kernels[1]) > 0.1 * np.linalg.norm(kernels[1])


def test_predictions_and_readout_start_at_zero_so_that_only_similarity_moves_hidden_layers_at_first():
    network = mlp((7,), 3, hidden=[5, 4], dropout=0.0, **{**MLP, **RANDOM_WEIGHTS})
    batch = make_batch()
    for objective, moves in (("pred", False), ("sim", True), ("predsim", True), ("mono_forward", True)):
        rule = compiled(local_loss(network, LOSS, objective=objective, similarity_weight=None, head_features=None))
        params, feedback = rule.init(jax.random.key(0))
        assert np.any(params["readout"]["kernel"]) == (objective == "mono_forward")
        updates = rule.updates(params, feedback, batch)
        assert [bool(np.any(updates[f"stages_{i}"]["linear"]["kernel"])) for i in range(2)] == [moves, moves]
        assert np.any(updates["readout"]["kernel"])
        if objective == "pred":
            assert np.all(np.abs(params["losses_0"]["predict"]["bias"]) <= 5**-0.5)
            assert np.any(params["losses_0"]["predict"]["bias"])


def test_no_stage_depends_on_what_is_above_it():
    _, rule, params = make("predsim", dropout=0.4)
    batch = make_batch()
    others = {n: jax.tree.map(lambda p: p + 1, part) if n[-1] in "2t" else part for n, part in params.items()}
    updates, changed = (rule.updates(p, (), batch) for p in (params, others))
    below = ["stages_0", "stages_1", "losses_0", "losses_1"]
    assert_trees_equal({n: updates[n] for n in below}, {n: changed[n] for n in below})
    assert np.any(updates["stages_2"]["linear"]["kernel"] != changed["stages_2"]["linear"]["kernel"])


def test_the_dropout_of_a_stage_does_not_reach_its_own_update():
    (_, rule, params), (_, dropping, _) = make("predsim"), make("predsim", dropout=[0.0, 0.5, 0.0])
    batch = make_batch()
    updates, dropped = rule.updates(params, (), batch), dropping.updates(params, (), batch)
    assert_trees_equal(updates["stages_1"], dropped["stages_1"])
    assert np.any(updates["stages_2"]["linear"]["kernel"] != dropped["stages_2"]["linear"]["kernel"])


def test_prediction_losses_are_means_over_the_batch_and_similarity_losses_are_not():
    batch = make_batch()
    halves = [batch._replace(inputs=batch.inputs[rows], targets=batch.targets[rows]) for rows in (np.s_[:3], np.s_[3:])]
    for objective in ("pred", "sim"):
        _, rule, params = make(objective)
        whole = rule.updates(params, (), batch)["stages_0"]["linear"]["kernel"]
        mean = sum(rule.updates(params, (), half)["stages_0"]["linear"]["kernel"] for half in halves) / 2
        assert np.allclose(whole, mean, rtol=1e-10, atol=1e-14) == (objective == "pred")


def test_mono_forward_is_pred_without_biases_whose_readout_is_the_last_prediction():
    (_, pred, params), (network, mono, mono_params) = make("pred"), make("mono_forward")
    for i in range(3):
        part = mono_params[f"losses_{i}"]["predict"] if i < 2 else mono_params["readout"]
        params[f"stages_{i}"] = mono_params[f"stages_{i}"]
        params[f"losses_{i}"]["predict"] = {"kernel": part["kernel"], "bias": jnp.zeros(3)}
    batch = make_batch()
    updates, expected = mono.updates(mono_params, (), batch), pred.updates(params, (), batch)
    for i in range(3):
        assert_trees_close(updates[f"stages_{i}"], expected[f"stages_{i}"], rtol=1e-10, atol=1e-14)
    _, hiddens = network.forward({n: p for n, p in params.items() if "losses" not in n}, batch.inputs)
    scores = hiddens["stages_2/hidden"] @ mono_params["readout"]["kernel"]
    np.testing.assert_allclose(mono.predict(mono_params, batch.inputs), scores, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((32, 32, 128), (8, 8)),
        ((32, 32, 256), (16, 8)),
        ((16, 16, 256), (8, 4)),
        ((16, 16, 512), (8, 8)),
        ((8, 8, 512), (4, 4)),
        ((4, 4, 512), (2, 2)),
    ],
)
def test_predictions_of_feature_maps_average_over_the_windows_of_the_authors(shape, window):
    """VGG8b on images of 32 x 32, with 2048 features."""
    places = (1, shape[0] // window[0], shape[1] // window[1], shape[2])
    assert jax.eval_shape(lambda h: averaged(h, 2048), jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape == places


def test_tokens_are_refused():
    message = r"^is defined for vectors and feature maps; the activation of stages_0/layers_1/hidden has shape \[4, 4\]"
    with pytest.raises(BadOption, match=message):
        local_loss(
            transformer((4, 4, 1), 3, **TRANSFORMER), LOSS, objective="pred", similarity_weight=None, head_features=None
        )


@pytest.mark.slow
def test_a_residual_network_learns_by_the_losses_of_its_blocks():
    network = resnet((8, 8, 3), 3, **RESNET)
    rule = compiled(local_loss(network, LOSS, objective="predsim", similarity_weight=0.5, head_features=16))
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch((8, 8, 3), 3)
    above = {n: jax.tree.map(lambda p: p + 1, part) if n[-1] in "23t" else part for n, part in params.items()}
    updates, others = (rule.updates(p, feedback, batch) for p in (params, above))
    below = [f"{kind}_{i}" for kind in ("stages", "losses") for i in (0, 1)]
    assert_trees_equal({n: updates[n] for n in below}, {n: others[n] for n in below})
    assert all(np.any(leaf) for n in ("stages_1", "stages_2") for leaf in jax.tree.leaves(updates[n]))


def test_the_losses_of_the_stages_are_measured():
    _, rule, params = make("predsim")
    batch = make_batch()
    measured = rule.extras.measure.compute(params, (), batch)
    assert sorted(measured) == sorted(f"{kind}_loss_{i}" for kind in ("prediction", "similarity") for i in range(3))
    h = np.tanh(
        np.asarray(batch.inputs) @ params["stages_0"]["linear"]["kernel"] + params["stages_0"]["linear"]["bias"]
    )
    difference = (
        correlations(h @ params["losses_0"]["encode"]["kernel"])[0] - correlations(np.asarray(batch.targets))[0]
    )
    np.testing.assert_allclose(measured["similarity_loss_0"], np.mean(difference**2), rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "similarity"}, "objective must be one of pred, sim, predsim, mono_forward"),
        (
            {"objective": "pred", "similarity_weight": 0.5},
            "similarity_weight must be null with objective=pred; got 0.5",
        ),
        ({"similarity_weight": 1.0}, "similarity_weight must be a finite number above 0 and below 1; got 1.0"),
        ({"head_features": 9}, "head_features must be null where no prediction reads a feature map; got 9"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    network = mlp((7,), 3, hidden=[5], dropout=0.0, **MLP)
    valid = {"objective": "predsim", "similarity_weight": None, "head_features": None}
    with pytest.raises(BadOption, match=f"^{message}"):
        local_loss(network, LOSS, **{**valid, **options})


@pytest.mark.parametrize(
    ("network", "objective", "message"),
    [
        (cnn((8, 8, 2), 4, **CNN), "mono_forward", "objective must not be mono_forward on a network with feature maps"),
        (
            mlp((7,), 3, hidden=[5], dropout=0.1, **MLP),
            "mono_forward",
            "objective must not be mono_forward with dropout",
        ),
        (
            cnn((8, 8, 2), 4, **{**CNN, "hidden_position": "before_pooling"}),
            "pred",
            "reads activations before dropout and pooling in any case; leave hidden_position=after_pooling",
        ),
    ],
    ids=["feature maps", "dropout", "hidden_position"],
)
def test_networks_that_it_is_not_defined_on_are_refused(network, objective, message):
    with pytest.raises(BadOption, match=message):
        local_loss(network, LOSS, objective=objective, similarity_weight=None, head_features=None)


@pytest.mark.parametrize(
    ("objective", "features", "message"),
    [
        ("pred", 0, "head_features must be an integer of at least 1; got 0"),
        ("sim", 9, "head_features must be null where no prediction reads a feature map; got 9"),
    ],
)
def test_a_size_of_heads_that_is_not_used_is_refused(objective, features, message):
    network = cnn((8, 8, 2), 4, **CNN)
    with pytest.raises(BadOption, match=message):
        local_loss(network, LOSS, objective=objective, similarity_weight=None, head_features=features)
