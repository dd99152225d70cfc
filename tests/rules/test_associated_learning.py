"""Associated learning: its gradients in numpy, what each local loss trains, the pipeline, predictions."""

import collections
import functools
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
from fa_jax.losses import cross_entropy
from fa_jax.network import Network, parameter_count
from fa_jax.networks.mlp import mlp
from fa_jax.optimizers import with_multipliers
from fa_jax.rules.associated_learning import pipeline
from fa_jax.rules.associated_learning.pipeline import train_pipelined
from fa_jax.rules.associated_learning.rule import associated_learning
from fa_jax.training.compile import sizes
from tests.conftest import MLP, assert_trees_close, assert_trees_equal, compiled, filled, random_batch, to_float64
from tests.rules.reference import sigmoid

OPTIONS = {"width": 6, "bridge": [7], "label_rate": 2.0, "weight_decay": 0.0, "exit_stage": None}


@functools.cache
def make(hidden=(9, 8, 5), **options):
    network = mlp((12,), 4, hidden=list(hidden), dropout=0.0, **MLP)
    return network, compiled(associated_learning(network, cross_entropy().value, **{**OPTIONS, **options}))


def random_params(rule):
    """Params of noise, arrays of numpy."""
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    return jax.device_get(filled(params))


def dense_gradient(x, delta):
    return {"kernel": x.T @ delta, "bias": delta.sum(0)}


def apply_dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def reference_gradients(params, x, y):
    """The gradients of all local losses for dense tanh stages, by the chain rule within each stage.

    Also returns the signals at the activations of the stages.
    """
    gradients, signals, s, t = {}, [], x, y
    for i in range(sum(name.startswith("stages_") for name in params)):
        f, b = params[f"stages_{i}"]["linear"], params[f"bridges_{i}"]
        g, h = params[f"encoders_{i}"], params[f"decoders_{i}"]
        s_next, t_next = np.tanh(apply_dense(f, s)), sigmoid(apply_dense(g, t))
        inner = sigmoid(apply_dense(b["dense_0"], s_next))
        code = sigmoid(apply_dense(b["dense_1"], inner))
        code_delta = 2 * (code - t_next) / code.size * code * (1 - code)
        inner_delta = code_delta @ b["dense_1"]["kernel"].T * inner * (1 - inner)
        signals.append(inner_delta @ b["dense_0"]["kernel"].T)
        stage_delta = signals[-1] * (1 - s_next**2)
        decoded = sigmoid(apply_dense(h, t_next))
        decoder_delta = 2 * (decoded - t) / decoded.size * decoded * (1 - decoded)
        encoder_delta = decoder_delta @ h["kernel"].T * t_next * (1 - t_next)
        gradients[f"stages_{i}"] = {"linear": dense_gradient(s, stage_delta)}
        gradients[f"bridges_{i}"] = {
            "dense_0": dense_gradient(s_next, inner_delta),
            "dense_1": dense_gradient(inner, code_delta),
        }
        gradients[f"encoders_{i}"] = dense_gradient(t, encoder_delta)
        gradients[f"decoders_{i}"] = dense_gradient(t_next, decoder_delta)
        s, t = s_next, t_next
    return gradients, signals


def test_updates_and_signals_are_the_gradients_of_the_local_losses(float64):
    _, rule = make()
    params, batch = jax.device_get(to_float64(random_params(rule))), random_batch(dtype=np.float64)
    gradients, signals = reference_gradients(params, np.asarray(batch.inputs), np.asarray(batch.targets))
    assert_trees_close(rule.updates(params, (), batch), gradients, rtol=1e-10, atol=1e-14)
    expected = {f"stages_{i}/hidden": signal for i, signal in enumerate(signals)}
    assert_trees_close(rule.extras.signals(params, (), batch), expected, rtol=1e-10, atol=1e-14)


def test_each_local_loss_trains_its_own_parts_alone():
    _, rule = make()
    params = random_params(rule)
    batch = random_batch()
    for index, trained_kinds in ((0, ("stages", "bridges")), (1, ("encoders", "decoders"))):

        @jax.jit
        def gradients(p, index=index):
            return jax.jacrev(lambda p: rule.extras.network.call("losses", p, batch.inputs, batch.targets)[index])(p)

        for i, gradient in enumerate(gradients(params)):
            for name, part in gradient.items():
                is_trained = name in {f"{kind}_{i}" for kind in trained_kinds}
                assert all(np.any(leaf) == is_trained for leaf in jax.tree.leaves(part)), (index, i, name)


