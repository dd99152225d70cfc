"""Configs that the user did not write call only trusted functions."""

import functools
import json
import os
import re
import shutil
import sqlite3
import struct
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import Arguments, parse
from fa_jax.cli.build import build
from fa_jax.cli.compose import compose as compose_runs
from fa_jax.cli.groups import CONF
from fa_jax.cli.main import main
from fa_jax.cli.trust import Origin, check_config, check_folder
from fa_jax.records.reader import find_runs
from tests.cli.conftest import record_other_code

CALLS = (
    "++hydra={job:{env_set:{GIT_CONFIG_COUNT:'1'}}}",
    "++rule.z=${oc.create:{a:1}}",
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
    assert "which only the command line may set" in refusal("resume=copy")
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
        assert f"the config from --config-dir=configs calls {target}, which is none of fa_jax's factories" in line
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


def test_a_recorded_sweep_of_an_experiment_of_ours_may_say_what_it_sweeps(folder):
    recorded = Arguments(["experiment=lillicrap2014/task1"], {}, multirun=True)
    assert len(compose_runs(recorded, origin="its sweep.json").runs) == 4
    path = folder / "configs" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seeds: '1,2'}}}\n")
    mine = Arguments(["experiment=mine"], {}, multirun=True, config_dir="configs")
    with pytest.raises(BadOption, match="which only the command line may"):
        compose_runs(mine, origin="its sweep.json")


@pytest.mark.parametrize(
    "flag", ["--config-name=mine", "-cn=mine", "--config-path=/tmp", "--experimental-rerun=x", "--config-d=x"]
)
def test_flags_that_read_configs_from_elsewhere_are_refused(refusal, flag):
    assert "a flag must be one of" in refusal("rule=bp", flag)


def interrupted_copy(finished_sweep, folder, edit):
    """A run in `run` that can be resumed, with its config edited."""
    shutil.copytree(finished_sweep / "1_bp", "run")
    status = json.loads((folder / "run" / "status.json").read_text())
    (folder / "run" / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    path = folder / "run" / "config.yaml"
    path.write_text(edit(path.read_text()))


TARGETS = (
    "os.mkdir",
    "os.system",
    "subprocess.run",
    "builtins.exec",
    "builtins.eval",
    "pathlib.Path.touch",
    "shutil.rmtree",
    "importlib.import_module",
    "pickle.loads",
    "numpy.load",
    "numpy.save",
    "jax.numpy.save",
    "optax.inject_hyperparams",
    "hydra.utils.instantiate",
    "hydra.utils.get_object",
    "fa_jax.cli.main.main",
    "fa_jax.cli.launch.train",
    "fa_jax.tasks.tfds.read",
    "fa_jax.loggers.logger.needed",
    "fa_jax.records.writer.write_json",
    "fa_jax.losses.jax.numpy.save",
    "fa_jax.optimizers.optax.adam",
    "",
    "os",
    "..os",
    "[os.mkdir]",
)
"""Functions that no config of fa_jax calls."""


@functools.cache
def config_of_bp():
    return compose_runs(parse(["task=digits", "rule=bp"])).runs[0].config


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("place", ["rule", "task", "measure"])
def test_a_config_that_was_not_typed_calls_only_factories(place, target):
    config = dict(config_of_bp())
    call = {"_target_": target, "path": "taken"}
    if place == "measure":
        config["measure"] = {"mine": call}
    else:
        config[place] = {**config[place], "nested": [[call]]}
    with pytest.raises(BadOption, match="which is none of fa_jax's factories"):
        build(config)


def test_what_is_not_trusted_is_refused_before_it_is_said_that_force_resumes(finished_sweep, folder, refusal):
    interrupted_copy(
        finished_sweep, folder, lambda text: re.sub(r"_target_: fa_jax\.rules\S+", "_target_: os.mkdir", text)
    )
    path = folder / "run" / "environment.json"
    record_other_code(path)
    line = refusal("resume=run")
    assert "os.mkdir, which is none of fa_jax's factories" in line
    assert "force" not in line


def test_a_sweep_that_is_not_trusted_is_refused_before_it_is_said_that_force_resumes(finished_sweep, folder, refusal):
    shutil.copytree(finished_sweep, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    record["overrides"].append("+measure.mine={_target_:os.mkdir,path:taken}")
    (folder / "copy" / "sweep.json").write_text(json.dumps(record))
    path = folder / "copy" / "1_bp" / "environment.json"
    record_other_code(path)
    line = refusal("resume=copy")
    assert "os.mkdir, which is none of fa_jax's factories" in line
    assert "force" not in line


@pytest.mark.parametrize("call", ["os.mkdir [taken]", "pathlib.PosixPath [x]"])
def test_yaml_tags_in_a_recorded_config_make_no_objects(finished_sweep, folder, refusal, call):
    interrupted_copy(
        finished_sweep, folder, lambda text: text.replace("seeds: 2", f"seeds: !!python/object/apply:{call}")
    )
    line = refusal("resume=run")
    assert "cannot be read" in line or "must be plain YAML" in line
    assert not (folder / "taken").exists()


@pytest.mark.parametrize("group", ["rule", "hydra/launcher", "+loss@other", "measure"])
def test_a_recorded_choice_lies_in_the_folder_of_its_group(finished_sweep, folder, refusal, group):
    (folder / "r.yaml").write_text("# @package _global_\nhydra: {callbacks: {x: {_target_: os.mkdir}}}\n")
    outside = os.path.relpath(folder / "r", CONF / group.lstrip("+").partition("@")[0])
    outside = f"[separation,{outside}]" if group == "measure" else outside
    shutil.copytree(finished_sweep, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    overrides = [word for word in record["overrides"] if not word.startswith("rule=")]
    record["overrides"] = [*overrides, f"{group}={outside}"]
    (folder / "copy" / "sweep.json").write_text(json.dumps(record))
    assert "a choice must lie in the folder of its group" in refusal("resume=copy")


def test_presets_of_a_config_dir_leave_hydra_alone(folder, refusal):
    path = folder / "configs" / "preset" / "rule_architecture" / "bp" / "mlp.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nhydra: {callbacks: {x: {_target_: os.mkdir}}}\n")
    (folder / "configs" / "rule").mkdir()
    for flag in (["--config-dir", "configs"], [f"hydra.searchpath=[file://{folder}/configs]"]):
        assert "which only the command line may" in refusal(*flag, "task.train_examples=40")


def test_configs_on_hydras_searchpath_call_only_factories(folder, refusal):
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / "rule" / "mine.yaml").write_text(CONFIGS["rule/mine.yaml"].format("os.mkdir"))
    line = refusal(f"hydra.searchpath=[file://{folder}/configs]", "rule=mine", "task.train_examples=40")
    assert "calls os.mkdir" in line


def test_functions_that_the_user_typed_are_allowed_beside_a_config_dir(folder, monkeypatch, capsys):
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "my_measures.py").write_text("def nothing():\n    raise ValueError('was called')\n")
    monkeypatch.syspath_prepend(folder)
    words = ["--config-dir=configs", "+measure.mine={_target_:my_measures.nothing}", "task.train_examples=40"]
    assert main(words) == 2
    assert "ValueError: was called" in capsys.readouterr().err


