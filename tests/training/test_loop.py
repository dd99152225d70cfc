"""The loop trains like a plain Python loop, independently of the grouping of seeds, the devices and the evaluations."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.cli.main import main
from fa_jax.core import Batch, Loss, Stream, stream
from fa_jax.metrics.scores import nse
from fa_jax.networks.cnn import cnn
from fa_jax.optimizers import keep_removed
from fa_jax.records.reader import read_run
from fa_jax.rules.bp import bp
from fa_jax.rules.fa import fa
from fa_jax.rules.kolen_pollack import kolen_pollack
from fa_jax.rules.node_perturbation import node_perturbation
from fa_jax.training.loop import Learner, TrainingOptions, make_program
from tests.conftest import CNN, assert_trees_close, assert_trees_equal, layerwise, restored_logging
from tests.training.conftest import BATCH_SIZE, FA, LEARNING_RATE, LOSS, make_network, make_task, of_seed, train


def descend(params, updates):
    return jax.tree.map(lambda p, u: p - LEARNING_RATE * u, params, updates)


def reference_loop(seed, steps, network):
    """The same training as a Python loop; returns the params and the loss of every batch."""
    task = make_task()
    rule = FA(network, LOSS.value)
    key = jax.random.key(seed)
    params, feedback = rule.init(key)
    updates_of, update_statistics = jax.jit(rule.updates), jax.jit(network.update_statistics)
    loss_of = jax.jit(lambda params, batch: LOSS.value(network.apply(params, batch[0], key=batch.key), batch.targets))
    losses = []
    for i in range(steps):
        epoch, position = divmod(i, 6)
        order = jax.random.permutation(jax.random.fold_in(stream(key, Stream.ORDER), epoch), 40)
        rows = order[BATCH_SIZE * position : BATCH_SIZE * (position + 1)]
        x, y = task.train.inputs[rows] / 255.0, task.train.targets[rows]
        batch = Batch(x, y, jax.random.fold_in(stream(key, Stream.STEP), i))
        losses.append(float(loss_of(params, batch)))
        updates = updates_of(params, feedback, batch)
        params = descend(update_statistics(params, batch), updates)
    return params, losses


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow), {"norm": "batch", "dropout": 0.3}],
    ids=["plain", "batch norm and dropout"],
)
def test_training_equals_a_python_loop_over_epochs(options):
    network = make_network(**options)
    trained = train([3], [0, 20], network=network)
    params, losses = reference_loop(3, 20, network)
    assert_trees_close(of_seed(trained.state.params), params, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained.metrics[1]["train_loss"][0], np.mean(losses), rtol=1e-5)


COPY = layerwise(distribution="weights", scale=1.0, density=1.0)
NETWORKS = {
    "mlp": make_network(hidden=[9, 8]),
    "scanned mlp": make_network(hidden=[6] * 10),
    "cnn": cnn((4, 3, 1), 4, **{**CNN, "topology": "conv4x3-conv3x2v-6"}),
}


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("scanned mlp", "cnn"))]
)
def test_feedback_equal_to_the_weights_trains_as_backprop_and_other_feedback_does_not(name):
    """Copied weights are backprop's for one step, and for all steps if they learn like the weights (Kolen-Pollack)."""
    network = NETWORKS[name]
    rules = {
        "bp": bp,
        "copied": functools.partial(fa, init_feedback=COPY),
        "copied and learned": functools.partial(kolen_pollack, init_feedback=COPY),
        "drawn": FA,
    }
    start, first, last = 0, 1, 2
    options = {"network": network, "probe_size": 0}
    params = {key: train([3], [0, 1, 20], rule=rule, **options).params for key, rule in rules.items()}
    for key in rules:
        assert_trees_equal(params[key][start], params["bp"][start])

    def distances(key, step):
        """The distance of each kernel to that of backprop, relative to the change that backprop made."""
        kernels, bp_kernels, bp_start = (
            network.kernels(of_seed(tree)) for tree in (params[key][step], params["bp"][step], params["bp"][start])
        )
        change = {layer: np.linalg.norm(kernel - bp_start[layer]) for layer, kernel in bp_kernels.items()}
        return [np.linalg.norm(kernels[layer] - bp_kernels[layer]) / change[layer] for layer in network.kernel_shapes]

    assert max(distances("copied and learned", first)) < 1e-5
    assert max(distances("copied and learned", last)) < 1e-4
    assert max(distances("copied", first)) < 1e-5
    assert min(distances("copied", last)) > 1e-3
    *hidden, readout = distances("drawn", first)
    assert min(hidden) > 0.1
    assert readout < 1e-5