@pytest.mark.parametrize(
    ("devices", "decay"), [(2, 0.5), *(pytest.param(n, 0.0, marks=pytest.mark.slow) for n in (1, 4))]
)
def test_pipeline_equals_sequential_training(devices, decay):
    """Although devices work on different batches at once, no params are stale."""
    _, rule = make((9, 8, 5, 7), weight_decay=decay)
    initial = random_params(rule)
    batches = [random_batch(seed=seed) for seed in range(50)]

    optimizer = with_multipliers(optax.adam(0.01), rule.extras.learning_rate_multipliers)
    pipelined, events = train_pipelined(
        rule.extras.network, optimizer, initial, batches, jax.devices()[:devices], weight_decay=decay
    )

    @jax.jit
    def step(params, optimizer_state, batch):
        updates, optimizer_state = optimizer.update(rule.updates(params, (), batch), optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state

    params, optimizer_state = initial, optimizer.init(initial)
    for batch in batches:
        params, optimizer_state = step(params, optimizer_state, batch)
    assert_trees_close(pipelined, params, rtol=1e-5, atol=1e-6)
    kernel, initial_kernel = (tree["stages_2"]["linear"]["kernel"] for tree in (pipelined, initial))
    assert not np.allclose(kernel, initial_kernel, atol=1e-3)
    for device in range(devices):
        device_events = [event for event in events if event.device == device]
        assert [event.batch for event in device_events] == list(range(50))
        assert all(a.end <= b.begin for a, b in itertools.pairwise(device_events))
    for event in events:
        earlier = [other for other in events if (other.device, other.batch) == (event.device - 1, event.batch)]
        assert all(other.end <= event.begin for other in earlier)


def test_devices_work_on_different_batches_at_once(monkeypatch):
    _, rule = make()
    params = random_params(rule)
    calls, original, barrier = collections.Counter(), pipeline.Worker.step, threading.Barrier(2)

    def step(worker, *arguments):
        calls[worker.device] += 1
        if calls[worker.device] == {jax.devices()[0]: 2, jax.devices()[1]: 1}[worker.device]:
            barrier.wait(timeout=60)  # breaks if one device waits until the other has finished
        return original(worker, *arguments)

    monkeypatch.setattr(pipeline.Worker, "step", step)
    batches = [random_batch(seed=seed) for seed in range(3)]
    train_pipelined(rule.extras.network, optax.sgd(0.1), params, batches, jax.devices()[:2])
    assert calls == {jax.devices()[0]: 3, jax.devices()[1]: 3}


def test_pipeline_names_what_it_cannot_train():
    network, rule = make()
    params = random_params(rule)
    for devices in (0, 4):
        with pytest.raises(BadOption, match=f"needs 1 to 3 devices, at most one per stage; got {devices}"):
            train_pipelined(rule.extras.network, optax.sgd(0.1), params, [], jax.devices()[:devices])
    for other, kind in ((rule, "Rule"), (network, "Chain")):
        with pytest.raises(BadOption, match=rf"needs the network of associated learning, as job\.network; got {kind}"):
            train_pipelined(other, optax.sgd(0.1), params, [], jax.devices()[:1])
    for options, message in (({"norm": "batch"}, "running statistics"), ({"dropout": 0.5}, "it needs dropout=0")):
        network = mlp((12,), 4, hidden=[9, 8], **{"dropout": 0.0, **MLP, **options})
        other = associated_learning(network, cross_entropy().value, **OPTIONS)
        other_params = random_params(other)
        with pytest.raises(BadOption, match=message):
            train_pipelined(other.extras.network, optax.sgd(0.1), other_params, [], jax.devices()[:2])


def test_error_in_a_worker_of_the_pipeline_is_raised():
    _, rule = make()
    params = random_params(rule)
    batch = random_batch(inputs=(13,))
    with pytest.raises(Exception, match="13"):
        train_pipelined(rule.extras.network, optax.sgd(0.1), params, [batch] * 9, jax.devices()[:3])


def test_inverse_loss_of_a_decoder_that_outputs_the_class_prior():
    _, rule = make()
    params = random_params(rule)
    prior = {"kernel": jnp.zeros((6, 4)), "bias": jnp.full(4, np.log(1 / 3))}
    network, params = rule.extras.network, {**params, "decoders_0": prior}
    _, inverse = jax.jit(network.call, static_argnums=0)("losses", params, jnp.zeros((4, 12)), jnp.eye(4))
    np.testing.assert_allclose(inverse[0], 1 / 4 * (1 - 1 / 4), rtol=1e-6)


@pytest.mark.parametrize("exit_stage", [1, 2, None])
def test_prediction_passes_stages_up_to_the_exit_a_bridge_and_decoders(exit_stage):
    _, rule = make(exit_stage=exit_stage)
    params = random_params(rule)
    x = random_batch().inputs
    last = exit_stage or 3
    s = np.asarray(x, np.float64)
    for i in range(last):
        s = np.tanh(apply_dense(params[f"stages_{i}"]["linear"], s))
    for layer in params[f"bridges_{last - 1}"].values():
        s = sigmoid(apply_dense(layer, s))
    for i in reversed(range(1, last)):
        s = sigmoid(apply_dense(params[f"decoders_{i}"], s))
    np.testing.assert_allclose(rule.predict(params, x), apply_dense(params["decoders_0"], s), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(9, 8), (9,) * 10], ids=["unrolled", "scanned"])
