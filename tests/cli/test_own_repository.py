"""A repository of one's own: configs in a folder, modules beside them, from every verb alike."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import fa_jax
from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs, read_run
from fa_jax.records.sources import own_versions
from fa_jax.records.writer import Writer

RULE = """# @package _global_
# Steps of feedback alignment times a factor.
defaults:
  - override /feedback: layerwise
  - _self_

rule:
  _target_: mylab.rules.{name}
  _partial_: true
"""
RULES = """import mylab_helpers
from fa_jax.rules.bp import bp
from fa_jax.rules.fa import fa


def scaled(network, loss, *, init_feedback):
    return fa(network, loss, init_feedback=init_feedback)


def raising(network, loss, *, init_feedback):
    raise RuntimeError("on purpose")


def scalar(network, loss, *, init_feedback):
    return bp(network, loss)._replace(updates=lambda params, feedback, batch: batch.inputs.sum())


def no_rule(network, loss, *, init_feedback):
    return 3
"""
MEASURE = """import jax.numpy as jnp
from fa_jax.core import Measure, Metric


def sparsity():
    return Measure((Metric("sparsity", "sparsity", better="neither"),), lambda *_: {"sparsity": jnp.float32(0.5)})
"""
SHORT = ["task=digits", "architecture.hidden=[9]", "epochs=1", "seeds=1", "evaluations=1", "probe=4"]
SHORT += ["checkpoint_every=null"]
OWN = ["--config-dir=conf", "trust=mylab", "task=digits"]


@pytest.fixture(autouse=True)
def repository(folder):
    """A package, a module that it imports, and configs, in the working folder, which is not on the path."""
    (folder / "mylab").mkdir()
    (folder / "mylab" / "__init__.py").write_text("")
    (folder / "mylab" / "rules.py").write_text(RULES)
    (folder / "mylab" / "metrics.py").write_text(MEASURE)
    (folder / "mylab_helpers.py").write_text("")
    (folder / "conf" / "rule").mkdir(parents=True)
    for name in ("scaled", "raising", "scalar", "no_rule", "missing"):
        (folder / "conf" / "rule" / f"{name}.yaml").write_text(RULE.format(name=name))
    yield folder
    for name in [name for name in sys.modules if name.startswith("mylab")]:
        del sys.modules[name]
    assert str(folder) not in sys.path


def test_a_mistyped_option_of_an_own_rule_suggests_its_nearest(repository, refusal):
    (repository / "conf" / "rule" / "scaled.yaml").write_text(f"{RULE.format(name='scaled')}  factor: 2\n")
    near = "did you mean 'rule.factor'?"
    assert f"rule.facto is no option with rule=scaled; {near}" in refusal(*OWN, "rule=scaled", "rule.facto=3")
    several = refusal(*OWN, "--multirun", "rule=bp,scaled", "rule.facto=3")
    assert f"rule.facto is no option with rule=bp or scaled; {near}" in several
    arguments = {"config_dir": "conf", "trust": "mylab", "rule.facto": 3, "task": "digits"}
    for rule in ("scaled", ["bp", "scaled"]):
        with pytest.raises(fa_jax.BadOption, match=rf"^rule.facto (is no option|has no effect).*; {re.escape(near)}$"):
            fa_jax.train(rule=rule, **arguments)
    with pytest.raises(fa_jax.BadOption, match=r"^rule.facto is no option of a Python object, to which functools.part"):
        fa_jax.train(rule=lambda network, loss: None, **arguments)


@pytest.mark.slow
def test_a_sweep_with_an_own_rule_and_measure_is_recorded_resumed_and_refused_when_the_package_changed(
    repository, refusal, monkeypatch
):
    words = ["rule=scaled,bp", "+measure.mine={_target_: mylab.metrics.sparsity}", *SHORT, "hydra.sweep.dir=sweep"]
    assert main(["--config-dir", "conf", "trust=mylab", "--multirun", *words]) == 0
    runs = find_runs(Path("sweep"))
    assert [run.choices["rule"] for run in runs] == ["scaled", "bp"]
    assert all(run.at_end("sparsity") == {0: 0.5} for run in runs)
    assert all(run.environment["packages"]["mylab"].startswith("sources ") for run in runs)
    status = Path("sweep/1_bp/status.json")
    interrupted = json.dumps({**json.loads(status.read_text()), "status": "interrupted"})
    status.write_text(interrupted)
    assert "it uses configs from conf; --config-dir conf allows it" in refusal("resume=sweep")
    line = refusal("resume=sweep", "--config-dir=conf")
    assert "calls mylab.rules.scaled and mylab.metrics.sparsity, which are none of" in line
    assert "no module mylab" not in line
    assert main(["resume=sweep", "--config-dir", "conf", "trust=mylab"]) == 0
    status.write_text(interrupted)
    monkeypatch.setenv("FA_JAX_TRUST", "mylab")
    assert main(["--config-dir", str(repository / "conf"), "resume=sweep"]) == 0
    for verb in ("compare", "report", "status"):
        assert main(["--config-dir", "conf", "trust=mylab", verb, "sweep"]) == 0
    status.write_text(interrupted)
    monkeypatch.chdir("sweep")
    assert main(["--config-dir", str(repository / "conf"), f"resume={repository / 'sweep'}"]) == 0
    monkeypatch.chdir(repository)
    status.write_text(interrupted)
    (repository / "mylab_helpers.py").write_text("# What mylab imports from the folder that it lies in.")
    assert "mylab went from sources " in refusal("resume=sweep", "--config-dir", "conf")


def test_list_and_help_show_own_choices(capsys):
    for words in (["--config-dir", "conf", "trust=mylab", "list", "rule"], ["list", "rule", "--config-dir=conf"]):
        assert main(words) == 0
        assert "Steps of feedback alignment times a factor." in capsys.readouterr().out
    assert main(["--help", "-cd", "conf"]) == 0
    assert "weight_mirror, missing" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")  # Optuna's
def test_an_own_rule_is_tuned_and_the_printed_command_trains_it(capsys):
    words = [
        *SHORT,
        "rule=scaled",
        "task.validation=100",
        "optimizer.learning_rate=0.1,0.2",
        "trials=1",
        "output=tuned",
    ]
    assert main(["--config-dir", "conf", "trust=mylab", "tune", *words]) == 0
    (run,) = find_runs(Path("tuned"))
    assert run.choices["rule"] == "scaled"
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[:4] == ["fa-jax", "--config-dir", "conf", "trust=mylab"]
    assert main([*command[1:], "--cfg", "job"]) == 0


def test_an_interrupt_prints_the_command_that_resumes_an_own_rule(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    options = ["--config-dir", "conf", "trust=mylab", "+measure.mine={_target_: mylab.metrics.sparsity}"]
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "evaluation", interrupt)
        assert main([*options, "rule=scaled", *SHORT, "hydra.run.dir=my run"]) == 130
    command = re.search(r".*; (.*) resumes it$", capsys.readouterr().err.strip())[1]
    assert command == "fa-jax 'resume=my run' --config-dir conf trust=mylab"
    assert main(shlex.split(command)[1:]) == 0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("raising", "rule: mylab.rules.raising raised RuntimeError: on purpose ({folder}/mylab/rules.py, line 11)"),
        ("scalar", "rule=scalar must return updates with the tree and the shapes of the params; at the root got []"),
        ("no_rule", "rule=no_rule must be a function that returns a fa_jax.core.Rule; got int"),
        (
            "missing",
            "calls mylab.rules.missing, which cannot be imported: ImportError: mylab.rules ({folder}/my",
        ),
        ("unknown", "rule must be one of "),
    ],
)
def test_a_mistake_in_an_own_rule_is_one_line_with_its_place(repository, refusal, rule, message):
    line = refusal("--config-dir", "conf", "trust=mylab", f"rule={rule}", *SHORT)
    assert message.format(folder=repository) in line


def test_an_exception_on_import_is_one_line_with_its_place(repository, refusal):
    (repository / "mylab_helpers.py").write_text("\nraise RuntimeError('on purpose')\n")
    for words in (["--config-dir=conf", "trust=mylab", "rule=scaled"], ["rule=fa", "rule._target_=mylab.rules.scaled"]):
        assert f"RuntimeError: on purpose ({repository}/mylab_helpers.py, line 2)" in refusal(*words, *SHORT)
        sys.modules.pop("mylab.rules", None)
    line = refusal("rule=bp", "rule._target_=nolab.rules.scaled", *SHORT)
    assert (
        "rule calls nolab.rules.scaled, which cannot be imported: ModuleNotFoundError: No module named 'nolab'" in line
    )
    (repository / "conf" / "rule" / "other.yaml").write_text(RULE.replace("mylab", "nolab").format(name="scaled"))
    line = refusal("--config-dir=conf", "rule=other", *SHORT)
    assert "there is no module nolab, installed or in the working folder" in line


def test_the_working_folder_stands_in_for_no_package_that_was_not_named(repository, monkeypatch, refusal):
    for name in ("pandas", "mylab"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (repository / "no_such_package.py").write_text("raise RuntimeError('was imported')\n")
    assert main(["rule=bp", *SHORT, "hydra.run.dir=run"]) == 0
    (repository / "mylab" / "rules.py").write_text("raise RuntimeError('was imported')\n")
    monkeypatch.setenv("FA_JAX_TRUST", "mylab")
    monkeypatch.chdir(repository / "run")
    (repository / "run" / "mylab.py").write_text("raise RuntimeError('was imported')\n")
    config = Path("config.yaml").read_text()
    Path("config.yaml").write_text(config.replace("fa_jax.rules.bp.bp", "mylab.rules.bp"))
    status = json.loads(Path("status.json").read_text())
    Path("status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    for folder in (".", str(repository / "run")):
        line = refusal(f"resume={folder}")
        assert "cannot be imported: ModuleNotFoundError: No module named 'mylab'" in line
    assert read_run(Path()).status["status"] == "interrupted"


def test_an_own_rule_trains_and_loads_in_python_with_trust_alone(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository)
    options = {"config_dir": "conf", "overrides": SHORT, "folder": "run"}
    with pytest.raises(fa_jax.BadOption, match=r"calls mylab.rules.scaled, which is none of fa_jax's factories"):
        fa_jax.train(rule="scaled", **options)
    (run,) = fa_jax.train(rule="scaled", trust="mylab", **options)
    with pytest.raises(fa_jax.BadOption, match=r"its config.yaml calls mylab.rules.scaled, which is none of"):
        fa_jax.load("run")
    assert fa_jax.load("run", trust=["mylab"]).seeds == run.seeds == [0]
    (repository / "mylab" / "rules.py").write_text(f"{RULES}\n")
    with pytest.warns(
        UserWarning, match=r"^since run was trained, mylab went from sources \w+ to sources \w+, so it may"
    ):
        fa_jax.load("run", trust=["mylab"])
    monkeypatch.undo()


def test_the_sources_of_a_package_are_its_own_and_those_that_they_import_from_beside_it(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository)
    described = [own_versions(["mylab", "unknown"])]
    for path, text in {
        "mylab/metrics.py": f"{MEASURE}\n",
        "mylab_helpers.py": "from mylab_deep.part import x",
        "mylab_deep/part.py": "x = 1",
        "mylab/broken.py": "import",
        "other.py": "",
        "fa_jax/part.py": "",
    }.items():
        (repository / path).parent.mkdir(exist_ok=True)
        (repository / path).write_text(text)
        described.append(own_versions(["mylab", "unknown"]))
    assert [list(packages) for packages in described] == [["mylab"]] * 7
    # The last two are not followed: nothing imports other.py, and fa_jax has a commit of its own.
    assert [packages["mylab"] for packages in described].index(described[-1]["mylab"]) == 4
    assert len({packages["mylab"] for packages in described}) == 5
    monkeypatch.undo()


def test_a_module_that_many_sources_import_is_looked_for_once(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository)
    for i in range(30):
        (repository / "mylab" / f"part_{i}.py").write_text("import mylab_helpers\nimport os\n")
    (repository / "mylab_helpers.py").write_text("import mylab\n")
    looked_for = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looked_for.append(path) or is_file(path))
    own_versions(["mylab"])
    assert [path.name for path in looked_for].count("mylab_helpers.py") == 1
    monkeypatch.undo()
