"""Sweeps that were cut off, told apart from those that were not, and gone on with."""

import json
import os
import shutil
import time

import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs
from fa_jax.records.writer import Writer
from fa_jax.training import run as runner
from tests.cli.test_cli import folder, logging_as_before  # noqa: F401
from tests.cli.test_resume import same

WORDS = [
    "--multirun",
    "task=digits",
    "rule=shallow,bp,fa,dfa",
    "epochs=2",
    "evaluations=2",
    "seeds=2",
    "checkpoint_every=0",
    "probe=10",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a sweep that was never cut off."""
    at = tmp_path_factory.mktemp("whole")
    with logging_as_before():
        assert main([*WORDS, f"hydra.sweep.dir={at}/sweep"]) == 0
    return at / "sweep"


@pytest.fixture
def cut(folder, monkeypatch):  # noqa: F811
    """Cuts a sweep off: of four runs one has finished, one has failed, one is interrupted, one has not begun."""

    def at(*words):
        trained, evaluation, seen = runner._train_group, Writer.evaluation, []

        def fail(*arguments):
            seen.append(None)
            if len(seen) == 2:
                raise MemoryError("no memory")
            return trained(*arguments)

        def interrupt(self, seeds, step, *arguments):
            evaluation(self, seeds, step, *arguments)
            if len(seen) == 3 and step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(runner, "_train_group", fail)
            patched.setattr(Writer, "evaluation", interrupt)
            assert main([*WORDS, *words]) == 130
        (record,) = folder.rglob("sweep.json")
        return record.parent

    return at


def statuses(at):
    return [run.status["status"] for run in find_runs(at)]


def test_a_sweep_goes_on_where_it_was_cut_off(cut, whole, capsys):
    at = cut("hydra.sweep.dir=cut")
    assert statuses(at) == ["finished", "failed", "interrupted"]
    finished = (at / "0_shallow" / "summary.json").stat().st_mtime_ns
    assert main(["resume=cut"]) == 0
    assert (at / "0_shallow" / "summary.json").stat().st_mtime_ns == finished
    assert statuses(at) == ["finished"] * 4
    for name in ("0_shallow", "1_bp", "2_fa", "3_dfa"):
        same(whole / name, at / name)
    assert (at / "comparison.csv").exists()
    assert "DFA" in capsys.readouterr().out


def test_the_same_words_go_on_with_their_own_sweep(cut, folder, capsys):  # noqa: F811
    at = cut()
    assert main([*WORDS, "resume=auto"]) == 0
    assert f"going on with {os.path.relpath(at)}" in capsys.readouterr().out
    assert statuses(at) == ["finished"] * 4
    assert len(list(folder.rglob("sweep.json"))) == 1


@pytest.mark.slow
def test_other_words_begin_a_sweep_of_their_own(cut, folder):  # noqa: F811
    cut()
    assert main(["--multirun", *WORDS[1:3], "rule=bp", "seeds=1", "epochs=1", "resume=auto"]) == 0
    assert len(list(folder.rglob("sweep.json"))) == 2


def test_status_says_which_is_which(cut, capsys):
    at = cut("hydra.sweep.dir=cut")
    (at / "3_killed").mkdir()
    for name in ("config.yaml", "environment.json", "metrics.csv"):
        shutil.copy(at / "2_fa" / name, at / "3_killed" / name)
    status = json.loads((at / "2_fa" / "status.json").read_text())
    (at / "3_killed" / "status.json").write_text(json.dumps({**status, "status": "running"}))
    capsys.readouterr()
    assert main(["status", "cut"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("cut/")}
    assert "finished" in rows["cut/0_shallow"]
    assert "100%" in rows["cut/0_shallow"]
    assert "failed" in rows["cut/1_bp"]
    assert "MemoryError:" in rows["cut/1_bp"]
    assert "interrupted" in rows["cut/2_fa"]
    assert "49%" in rows["cut/2_fa"]
    assert "cut off" in rows["cut/3_killed"]
    shutil.rmtree(at / "3_killed")
    assert main(["status", "cut"]) == 0
    assert "1 run" in capsys.readouterr().out


def test_what_begins_in_the_same_second_has_a_folder_of_its_own(folder, monkeypatch):  # noqa: F811
    def claim_the_next_seconds(below):
        for second in range(60):
            name = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(time.time() + second))
            (folder / below / name).mkdir(parents=True)
            (folder / below / name / "sweep.json").write_text("{}")

    claim_the_next_seconds("outputs/sweeps")
    assert main(["--multirun", "rule=bp", "task.train_examples=40", "evaluations=1", "seeds=1"]) == 0
    (run,) = find_runs(folder)
    assert run.folder.parent.name.endswith("_2")
    shutil.rmtree(folder / "outputs")
    claim_the_next_seconds("outputs/linear/bp")
    assert main(["rule=bp", "task.train_examples=40", "evaluations=1", "seeds=1"]) == 0
    (run,) = find_runs(folder)
    assert run.folder.name.endswith("_2")


def refused(capsys, *words):
    capsys.readouterr()
    assert main(list(words)) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed


def test_a_sweep_of_other_code_or_other_configs_is_not_gone_on_with(whole, folder, capsys):  # noqa: F811
    shutil.copytree(whole, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    environment = folder / "copy" / "1_bp" / "environment.json"
    before = environment.read_text()
    environment.write_text(json.dumps({**json.loads(before), "commit": "0123"}))
    assert "since 1_bp began, the code went from 0123 to" in refused(capsys, "resume=copy")
    environment.write_text(before)
    config = folder / "copy" / "2_fa" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    assert "2_fa has a config that its overrides do not give now: epochs is 2 now and was 3" in refused(
        capsys, "resume=copy"
    )
    (folder / "copy" / "sweep.json").write_text(json.dumps(record)[:-20])
    assert "its sweep.json cannot be read" in refused(capsys, "resume=copy")


MALICE = (
    "++hydra={job:{env_set:{GIT_CONFIG_COUNT:'1'}}}",
    "++rule.z=${oc.create:{a:1}}",
    "+measures=[{_target_:os.system,command:'touch taken'}]",
    "hydra.callbacks.comparison._target_=os.system",
    "hydra.job_logging.handlers.file.class=os.system",
)


@pytest.mark.parametrize("word", MALICE)
def test_the_record_of_a_sweep_can_execute_nothing(whole, folder, capsys, word):  # noqa: F811
    shutil.copytree(whole, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    record["overrides"].append(word)
    (folder / "copy" / "sweep.json").write_text(json.dumps(record))
    assert "which only the command line may say" in refused(capsys, "resume=copy")
    assert not (folder / "taken").exists()


GLOBAL = "# @package _global_\nrule: {{}}\nhydra:\n"
CONFIGS = {
    "rule/mine.yaml": "_target_: {}\n_partial_: true\n",
    "rule/callback.yaml": GLOBAL + "  callbacks: {{x: {{_target_: {}}}}}\n",
    "rule/environment.yaml": GLOBAL + "  job: {{env_set: {{X: {}}}}}\n",
    "rule/log.yaml": GLOBAL + "  job_logging: {{handlers: {{file: {{filename: {}}}}}}}\n",
}


@pytest.mark.parametrize("target", ["os.system", "fa_jax.cli.main.main"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shown", [[], ["--cfg", "job"]])
def test_configs_from_elsewhere_call_nothing_that_is_not_trusted(folder, capsys, name, target, shown):  # noqa: F811
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / name).write_text(CONFIGS[name].format(target))
    rule = name.partition("/")[2].removesuffix(".yaml")
    printed = refused(capsys, "--config-dir", "configs", f"rule={rule}", "task.train_examples=40", *shown)
    if rule == "mine":
        assert f"the config from --config-dir=configs calls {target}, which is not of fa_jax's" in printed
        assert "trust=PACKAGE" in printed
    else:
        assert "it sets hydra." in printed
        assert "which only the command line may" in printed


def test_what_is_trusted_is_called(folder, monkeypatch):  # noqa: F811
    (folder / "configs" / "rule").mkdir(parents=True)
    (folder / "configs" / "rule" / "mine.yaml").write_text("_target_: my_rules.again\n_partial_: true\n")
    (folder / "my_rules.py").write_text(
        "from fa_jax.rules.bp import bp\n\ndef again(network, loss):\n    return bp(network, loss)\n"
    )
    monkeypatch.syspath_prepend(folder)
    short = ["task.train_examples=40", "evaluations=1", "seeds=1", "checkpoint=false"]
    words = ["--config-dir=configs", "rule=mine", *short]
    assert main([*words, "trust=other"]) == 2
    assert main([*words, "trust=my_rules"]) == 0
    (run,) = find_runs(folder)
    assert run.status["status"] == "finished"
    assert run.choices["rule"] == "mine"


def test_what_would_be_resolved_only_later_is_refused(whole, folder, capsys):  # noqa: F811
    shutil.copytree(whole / "1_bp", "run")
    status = json.loads((folder / "run" / "status.json").read_text())
    (folder / "run" / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    config = (folder / "run" / "config.yaml").read_text()
    hidden = "measures: ['${oc.create:{_target_: pathlib.Path.touch, _args_: [taken]}}']"
    (folder / "run" / "config.yaml").write_text(config.replace("measures: []", hidden))
    assert "its config.yaml holds" in refused(capsys, "resume=run")
    assert not (folder / "taken").exists()


@pytest.mark.parametrize(
    "flag", ["--config-name=mine", "-cn=mine", "--config-path=/tmp", "--experimental-rerun=x", "--config-d=x"]
)
def test_flags_that_take_configs_from_elsewhere_are_refused(folder, capsys, flag):  # noqa: F811
    assert "a flag must be one of" in refused(capsys, "rule=bp", flag)


@pytest.mark.slow
def test_a_sweep_of_more_runs_is_not_a_smaller_one_that_has_ended(whole, folder):  # noqa: F811
    smaller = [word.replace("shallow,bp,fa,dfa", "bp") for word in WORDS]
    assert main(smaller) == 0
    assert main([*[word.replace("shallow,bp,fa,dfa", "bp,fa") for word in WORDS], "resume=auto"]) == 0
    assert sorted(len(find_runs(path.parent)) for path in folder.rglob("sweep.json")) == [1, 2]


def test_a_sweep_that_is_going_on_is_left_alone(whole, folder, capsys):  # noqa: F811
    from fa_jax.records import locks

    shutil.copytree(whole, "copy")
    lock = locks.take(folder / "copy")
    try:
        assert "still going on" in refused(capsys, "resume=copy")
    finally:
        locks.give(lock)


def test_a_run_that_cannot_be_read_leaves_the_sweep_incomplete(whole, folder):  # noqa: F811
    shutil.copytree(whole, "copy")
    (folder / "copy" / "1_bp" / "status.json").write_text("{")
    assert main(["resume=copy"]) == 1
