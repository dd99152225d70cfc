"""Local forward gradients: their equation in numpy without autodiff, and their independence of other stages."""

import jax
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.forward_gradient import activity_noise, activity_signals, exact
from fa_jax.rules.local_forward_gradient import local_forward_gradient
from tests.conftest import (
    CNN,
    MLP,
    RANDOM_WEIGHTS,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    random_batch,
    to_float64,
)

pytestmark = pytest.mark.usefixtures("float64")

LOSS = cross_entropy().value
OPTIONS = {"groups": 2, "noise": "normal", "draws": 1, "spare_silent": False}


def make(hidden=(4, 6), network=None, **options):
    network = network or mlp(
        (5,), 3, hidden=list(hidden), dropout=0.0, **{**MLP, **RANDOM_WEIGHTS, "activation": "relu"}
    )
    rule = compiled(local_forward_gradient(network, LOSS, **{**OPTIONS, **options}))
    return network, rule, to_float64(rule.init(jax.random.key(1))[0])


def make_batch(inputs=(5,)):
    return random_batch(inputs, 3, size=4, dtype=np.float64)


def softmax_error(logits, y):
    p = np.exp(logits)
    return (p / p.sum(1, keepdims=True) - np.asarray(y)) / len(y)


def test_updates_follow_the_equation():
    network, rule, params = make()
    batch = make_batch()
    noise = activity_noise(network, params, batch, batch.key, jax.random.normal, spare_silent=False)
    updates = rule.updates(params, (), batch)
    h = np.asarray(batch.inputs)
    for i, u in enumerate(noise.values()):
        linear, head = params[f"stages_{i}"]["linear"], params[f"heads_{i}"]
        below, h = h, np.maximum(h @ linear["kernel"] + linear["bias"], 0)
        error = softmax_error(h @ head["kernel"] + head["bias"], batch.targets)
        halves = np.split(np.arange(h.shape[1]), 2)
        products, delta = error @ head["kernel"].T * np.asarray(u), np.zeros_like(h)
        for half in halves:
            delta[:, half] = products[:, half].sum(1, keepdims=True) * np.asarray(u)[:, half] * (h[:, half] > 0)
        expected = {
            f"stages_{i}": {"linear": {"kernel": below.T @ delta, "bias": delta.sum(0)}},
            f"heads_{i}": {"kernel": h.T @ error, "bias": error.sum(0)},
        }
        assert_trees_close({name: updates[name] for name in expected}, expected, rtol=1e-10, atol=1e-14)
    error = softmax_error(h @ params["readout"]["kernel"] + params["readout"]["bias"], batch.targets)
    assert_trees_close(updates["readout"], {"kernel": h.T @ error, "bias": error.sum(0)}, rtol=1e-10, atol=1e-14)


def test_every_position_of_a_feature_map_has_noise_scored_by_itself():
    options = {**CNN, "topology": "conv4x3p2", "activation": "relu"}
    network, rule, params = make(network=cnn((4, 4, 1), 3, **options))
    batch = make_batch((4, 4, 1))
    noise = activity_noise(network, params, batch, batch.key, jax.random.normal, spare_silent=False)
    _, hiddens = network.forward({n: p for n, p in params.items() if "heads" not in n}, batch.inputs)
    h, u = (np.asarray(tree["stages_0/hidden"]) for tree in (hiddens, noise))
    head = params["heads_0"]
    error = softmax_error(h.mean((1, 2)) @ head["kernel"] + head["bias"], batch.targets)
    products = (error @ head["kernel"].T)[:, None, None] / 4 * u
    sums = np.repeat(products.reshape(4, 2, 2, 2, 2).sum(-1), 2, axis=-1)
    np.testing.assert_allclose(rule.extras.signals(params, (), batch)["stages_0/hidden"], sums * u, rtol=1e-10)


def local_gradients(rule, params, batch):
    """The gradients of the local losses with respect to the activations, for dense stages."""
    _, hiddens = rule.extras.network.forward(params, batch.inputs)
    gradients = {}
    for i, (name, h) in enumerate(hiddens.items()):
        kernel, bias = np.asarray(params[f"heads_{i}"]["kernel"]), np.asarray(params[f"heads_{i}"]["bias"])
        gradients[name] = softmax_error(np.asarray(h) @ kernel + bias, batch.targets) @ kernel.T
    return gradients


def test_one_group_for_each_unit_and_noise_of_signs_give_the_gradient_of_the_local_losses():
    _, rule, params = make(hidden=(4, 4), groups=4, noise="signs")
    batch = make_batch()
    expected = local_gradients(rule, params, batch)
    assert_trees_close(rule.extras.signals(params, (), batch), expected, rtol=1e-10, atol=1e-14)


def test_several_draws_come_closer_to_the_gradient_of_the_local_losses():
    batch = make_batch()
    _, rule, params = make(draws=4000)
    signals = rule.extras.signals(params, (), batch)
    for name, gradient in local_gradients(rule, params, batch).items():
        # The variance of one draw is at most twice the squared norm of the gradient of the group.
        assert np.linalg.norm(signals[name] - gradient) < 6 * np.linalg.norm(gradient) * np.sqrt(6 / 4000)


def test_one_stage_and_one_group_are_the_forward_gradient_of_a_network_with_that_head():
    network, rule, params = make(hidden=(4,), groups=1)
    batch = make_batch()
    (name,) = network.hidden_shapes
    with_head = {"stages_0": params["stages_0"], "readout": params["heads_0"]}
    noise = activity_noise(network, with_head, batch, batch.key, jax.random.normal, spare_silent=False)
    signals = activity_signals(network, LOSS, with_head, batch, noise, exact)
    assert_trees_close(rule.extras.signals(params, (), batch)[name], signals[name], rtol=1e-10, atol=1e-14)


def test_no_stage_depends_on_what_is_above_it():
    _, rule, params = make()
    batch = make_batch()
    above = ("stages_1", "heads_1", "readout")
    others = {n: jax.tree.map(lambda p: p + 1, part) if n in above else part for n, part in params.items()}
    updates, changed = (rule.updates(p, (), batch) for p in (params, others))
    for name in ("stages_0", "heads_0"):
        assert_trees_equal(updates[name], changed[name])
    assert np.any(updates["stages_1"]["linear"]["kernel"] != changed["stages_1"]["linear"]["kernel"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "groups must be an integer of at least 1; got 0"),
        ({"groups": 4}, "groups must divide the 6 channels of stages_1/hidden; got 4"),
        ({"noise": "uniform"}, "noise must be one of normal, signs"),
        ({"draws": 0}, "draws must be an integer of at least 1; got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(BadOption, match=f"^{message}"):
        make(**options)


def test_a_network_that_is_no_chain_is_refused():
    import flax.linen as nn

    with pytest.raises(BadOption, match="needs a network of stages"):
        make(network=Network(nn.Dense(3), (5,)))
