"""Associated learning: gradients from the paper in numpy, what each local loss moves, the pipeline, predictions."""

import collections
import itertools
import threading

import flax.linen as nn
import hydra.utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from omegaconf import OmegaConf

from fa_jax.checks import BadOption
from fa_jax.cli.build import build
from fa_jax.core import Stream, stream
from fa_jax.losses import cross_entropy
from fa_jax.network import Network, count
from fa_jax.networks.mlp import mlp
from fa_jax.optimizers import at_rates
from fa_jax.rules.associated_learning import pipeline
from fa_jax.rules.associated_learning.pipeline import modelled, train_pipelined
from fa_jax.rules.associated_learning.rule import associated_learning
from fa_jax.training.compile import sizes
from tests.conftest import assert_trees_close, assert_trees_equal, random_batch
from tests.rules.test_contract import MLP

OPTIONS = {"width": 6, "bridge": [7], "label_rate": 2.0, "weight_decay": 0.0, "exit_stage": None}


def make(hidden=(9, 8, 5), *, activation="tanh", loss=None, **options):
    network = mlp((12,), 4, hidden=list(hidden), dropout=0.0, **{**MLP, "activation": activation})
    return network, associated_learning(network, (loss or cross_entropy()).value, **{**OPTIONS, **options})


def doubled(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def logistic(a):
    return 1 / (1 + np.exp(-a))


def of_dense(x, delta):
    return {"kernel": x.T @ delta, "bias": delta.sum(0)}


def apply_dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def reference(params, x, y):
    """The gradients of all local losses for dense tanh stages, by the chain rule within each stage."""
    expected, s, t = {}, x, y
    for i in range(sum(name.startswith("stages_") for name in params)):
        f, b = params[f"stages_{i}"]["linear"], params[f"bridges_{i}"]
        g, h = params[f"encoders_{i}"], params[f"decoders_{i}"]
        s_up, t_up = np.tanh(apply_dense(f, s)), logistic(apply_dense(g, t))
        inner = logistic(apply_dense(b["dense_0"], s_up))
        code = logistic(apply_dense(b["dense_1"], inner))
        d_code = 2 * (code - t_up) / code.size * code * (1 - code)
        d_inner = d_code @ b["dense_1"]["kernel"].T * inner * (1 - inner)
        d_stage = d_inner @ b["dense_0"]["kernel"].T * (1 - s_up**2)
        back = logistic(apply_dense(h, t_up))
        d_back = 2 * (back - t) / back.size * back * (1 - back)
        d_encoder = d_back @ h["kernel"].T * t_up * (1 - t_up)
        expected[f"stages_{i}"] = {"linear": of_dense(s, d_stage)}
        expected[f"bridges_{i}"] = {"dense_0": of_dense(s_up, d_inner), "dense_1": of_dense(inner, d_code)}
        expected[f"encoders_{i}"], expected[f"decoders_{i}"] = of_dense(t, d_encoder), of_dense(t_up, d_back)
        s, t = s_up, t_up
    return expected


def test_the_updates_are_the_gradients_of_the_local_losses_worked_out_by_hand(float64):
    _, rule = make()
    params, feedback = rule.init(jax.random.key(0))
    params = doubled(params)
    batch = random_batch(dtype=np.float64)
    expected = reference(params, np.asarray(batch.inputs), np.asarray(batch.targets))
    assert_trees_close(rule.updates(params, feedback, batch), expected, rtol=1e-10, atol=1e-14)


def test_each_local_loss_moves_its_own_functions_and_nothing_else():
    _, rule = make()
    params, _ = rule.init(jax.random.key(0))
    batch = random_batch()
    for which, moved in ((0, ("stages", "bridges")), (1, ("encoders", "decoders"))):
        for i in range(3):

            def one(p, which=which, i=i):
                return rule.network.call("losses", p, batch.inputs, batch.targets)[which][i]

            gradient = jax.grad(one)(params)
            for name, block in gradient.items():
                reached = name in {f"{kind}_{i}" for kind in moved}
                assert all(np.any(leaf) == reached for leaf in jax.tree.leaves(block)), (which, i, name)


@pytest.mark.parametrize(("devices", "decay"), [pytest.param(1, 0.0, marks=pytest.mark.slow), (2, 0.5), (4, 0.0)])
def test_the_pipeline_is_the_sequence(devices, decay):
    """On devices that work on different batches at once: no params are stale."""
    _, rule = make((9, 8, 5, 7), weight_decay=decay)
    before, feedback = rule.init(jax.random.key(0))
    data = [random_batch(seed=seed) for seed in range(50)]

    optimizer = at_rates(optax.adam(0.01), rule.rates, before)
    found, events = train_pipelined(rule.network, optimizer, before, data, jax.devices()[:devices])

    params, slots, update = before, optimizer.init(before), jax.jit(rule.updates)
    for batch in data:
        steps, slots = optimizer.update(update(params, feedback, batch), slots, params)
        params = optax.apply_updates(params, steps)
    assert_trees_close(found, params, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found["stages_2"]["linear"]["kernel"], before["stages_2"]["linear"]["kernel"], atol=1e-3)
    for device in range(devices):
        own = [event for event in events if event.device == device]
        assert [event.batch for event in own] == list(range(50))
        assert all(a.end <= b.begin for a, b in itertools.pairwise(own))
    for event in events:
        below = [other for other in events if (other.device, other.batch) == (event.device - 1, event.batch)]
        assert all(other.end <= event.begin for other in below)


def test_a_device_works_on_a_batch_while_the_next_one_works_on_the_batch_before(monkeypatch):
    _, rule = make()
    params, _ = rule.init(jax.random.key(0))
    calls, original, meeting = collections.Counter(), pipeline._Worker.step, threading.Barrier(2)

    def step(worker, *arrived):
        calls[worker.device] += 1
        if calls[worker.device] == {jax.devices()[0]: 2, jax.devices()[1]: 1}[worker.device]:
            meeting.wait(timeout=60)  # nobody else comes, if one waits for the other to have done its work
        return original(worker, *arrived)

    monkeypatch.setattr(pipeline._Worker, "step", step)
    data = [random_batch(seed=seed) for seed in range(3)]
    train_pipelined(rule.network, optax.sgd(0.1), params, data, jax.devices()[:2])
    assert calls == {jax.devices()[0]: 3, jax.devices()[1]: 3}


def test_a_pipeline_says_what_it_cannot_do():
    _, rule = make()
    params, _ = rule.init(jax.random.key(0))
    for devices in (0, 4):
        with pytest.raises(BadOption, match=f"1 device to as many as stages, 3; got {devices}"):
            train_pipelined(rule.network, optax.sgd(0.1), params, [], jax.devices()[:devices])
    for other in (rule, make()[0]):
        with pytest.raises(BadOption, match="there must be the network of an associated learning"):
            train_pipelined(other, optax.sgd(0.1), params, [], jax.devices()[:1])
    for options, message in (
        ({"norm": "batch"}, "running statistics"),
        ({"dropout": 0.5}, "architecture.dropout must"),
    ):
        network = mlp((12,), 4, hidden=[9, 8], **{"dropout": 0.0, **MLP, **options})
        other = associated_learning(network, cross_entropy().value, **OPTIONS)
        with pytest.raises(BadOption, match=message):
            train_pipelined(other.network, optax.sgd(0.1), other.init(jax.random.key(0))[0], [], jax.devices()[:2])
    batch = random_batch(inputs=(13,))
    with pytest.raises(Exception, match="13"):
        train_pipelined(rule.network, optax.sgd(0.1), params, [batch] * 9, jax.devices()[:3])


def test_the_model_of_a_pipeline_is_that_of_its_slowest_device():
    assert modelled([1.0] * 4, batches=10, devices=1) == 40
    assert modelled([1.0] * 4, batches=10, devices=4) == 13
    assert modelled([1.0, 1.0, 1.0, 5.0], batches=10, devices=2) == 11 * 6


def test_a_decoder_that_has_learnt_the_class_prior_stands_at_the_plateau():
    _, rule = make()
    params, _ = rule.init(jax.random.key(0))
    prior = {"kernel": jnp.zeros((6, 4)), "bias": jnp.full(4, np.log(1 / 3))}
    _, inverse = rule.network.call("losses", {**params, "decoders_0": prior}, jnp.zeros((4, 12)), jnp.eye(4))
    np.testing.assert_allclose(inverse[0], 1 / 4 * (1 - 1 / 4), rtol=1e-6)


@pytest.mark.parametrize("exit_stage", [1, 2, None])
def test_a_prediction_goes_up_some_stages_over_a_bridge_and_down_the_decoders(exit_stage):
    _, rule = make(exit_stage=exit_stage)
    params, _ = rule.init(jax.random.key(0))
    p, x = doubled(params), random_batch().inputs
    last = exit_stage or 3
    s = np.asarray(x)
    for i in range(last):
        s = np.tanh(apply_dense(p[f"stages_{i}"]["linear"], s))
    for layer in p[f"bridges_{last - 1}"].values():
        s = logistic(apply_dense(layer, s))
    for i in reversed(range(1, last)):
        s = logistic(apply_dense(p[f"decoders_{i}"], s))
    np.testing.assert_allclose(rule.predict(params, x), apply_dense(p["decoders_0"], s), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(9, 8), (9,) * 10])
