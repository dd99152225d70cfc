"""Configs that the user did not write call only trusted functions."""

import json
import shutil

import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs

CALLS = (
    "++hydra={job:{env_set:{GIT_CONFIG_COUNT:'1'}}}",
    "++rule.z=${oc.create:{a:1}}",
    "+measure.taken={_target_:os.system,command:'touch taken'}",
    "hydra.callbacks.comparison._target_=os.system",
    "hydra.job_logging.handlers.file.class=os.system",
)
"""Overrides that would call a function, or have Hydra call one."""


@pytest.mark.parametrize("override", CALLS)
def test_the_record_of_a_sweep_calls_nothing(finished_sweep, folder, refusal, override):
    shutil.copytree(finished_sweep, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    record["overrides"].append(override)
    (folder / "copy" / "sweep.json").write_text(json.dumps(record))
    assert "which only the command line may say" in refusal("resume=copy")
    assert not (folder / "taken").exists()


@pytest.mark.parametrize("field", [{"config_dir": "elsewhere"}, {"overrides": ["rule=bp", "--config-dir=elsewhere"]}])
def test_the_record_of_a_sweep_reads_no_configs_from_elsewhere(finished_sweep, folder, refusal, field):
    shutil.copytree(finished_sweep, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    (folder / "copy" / "sweep.json").write_text(json.dumps({**record, **field}))
    assert "elsewhere" in refusal("resume=copy")


def test_an_interpolation_in_a_recorded_config_is_refused(finished_sweep, folder, refusal):
    shutil.copytree(finished_sweep / "1_bp", "run")
    status = json.loads((folder / "run" / "status.json").read_text())
    (folder / "run" / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    config = (folder / "run" / "config.yaml").read_text()
    hidden = "oc.create:{_target_: pathlib.Path.touch, _args_: [taken]}"
    assert "\nseeds: 2\n" in config
    (folder / "run" / "config.yaml").write_text(config.replace("seeds: 2", f"seeds: 2\nmeasure: '${{{hidden}}}'"))
    assert "its config.yaml contains" in refusal("resume=run")
    assert not (folder / "taken").exists()


GLOBAL = "# @package _global_\nrule: {{}}\nhydra:\n"
CONFIGS = {
    "rule/mine.yaml": "_target_: {}\n_partial_: true\n",
    "rule/global.yaml": "# @package _global_\nrule:\n  _target_: {}\n  _partial_: true\n",
    "rule/callback.yaml": GLOBAL + "  callbacks: {{x: {{_target_: {}}}}}\n",
    "rule/environment.yaml": GLOBAL + "  job: {{env_set: {{X: {}}}}}\n",
    "rule/log.yaml": GLOBAL + "  job_logging: {{handlers: {{file: {{filename: {}}}}}}}\n",
}


@pytest.mark.parametrize("target", ["os.system", "fa_jax.cli.main.main"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("flags", [[], ["--cfg", "job"]], ids=["train", "cfg"])
def test_configs_of_config_dir_call_only_trusted_functions(folder, refusal, name, target, flags):
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / name).write_text(CONFIGS[name].format(target))
    rule = name.partition("/")[2].removesuffix(".yaml")
    line = refusal("--config-dir", "configs", f"rule={rule}", "task.train_examples=40", *flags)
    if rule in ("mine", "global"):
        assert f"the config from --config-dir=configs calls {target}, which is not part of fa_jax's" in line
        assert "trust=PACKAGE" in line
    else:
        assert "it sets hydra." in line
        assert "which only the command line may" in line


def test_trust_allows_the_functions_of_a_package(folder, refusal, monkeypatch):
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / "rule" / "mine.yaml").write_text(CONFIGS["rule/global.yaml"].format("my_rules.my_bp"))
    (folder / "my_rules.py").write_text(
        "from fa_jax.rules.bp import bp\n\ndef my_bp(network, loss):\n    return bp(network, loss)\n"
    )
    monkeypatch.syspath_prepend(folder)
    short = ["task.train_examples=40", "evaluations=1", "seeds=1", "checkpoint=false"]
    words = ["--config-dir=configs", "rule=mine", *short]
    assert "calls my_rules.my_bp" in refusal(*words, "trust=other")
    assert main([*words, "trust=my_rules"]) == 0
    (run,) = find_runs(folder)
    assert run.status["status"] == "finished"
    assert run.choices["rule"] == "mine"


@pytest.mark.parametrize(
    "flag", ["--config-name=mine", "-cn=mine", "--config-path=/tmp", "--experimental-rerun=x", "--config-d=x"]
)
def test_flags_that_read_configs_from_elsewhere_are_refused(refusal, flag):
    assert "a flag must be one of" in refusal("rule=bp", flag)
