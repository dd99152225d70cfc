"""Every YAML in conf/ composes and builds; they are listed by globbing."""

import csv
import functools
import inspect

import hydra.errors
import hydra.utils
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.build import SPACINGS
from fa_jax.cli.compose import compose as compose_all
from fa_jax.cli.groups import CONF, choices
from fa_jax.cli.tuned import TABLE
from fa_jax.tasks import tfds
from fa_jax.training.compile import make_program_of
from tests.conftest import CUT_MNIST, make_rule

PATHS = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))


NEEDED = {
    ("architecture", "module"): [
        "architecture.module=tests.networks.test_module.Pixels",
        "architecture.arguments={features: 10}",
    ],
    ("task", "tfds"): ["task.dataset=mnist"],
}
"""Options without a default, of choices that need some."""


def compose_runs(*words):
    """The checked configs and jobs of arguments."""
    return compose_all(parse(words)).runs


def compose_run(*words):
    (run,) = compose_runs(*words)
    return run


@pytest.mark.parametrize("path", PATHS)
def test_a_yaml_starts_with_a_comment(path):
    lines = (CONF / path).read_text().splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert first.startswith("# ")
    assert len(first) > 10


@functools.cache
def run_of(task, rule):
    architecture = "architecture.hidden=[9,9]", "architecture.activation=relu", "architecture.biases=true"
    return compose_run(f"task={task}", f"rule={rule}", *architecture)


@pytest.mark.parametrize("rule", choices("rule"))
def test_a_rule_has_the_feedback_that_its_yaml_chooses(rule):
    defaults = yaml.safe_load((CONF / "rule" / f"{rule}.yaml").read_text()).get("defaults", [])
    chosen = [entry["override /feedback"] for entry in defaults if "override /feedback" in entry]
    run = run_of("digits", rule)
    assert run.choices["feedback"] == (chosen[0] if chosen else None)
    assert set(chosen) <= set(choices("feedback"))
    factory = hydra.utils.get_method(run.config["rule"]["_target_"])
    takes_feedback = "init_feedback" in inspect.signature(factory).parameters
    assert takes_feedback == bool(chosen)


@pytest.mark.parametrize(
    ("task", "rule"),
    [
        (task, rule)
        if task == "digits" or (task == "linear" and rule in ("bp", "forward_forward"))
        else pytest.param(task, rule, marks=pytest.mark.slow)
        for task in ("linear", "nonlinear", "digits")
        for rule in choices("rule")
    ],
)
def test_a_rule_builds_on_a_task_unless_it_lacks_classes(task, rule):
    if task != "digits" and make_rule(rule)[1].extras.needs_classes:
        with pytest.raises(BadOption, match=f"rule={rule} needs a task with classes"):
            _ = run_of(task, rule).job
        return
    job = run_of(task, rule).job
    assert job.network.outputs == job.task.outputs
    assert [h.shape for h in job.network.hidden_shapes.values()][-2:] == [(9,), (9,)]
    assert job.evaluations[0] == 0
    params, _ = jax.eval_shape(job.rule.init, jax.random.key(0))
    outputs = jax.eval_shape(job.rule.predict, params, jax.ShapeDtypeStruct((3, *job.task.input_shape), np.float32))
    assert outputs.shape == (3, job.task.outputs)


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in ("architecture", "loss", "optimizer", "optimizer/schedule") for name in choices(group)],
)
def test_a_choice_of_a_group_builds(group, name):
    run = compose_run("task=digits", f"{group}={name}", *NEEDED.get((group, name), []))
    assert run.job.network.outputs == 10
    if group != "optimizer/schedule":
        assert run.choices[group] == name


@pytest.mark.parametrize("name", choices("measure"))
def test_a_measure_builds(name):
    (report,) = compose_run("task=digits", f"measure={name}").job.training.measures
    assert report.metrics[0].label


@pytest.mark.parametrize("task", sorted(choices("task").keys() - {"arrays", "csv"}))
def test_a_task_builds(stand_in_images, task):
    run = compose_run(f"task={task}", *NEEDED.get(("task", task), []))
    assert run.job.network.input_shape == run.job.task.input_shape
    if "dataset" in run.config["task"] and task != "tfds":
        assert run.config["task"]["dataset"] == task
        assert run.job.task.outputs == tfds.DATASETS[task].classes


