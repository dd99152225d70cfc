"""The configs of `experiments/yagi2022`: each builds, and has the settings of the repository."""

import functools

import hydra
import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.yagi2022 import figures
from fa_jax.cli.build import build
from fa_jax.cli.groups import CONF, choices
from fa_jax.core import Batch
from fa_jax.losses import squared_error
from fa_jax.networks.variables import leaves_named
from fa_jax.tasks.nonlinear import nonlinear

NAMES = [name for name in choices("experiment") if name.startswith("yagi2022/")]
CURVES = [name for name in NAMES if name.rpartition("_")[2][:2] in ("bp", "fa")]
STEPS = {"task1": 781_000, "task2": 37_500, "task3": 62_500}
"""The number of updates in the repository: examples over batch size, rounded down, times the epochs."""


@functools.cache
def composed(name):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("config", [f"experiment={name}"]), resolve=True)


def test_every_curve_of_the_three_tasks_has_a_config():
    curves = [f"yagi2022/task{task}_{rule}" for task in (1, 2) for rule in ("bp", "fa")]
    curves += [
        f"yagi2022/task3_{variant}{curve}" for variant in ("", "readme_") for curve in ("bp2", "bp3", "fa2", "fa3")
    ]
    assert sorted(CURVES) == sorted(curves)
    planned = [f"yagi2022/{task}_{curve}" for task, plan in figures.PLANS.items() for curve in plan.curves]
    assert sorted(planned) == sorted(curves)


@pytest.mark.parametrize("name", [name for name in NAMES if "task2" not in name])
def test_config_builds_with_the_steps_and_the_data_of_the_repository(name):
    job = build(composed(name))
    task = name.removeprefix("yagi2022/").partition("_")[0]
    assert job.evaluations[-1] == STEPS[task]
    assert (job.task.input_shape, job.task.outputs) == ((30,), 10)
    assert (len(job.task.train.inputs), len(job.task.test.inputs)) == (25_000, 6250)
    for split in (job.task.train, job.task.test):
        assert np.abs(split.inputs).max() <= 1
        assert np.abs(split.targets).max() <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if "task2" in name])
def test_mnist_configs_have_the_settings_of_the_repository(name):
    config = composed(name)
    assert round(config["epochs"] * 60_000 / config["batch_size"]) == STEPS["task2"]
    assert (config["task"]["dataset"], config["task"]["preprocessing"]) == ("mnist", "symmetric")
    assert (config["loss"]["output"], config["loss"]["derivative"]) == ("sigmoid", "exact")
    assert (config["architecture"]["hidden"], config["architecture"]["activation"]) == ([1000], "sigmoid")


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_is_that_of_the_repository_divided_by_the_outputs(name):
    rate = 0.1 if "task3" in name and "readme" not in name else 0.001
    optimizer = composed(name)["optimizer"]
    assert optimizer["learning_rate"] == pytest.approx(rate / 10)
    assert optimizer["weight_decay"] == 0


@pytest.mark.parametrize("name", CURVES)
def test_rule_and_depth_match_the_name(name):
    config = composed(name)
    curve = name.rpartition("_")[2]
    assert config["rule"]["_target_"].endswith("." + curve[:2])
    assert len(config["architecture"]["hidden"]) == (2 if curve.endswith("3") else 1)
    if curve.startswith("fa"):
        assert (config["feedback"]["distribution"], config["feedback"]["scale"]) == ("uniform", 0.5)


@pytest.mark.parametrize("name", [name for name in CURVES if "task2" not in name])
def test_initial_weights_are_distributed_as_in_the_repository(name):
    job = build(composed(name))
    params = job.network.init(jax.random.key(0))
    kernels = [np.asarray(kernel) for kernel in job.network.kernels(params).values()]
    if "task3" in name and "readme" not in name:
        first = kernels.pop(0)
        assert first.std() == pytest.approx((2 / sum(first.shape)) ** 0.5, rel=0.1)
    for kernel in kernels:
        assert 0.009 < np.abs(kernel).max() <= 0.01


def test_step_matches_the_repository():
    """In NumPy: error over batch x outputs, sent back through B, times the learning rate of its code, 0.1."""
    job = build(composed("yagi2022/task3_fa3"))
    params, feedback = job.rule.init(jax.random.key(0))
    x, y = job.task.train.inputs[:4], job.task.train.targets[:4]
    updates = job.rule.updates(params, feedback, Batch(x, y, jax.random.key(1)))
    steps, _ = job.learner.optimizer.update(updates, job.learner.optimizer.init(params), params)

    names = list(job.network.kernel_shapes)
    biases, activations = leaves_named(params, "bias"), [np.asarray(x)]
    for name in names:
        a = activations[-1] @ job.network.kernels(params)[name] + biases[name]
        activations.append(a if name == names[-1] else np.tanh(a))
    signal = (activations[-1] - y) / (4 * 10)
    for i, name in reversed(list(enumerate(names))):
        np.testing.assert_allclose(job.network.kernels(steps)[name], -0.1 * activations[i].T @ signal, atol=1e-7)
        np.testing.assert_allclose(leaves_named(steps, "bias")[name], -0.1 * signal.sum(0), atol=1e-7)
        if i:
            signal = signal @ feedback[name].T * (1 - activations[i] ** 2)


def test_loss_of_a_constant_output_of_a_tenth_is_the_plateau_of_task_2():
    logits = np.full((10, 10), np.log(0.1 / 0.9), np.float32)
    loss = squared_error(output="sigmoid", derivative="exact")
    assert loss.value(logits, np.eye(10, dtype=np.float32)) == pytest.approx(0.45)


def test_teacher_of_task_3_is_saturated_in_the_code_but_not_in_the_readme():
    def change_when_inputs_double(name):
        options = composed(name)["task"] | {"train_examples": 1500, "test_examples": 500}
        options.pop("_target_")
        task, doubled = (nonlinear(**options | {"input_scale": k * options["input_scale"]}) for k in (1, 2))
        return np.mean(np.abs(task.train.targets - doubled.train.targets))

    assert change_when_inputs_double("yagi2022/task3") < 1e-4
    assert change_when_inputs_double("yagi2022/task3_readme") > 1e-2