def test_the_stages_start_as_the_network_does_scanned_or_not(hidden):
    network, rule = make(hidden)
    params, _ = rule.init(jax.random.key(3))
    x = random_batch().inputs
    _, expected = network.forward(network.init(stream(jax.random.key(3), Stream.INIT)), x)
    _, got = rule.network.forward(params, x)
    layers = [layer for h in expected.values() for layer in (h if h.ndim == 3 else [h])]
    assert len(got) == len(layers) == len(hidden)
    for ours, layer in zip(got.values(), layers, strict=True):
        np.testing.assert_allclose(ours, layer, rtol=1e-5, atol=1e-6)


def test_the_label_side_learns_at_its_own_rate():
    _, rule = make(label_rate=3.0)
    params, feedback = rule.init(jax.random.key(0))
    updates = rule.updates(params, feedback, random_batch())
    optimizer = at_rates(optax.sgd(0.1), rule.rates, params)
    steps, _ = optimizer.update(updates, optimizer.init(params), params)
    for name, block in steps.items():
        rate = 0.3 if name.startswith(("encoders", "decoders")) else 0.1
        assert_trees_close(block, jax.tree.map(lambda u, rate=rate: -rate * u, updates[name]), rtol=1e-6, atol=0)


def test_it_learns_a_batch_by_heart():
    _, rule = make((30, 30), width=16, bridge=None)
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(size=40)
    optimizer = at_rates(optax.adam(1e-2), rule.rates, params)

    @jax.jit
    def step(state, _):
        params, slots = state
        changes, slots = optimizer.update(rule.updates(params, feedback, batch), slots, params)
        return (optax.apply_updates(params, changes), slots), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=400)
    assert np.all(rule.predict(params, batch.inputs).argmax(-1) == batch.targets.argmax(-1))


