"""Plug-ins: an installed package adds its configs by an entry point; nothing is typed, and little is trusted."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import fa_jax
from fa_jax.checks import BadOption
from fa_jax.cli.groups import choices
from fa_jax.cli.main import main
from fa_jax.cli.trust import Origin, check_config
from fa_jax.records.reader import find_runs

RULE = """# @package _global_
# Steps of feedback alignment times a factor.
defaults:
  - override /feedback: layerwise
  - _self_

rule:
  _target_: labrules.rules.scaled
  _partial_: true
"""
RULES = """from os import mkdir
from fa_jax.rules.fa import fa


def scaled(network, loss, *, init_feedback):
    return fa(network, loss, init_feedback=init_feedback)


def other(network, loss, *, init_feedback):
    return fa(network, loss, init_feedback=init_feedback)
"""
OPTIMIZER = """_target_: fa_jax.optimizers.descend
_partial_: true
scaling:
  _target_: optax.scale_by_belief
mine:
  _target_: os.mkdir
"""
SHORT = ["task=digits", "architecture.hidden=[9]", "epochs=1", "seeds=1", "evaluations=1", "probe=4"]
SHORT += ["checkpoint_every=null"]


@pytest.fixture
def site(tmp_path_factory, monkeypatch, folder):
    """A folder of installed packages."""
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(site)
    yield site
    for name in [name for name in sys.modules if name.split(".")[0] == "labrules"]:
        del sys.modules[name]


def install(site, value="labrules.conf", name="lab-rules", configs=None):
    """Installs a package with an entry point, and returns its folder of configs."""
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "top_level.txt").write_text(value.partition(".")[0])
    (metadata / "entry_points.txt").write_text(f"[fa_jax.configs]\nmine = {value}\n")
    conf = site.joinpath(*value.split("."))
    for path, text in (configs or {"rule/scaled.yaml": RULE}).items():
        (conf / path).parent.mkdir(parents=True, exist_ok=True)
        (conf / path).write_text(text)
    (conf.parent / "rules.py").write_text(RULES)
    return conf


def test_a_plugin_is_listed_trained_compared_loaded_and_resumed_without_a_flag(site, capsys):
    install(site)
    for words in (["list", "rule"], ["--help"]):
        assert main(words) == 0
        assert "scaled" in capsys.readouterr().out
    assert "labrules" not in sys.modules
    assert main(["--multirun", "rule=scaled", *SHORT, "hydra.sweep.dir=sweep"]) == 0
    (run,) = find_runs(Path("sweep"))
    assert run.choices["rule"] == "scaled"
    assert run.environment["packages"]["labrules"].startswith("1.0, sources ")
    status = Path("sweep/0_scaled/status.json")
    status.write_text(json.dumps({**json.loads(status.read_text()), "status": "interrupted"}))
    assert main(["resume=sweep"]) == 0
    for verb in ("compare", "report", "status"):
        assert main([verb, "sweep"]) == 0
    assert fa_jax.load("sweep/0_scaled").seeds == [0]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Optuna's
def test_a_rule_of_a_plugin_is_checked_and_tuned(site):
    pytest.importorskip("optuna")
    install(site)
    assert main(["check", "rule=scaled", *SHORT[:4]]) == 0
    words = ["rule=scaled", "task.validation=100", "optimizer.learning_rate=0.1,0.2", "trials=1", "output=tuned"]
    assert main(["tune", *SHORT, *words]) == 0
    assert [run.choices["rule"] for run in find_runs(Path("tuned"))] == ["scaled"]


def test_a_config_from_elsewhere_calls_only_what_the_configs_of_the_plugin_call(site):
    install(site, configs={"rule/scaled.yaml": RULE, "optimizer/belief.yaml": OPTIMIZER})
    for target in ("labrules.rules.scaled", "optax.scale_by_belief"):
        check_config({"rule": {"_target_": target}}, Origin())
    for target in ("labrules.rules.other", "labrules.rules.mkdir", "os.mkdir", "optax.scale_by_yogi", "labrules"):
        with pytest.raises(BadOption, match=f"calls {target}, which is none of fa_jax's factories"):
            check_config({"rule": {"_target_": target}}, Origin())
    check_config({"rule": {"_target_": "labrules.rules.other"}}, Origin(trusted=("labrules",)))


def test_a_logger_of_a_plugin_keeps_its_destination(site):
    logger = {"_target_": "labrules.rules.send", "host": "here"}
    install(site, configs={"logger/sender.yaml": "_target_: labrules.rules.send\nhost: here\n"})
    check_config({"logger": logger}, Origin())
    with pytest.raises(BadOption, match=r"the config sets logger.host=there; trust=logger allows it"):
        check_config({"logger": {**logger, "host": "there"}}, Origin())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda conf: shutil.rmtree(conf.parent), "there is no folder labrules.conf with its configs, since there is"),
        (shutil.rmtree, "there is no folder labrules.conf with its configs, in "),
        (lambda conf: (conf / "hydra").joinpath("x").mkdir(parents=True), None),
        (lambda conf: write(conf / "hydra/launcher/x.yaml"), "it has configs of Hydra; only the command line may"),
        (lambda conf: write(conf / "rule/fa.yaml"), "fa_jax has a rule/fa.yaml too; give this one another name"),
    ],
)
def test_a_plugin_whose_configs_cannot_be_used_is_named(site, refusal, change, message):
    change(install(site))
    if message is None:
        assert main(["list", "rule"]) == 0
    else:
        for words in (["rule=bp", *SHORT], ["list", "rule"]):
            assert f"fa-jax: the plug-in lab-rules 1.0: {message}" in refusal(*words)


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("_target_: labrules.rules.scaled\n")


def test_two_plugins_with_one_choice_are_refused(site, refusal):
    install(site)
    install(site, "otherrules.conf", "other-rules")
    assert "-rules 1.0 has a rule/scaled.yaml too" in refusal("list", "rule")


@pytest.mark.parametrize("value", ["labrules.conf:there", "labrules/conf", ".conf"])
def test_an_entry_point_that_names_no_folder_is_refused(site, refusal, value):
    install(site)
    (site / "lab_rules-1.0.dist-info" / "entry_points.txt").write_text(f"[fa_jax.configs]\nmine = {value}\n")
    line = refusal("list", "rule")
    assert f"lab-rules 1.0: its entry point must name a folder of configs, such as mylab.conf; got {value}" in line


def test_a_plugin_that_cannot_be_imported_or_read_is_one_line_with_the_cause(site, refusal):
    conf = install(site)
    (site / "labrules" / "rules.py").write_text("\nraise RuntimeError('on purpose')\n")
    line = refusal("rule=scaled", *SHORT)
    assert "rule calls labrules.rules.scaled, which cannot be imported: RuntimeError: on purpose (" in line
    assert f"{site}/labrules/rules.py, line 2)" in line
    assert main(["rule=bp", *SHORT, "hydra.run.dir=run"]) == 0  # which needs nothing of the plug-in
    (conf / "rule" / "broken.yaml").write_text("_target_: [\n")
    assert "rule/broken.yaml, line 2 is no YAML" in refusal("rule=broken", *SHORT)
    with pytest.raises(BadOption, match=r"rule/broken.yaml cannot be read: while parsing"):
        check_config({"rule": {"_target_": "labrules.rules.nothing"}}, Origin())


def test_a_plugin_in_the_working_folder_does_not_count(site, folder, monkeypatch):
    install(site)
    assert "scaled" in choices("rule")
    monkeypatch.chdir(site)
    assert "scaled" not in choices("rule")


def test_configs_that_are_named_are_found_beside_a_plugin(site):
    install(site)
    write(Path("conf/rule/own.yaml"))
    Path("more/measure").mkdir(parents=True)
    Path("more/measure/mine.yaml").write_text("mine:\n  _target_: fa_jax.metrics.separation.separation\n")
    searched = f"hydra.searchpath=['file://{Path('more').absolute()}']"
    words = ["--config-dir=conf", searched, "rule=scaled", "measure=mine", *SHORT]
    assert main([*words, "--cfg", "job"]) == 0
    assert {"own", "scaled"} <= choices("rule", "conf").keys()
