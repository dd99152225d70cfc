"""What fa_jax relies on in Hydra: these tests fail when Hydra changes it."""

import re
from pathlib import Path

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, MissingConfigException

import fa_jax
from fa_jax.checks import BadOption
from fa_jax.cli import sweep
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose as compose_all
from fa_jax.cli.groups import choices
from fa_jax.cli.hydra_context import initialized
from fa_jax.cli.main import main
from fa_jax.cli.overrides import parse_overrides
from fa_jax.cli.rule_options import notes

SHORT = ["task.train_examples=8", "evaluations=1", "seeds=1", "probe=0", "checkpoint=false"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["rule=bp,fa", "seeds=2", "optimizer.learning_rate=0.1,0.2,0.3"],
        ["seed=range(0,3)", "rule=bp,fa", "architecture.hidden=[9],[9,8]"],
        ["rule=glob(b*)", "epochs=1,2"],
        ["rule=shallow,bp,fa", "seeds=2", "rule=bp"],
        ["seed=1,2", "rule=bp,fa", "seed=5,6,7"],
        ["+optimizer@feedback_optimizer=sgd,adam", "rule=kolen_pollack,direct_kolen_pollack"],
    ],
)
def test_sweep_jobs_match_hydra_s_sweeper_in_order(overrides):
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    with initialized():
        ((*expected,),) = BasicSweeper.split_arguments(parse_overrides(overrides), max_batch_size=None)
    runs = compose_all(parse(["--multirun", *overrides])).runs
    assert [run.overrides for run in runs] == expected


@pytest.mark.parametrize(
    ("overrides", "composed"),
    [
        (["rule=fa", "optimizer.learning_rate=0.1,0.2,0.3", "epochs=1,2"], 1),
        (["task=digits", "rule=bp,fa", "architecture.hidden=[9],[9,8],[]", "display.label=a,null"], 2),
        (["optimizer.learning_rate=0.1,0.2,0.3", "rule=bp,fa"], 2),
        (["task=digits", "tuned=false,true", "rule=fa", "epochs=1,2"], 2),
        (["rule=fa", "display.label=a,b", "display={label:c}"], 2),
        (["rule=bp", "display={label:a},{colour:'#123456'}"], 2),
        (["task=digits", "rule=bp", "epochs=1,'${seeds}'"], 2),
        (["rule=bp", "seeds=1,2", "hydra.sweep.subdir='${hydra.job.override_dirname}'"], 2),
        (["rule=bp", "+optimizer@feedback_optimizer=sgd,adam"], 2),
    ],
)
def test_jobs_that_differ_in_values_alone_are_composed_once_and_as_hydra_composes_each(
    monkeypatch, overrides, composed
):
    calls, original = [], hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda *words, **options: calls.append(words) or original(*words, **options))
    runs = compose_all(parse(["--multirun", *overrides])).runs
    assert len(calls) == composed
    monkeypatch.setattr("fa_jax.cli.composer._Original.with_values_of", lambda self, overrides: None)
    alone = compose_all(parse(["--multirun", *overrides])).runs
    assert len(calls) == composed + 1 + len(runs) + sum(run.config["tuned"] for run in runs)
    assert [run.config for run in runs] == [run.config for run in alone]
    assert [run.folder for run in runs] == [run.folder for run in alone]


@pytest.mark.parametrize("value", ["x", "[1]", "null", "{a: 1}"])
def test_a_value_that_no_run_takes_is_refused_as_if_it_came_first(value):
    messages = []
    for values in (f"0.1,{value}", f"{value},0.1"):
        with pytest.raises(BadOption) as refused:
            compose_all(parse(["--multirun", "rule=bp", f"optimizer.learning_rate={values}"])).build()
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