def test_decay_is_of_the_stages_kernels_alone():
    _, with_decay = make(weight_decay=0.1)
    _, without = make()
    params, feedback = without.init(jax.random.key(0))
    plain, decayed = (rule.updates(params, feedback, random_batch()) for rule in (without, with_decay))
    for name, block in params.items():
        if name.startswith("stages_"):
            kernel = block["linear"]["kernel"]
            np.testing.assert_allclose(
                decayed[name]["linear"]["kernel"], plain[name]["linear"]["kernel"] + 0.1 * kernel, rtol=1e-6
            )
            assert_trees_equal(decayed[name]["linear"]["bias"], plain[name]["linear"]["bias"])
        else:
            assert_trees_equal(decayed[name], plain[name])


VANILLA = "conv32x3+conv32x3-conv32x3+conv32x3s2-conv64x3+conv64x3-conv64x3+conv64x3s2"
VGG = "conv128x3+conv256x3p2-conv256x3+conv512x3p2-conv512x3p2+conv512x3p2-1024+1024"
RESIDUAL = (
    "architecture=resnet20",
    "architecture.norm=batch",
    "architecture.stage=group",
    "architecture.biases=true",
    "architecture.normed_shortcuts=false",
)


def plain(topology):
    return "architecture=cnn", f"architecture.topology={topology}"


def dense(width):
    return (f"architecture.hidden=[{width},{width}]",)