def test_training_does_not_depend_on_the_evaluations():
    often = train([0, 1], [0, 1, 5, 6, 13, 20])
    once = train([0, 1], [20])
    assert_trees_equal(often.state.params, once.state.params)


@pytest.mark.parametrize("vmapped", [pytest.param(False, marks=pytest.mark.slow), True], ids=["sequential", "vmapped"])
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_curve_of_a_seed_does_not_depend_on_other_seeds_and_devices(devices, vmapped):
    steps, seeds = [0, 7, 20], [4, 5, 6, 7]
    runs = [train(*run, vmapped=vmapped) for run in (([7], steps), (seeds, steps))]
    runs.append(train(seeds, steps, devices=devices, vmapped=vmapped))
    for single, grouped, sharded in zip(*(run.metrics for run in runs), strict=True):
        for name in single:
            np.testing.assert_allclose(single[name][0], grouped[name][3], rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(grouped[name], sharded[name], rtol=1e-4, atol=1e-5, err_msg=name)


SHARED_BATCHES = {
    "fa": {},
    "dropout": {"rule": bp, "network": make_network(dropout=0.3)},
    # The loss of the whole batch decides how strongly the noise of each example is reinforced.
    "node perturbation": {"rule": functools.partial(node_perturbation, sigma=0.1)},
}


@pytest.mark.parametrize(
    "name", ["node perturbation", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fa", "dropout"))]
)
def test_batch_shared_by_devices_trains_as_on_one(name):
    on_one = train([3, 4], [0, 7, 20], **SHARED_BATCHES[name])
    shared = train([3, 4], [0, 7, 20], devices=4, batch_devices=2, **SHARED_BATCHES[name])
    for metrics, shared_metrics in zip(on_one.metrics, shared.metrics, strict=True):
        for column in metrics:
            np.testing.assert_allclose(metrics[column], shared_metrics[column], rtol=1e-3, atol=1e-4, err_msg=column)
    assert_trees_close(on_one.state.params, shared.state.params, rtol=1e-4, atol=1e-5)


def test_batch_shared_by_devices_needs_less_memory_on_each():
    task, network = make_task(4096), make_network(hidden=[512])
    rule, training, sgd = (
        bp(network, LOSS.value),
        TrainingOptions(batch_size=2048, shuffle=True, probe_size=0),
        optax.sgd(0.1),
    )
    bytes_needed = []
    for share in (1, 4):
        program = make_program(
            lambda _: Learner(rule, network, LOSS, training, sgd, sgd), task, jax.devices()[:share], share
        )
        seeds = jnp.zeros(1, jnp.int32)
        states = program.init(seeds, {})
        compiled = program.train.lower(states, seeds, jnp.int32(0), jnp.int32(1), program.data()).compile()
        bytes_needed.append(compiled.memory_analysis().temp_size_in_bytes)
    assert bytes_needed[1] < 0.4 * bytes_needed[0]


def test_rules_have_the_same_examples_and_initial_params():
    metrics = [train([5], [0], rule=rule).metrics[0] for rule in (FA, bp)]
    for column in ("test_loss", "validation_loss"):
        np.testing.assert_array_equal(*(row[column] for row in metrics))


def test_unshuffled_examples_have_the_order_of_their_split():
    task, network = make_task(), make_network()
    trained = train([0], [2], rule=bp, shuffle=False)
    rule = bp(network, LOSS.value)
    params, _ = rule.init(jax.random.key(0))
    for i in range(2):
        rows = slice(BATCH_SIZE * i, BATCH_SIZE * (i + 1))
        batch = Batch(task.train.inputs[rows] / 255.0, task.train.targets[rows], None)
        params = descend(params, rule.updates(params, (), batch))
    assert_trees_close(of_seed(trained.state.params), params, rtol=1e-5, atol=1e-7)


def test_augmentation_is_between_the_data_and_the_step():
    trained = train([0], [0, 5], augment=lambda key, inputs: 0 * inputs)
    start, end = trained.params
    np.testing.assert_array_equal(*(params["stages_0"]["linear"]["kernel"] for params in (start, end)))
    assert np.any(start["readout"]["bias"] != end["readout"]["bias"])


def test_training_metrics_are_nan_before_the_first_step_and_restart_at_each_evaluation():
    start, first, second = train([0], [0, 6, 12]).metrics
    assert np.isnan(start["train_loss"][0])
    (whole,) = train([0], [12]).metrics
    np.testing.assert_allclose((first["train_loss"] + second["train_loss"]) / 2, whole["train_loss"], rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(first["train_nse"] * second["train_nse"]), whole["train_nse"], rtol=1e-5)


def train_with_debug_nans(folder, *further):
    """Trains a short run in a folder, looking for NaN."""
    words = ["task=digits", "architecture.hidden=[9]", "seeds=2", "epochs=0.1", "evaluations=1", "probe=8", *further]
    with restored_logging(), jax.debug_nans(True):
        assert main([*words, "checkpoint=false", f"hydra.run.dir={folder}/run"]) == 0


@pytest.mark.parametrize("rule", [pytest.param("fa", marks=pytest.mark.slow), "direct_kolen_pollack"])
def test_metrics_that_do_not_exist_yet_are_no_nan_of_the_program(tmp_path, rule):
    """Feedback of zeros has no angles, nor has training a score before its first step."""
    train_with_debug_nans(tmp_path, f"rule={rule}")
    run = read_run(tmp_path / "run")
    assert run.status["status"] == "finished"
    metrics = run.metrics
    missing = {name for name, values in metrics.items() if np.isnan(values[:2]).all()}
    angles = {"weight_angle_0", "signal_angle_0", "update_angle_0"} if rule == "direct_kolen_pollack" else set()
    assert missing == {"train_error", "train_loss", *angles}
    assert all(np.isfinite(values[2:]).all() for values in metrics.values())


def test_a_nan_of_training_is_found_on_request(tmp_path):
    with pytest.raises(Exception, match="nan"):
        train_with_debug_nans(tmp_path, "rule=fa", "optimizer.learning_rate=1e30", "loss=squared_error")
    run = read_run(tmp_path / "run")
    assert run.status["status"] == "failed"
    assert "FloatingPointError" in run.status["reason"]


def test_test_scores_are_those_of_all_test_examples_also_in_chunks(monkeypatch):
    (whole,) = train([0], [6]).metrics
    monkeypatch.setattr("fa_jax.training.evaluation.CHUNK", 16)  # 40 = 2 * 16 + 8
    (chunked,) = train([0], [6]).metrics
    np.testing.assert_allclose(whole["test_nse"], chunked["test_nse"], rtol=1e-6)


def test_each_split_is_scored_on_its_own_examples():
    trained, task, network = train([3], [6]), make_task(), make_network()
    params = of_seed(trained.state.params)
    scores = {}
    for name in ("train", "test", "validation"):
        split = getattr(task, name)
        outputs = network.apply(params, split.inputs / 255.0)
        scores[name] = float(nse(outputs, split.targets)), float(LOSS.value(outputs, split.targets))
    for name in ("test", "validation"):
        recorded = [float(trained.metrics[0][f"{name}_{metric}"][0]) for metric in ("nse", "loss")]
        np.testing.assert_allclose(recorded, scores[name], rtol=1e-5)
        others = [scores[other] for other in scores if other != name]
        assert all(abs(recorded[1] / other - 1) > 1e-3 for _, other in others)


def test_measures_are_of_the_first_test_examples():
    trained, task, network = train([3], [0], rule=bp, probe_size=8), make_task(), make_network()
    params = of_seed(trained.state.params)
    batch = Batch(task.test.inputs[:8] / 255.0, task.test.targets[:8], jax.random.key(0))
    gradient = jax.grad(lambda p: LOSS.value(network.apply(p, batch.inputs), batch.targets))(params)["readout"]
    expected = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(trained.metrics[0]["bp_update_norm_1"][0], expected, rtol=1e-5)


def test_each_step_of_each_seed_has_an_augmentation_of_its_own():
    """Params stay as they are and each batch has all examples, so that losses differ by the augmentation alone."""

    def augment(key, images):
        return images + jax.random.normal(key, images.shape[1:])

    options = {"augment": augment, "batch_size": 40, "optimizer": optax.sgd(0.0), "shuffle": False, "rule": bp}
    steps = range(1, 7)
    trained, task, network = train([3, 4], steps, **options), make_task(), make_network()
    recorded = np.array([metrics["train_loss"] for metrics in trained.metrics])
    for index, seed in enumerate((3, 4)):
        params, key = of_seed(trained.state.params, index), stream(jax.random.key(seed), Stream.AUGMENTATION)
        for step, losses in zip(steps, recorded, strict=True):
            inputs = augment(jax.random.fold_in(key, step - 1), task.train.inputs / 255.0)
            expected = LOSS.value(network.apply(params, inputs), task.train.targets)
            np.testing.assert_allclose(losses[index], expected, rtol=1e-5)
    assert len(np.unique(np.round(recorded, 5))) == 2 * len(steps)


def test_fixed_feedback_stays_as_it_was_drawn():
    state = train([0, 1], [20]).state
    drawn = FA(make_network(), LOSS.value).init(jax.random.key(1))[1]
    np.testing.assert_array_equal(state.feedback["readout"][1], drawn["readout"])


def test_learned_feedback_is_trained_beside_the_params():
    rule = functools.partial(kolen_pollack, init_feedback=layerwise(distribution="uniform", scale=0.5, density=1.0))
    decaying = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.2))
    start = train([0], [0], rule=rule, optimizer=decaying)
    end = train([0], [60], rule=rule, optimizer=decaying)

    def gap(state):
        return np.linalg.norm(state.feedback["readout"] - state.params["readout"]["kernel"])

    # Both decay alike and get the same updates, so their difference shrinks by 1 - 0.2 * 0.5 per step.
    np.testing.assert_allclose(gap(end.state), 0.9**60 * gap(start.state), rtol=1e-2)