def test_stages_start_like_those_of_the_network(hidden):
    network, rule = make(hidden)
    params, _ = rule.init(jax.random.key(3))
    x = random_batch().inputs
    _, network_hiddens = jax.jit(network.forward)(network.init(jax.random.key(3)), x)
    _, rule_hiddens = jax.jit(rule.extras.network.forward)(params, x)
    layers, rule_layers = network.hiddens_in_order(network_hiddens), rule.extras.network.hiddens_in_order(rule_hiddens)
    assert len(layers) == len(hidden)
    for layer, rule_layer in zip(layers, rule_layers, strict=True):
        np.testing.assert_allclose(rule_layer, layer, rtol=1e-5, atol=1e-6)


def test_encoders_and_decoders_learn_at_the_label_rate():
    _, rule = make(label_rate=3.0)
    params = random_params(rule)
    updates = rule.updates(params, (), random_batch())
    optimizer = with_multipliers(optax.sgd(0.1), rule.extras.learning_rate_multipliers)
    steps, _ = optimizer.update(updates, optimizer.init(params), params)
    for name, step in steps.items():
        rate = 0.3 if name.startswith(("encoders", "decoders")) else 0.1
        assert_trees_close(step, jax.tree.map(lambda u, rate=rate: -rate * u, updates[name]), rtol=1e-6, atol=0)


def test_training_fits_a_batch():
    _, rule = make((30, 30), width=16, bridge=None)
    params, batch = random_params(rule), random_batch(size=40)
    optimizer = with_multipliers(optax.adam(1e-2), rule.extras.learning_rate_multipliers)

    @jax.jit
    def step(state, _):
        params, optimizer_state = state
        updates = rule.updates(params, (), batch)
        updates, optimizer_state = optimizer.update(updates, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=400)
    assert np.all(rule.predict(params, batch.inputs).argmax(-1) == batch.targets.argmax(-1))


def test_weight_decay_is_of_the_stages_kernels_alone():
    _, with_decay = make(weight_decay=0.1)
    _, without = make()
    params = random_params(without)
    plain, decayed = (rule.updates(params, (), random_batch()) for rule in (without, with_decay))
    for name, part in params.items():
        if name.startswith("stages_"):
            layer, plain_layer = decayed[name]["linear"], plain[name]["linear"]
            expected = plain_layer["kernel"] + 0.1 * part["linear"]["kernel"]
            np.testing.assert_allclose(layer["kernel"], expected, rtol=1e-6)
            assert_trees_equal(layer["bias"], plain_layer["bias"])
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


def convolutional(topology):
    return "architecture=cnn", f"architecture.topology={topology}"


def dense(width):
    return (f"architecture.hidden=[{width},{width}]",)