@pytest.mark.parametrize(
    ("words", "shape", "classes", "width", "effective", "affiliated"),
    [
        (dense(1024), (28, 28, 1), 10, 1024, 13_405_194, 11_552_768),
        (dense(3000), (32, 32, 3), 10, 3000, 117_273_010, 99_054_000),
        (dense(3000), (32, 32, 3), 100, 3000, 117_543_100, 99_324_000),
        (plain(VANILLA), (28, 28, 1), 10, 256, 4_700_586, 57_384_960),
        (plain(VANILLA), (32, 32, 3), 10, 256, 5_929_962, 74_588_160),
        (plain(VANILLA), (32, 32, 3), 100, 500, 12_452_520, 147_921_000),
        (RESIDUAL, (32, 32, 3), 10, 300, 7_142_126, 63_069_600),
        (RESIDUAL, (32, 32, 3), 100, 500, 12_567_016, 106_961_000),
        ((*RESIDUAL, "architecture.depth=32"), (32, 32, 3), 10, 300, 7_337_006, 63_069_600),
        ((*RESIDUAL, "architecture.depth=32"), (32, 32, 3), 100, 500, 12_761_896, 106_961_000),
        (plain(VGG), (32, 32, 3), 10, 300, 12_198_094, 152_157_600),
        (plain(VGG), (32, 32, 3), 100, 500, 14_550_984, 255_441_000),
    ],
)
def test_the_paper_s_networks_have_the_params_of_the_authors_code(
    compose, words, shape, classes, width, effective, affiliated
):
    config = compose("task=digits", *words)
    network = hydra.utils.instantiate(config.architecture, _convert_="all")(shape, classes)
    rule = associated_learning(network, cross_entropy().value, **{**OPTIONS, "width": width, "bridge": None})
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    assert count(rule.network, jax.eval_shape(rule.network.init, jax.random.key(0))) == effective
    assert count(rule.network, params) == effective + affiliated


def test_local_losses_are_reported_by_stage():
    _, rule = make()
    params, feedback = rule.init(jax.random.key(0))
    reported = rule.report(params, feedback, random_batch())
    assert sorted(reported) == sorted(f"{kind}_loss_{i}" for kind in ("associated", "inverse") for i in range(3))
    assert all(0 < value < 1 for value in reported.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exit_stage": 4}, "rule.exit_stage must be at most 3, the number of stages; got 4"),
        ({"exit_stage": 0}, "rule.exit_stage must be an integer of at least 1; got 0"),
        ({"width": 0}, "rule.width must be an integer of at least 1; got 0"),
        ({"bridge": 640}, r"rule.bridge must be a list of widths such as \[640\], or null; got 640"),
        ({"bridge": [0]}, "rule.bridge must be an integer of at least 1; got 0"),
        ({"label_rate": 0}, "rule.label_rate must be a finite number above 0; got 0"),
        ({"weight_decay": -1}, "rule.weight_decay must be a finite number at least 0; got -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        make(**options)


def test_a_network_without_stages_is_refused():
    with pytest.raises(BadOption, match="rule=associated_learning needs a network in stages"):
        associated_learning(Network(nn.Dense(3), (4,)), cross_entropy().value, **OPTIONS)


def test_what_it_predicts_with_and_what_serves_training_are_counted_apart(compose):
    words = "task=digits", "rule=associated_learning", "architecture.hidden=[20,20]", "rule.width=8"
    found = sizes(build(OmegaConf.to_container(compose(*words), resolve=True)))
    stages, bridge = 65 * 20 + 21 * 20, 21 * 40 + 41 * 8
    decoders, encoders = 9 * 10 + 9 * 8, 11 * 8 + 9 * 8
    assert found["effective_params"] == stages + bridge + decoders
    assert found["affiliated_params"] == bridge + encoders
    assert found["feedback_weights"] == 0
    left = sizes(build(OmegaConf.to_container(compose(*words, "rule.exit_stage=1"), resolve=True)))
    assert left["effective_params"] == 65 * 20 + bridge + 9 * 10
    assert sum(left.values()) == sum(found.values())


def test_a_task_without_classes_is_refused(compose):
    config = compose("task=linear", "rule=associated_learning")
    with pytest.raises(BadOption, match="rule=associated_learning needs a task with classes"):
        build(OmegaConf.to_container(config, resolve=True))