def test_removed_connections_stay_removed():
    network, optimizer = make_network(density=0.5), keep_removed(optax.adam(0.01))
    start, end = train([0], [0, 40], network=network, optimizer=optimizer).params
    for name in network.kernel_shapes:
        kernel, trained_kernel = (network.kernels(params)[name] for params in (start, end))
        np.testing.assert_array_equal(kernel == 0, trained_kernel == 0)
        assert np.any(kernel != trained_kernel)


@pytest.mark.slow
def test_other_connections_are_trained_also_in_a_scanned_stack():
    network, optimizer = make_network(hidden=[6] * 10, density=0.5), keep_removed(optax.sgd(0.1))
    trained = train([0], [0, 40], rule=bp, network=network, optimizer=optimizer)
    start, end = (params["stages_1"]["linear"] for params in trained.params)
    assert np.mean(start["bias"] != end["bias"]) > 0.5
    assert np.mean(start["kernel"] != end["kernel"]) > 0.3


def test_kernel_that_starts_at_zero_as_a_whole_is_trained():
    network, optimizer = make_network(init_scale=[0.5, 0.0]), keep_removed(optax.sgd(0.1))
    trained = train([0], [40], network=network, optimizer=optimizer)
    assert np.all(trained.state.params["readout"]["kernel"] != 0)