def is_other_on_other_data(experiment):
    """Whether an experiment is another one on other data."""
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    return "- /experiment/" in text and "override /task:" in text


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(name, marks=pytest.mark.slow) if is_other_on_other_data(name) else name
        for name in choices("experiment")
    ],
)
def test_an_experiment_builds_with_its_rule_and_its_network(stand_in_images, experiment):
    # Whitening takes a minute, and many examples a second; neither changes rule or network.
    words = ["task.preprocessing=centred"] if experiment.startswith("nokland2016/conv") else []
    words = ["task.train_examples=400"] if experiment.startswith("lillicrap2014/task3") else words
    runs = compose_runs(f"experiment={experiment}", *words)
    named = [rule for rule in ("bp", "fa", "shallow") if f"_{rule}" in experiment]
    for run in runs:
        job, config = run.job, run.config
        assert run.choices["experiment"] == experiment
        assert config["rule"]["_target_"].endswith(f".{run.choices['rule']}")
        assert not named or run.choices["rule"] == named[0]
        assert job.network.outputs == job.task.outputs
        assert len(job.groups[0]) == config["seeds"]
        assert job.training.batch_size == config["batch_size"]
        steps_per_epoch = len(job.task.train.inputs) // config["batch_size"]
        assert job.evaluations[-1] == round(config["epochs"] * steps_per_epoch)
        if "hidden" in config["architecture"]:
            widths = [h.shape[-1] for h in job.network.hidden_shapes.values() for _ in range(max(1, *h.stack, 0))]
            assert widths[-len(config["architecture"]["hidden"]) :] == config["architecture"]["hidden"]
    assert len({str(run.config) for run in runs}) == len(runs)


def test_the_command_line_overrides_preset_task_and_experiment():
    run = compose_run("rule=fa", "optimizer.learning_rate=7", "feedback.scale=3", "seeds=3")
    assert run.config["optimizer"]["learning_rate"] == 7
    assert run.config["feedback"]["scale"] == 3
    assert run.job.groups == ((0, 1, 2),)
    run = compose_run("experiment=lillicrap2014/task3_fa3", "optimizer.learning_rate=7", "epochs=0.5")
    assert run.config["optimizer"]["learning_rate"] == 7
    assert run.job.evaluations[-1] == 200_000


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("number", [1, 2, 40])
def test_the_last_evaluation_is_after_the_last_step(spacing, number):
    steps = np.round(SPACINGS[spacing](400_000, number)).astype(int)
    assert (max(steps), len(steps)) == (400_000, number)


@pytest.mark.parametrize("optimizer", [name for name in choices("optimizer") if name != "sgd"])
@pytest.mark.parametrize("task", ["linear", "nonlinear"])
def test_another_optimizer_trains_at_its_own_rate(optimizer, task):
    default = yaml.safe_load((CONF / "optimizer" / f"{optimizer}.yaml").read_text())["learning_rate"]
    for rule in ("bp", "fa"):
        run = compose_run(f"task={task}", f"rule={rule}", f"optimizer={optimizer}")
        assert run.config["optimizer"]["learning_rate"] == default
    sgd = yaml.safe_load((CONF / "optimizer" / "sgd.yaml").read_text())["learning_rate"]
    assert compose_run(f"task={task}", "rule=fa").config["optimizer"]["learning_rate"] != sgd


def test_adam_on_the_linear_task_takes_steps_of_its_default_rate():
    job = compose_run("task=linear", "optimizer=adam").job
    params, _ = job.rule.init(jax.random.key(0))
    updates, _ = job.learner.optimizer.update(
        jax.tree.map(np.ones_like, params), job.learner.optimizer.init(params), params
    )
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -0.001, rtol=1e-4)


def test_an_unknown_option_is_refused(compose):
    with pytest.raises(hydra.errors.ConfigCompositionException):
        compose("rule.nonsense=1")


with TABLE.open(newline="") as file:
    TUNED = list(csv.DictReader(file))


def choices_of(row):
    return [f"{group}={row[group]}" for group in ("task", "architecture", "rule")]


