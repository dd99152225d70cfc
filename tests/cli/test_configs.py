"""Every YAML in conf/ composes and builds, found by globbing."""

import hydra.errors
import pytest
import yaml
from omegaconf import OmegaConf

from fa_jax.checks import BadOption
from fa_jax.cli import help as catalogue
from fa_jax.cli.build import build


def names(group):
    return sorted(catalogue.options(group))


def build_of(compose, *overrides):
    try:
        return build(OmegaConf.to_container(compose(*overrides), resolve=True))
    except BadOption as problem:
        if "task.data_dir" in str(problem) or "prepare it with" in str(problem):
            pytest.skip(f"needs a data set that is not here: {problem}")
        raise


@pytest.mark.parametrize("rule", names("rule"))
@pytest.mark.parametrize("task", ["linear", "nonlinear", "digits"])
def test_every_rule_builds_on_every_task_that_needs_no_download(compose, task, rule):
    words = f"task={task}", f"rule={rule}", "architecture.hidden=[9,9]"
    if task != "digits" and (rule == "associated_learning" or rule.endswith("forward_forward")):
        with pytest.raises(BadOption, match=r"needs a task with classes|forward_forward needs"):
            build_of(compose, *words)
        return
    job = build_of(compose, *words)
    assert job.network.outputs == job.task.outputs
    assert job.evaluations[0] == 0


@pytest.mark.parametrize("group", ["architecture", "loss", "optimizer", "optimizer/schedule"])
def test_every_option_of_a_group_builds(compose, group):
    for name in names(group):
        build_of(compose, "task=digits", f"{group}={name}")


@pytest.mark.parametrize("task", names("task"))
def test_every_task_builds_where_its_data_are(compose, task):
    build_of(compose, f"task={task}")


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_composes(compose, experiment):
    config = compose(f"experiment={experiment}")
    assert config.task._target_


def test_a_value_on_the_command_line_beats_recipe_and_task(compose):
    config = compose("rule=fa", "optimizer.learning_rate=7", "seeds=3", "optimizer=adam")
    assert config.optimizer.learning_rate == 7
    assert config.seeds == 3
    assert config.optimizer.scaling._target_ == "optax.scale_by_adam"


def test_an_option_that_does_not_exist_is_refused(compose):
    with pytest.raises(hydra.errors.ConfigCompositionException):
        compose("rule.nonsense=1")


TUNED = sorted((catalogue.CONF / "recipe" / "tuned" / "true").rglob("*.yaml"))


@pytest.mark.parametrize("path", TUNED, ids=lambda path: "/".join(path.with_suffix("").parts[-3:]))
def test_tuned_values_are_those_of_the_file_and_the_command_line_beats_them(compose, path):
    task, architecture, rule = path.with_suffix("").parts[-3:]
    words = f"task={task}", f"architecture={architecture}", f"rule={rule}", "tuned='true'"
    tuned = yaml.safe_load(path.read_text())["optimizer"]["learning_rate"]
    assert compose(*words).optimizer.learning_rate == tuned
    assert compose(*words, "optimizer.learning_rate=7").optimizer.learning_rate == 7
    build_of(compose, *words)