def test_options_of_rules_in_a_sweep_are_for_the_rules_that_have_them():
    words = ["--multirun", "rule=bp,fa,node_perturbation", "feedback.scale=3,4", "rule.sigma=0.1"]
    composition = compose_all(parse(words))
    assert [run.overrides for run in composition.runs] == [
        ["rule=bp"],
        *(["rule=fa", f"feedback.scale={scale}"] for scale in (3, 4)),
        ["rule=node_perturbation", "rule.sigma=0.1"],
    ]
    assert notes(composition.runs) == [
        "without feedback.scale, rule.sigma, which these do not have: rule=bp",
        "without rule.sigma, which these do not have: rule=fa",
        "without feedback.scale, which these do not have: rule=node_perturbation",
    ]


def test_a_sweep_of_an_experiment_can_be_overridden():
    words = ["experiment=lillicrap2014/task1", "task.train_examples=40"]
    assert [run.choices["rule"] for run in compose_all(parse(words)).runs] == [
        "shallow",
        "node_perturbation",
        "bp",
        "fa",
    ]
    assert [run.choices["rule"] for run in compose_all(parse([*words, "rule=bp"])).runs] == ["bp"]


@pytest.mark.parametrize(
    ("override", "key"),
    [("epchs=3", "epchs"), ("rule.foo=3", "rule.foo"), ("architecture.foo.bar=3", "architecture.foo")],
)
def test_the_cause_of_a_composition_error_carries_the_key(compose, override, key):
    with pytest.raises(ConfigCompositionException) as caught:
        compose(override)
    assert str(caught.value.__cause__.full_key) == key


@pytest.mark.parametrize("group", ["rule", "architecture", "optimizer/schedule", "feedback"])
def test_the_error_of_a_missing_choice_carries_group_and_choices(compose, group):
    with pytest.raises(MissingConfigException) as caught:
        compose(f"{group}=nothing")
    assert caught.value.missing_cfg_file == f"{group}/nothing"
    assert sorted(caught.value.options) == sorted(choices(group))


def record_number(config, *, folder, **_):
    """The task of a launcher: records the number that Hydra gives to the job, and its rule."""
    number = HydraConfig.get().job.num
    (Path(folder) / f"number_{number}").write_text(config.rule._target_)


@pytest.mark.parametrize("launcher", ["basic", "cores", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_launchers_run_our_task_with_the_number_of_each_job(folder, monkeypatch, launcher):
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{'submitit' if 'submitit' in launcher else 'joblib'}_launcher")
    monkeypatch.setattr(sweep, "_parallel_job", record_number)
    composition = compose_all(parse(["--multirun", f"hydra/launcher={launcher}", "rule=bp,fa,dfa", *SHORT]))
    sweep._launch_in_parallel(folder, composition, ["fa-jax"], sweep.new_job)
    numbers = {path.name: path.read_text() for path in folder.glob("number_*")}
    rules = ("bp", "fa", "dfa")
    assert numbers == {f"number_{i}": f"fa_jax.rules.{rule}.{rule}" for i, rule in enumerate(rules)}


@pytest.mark.parametrize("pattern", [r"sys\.argv\s*=", r"hydra\._internal"])
def test_no_module_rewrites_the_arguments_or_imports_hydra_s_internals(pattern):
    modules = list(Path(fa_jax.__file__).parent.rglob("*.py"))
    assert len(modules) > 50
    assert [str(path) for path in modules if re.search(pattern, path.read_text())] == []


@pytest.mark.parametrize(
    ("words", "times"),
    [
        (["rule=fa", *SHORT], 1),
        (["task=digits", "rule=fa", "tuned=true", "epochs=0.01", *SHORT[1:]], 2),
        (["--multirun", "rule=fa,bp,shallow", *SHORT], 3),
    ],
    ids=["run", "tuned", "sweep"],
)
def test_each_run_is_composed_once_and_once_more_with_tuned_values(folder, monkeypatch, words, times):
    calls, original = [], hydra.compose

    def count(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(hydra, "compose", count)
    assert main(words) == 0
    assert len(calls) == times
