"""Associated learning as in the authors' code: sizes of networks, steps on CIFAR-100, the model of the pipeline."""

import json
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from experiments.kao2019 import pipeline, rows
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.core import Batch
from fa_jax.network import parameter_count
from fa_jax.training.compile import make_program_of
from tests.conftest import CUT_MNIST, random_batch
from tests.experiments.conftest import job_of

PARAMETER_COUNTS = {
    "exact al": 24_957_962,
    "exact bp": 13_405_194,
    "cnn al": 62_085_546,
    "cnn bp": 4_700_586,
    "cifar10 mlp_al": 216_327_010,
    "cifar10 mlp_bp": 117_273_010,
    "cifar10 cnn_al": 80_518_122,
    "cifar10 cnn_bp": 5_929_962,
    "cifar10 resnet20_al": 70_211_726,
    "cifar10 resnet20_bp": 1_099_526,
    "cifar10 vgg_al": 164_355_694,
    "cifar10 vgg_bp": 10_596_070,
    "cifar100 mlp_al": 216_867_100,
    "cifar100 mlp_bp": 117_543_100,
    "cifar100 cnn_al": 160_373_520,
    "cifar100 cnn_bp": 12_452_520,
    "cifar100 resnet20_al": 119_528_016,
    "cifar100 resnet20_bp": 2_496_016,
    "cifar100 vgg_al": 269_991_984,
    "cifar100 vgg_bp": 13_976_560,
}
"""Of the authors' networks, the offsets and scales of norms included."""


@pytest.mark.parametrize(
    "name",
    [
        n if n.startswith(("exact ", "cnn ")) or n == "cifar100 cnn_al" else pytest.param(n, marks=pytest.mark.slow)
        for n in PARAMETER_COUNTS
    ],
)
def test_network_has_as_many_params_as_the_authors(few_images, name):
    row, run = name.split()
    (overrides,) = [overrides for other, overrides, _ in rows.runs(row) if other == run]
    job = job_of(rows.arguments_of(overrides))
    params, _ = jax.eval_shape(job.rule.init, jax.random.key(0))
    assert parameter_count(job.network, params) == PARAMETER_COUNTS[name]


@pytest.mark.slow
def test_steps_on_cifar_100_with_the_authors_settings_change_all_params(few_images):
    network = ["architecture=cnn", "architecture.norm=batch_tensorflow", "architecture.activation=elu", "rule.width=8"]
    job = job_of(["experiment=kao2019/cifar100", *network, "architecture.topology=conv4x3+conv4x3s2-conv8x3s2"])
    program, seeds = make_program_of(job, 1), np.zeros(1, np.int32)
    states = program.init(seeds, {})
    before = jax.device_get(states.params)
    states = program.train(states, seeds, 0, 3, program.data())
    evaluated, states = program.evaluate(states, seeds, 3, program.data())
    after = jax.device_get(states.params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(after))
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    assert 0 < evaluated.with_nan()["associated_loss_0"][0] < 1


def test_modelled_time_is_that_of_the_slowest_device():
    assert pipeline.modelled_seconds([1.0] * 4, batches=10, devices=1) == 40
    assert pipeline.modelled_seconds([1.0] * 4, batches=10, devices=4) == 13
    assert pipeline.modelled_seconds([1.0, 1.0, 1.0, 5.0], batches=10, devices=2) == 11 * 6


@pytest.mark.slow
def test_each_stage_is_timed_on_the_outputs_of_the_stage_below(monkeypatch):
    job = compose(parse(["task=digits", "rule=associated_learning", "rule.width=6", "architecture.hidden=[9,8,5]"]))
    job = job.runs[0].job
    params, _ = job.rule.init(jax.random.key(0))
    inputs, step = [], pipeline.Worker.step

    def slow_step(worker, s, t, key):
        inputs.append((s.shape, t.shape))
        time.sleep(0.01 * s.shape[-1])
        return step(worker, s, t, key)

    monkeypatch.setattr(pipeline.Worker, "step", slow_step)
    batch = Batch(*random_batch(inputs=(64,), outputs=10))
    costs = pipeline.stage_seconds(job.network, optax.sgd(0.1), params, batch, jax.devices()[0], repeats=2)
    assert inputs == [((7, n), (7, m)) for n, m in ((64, 10), (9, 6), (8, 6)) for _ in range(3)]
    assert [cost >= 0.01 * n for cost, n in zip(costs, (64, 9, 8), strict=True)] == [True] * 3


def test_results_of_a_process_become_rows_relative_to_one_device_and_to_backprop():
    measured = {
        "speeds": {"BP, one program": 20.0, "AL, pipeline on 1": 10.0, "AL, pipeline on 2": 15.0},
        "modelled": {"AL, pipeline on 2": 18.0},
        "stages": [1.0, 2.0],
    }
    *_, two = pipeline.rows_of("net", "1", measured)
    assert (two["against AL in turn"], two["against BP"], two["modelled steps/s"]) == ("1.50", "0.75", "18.0")


SMALL = """
import json
from experiments.kao2019 import pipeline

pipeline.NETWORKS["small"] = ([8] * 4, 8, 4, 20)
print(json.dumps(pipeline.measure("small", 1, [1, 2])))
"""
"""Measures a small network in a process of its own, whose cores and devices it chooses."""


@pytest.mark.slow
def test_the_pipeline_is_measured_tabulated_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(pipeline.NETWORKS, "small", ([8] * 4, 8, 4, 20))
    monkeypatch.setenv("TFDS_DATA_DIR", str(CUT_MNIST))
    result = subprocess.run([sys.executable, "-c", SMALL], check=True, stdout=subprocess.PIPE, text=True)
    measured = json.loads(result.stdout.splitlines()[-1])
    ways = ["BP, one program", "AL, one program", "AL, pipeline on 1", "AL, pipeline on 2"]
    assert list(measured["speeds"]) == ways
    assert len(measured["stages"]) == 4
    table = pipeline.rows_of("small", "1", measured)
    assert [row["way"] for row in table] == ways
    assert table[2]["against AL in turn"] == "1.00"
    pipeline.draw("small", measured["events"]["2"], tmp_path / "timeline")
    assert (tmp_path / "timeline.png").stat().st_size > 5000
