"""Sweeps: resuming an interrupted sweep, and the status of its runs."""

import json
import os
import shutil
import time

import pytest

from fa_jax.cli.main import main
from fa_jax.records import locks
from fa_jax.records.reader import find_runs
from fa_jax.records.writer import Writer
from fa_jax.training import run as runner
from tests.cli.conftest import SWEEP_WORDS, record_other_code
from tests.conftest import assert_same_runs


@pytest.fixture
def interrupt_sweep(folder, monkeypatch):
    """Interrupts a sweep: of four runs one is finished, one failed, one interrupted, one not started."""

    def run(*words):
        train_group, record_evaluation, calls = runner._train_group, Writer.evaluation, []

        def fail_second(*arguments):
            calls.append(None)
            if len(calls) == 2:
                raise MemoryError("no memory")
            return train_group(*arguments)

        def interrupt_third(self, seeds, step, *arguments):
            record_evaluation(self, seeds, step, *arguments)
            if len(calls) == 3 and step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(runner, "_train_group", fail_second)
            patched.setattr(Writer, "evaluation", interrupt_third)
            assert main([*SWEEP_WORDS, *words]) == 130
        (record,) = folder.rglob("sweep.json")
        return record.parent

    return run


def statuses(sweep):
    return [run.status["status"] for run in find_runs(sweep)]


def test_a_resumed_sweep_leaves_finished_runs_and_trains_the_others(interrupt_sweep, finished_sweep, capsys):
    sweep = interrupt_sweep("hydra.sweep.dir=cut")
    assert statuses(sweep) == ["finished", "failed", "interrupted"]
    finished = (sweep / "0_shallow" / "summary.json").stat().st_mtime_ns
    assert main(["resume=cut"]) == 0
    assert (sweep / "0_shallow" / "summary.json").stat().st_mtime_ns == finished
    assert statuses(sweep) == ["finished"] * 4
    for name in ("0_shallow", "1_bp", "2_fa", "3_dfa"):
        assert_same_runs(finished_sweep / name, sweep / name)
    assert (sweep / "comparison.csv").exists()
    assert "DFA" in capsys.readouterr().out


@pytest.mark.slow
def test_auto_resumes_the_sweep_of_the_same_overrides(interrupt_sweep, folder, capsys):
    sweep = interrupt_sweep()
    assert main([*SWEEP_WORDS, "resume=auto"]) == 0
    assert f"resuming {os.path.relpath(sweep)}" in capsys.readouterr().out
    assert statuses(sweep) == ["finished"] * 4
    assert len(list(folder.rglob("sweep.json"))) == 1


@pytest.mark.slow
def test_auto_starts_a_sweep_of_other_overrides(interrupt_sweep, folder):
    interrupt_sweep()
    assert main(["--multirun", *SWEEP_WORDS[1:3], "rule=bp", "seeds=1", "epochs=1", "resume=auto"]) == 0
    assert len(list(folder.rglob("sweep.json"))) == 2


@pytest.mark.slow
def test_auto_does_not_resume_a_smaller_sweep(folder):
    smaller, larger = ([word.replace("shallow,bp,fa,dfa", rules) for word in SWEEP_WORDS] for rules in ("bp", "bp,fa"))
    assert main(smaller) == 0
    assert main([*larger, "resume=auto"]) == 0
    assert sorted(len(find_runs(path.parent)) for path in folder.rglob("sweep.json")) == [1, 2]


def test_status_shows_the_state_of_each_run(interrupt_sweep, capsys):
    sweep = interrupt_sweep("hydra.sweep.dir=cut")
    (sweep / "3_killed").mkdir()
    for name in ("config.yaml", "environment.json", "metrics.csv", "metrics.json"):
        shutil.copy(sweep / "2_fa" / name, sweep / "3_killed" / name)
    status = json.loads((sweep / "2_fa" / "status.json").read_text())
    (sweep / "3_killed" / "status.json").write_text(json.dumps({**status, "status": "running"}))
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
    shutil.rmtree(sweep / "3_killed")
    assert main(["status", "cut"]) == 0
    assert "1 run" in capsys.readouterr().out


def test_runs_and_sweeps_of_the_same_second_get_different_folders(folder):
    words = ["rule=bp", "task.train_examples=40", "evaluations=1", "seeds=1"]

    def claim_the_next_seconds(below):
        for second in range(60):
            name = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(time.time() + second))
            (folder / below / name).mkdir(parents=True)
            (folder / below / name / "sweep.json").write_text("{}")

    claim_the_next_seconds("outputs/sweeps")
    assert main(["--multirun", *words]) == 0
    (run,) = find_runs(folder)
    assert run.folder.parent.name.endswith("_2")
    shutil.rmtree(folder / "outputs")
    claim_the_next_seconds("outputs/linear/bp")
    assert main(words) == 0
    (run,) = find_runs(folder)
    assert run.folder.name.endswith("_2")


def test_a_sweep_of_other_code_or_configs_is_not_resumed(finished_sweep, folder, refusal):
    shutil.copytree(finished_sweep, "copy")
    record = json.loads((folder / "copy" / "sweep.json").read_text())
    environment = folder / "copy" / "1_bp" / "environment.json"
    before = environment.read_text()
    record_other_code(environment)
    assert "since 1_bp started, fa-jax went from 0.0.1, commit 0123, sources 4567 to" in refusal("resume=copy")
    environment.write_text(before)
    config = folder / "copy" / "2_fa" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    assert "2_fa has other options than the sweep now: epochs is 2 now and was 3" in refusal("resume=copy")
    (folder / "copy" / "sweep.json").write_text(json.dumps(record)[:-20])
    assert "what is recorded there cannot be read: its sweep.json" in refusal("resume=copy")


def test_a_sweep_that_another_process_runs_is_not_resumed(finished_sweep, folder, capsys):
    shutil.copytree(finished_sweep, "copy")
    lock = locks.acquire(folder / "copy")
    try:
        assert main(["resume=copy"]) == 2
    finally:
        locks.release(lock)
    line = capsys.readouterr().err
    assert "another process is running this" in line
    assert line.count("\n") == 1


def test_an_unreadable_run_leaves_a_sweep_unfinished(finished_sweep, folder):
    shutil.copytree(finished_sweep, "copy")
    (folder / "copy" / "1_bp" / "status.json").write_text("{")
    assert main(["resume=copy"]) == 1
