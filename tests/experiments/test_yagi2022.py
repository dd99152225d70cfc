"""The configs of `experiments/yagi2022`: each composes, builds, and is what the repository runs."""

import functools

import hydra
import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from fa_jax.cli import help as catalogue
from fa_jax.cli.build import build
from fa_jax.core import Batch
from fa_jax.losses import squared_error
from fa_jax.network import pick
from fa_jax.tasks.nonlinear import nonlinear

NAMES = [name for name in catalogue.options("experiment") if name.startswith("yagi2022_")]
CURVES = [name for name in NAMES if name.rpartition("_")[2][:2] in ("bp", "fa")]
STEPS = {"task1": 781_000, "task2": 37_500, "task3": 62_500}
"""Updates that its loader makes: the whole part of examples over batch, times the epochs."""


@functools.cache
def composed(name):
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("config", [f"experiment={name}"]), resolve=True)


def test_every_curve_of_the_three_tasks_has_a_config():
    curves = [f"yagi2022_task{task}_{rule}" for task in (1, 2) for rule in ("bp", "fa")]
    curves += [
        f"yagi2022_task3_{variant}{curve}" for variant in ("", "readme_") for curve in ("bp2", "bp3", "fa2", "fa3")
    ]
    assert sorted(CURVES) == sorted(curves)


@pytest.mark.parametrize("name", [name for name in NAMES if "task2" not in name])
def test_a_config_builds_with_as_many_steps_as_its_loader_makes(name):
    job = build(composed(name))
    assert job.evaluations[-1] == STEPS[name.split("_")[1]]
    assert (job.task.input_shape, job.task.outputs) == ((30,), 10)
    assert (len(job.task.train.inputs), len(job.task.test.inputs)) == (25_000, 6250)
    for split in (job.task.train, job.task.test):
        assert np.abs(split.inputs).max() <= 1
        assert np.abs(split.targets).max() <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if "task2" in name])
def test_the_mnist_configs_say_what_it_runs(name):
    config = composed(name)
    assert round(config["epochs"] * 60_000 / config["batch_size"]) == STEPS["task2"]
    assert (config["task"]["dataset"], config["task"]["preprocessing"]) == ("mnist", "symmetric")
    assert (config["loss"]["output"], config["loss"]["derivative"]) == ("logistic", "exact")
    assert (config["architecture"]["hidden"], config["architecture"]["activation"]) == ([1000], "logistic")


@pytest.mark.parametrize("name", NAMES)
def test_the_learning_rate_is_its_own_over_the_ten_outputs(name):
    rate = 0.1 if "task3" in name and "readme" not in name else 0.001
    optimizer = composed(name)["optimizer"]
    assert optimizer["learning_rate"] == pytest.approx(rate / 10)
    assert optimizer["weight_decay"] == 0


@pytest.mark.parametrize("name", CURVES)
def test_rule_and_depth_are_those_in_the_name(name):
    config = composed(name)
    curve = name.rpartition("_")[2]
    assert config["rule"]["_target_"].endswith("." + curve[:2])
    assert len(config["architecture"]["hidden"]) == (2 if curve.endswith("3") else 1)
    if curve.startswith("fa"):
        assert (config["rule"]["distribution"], config["rule"]["scale"]) == ("uniform", 0.5)


@pytest.mark.parametrize("name", [name for name in CURVES if "task2" not in name])
def test_the_initial_weights_are_its_own(name):
    job = build(composed(name))
    params = job.network.init(jax.random.key(0))
    kernels = [np.asarray(kernel) for kernel in job.network.weights(params).values()]
    if "task3" in name and "readme" not in name:
        first = kernels.pop(0)
        assert first.std() == pytest.approx((2 / sum(first.shape)) ** 0.5, rel=0.1)
    for kernel in kernels:
        assert 0.009 < np.abs(kernel).max() <= 0.01


def test_a_step_is_the_one_its_code_makes():
    """In NumPy: error over batch x outputs, sent down through B, times the rate of its code, 0.1."""
    job = build(composed("yagi2022_task3_fa3"))
    params, feedback = job.rule.init(jax.random.key(0))
    x, y = job.task.train.inputs[:4], job.task.train.targets[:4]
    updates = job.rule.updates(params, feedback, Batch(x, y, jax.random.key(1)))
    steps, _ = job.optimizer.update(updates, job.optimizer.init(params), params)

    names = list(job.network.kernels)
    biases, signals = pick(params, "bias"), [np.asarray(x)]
    for name in names:
        a = signals[-1] @ job.network.weights(params)[name] + biases[name]
        signals.append(a if name == names[-1] else np.tanh(a))
    down = (signals[-1] - y) / (4 * 10)
    for i, name in reversed(list(enumerate(names))):
        np.testing.assert_allclose(job.network.weights(steps)[name], -0.1 * signals[i].T @ down, atol=1e-7)
        np.testing.assert_allclose(pick(steps, "bias")[name], -0.1 * down.sum(0), atol=1e-7)
        if i:
            down = down @ feedback[name].T * (1 - signals[i] ** 2)


def test_the_loss_of_a_constant_tenth_on_one_hot_classes_is_its_plateau():
    logits = np.full((10, 10), np.log(0.1 / 0.9), np.float32)
    loss = squared_error(output="logistic", derivative="exact")
    assert loss.value(logits, np.eye(10, dtype=np.float32)) == pytest.approx(0.45)


def test_its_task_3_has_a_saturated_teacher_as_coded_but_not_as_its_readme_says():
    def change_when_inputs_double(name):
        options = composed(name)["task"] | {"train_examples": 1500, "test_examples": 500}
        options.pop("_target_")
        task, doubled = (nonlinear(**options | {"input_scale": k * options["input_scale"]}) for k in (1, 2))
        return np.mean(np.abs(task.train.targets - doubled.train.targets))

    assert change_when_inputs_double("yagi2022_task3") < 1e-4
    assert change_when_inputs_double("yagi2022_task3_readme") > 1e-2