def options_of(group, name):
    """The options of a choice of a group, with those of the choices that it builds on."""
    config = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    inherited = [entry for entry in config.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    return set(config.get(group, config)).union(*(options_of(group, other) for other in inherited))


@pytest.mark.parametrize("row", TUNED, ids=lambda row: "/".join((row["task"], row["architecture"], row["rule"])))
def test_tuned_values_are_of_options_that_the_choices_have(row):
    feedback = [
        entry["override /feedback"]
        for entry in yaml.safe_load((CONF / "rule" / f"{row['rule']}.yaml").read_text()).get("defaults", [])
        if "override /feedback" in entry
    ]
    choice = {**row, "feedback": feedback and feedback[0]}
    for override in row["overrides"].split():
        group, _, name = override.partition("=")[0].partition(".")
        assert name in options_of(group, choice[group])


def rows_to_build():
    """All rows of tuned values; slow are those beyond the first of each task and architecture."""
    seen = set()
    for row in TUNED:
        key = row["task"], row["architecture"]
        name = "/".join((row["task"], row["architecture"], row["rule"]))
        yield pytest.param(row, id=name, marks=() if key not in seen else pytest.mark.slow)
        seen.add(key)


@pytest.mark.parametrize("row", list(rows_to_build()))
def test_tuned_values_match_the_table_and_build(row):
    data = [f"task.data_dir={CUT_MNIST}"] if row["task"] == "mnist" else []
    run = compose_run(*choices_of(row), *data, "tuned=true")
    for override in row["overrides"].split():
        option, _, value = override.partition("=")
        group, _, name = option.partition(".")
        assert run.config[group][name] == yaml.safe_load(value)
    assert run.choices["optimizer"] == row["optimizer"]
    assert run.job.network.outputs == 10


def test_rows_of_tuned_values_are_distinct_and_have_their_command_date_and_commit():
    assert len({tuple(choices_of(row)) for row in TUNED}) == len(TUNED)
    for row in TUNED:
        assert row["command"].startswith("python -m experiments.")
        assert len(row["date"].split("-")) == 3
        assert len(row["commit"]) == 7


def test_the_command_line_overrides_tuned_values_which_override_the_defaults():
    words = "task=digits", "architecture=cnn", "rule=dfa"
    for further, rate, scale in (([], 0.1, 1), (["tuned=true"], 0.3, 3), (["tuned=true", "feedback.scale=7"], 0.3, 7)):
        config = compose_run(*words, *further).config
        assert (config["optimizer"]["learning_rate"], config["feedback"]["scale"]) == (rate, scale)
    run = compose_run(*words, "tuned=true", "optimizer.learning_rate=7")
    assert run.config["optimizer"]["learning_rate"] == 7


@pytest.mark.parametrize("rule", ["kolen_pollack", "direct_kolen_pollack"])
def test_learned_feedback_decays_as_the_params_do(rule):
    words = f"rule={rule}", "architecture.hidden=[9,8]", "optimizer.learning_rate=0.1"
    job = compose_run("task=digits", *words, "optimizer.weight_decay=0.5").job
    params, feedback = job.rule.init(jax.random.key(0))
    for optimizer, tree in ((job.learner.optimizer, params), (job.learner.feedback_optimizer, feedback)):
        ones, zeros = (jax.tree.map(like, tree) for like in (jnp.ones_like, jnp.zeros_like))
        steps, _ = optimizer.update(zeros, optimizer.init(ones), ones)
        assert jax.tree.leaves(steps)
        jax.tree.map(lambda step: np.testing.assert_allclose(step, -0.05, rtol=1e-6), steps)


def test_the_fixed_part_of_learned_feedback_does_not_decay():
    words = "rule=product_feedback_alignment", "architecture.hidden=[9,8]", "optimizer.learning_rate=0.1"
    job = compose_run("task=digits", *words, "optimizer.weight_decay=0.5").job
    _, feedback = job.rule.init(jax.random.key(0))
    ones, zeros = (jax.tree.map(like, feedback) for like in (jnp.ones_like, jnp.zeros_like))
    optimizer = job.learner.feedback_optimizer
    steps, _ = optimizer.update(zeros, optimizer.init(ones), ones)
    for part, step in (("fixed", 0.0), ("learned", -0.05)):
        for leaf in steps[part].values():
            np.testing.assert_allclose(leaf, step, rtol=1e-6)


def test_the_feedback_of_kolen_pollack_converges_to_the_weights_with_weight_decay():
    words = "rule=kolen_pollack", "architecture.hidden=[9,8]", "optimizer.learning_rate=0.1", "probe=0", "seeds=1"
    job = compose_run("task=digits", *words, "optimizer.weight_decay=0.5").job
    program, seeds, gaps = make_program_of(job, 1), np.zeros(1, np.int32), []
    states = program.init(seeds, {})
    for first, last in ((0, 0), (0, 40)):
        states = program.train(states, seeds, first, last, program.data())
        pairs = [(b[0], job.network.kernels(states.params)[name][0]) for name, b in states.feedback.items()]
        gaps.append([float(jnp.linalg.norm(b - w)) for b, w in pairs])
    np.testing.assert_allclose(gaps[1], np.array(gaps[0]) * 0.95**40, rtol=1e-3)


def test_tuned_values_are_not_for_another_optimizer():
    words = "task=digits", "rule=fa", "tuned=true"
    with pytest.raises(
        BadOption, match=r"^tuned=true has values for optimizer=sgd with digits/mlp/fa; got optimizer=ada"
    ):
        compose_run(*words, "optimizer=adam")
    assert compose_run(*words, "optimizer=sgd").config["optimizer"]["learning_rate"] == 1