@pytest.mark.parametrize(
    ("overrides", "shape", "classes", "width", "effective", "affiliated"),
    [
        (dense(1024), (28, 28, 1), 10, 1024, 13_405_194, 11_552_768),
        (convolutional(VANILLA), (28, 28, 1), 10, 256, 4_700_586, 57_384_960),
        (RESIDUAL, (32, 32, 3), 10, 300, 7_142_126, 63_069_600),
        (convolutional(VGG), (32, 32, 3), 100, 500, 14_550_984, 255_441_000),
        *(
            pytest.param(*network, marks=pytest.mark.slow)
            for network in (
                (dense(3000), (32, 32, 3), 10, 3000, 117_273_010, 99_054_000),
                (dense(3000), (32, 32, 3), 100, 3000, 117_543_100, 99_324_000),
                (convolutional(VANILLA), (32, 32, 3), 10, 256, 5_929_962, 74_588_160),
                (convolutional(VANILLA), (32, 32, 3), 100, 500, 12_452_520, 147_921_000),
                (RESIDUAL, (32, 32, 3), 100, 500, 12_567_016, 106_961_000),
                ((*RESIDUAL, "architecture.depth=32"), (32, 32, 3), 10, 300, 7_337_006, 63_069_600),
                ((*RESIDUAL, "architecture.depth=32"), (32, 32, 3), 100, 500, 12_761_896, 106_961_000),
                (convolutional(VGG), (32, 32, 3), 10, 300, 12_198_094, 152_157_600),
            )
        ),
    ],
)
def test_networks_of_the_paper_have_the_parameter_counts_of_the_authors_code(
    compose, overrides, shape, classes, width, effective, affiliated
):
    config = compose("task=digits", *overrides)
    network = hydra.utils.instantiate(config.architecture, _convert_="all")(shape, classes)
    rule = associated_learning(network, cross_entropy().value, **{**OPTIONS, "width": width, "bridge": None})
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    predicting = rule.extras.network
    assert parameter_count(predicting, jax.eval_shape(predicting.init, jax.random.key(0))) == effective
    assert parameter_count(predicting, params) == effective + affiliated


def test_measure_computes_the_local_losses_by_stage():
    _, rule = make()
    params, batch = random_params(rule), random_batch()
    metrics = rule.extras.measure.compute(params, (), batch)
    losses = rule.extras.network.call("losses", params, batch.inputs, batch.targets)
    names = [metric.name for metric in rule.extras.measure.metrics]
    expected = {f"{name}_{i}": loss[i] for name, loss in zip(names, losses, strict=True) for i in range(3)}
    assert sorted(metrics) == sorted(f"{kind}_loss_{i}" for kind in ("associated", "inverse") for i in range(3))
    assert_trees_equal(metrics, expected)
    assert all(0 < value < 1 for value in metrics.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exit_stage": 4}, "^exit_stage must be below 3, the number of stages, or null for all of them; got 4"),
        ({"exit_stage": 3}, "^exit_stage must be below 3, the number of stages, or null for all of them; got 3"),
        ({"exit_stage": 0}, "^exit_stage must be an integer of at least 1; got 0"),
        ({"width": 0}, "^width must be an integer of at least 1; got 0"),
        ({"bridge": 640}, r"^bridge must be a list such as \[640\], or null; got 640"),
        ({"bridge": [0]}, "^bridge must be an integer of at least 1; got 0"),
        ({"label_rate": 0}, "^label_rate must be a finite number above 0; got 0"),
        ({"weight_decay": -1}, "^weight_decay must be a finite number at least 0; got -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=message):
        make.__wrapped__(**options)  # a list has no hash


def test_network_without_stages_is_refused():
    with pytest.raises(BadOption, match=r"^needs a network of stages, .*Chain; got Dense"):
        associated_learning(Network(nn.Dense(3), (4,)), cross_entropy().value, **OPTIONS)


def test_effective_and_affiliated_params_are_counted_separately(compose):
    overrides = "task=digits", "rule=associated_learning", "architecture.hidden=[20,20]", "rule.width=8"

    def parameter_counts(*further):
        return sizes(build(OmegaConf.to_container(compose(*overrides, *further), resolve=True)))

    counts = parameter_counts()
    stages, bridge = 65 * 20 + 21 * 20, 21 * 40 + 41 * 8
    decoders, encoders = 9 * 10 + 9 * 8, 11 * 8 + 9 * 8
    assert counts["effective_params"] == stages + bridge + decoders
    assert counts["affiliated_params"] == bridge + encoders
    assert counts["feedback_weights"] == 0
    with_exit = parameter_counts("rule.exit_stage=1")
    assert with_exit["effective_params"] == 65 * 20 + bridge + 9 * 10
    assert sum(with_exit.values()) == sum(counts.values())


def test_task_without_classes_is_refused(compose):
    config = compose("task=linear", "rule=associated_learning")
    with pytest.raises(BadOption, match=r"^rule=associated_learning needs a task with classes, such as task=digits"):
        build(OmegaConf.to_container(config, resolve=True))