def test_program_compiles_once_for_many_evaluations():
    traces = []

    def counted_loss(logits, targets):
        traces.append(None)
        return LOSS.value(logits, targets)

    network, task, sgd = make_network(), make_task(), optax.sgd(0.1)
    rule, loss = bp(network, counted_loss), Loss(counted_loss, LOSS.output_units)
    training = TrainingOptions(batch_size=BATCH_SIZE, shuffle=True, probe_size=0)
    program = make_program(lambda _: Learner(rule, network, loss, training, sgd, sgd), task, jax.devices()[:1])
    seeds = jnp.asarray([0], jnp.int32)
    states = program.init(seeds, {})
    states = program.train(states, seeds, 0, 1, program.data())
    first = len(traces)
    assert first > 0
    for step in (2, 9, 17):
        states = program.train(states, seeds, step - 1, step, program.data())
    assert len(traces) == first


@pytest.mark.slow
def test_eight_devices_share_the_seeds_and_their_memory(tmp_path):
    arguments = ["task=digits", "rule=dfa", "architecture.hidden=[50,40]", "seeds=8", "epochs=1", "evaluations=3"]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
    runs = {}
    for devices in ("all", 1):
        command = [*arguments, f"devices={devices}", f"hydra.run.dir={tmp_path}/{devices}"]
        process = [sys.executable, "-m", "fa_jax", *command]
        subprocess.run(process, check=True, env=environment, stdout=subprocess.DEVNULL)
        runs[devices] = read_run(tmp_path / str(devices))
        assert len(runs[devices].environment["devices"]) == 8
    for metric in runs[1].metrics:
        np.testing.assert_allclose(*(run.curves(metric)[1] for run in runs.values()), rtol=1e-4, atol=1e-5)
    # Every device has a copy of the data, besides what it needs for its seeds.
    bytes_needed = [run.summary["cost"]["memory_bytes"] for run in runs.values()]
    data_bytes = 1797 * 65 * 4
    assert bytes_needed[0] < bytes_needed[1] / 2 + data_bytes