def test_a_resumed_sweep_may_call_a_package_that_is_trusted(finished_sweep, folder, monkeypatch):
    shutil.copytree(finished_sweep, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    record["overrides"].append("+measure.mine={_target_:my_measures.nothing}")
    (folder / "copy" / "sweep.json").write_text(json.dumps(record))
    (folder / "my_measures.py").write_text("def nothing():\n    raise ValueError('was called')\n")
    monkeypatch.syspath_prepend(folder)
    arguments = Arguments(record["overrides"], {"trust": "my_measures"}, multirun=True)
    with pytest.raises(ValueError, match="was called"):
        compose_runs(arguments, origin="a record").build()
    monkeypatch.setenv("FA_JAX_TRUST", "other,my_measures")
    with pytest.raises(ValueError, match="was called"):
        compose_runs(arguments._replace(options={}), origin="a record").build()


@pytest.mark.parametrize("subdir", ["../outside", "/tmp/outside", "a/../../outside"])
def test_jobs_of_a_sweep_stay_in_its_folder(folder, refusal, subdir):
    words = ["--multirun", "rule=bp,fa", f"hydra.sweep.subdir={subdir}", "task.train_examples=40"]
    assert "hydra.sweep.subdir must be a folder inside that of the sweep" in refusal(*words)


@pytest.mark.parametrize("name", ["run.log", "metrics.csv", "resume", "checkpoint", "comparison.csv", "report.tmp"])
def test_a_folder_with_links_is_not_resumed(finished_sweep, folder, refusal, name):
    interrupted_copy(finished_sweep, folder, lambda text: text)
    shutil.rmtree(folder / "run" / name, ignore_errors=True)
    (folder / "run" / name).unlink(missing_ok=True)
    (folder / "outside").write_text("mine")
    (folder / "run" / name).symlink_to(folder / "outside")
    assert f"{name} is a symbolic link" in refusal("resume=run")
    assert (folder / "outside").read_text() == "mine"


def test_a_lock_that_is_a_link_is_not_followed(finished_sweep, folder, capsys):
    shutil.copytree(finished_sweep / "1_bp", "run")
    (folder / "outside").write_text("mine")
    (folder / "run" / ".lock").symlink_to(folder / "outside")
    status = json.loads((folder / "run" / "status.json").read_text())
    (folder / "run" / "status.json").write_text(json.dumps({**status, "status": "running"}))
    for verb in ("status", "compare", "report"):
        assert main([verb, "run"]) == 0
    assert "cut off" in capsys.readouterr().out
    assert (folder / "outside").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
def test_a_folder_with_a_pipe_is_not_resumed(finished_sweep, folder, refusal):
    interrupted_copy(finished_sweep, folder, lambda text: text)
    (folder / "run" / "run.log").unlink()
    os.mkfifo(folder / "run" / "run.log")
    assert "run.log is neither a file nor a folder" in refusal("resume=run")


def test_links_in_a_circle_lead_out_of_no_folder(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    check_folder("resume=run", tmp_path)


def study_of_a_stranger(victim):
    """A folder with a study, and a journal that asks SQLite to delete a file."""
    study = Path("study")
    study.mkdir()
    (study / "empty").touch()
    database = sqlite3.connect(study / "study.db")
    database.execute("CREATE TABLE t (x)")
    database.commit()
    database.close()
    # A page that is written back, then the name of a file that belongs to several databases.
    page, size = (study / "study.db").read_bytes()[:4096], 4096
    header = SQLITE_JOURNAL + struct.pack(">IIIII", 1, 0, len((study / "study.db").read_bytes()) // size, 512, size)
    checksum = sum(page[i] for i in range(size - 200, 0, -200)) & 0xFFFFFFFF
    record = struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    name = str(victim).encode()
    lock_page = struct.pack(">I", 2**30 // size + 1)
    ending = lock_page + name + struct.pack(">II", len(name), sum(name)) + SQLITE_JOURNAL
    (study / "study.db-journal").write_bytes(header.ljust(512, b"\0") + record + ending)
    return study


SQLITE_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def test_the_journal_of_a_study_deletes_no_other_file(folder, refusal):
    victim = folder / "mine.txt"
    victim.write_text("mine")
    study = study_of_a_stranger(victim)
    words = ["task=digits", "task.validation=200", "optimizer.learning_rate=0.1,1", "trials=1", "output=study"]
    assert "study.db-journal is none of fa_jax's, and could delete other files" in refusal("tune", *words)
    assert victim.exists()
    with sqlite3.connect(study / "study.db") as database:  # which shows that the journal is one that SQLite believes
        database.execute("SELECT * FROM t").fetchall()
    assert not victim.exists()


@pytest.mark.parametrize("choice", ["mlflow", "tensorboard", None, "../mine"])
def test_a_logger_that_was_not_typed_keeps_its_destination(compose, choice):
    config = OmegaConf.to_container(compose("task=digits", "rule=bp", "logger=mlflow"), resolve=True)
    config["choices"] = {"logger": choice}
    check_config(config, Origin())
    config["logger"]["uri"] = "sqlite:////elsewhere.db"
    for origin in (Origin(), Origin(typed=("logger=mlflow", "logger.experiment=mine"))):
        with pytest.raises(BadOption, match="trust=logger allows it"):
            check_config(config, origin)
    check_config(config, Origin(trusted=("logger",)))
    check_config(config, Origin(typed=("logger.uri=sqlite:////elsewhere.db",)))


@pytest.mark.parametrize("name", ["checkpoint/mine", "comparison.csv", "notes.txt"])
def test_a_folder_with_other_files_is_not_used_and_not_changed(folder, refusal, name):
    path = folder / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    for words in (["hydra.run.dir=mine"], ["--multirun", "rule=bp,fa", "hydra.sweep.dir=mine"]):
        assert "this folder holds other files" in refusal("task.train_examples=40", *words)
    assert [p for p in (folder / "mine").rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "mine"


def test_a_config_that_is_no_yaml_is_named_with_its_line(folder, refusal):
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / "rule" / "mine.yaml").write_text("_target_: x\nblend: [0.5\n")
    line = refusal("--config-dir", "configs", "rule=mine")
    assert "configs/rule/mine.yaml, line 3 is no YAML: expected ',' or ']'" in line


HOSTILE_YAML = {
    "within itself": ("x: &a [*a]\n", "a config has lists or mappings too deep within each other"),
    "deep": (f"x: {3000 * '['}{3000 * ']'}\n", "a config has lists or mappings too deep within each other"),
    "control characters": ("x: \x1b\n", "configs/rule/mine.yaml is no YAML: special characters are not allowed"),
    "positional": ("_args_: [1]\n", "rule: too many positional arguments"),
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_a_hostile_config_is_refused_with_one_line(folder, refusal, name):
    content, message = HOSTILE_YAML[name]
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / "rule" / "mine.yaml").write_text(f"_target_: fa_jax.rules.bp.bp\n_partial_: true\n{content}")
    assert message in refusal("--config-dir", "configs", "rule=mine", "task.train_examples=40")


def test_a_module_that_was_not_typed_is_called_only_if_it_is_trusted(compose, monkeypatch):
    words = ["architecture=module", "architecture.module=flax.linen.Dense", "architecture.arguments={features: 10}"]
    config = OmegaConf.to_container(compose("task=digits", "rule=bp", *words), resolve=True)
    with pytest.raises(BadOption, match=r"calls flax.linen.Dense, which is none of fa_jax's factories"):
        check_config(config, Origin())
    nested = {"measure": {"mine": [{"_target_": "fa_jax.networks.module.module", "module": "os.mkdir"}]}}
    with pytest.raises(BadOption, match=r"calls os.mkdir, which is none of fa_jax's factories"):
        check_config(nested, Origin(typed=("architecture.module=os.mkdi",)))
    check_config(config, Origin(typed=tuple(words)))
    check_config(config, Origin(trusted=("flax",)))
    monkeypatch.setenv("FA_JAX_TRUST", "flax")
    check_config(config, Origin())
