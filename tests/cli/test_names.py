"""Names of folders that are long or have special characters work, or are refused with one line before anything runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

import fa_jax
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs

TINY = ["task=digits", "seeds=1", "epochs=0.05", "evaluations=1", "probe=0", "checkpoint=false"]
LONG = "a" * 256
STRANGE = [
    "it's",
    "a\\'b'",
    "end\\",
    "a b,c",
    "[x](y)",
    "100%41?#&{z}",
    "$HOME",
    "=1+1",
    "run[/b]",
    "a:smile:b",
    "é学 –",
]
STRANGEST = ("a\\'b'", "[x](y)", "é学 –")
"""Have what Hydra, Rich and a path must each quote."""


@pytest.mark.parametrize("option", ["hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"])
def test_a_name_that_is_too_long_is_refused_before_anything_runs(folder, refusal, option):
    words = ["--multirun", "rule=bp,fa"] if "sweep" in option else []
    line = refusal(*words, *TINY, f"{option}={LONG}")
    assert f"{option} must be of names of at most 255 bytes; got aaa" in line
    assert list(folder.iterdir()) == []


def test_a_path_that_is_too_long_is_refused(folder, refusal):
    assert "must be a path of at most 3800 bytes" in refusal(*TINY, f"hydra.run.dir={'a/' * 2000}b")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", LONG], "is no folder"),
        (["status", LONG], "is no folder"),
        ([f"resume={LONG}"], "no run is recorded there"),
        (["--config-dir", LONG], "--config-dir must be a folder of configs"),
        (
            ["tune", *TINY, "task.validation=100", "optimizer.learning_rate=0.1,1", f"output={LONG}"],
            "output must be of",
        ),
    ],
    ids=["compare", "status", "resume", "config-dir", "tune"],
)
def test_a_long_name_is_no_folder(refusal, words, message):
    assert message in refusal(*words)


def test_jobs_of_one_folder_are_refused(folder, refusal):
    line = refusal("--multirun", *TINY, "rule=bp,fa", "hydra.sweep.subdir=./same")
    assert "hydra.sweep.subdir must differ from job to job, as with ${hydra.job.num}; 2 have" in line
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", STRANGE)
def test_a_folder_of_configs_may_have_any_name(folder, name):
    path = folder / name / "experiment"
    path.mkdir(parents=True)
    (path / "mine.yaml").write_text("# @package _global_\nepochs: 7\n")
    composition = compose(parse(["--config-dir", str(folder / name), "experiment=mine"]))
    assert composition.runs[0].config["epochs"] == 7


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in STRANGEST else pytest.mark.slow) for name in STRANGE]
)
def test_a_study_lies_in_its_folder_whatever_its_name(folder, name):
    words = ["tune", *TINY, "task.validation=100", "optimizer.learning_rate=0.1,1", "trials=1", f"output={name}"]
    assert main(words) == 0
    assert [path.name for path in folder.iterdir()] == [Path(name).parts[0]]
    assert {path.name for path in (folder / name).iterdir()} >= {"study.db", "0_bp"}


@pytest.mark.parametrize(
    "name", ["run[/b]", "é学 –", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a:smile:b", "=1+1"))]
)
def test_the_name_of_a_run_is_printed_as_it_is(capsys, name):
    assert main([*TINY, f"hydra.run.dir='{name}'"]) == 0
    assert f"recorded in {name}\n" in capsys.readouterr().out
    assert main(["status", name]) == 0


def test_a_control_sequence_in_a_name_reaches_no_terminal(capsys, refusal):
    assert main([*TINY, "hydra.run.dir='a\x1b]52;c;x\x07b'"]) == 0
    assert r"recorded in a\x1b]52;c;x\x07b" in capsys.readouterr().out
    line = refusal("compare", "no\x1b[31mwhere")
    assert r"no\x1b[31mwhere is no folder" in line


RUN_COMPARE_AND_REPORT = """
import sys
from fa_jax.cli.main import main
*words, folder = sys.argv[1:]
sys.exit(main(words) or main(["compare", folder]) or main(["report", folder]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "locale",
    [
        pytest.param({}, id="coerced"),
        pytest.param({"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, id="ASCII"),
    ],
)
def test_a_folder_that_is_not_ascii_works_in_the_c_locale(folder, locale):
    environment = {**os.environ, **locale, "LC_ALL": "C", "PYTHONWARNINGS": "always::EncodingWarning"}
    words = [*TINY, "seeds=2", "hydra.run.dir='résultats/学'", "résultats"]
    command = [sys.executable, "-X", "warn_default_encoding", "-c", RUN_COMPARE_AND_REPORT, *words]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    lines = result.stderr.decode().splitlines()
    assert not [line for line in lines if f"{Path(fa_jax.__file__).parent}/" in line and "EncodingWarning" in line]
    assert " ± " in Path("résultats/comparison.md").read_text(encoding="utf-8")
    assert json.loads(Path("résultats/学/environment.json").read_text(encoding="utf-8"))["command"]


@pytest.mark.parametrize(
    ("searched", "kind"),
    [("batch_size=int(interval(16,64))", int), ("batch_size=int(tag(log,interval(16,64)))", int)],
)
def test_whole_numbers_are_searched_in_an_interval_that_is_cast(folder, searched, kind):
    assert main(["tune", *TINY, "task.validation=100", searched, "trials=1", "output=study"]) == 0
    (run,) = find_runs(folder / "study")
    assert isinstance(run.config["batch_size"], kind)


@pytest.mark.parametrize("searched", ["interval(5,1)", "tag(log,interval(0,1))", "range(1,2,0)", "range(3,1)"])
def test_an_empty_range_is_refused(folder, refusal, searched):
    assert "optimizer.learning_rate must " in refusal("tune", *TINY, f"optimizer.learning_rate={searched}")
    assert list(folder.iterdir()) == []


def test_the_best_lists_are_printed_with_their_values(capsys):
    words = ["architecture.activation=[relu,tanh],[tanh,relu]", "architecture.hidden=[3,4]", "trials=1", "output=a"]
    assert main(["tune", *TINY, "task.validation=100", *words]) == 0
    printed = capsys.readouterr().out
    last = printed.strip().splitlines()[-1]
    assert last.endswith(("'architecture.activation=[relu,tanh]'", "'architecture.activation=[tanh,relu]'"))
    assert last.rpartition("=")[2].rstrip("'") in printed.partition("trial  ")[2].partition("the best of")[0]


@pytest.mark.parametrize("launcher", ["slurm", "cores"])
def test_a_launcher_without_a_sweep_is_refused(folder, refusal, launcher):
    line = refusal(*TINY, f"hydra/launcher={launcher}")
    assert f"hydra/launcher={launcher} starts the runs of a sweep, so it needs --multirun" in line
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "missing"), [("cores", "joblib"), ("slurm", "submitit_slurm"), ("joblib", "joblib")]
)
def test_a_launcher_that_is_not_installed_names_the_extra(refusal, monkeypatch, launcher, missing):
    compose(parse(["rule=bp"]))  # Hydra's plugins are loaded
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{missing}.yaml")
    line = refusal("--multirun", "rule=bp,fa", f"hydra/launcher={launcher}")
    plugin = f"hydra-{missing.partition('_')[0]}-launcher"
    assert f"hydra/launcher needs {plugin}, which is not installed: pip install 'fa-jax[launchers]'" in line


@pytest.mark.parametrize("word", ["stray", "stray=1", "=", "=1", "stray.x=1", "~stray", "rule", "rule=bp,"])
def test_a_stray_word_of_a_sweep_is_refused_and_leaves_no_folder(folder, refusal, word):
    refusal("--multirun", *TINY, "rule=bp,fa", word)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("words", [["rule=bp,fa"], [], ["rule=bp,fa", "hydra/launcher=cores"]])
def test_the_configs_of_a_sweep_are_printed(folder, capsys, words):
    assert main(["--multirun", "--cfg", "job", *words]) == 0
    assert capsys.readouterr().out.count("batch_size: ") == max(1, len(words) and 2)
    assert list(folder.iterdir()) == []
