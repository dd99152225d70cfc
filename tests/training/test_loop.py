"""The loop trains what a plain Python loop would, whatever the grouping of seeds, the devices and the evaluations."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.core import Batch, Loss, Rule, Running, Split, Stream, Task, stream
from fa_jax.losses import squared_error
from fa_jax.metrics.scores import nse
from fa_jax.networks.mlp import mlp
from fa_jax.optimizers import keep_removed
from fa_jax.records.reader import read_run
from fa_jax.rules.bp import bp
from fa_jax.rules.fa import fa
from fa_jax.rules.node_perturbation import node_perturbation
from fa_jax.training.loop import Training, make_program
from tests.rules.test_contract import MLP

LOSS = squared_error(output="linear", derivative="exact")
FEEDBACK = {"distribution": "uniform", "scale": 0.5, "kept": 1.0}


def task_of(examples=40):
    random = np.random.default_rng(0)
    x = random.integers(0, 255, (examples, 12)).astype(np.uint8)
    y = random.normal(size=(examples, 4)).astype(np.float32)
    split = Split(jnp.asarray(x), jnp.asarray(y))
    return Task(
        train=split,
        test=split,
        validation=Split(*(a[:9] for a in split)),
        prepare=lambda x, augment=lambda images: images: augment(x.astype(jnp.float32) / 255),
        encode=lambda y: y,
        metrics={"nse": nse},
        running={"nse": Running(lambda y, t: jnp.log(jnp.mean(jnp.square(y - t))), jnp.exp)},
        input_shape=(12,),
        outputs=4,
    )


def network_of(**options):
    return mlp((12,), 4, **{**MLP, "hidden": [9], "dropout": 0.0, **options})


def train(
    seeds,
    steps,
    *,
    rule=fa,
    options=FEEDBACK,
    devices=1,
    batch_devices=1,
    optimizer=None,
    shuffle=True,
    network=None,
    probe=8,
    **more,
):
    """Returns the metrics at each of the steps, `[seeds]` each, and the last states and feedback."""
    task, network = task_of(), network or network_of()
    rule = rule(network, LOSS.value, **options)
    optimizer = optimizer or optax.sgd(0.1)
    training = Training(batch_size=6, shuffle=shuffle, probe=probe, **more)
    devices = jax.devices()[:devices]
    program = make_program(rule, network, LOSS, task, training, optimizer, optimizer, devices, batch_devices)
    data, seeds = program.data, jnp.asarray(seeds, jnp.int32)
    states, fixed = program.start(seeds)
    rows, last = [], 0
    for step in steps:
        states = program.advance(states, fixed, seeds, last, step, data)
        metrics, states = program.measure(states, fixed, seeds, step, data)
        rows.append(jax.device_get(metrics))
        last = step
    return rows, jax.device_get(states), jax.device_get(fixed)


def by_hand(seed, steps, network):
    """The same, as anybody would write it."""
    task = task_of()
    rule = fa(network, LOSS.value, **FEEDBACK)
    key = jax.random.key(seed)
    params, feedback = rule.init(key)
    losses = []
    for i in range(steps):
        epoch, place = divmod(i, 6)
        order = jax.random.permutation(jax.random.fold_in(stream(key, Stream.ORDER), epoch), 40)
        rows = order[6 * place : 6 * place + 6]
        x, y = task.train.inputs[rows] / 255.0, task.train.targets[rows]
        batch = Batch(x, y, jax.random.fold_in(stream(key, Stream.NOISE), i))
        losses.append(float(LOSS.value(network.apply(params, x, key=batch.key), y)))
        updates = rule.updates(params, feedback, batch)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, network.follow(params, batch), updates)
    return params, losses


@pytest.mark.parametrize("options", [{}, {"norm": "batch", "dropout": 0.3}], ids=["plain", "normalised, dropped out"])
def test_the_loop_is_the_loop_written_by_hand_over_epochs(options):
    network = network_of(**options)
    rows, states, _ = train([3], [0, 20], network=network)
    params, losses = by_hand(3, 20, network)
    for ours, theirs in zip(jax.tree.leaves(states.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rows[1]["train_loss"][0], np.mean(losses), rtol=1e-5)


def test_where_the_evaluations_lie_does_not_change_the_training():
    _, often, _ = train([0, 1], [0, 1, 5, 6, 13, 20])
    _, once, _ = train([0, 1], [20])
    for a, b in zip(jax.tree.leaves(often.params), jax.tree.leaves(once.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cached", [0, 2**21], ids=["in turn", "together"])
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_seed_has_the_same_curve_alone_among_others_and_on_several_devices(devices, cached, monkeypatch):
    monkeypatch.setattr("fa_jax.training.loop.CACHED", cached)
    steps = [0, 7, 20]
    alone, _, _ = train([7], steps)
    among, _, _ = train([4, 5, 6, 7], steps)
    spread, _, _ = train([4, 5, 6, 7], steps, devices=devices)
    for one, many, wide in zip(alone, among, spread, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name][0], many[name][3], rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(many[name], wide[name], rtol=1e-4, atol=1e-5, err_msg=name)


BY_BATCH = {
    "fa": (fa, FEEDBACK, {}),
    "dropout": (bp, {}, {"dropout": 0.3}),
    # The loss of a whole batch decides how strongly each example's noise is reinforced.
    "node perturbation": (node_perturbation, {"sigma": 0.1}, {}),
}


MORE = [pytest.param(name, marks=pytest.mark.slow) for name in ("fa", "dropout")]


@pytest.mark.parametrize("name", ["node perturbation", *MORE])
def test_a_batch_shared_by_devices_trains_as_on_one(name):
    rule, options, change = BY_BATCH[name]
    more = {"rule": rule, "options": options, "network": network_of(**change)}
    alone, states, _ = train([3, 4], [0, 7, 20], **more)
    shared, others, _ = train([3, 4], [0, 7, 20], devices=4, batch_devices=2, **more)
    for one, other in zip(alone, shared, strict=True):
        for column in one:
            np.testing.assert_allclose(one[column], other[column], rtol=1e-3, atol=1e-4, err_msg=column)
    for a, b in zip(jax.tree.leaves(states.params), jax.tree.leaves(others.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_batch_shared_by_devices_needs_less_memory_on_each():
    task, network = task_of(4096), network_of(hidden=[512])
    needed = []
    for share in (1, 4):
        training = Training(batch_size=2048, shuffle=True, probe=0)
        sgd = optax.sgd(0.1)
        program = make_program(
            bp(network, LOSS.value), network, LOSS, task, training, sgd, sgd, jax.devices()[:share], share
        )
        seeds = jnp.zeros(1, jnp.int32)
        states, fixed = program.start(seeds)
        compiled = program.advance.lower(states, fixed, seeds, jnp.int32(0), jnp.int32(1), program.data).compile()
        needed.append(compiled.memory_analysis().temp_size_in_bytes)
    assert needed[1] < 0.4 * needed[0]


def test_every_rule_sees_the_same_examples_and_the_same_initial_weights():
    ours, _, _ = train([5], [0], rule=fa)
    theirs, _, _ = train([5], [0], rule=bp, options={})
    np.testing.assert_array_equal(ours[0]["test_loss"], theirs[0]["test_loss"])
    np.testing.assert_array_equal(ours[0]["validation_loss"], theirs[0]["validation_loss"])


def test_unshuffled_examples_come_as_they_are_stored():
    task, network = task_of(), network_of()
    _, states, _ = train([0], [2], rule=bp, options={}, shuffle=False)
    rule = bp(network, LOSS.value)
    params, _ = rule.init(jax.random.key(0))
    for i in range(2):
        batch = Batch(task.train.inputs[6 * i : 6 * i + 6] / 255.0, task.train.targets[6 * i : 6 * i + 6], None)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, rule.updates(params, (), batch))
    for ours, theirs in zip(jax.tree.leaves(states.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-5, atol=1e-7)


def test_training_metrics_are_undefined_before_the_first_step_and_start_afresh_at_each_evaluation():
    rows, _, _ = train([0], [0, 6, 12])
    assert np.isnan(rows[0]["train_loss"][0])
    whole, _, _ = train([0], [12])
    mean = (rows[1]["train_loss"] + rows[2]["train_loss"]) / 2
    np.testing.assert_allclose(mean, whole[0]["train_loss"], rtol=1e-5)
    geometric = np.sqrt(rows[1]["train_nse"] * rows[2]["train_nse"])
    np.testing.assert_allclose(geometric, whole[0]["train_nse"], rtol=1e-5)


def test_test_scores_are_those_of_all_test_examples_also_in_chunks(monkeypatch):
    whole, _, _ = train([0], [6])
    monkeypatch.setattr("fa_jax.training.loop.CHUNK", 16)  # 40 = 2 * 16 + 8
    chunked, _, _ = train([0], [6])
    np.testing.assert_allclose(whole[0]["test_nse"], chunked[0]["test_nse"], rtol=1e-6)


def test_fixed_feedback_stays_outside_what_the_loop_carries():
    _, states, fixed = train([0, 1], [20])
    assert states.learned == ()
    drawn = fa(network_of(), LOSS.value, **FEEDBACK).init(jax.random.key(1))[1]
    np.testing.assert_array_equal(fixed["readout"][1], drawn["readout"])


def test_learned_feedback_is_trained_beside_the_params():
    def kolen_pollack_like(network, loss, **options):
        rule = fa(network, loss, **options)
        return rule._replace(learn=lambda params, feedback, batch, updates: {"readout": updates["readout"]["kernel"]})

    decaying = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.2))
    _, before, _ = train([0], [0], rule=kolen_pollack_like, optimizer=decaying)
    _, after, fixed = train([0], [60], rule=kolen_pollack_like, optimizer=decaying)

    def distance(state):
        return np.linalg.norm(state.learned[0]["readout"] - state.params["readout"]["kernel"])

    assert fixed == ()
    # Both decay alike and get the same updates, so their difference shrinks by 1 - 0.2 * 0.5 a step.
    np.testing.assert_allclose(distance(after), 0.9**60 * distance(before), rtol=1e-2)


def test_removed_connections_stay_removed():
    optimizer = optax.chain(optax.adam(0.01), keep_removed())
    _, start, _ = train([0], [0], network=network_of(kept=0.5))
    _, end, _ = train([0], [40], network=network_of(kept=0.5), optimizer=optimizer)
    for name in network_of().kernels:
        before, after = (network_of().weights(states.params)[name] for states in (start, end))
        np.testing.assert_array_equal(before == 0, after == 0)
        assert np.any(before != after)


@pytest.mark.slow
def test_what_was_not_removed_is_trained_also_in_a_scanned_stack():
    network = network_of(hidden=[6] * 10, kept=0.5)
    optimizer = optax.chain(optax.sgd(0.1), keep_removed())
    _, start, _ = train([0], [0], network=network, rule=bp, options={})
    _, end, _ = train([0], [40], network=network, rule=bp, options={}, optimizer=optimizer)
    bias, moved = (s.params["stages_1"]["linear"]["bias"] for s in (start, end))
    assert np.mean(bias != moved) > 0.5
    kernel, moved = (s.params["stages_1"]["linear"]["kernel"] for s in (start, end))
    assert np.mean(kernel != moved) > 0.3


def test_a_kernel_that_starts_at_zero_as_a_whole_is_trained():
    network = network_of(init_scale=[0.5, 0.0])
    _, end, _ = train([0], [40], network=network, optimizer=optax.chain(optax.sgd(0.1), keep_removed()))
    assert np.all(end.params["readout"]["kernel"] != 0)


def test_a_program_of_many_evaluations_compiles_once(monkeypatch):
    traces = []
    original = LOSS.value

    def counted(logits, targets):
        traces.append(None)
        return original(logits, targets)

    network, task = network_of(), task_of()
    rule = Rule(*bp(network, counted))
    training = Training(batch_size=6, shuffle=True, probe=0, measures=())
    program = make_program(
        rule, network, Loss(counted, LOSS.outputs), task, training, optax.sgd(0.1), optax.sgd(0.1), jax.devices()[:1]
    )
    data, seeds = program.data, jnp.asarray([0], jnp.int32)
    states, fixed = program.start(seeds)
    states = program.advance(states, fixed, seeds, 0, 1, data)
    first = len(traces)
    for step in (2, 9, 17):
        states = program.advance(states, fixed, seeds, step - 1, step, data)
    assert len(traces) == first


@pytest.mark.slow
def test_eight_devices_share_the_seeds_and_need_an_eighth_of_the_memory_each(tmp_path):
    words = ["task=digits", "rule=dfa", "architecture.hidden=[50,40]", "seeds=8", "epochs=1", "evaluations=3"]
    there = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
    runs = {}
    for devices in ("all", 1):
        command = [*words, f"devices={devices}", f"hydra.run.dir={tmp_path}/{devices}"]
        subprocess.run([sys.executable, "-m", "fa_jax", *command], check=True, env=there, stdout=subprocess.DEVNULL)
        runs[devices] = read_run(tmp_path / str(devices))
        assert len(runs[devices].environment["devices"]) == 8
    for metric in runs[1].metrics:
        np.testing.assert_allclose(*(run.curves(metric)[1] for run in runs.values()), rtol=1e-4, atol=1e-5)
    # The seeds' own: the data are on every device whole.
    needs = [run.summary["cost"]["memory_bytes"] for run in runs.values()]
    data = 1797 * 65 * 4
    assert needs[0] < needs[1] / 2 + data
