"""An interrupted run, once resumed, ends bit for bit like an uninterrupted one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fa_jax.cli.main import main
from fa_jax.records.checkpoints import Checkpoints
from fa_jax.records.reader import find_runs, read_run
from fa_jax.records.sources import code_key, versions
from fa_jax.records.writer import Writer
from fa_jax.training import run as runner
from tests.cli.conftest import record_code, record_other_code
from tests.conftest import assert_same_runs, kill_at_random, start, wait_until

DIGITS = ["task=digits", "epochs=4", "evaluations=4", "checkpoint_every=0", "probe=0"]
RUNS = {
    "dropout": ["rule=dfa", "seeds=2", "architecture.dropout=0.3"],
    "learned feedback in groups": ["rule=kolen_pollack", "optimizer=adam", "seeds=2", "seeds_per_batch=1", "probe=10"],
    "separate optimizer of the feedback": ["rule=weight_mirror", "optimizer=momentum", "seeds=1"],
    "running statistics": [
        "architecture=cnn",
        "architecture.topology=conv4x3s2-8",
        "architecture.norm=batch",
        "seeds=1",
    ],
    "learning-rate multipliers": ["rule=associated_learning", "rule.width=8", "seeds=1"],
    "running means": ["rule=forward_forward", "architecture.hidden=[20,20]", "seeds=1"],
    "convolutions": ["rule=fa", "architecture=cnn", "seeds=1", "epochs=1", "augmentation.shift=1"],
}


def fail_once(monkeypatch, evaluation):
    """Lets the evaluation of this number, from 1, fail once; returns seeds and step of each that is recorded."""
    recorded, failed, record_evaluation = [], [], Writer.evaluation

    def record_or_fail(self, seeds, step, *arguments):
        if len(recorded) == evaluation - 1 and not failed:
            failed.append(step)
            raise RuntimeError("power failure")
        recorded.append((tuple(seeds), step))
        record_evaluation(self, seeds, step, *arguments)

    monkeypatch.setattr(Writer, "evaluation", record_or_fail)
    return recorded


@pytest.mark.parametrize(
    ("name", "evaluation"),
    [
        pytest.param("dropout", 4, marks=pytest.mark.slow),
        ("learned feedback in groups", 8),
        pytest.param("running statistics", 4, marks=pytest.mark.slow),
        pytest.param("learning-rate multipliers", 4, marks=pytest.mark.slow),
        pytest.param("running means", 4, marks=pytest.mark.slow),
        pytest.param("separate optimizer of the feedback", 4, marks=pytest.mark.slow),
        pytest.param("convolutions", 4, marks=pytest.mark.slow),
        pytest.param("learned feedback in groups", 4, marks=pytest.mark.slow),
        pytest.param("learned feedback in groups", 6, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(folder, monkeypatch, name, evaluation):
    words = RUNS[name]
    assert main([*DIGITS, *words, "hydra.run.dir=whole"]) == 0
    recorded = fail_once(monkeypatch, evaluation)
    # Long slices would leave nothing between two evaluations to resume from.
    monkeypatch.setattr(runner, "SLICE_SECONDS", 0.02)
    with pytest.raises(RuntimeError, match="power failure"):
        main([*DIGITS, *words, "hydra.run.dir=cut"])
    assert read_run(folder / "cut").status["status"] == "failed"
    assert len(recorded) == evaluation - 1
    assert main(["resume=cut"]) == 0
    assert len(set(recorded)) == len(recorded) > evaluation  # nothing that was recorded is trained again
    assert_same_runs(folder / "whole", folder / "cut")
    assert len(read_run(folder / "cut").environment["resumed"]) == 1


def test_a_group_of_seeds_that_is_trained_to_its_end_is_saved_and_a_run_of_one_group_is_not(folder, monkeypatch):
    saved, save = [], Checkpoints.save

    def note(checkpoints, group, *arguments):
        saved.append(group)
        save(checkpoints, group, *arguments)

    monkeypatch.setattr(Checkpoints, "save", note)
    words = ["task=linear", "task.train_examples=40", "evaluations=1", "probe=0", "seeds=2", "checkpoint_every=3600"]
    assert main([*words, "hydra.run.dir=whole"]) == 0
    assert saved == []
    recorded = fail_once(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="power failure"):
        main([*words, "seeds_per_batch=1", "hydra.run.dir=cut"])
    assert saved == [0]
    assert main(["resume=cut"]) == 0
    assert [seeds for seeds, _ in recorded] == [(0,), (0,), (1,), (1,)]


LONG = ["task=digits", "seeds=2", "epochs=150", "evaluations=30", "checkpoint_every=0", "probe=10"]


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_loses_nothing(folder):
    words = [*LONG, "rule=dfa", "architecture.dropout=0.2"]
    assert start([*words, "hydra.run.dir=whole"]).wait() == 0
    kill_at_random(folder, [*words, "hydra.run.dir=cut"], [random.Random(os.getpid()).uniform(0, 1.5)])
    assert_same_runs(folder / "whole", folder / "cut")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_saves_a_checkpoint_and_prints_how_to_resume(folder, number):
    words = ["task=digits", "rule=fa", "seeds=2", "epochs=4000", "evaluations=4", "probe=10", "hydra.run.dir=cut"]
    process = start(words, stderr=subprocess.PIPE)
    metrics = folder / "cut" / "metrics.csv"
    # The first evaluation comes before the first step, so a checkpoint after it has trained.
    wait_until(lambda: metrics.exists() and metrics.read_text(), process=process)
    time.sleep(1.5)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"fa-jax resume=cut resumes it" in printed
    assert read_run(folder / "cut").status["status"] == "interrupted"
    (manifest,) = (folder / "cut" / "resume").glob("*.json")
    assert int(manifest.stem.partition("_")[2]) > 0


def interrupt(folder, monkeypatch, *words):
    """Interrupts a run after its second evaluation, and returns its folder."""
    record_evaluation = Writer.evaluation

    def stop(self, seeds, step, *arguments):
        record_evaluation(self, seeds, step, *arguments)
        if step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "evaluation", stop)
    assert main([*DIGITS, *words]) == 130
    monkeypatch.setattr(Writer, "evaluation", record_evaluation)
    (status,) = [path for path in folder.rglob("status.json") if "interrupted" in path.read_text()]
    return status.parent


def test_auto_resumes_the_run_of_the_same_overrides_or_starts_one(folder, monkeypatch, capsys):
    interrupted = interrupt(folder, monkeypatch, "rule=fa", "seeds=2")
    # A commit since then, or another version, that left the sources of the package as they were.
    record_code(interrupted / "environment.json", f"0.0.1, commit 0123, sources {code_key(versions()['fa-jax'])}")
    assert main([*DIGITS, "rule=fa", "seeds=2", "resume=auto"]) == 0
    assert f"resuming {interrupted.relative_to(folder)}" in capsys.readouterr().out
    assert read_run(interrupted).status["status"] == "finished"
    assert main([*DIGITS, "rule=fa", "seeds=2", "seed=9", "resume=auto", "hydra.run.dir=elsewhere"]) == 0
    assert "resuming" not in capsys.readouterr().out
    assert len(list(folder.rglob("config.yaml"))) == 2


HOLD_LOCK = """
import pathlib, sys, time
from fa_jax.records import locks
lock = locks.acquire(pathlib.Path(sys.argv[1]))
print("acquired", flush=True)
time.sleep(60)
"""
UNTRUSTED = (
    "os.system",
    "fa_jax.rules.fa.os.system",
    "fa_jax.rules.nothing",
    "fa_jax.cli.main.main",
    "optaxes.sgd",
    3,
)


def test_a_run_that_may_not_be_resumed_is_refused(folder, monkeypatch, refusal):
    interrupted = interrupt(folder, monkeypatch, "rule=fa", "seeds=1").relative_to(folder)
    assert "no run is recorded there" in refusal("resume=nowhere")
    line = refusal(f"resume={interrupted}", "seeds=3")
    assert f"resume={interrupted} takes all options from the folder; got also seeds=3" in line
    assert "force must be true" in refusal(f"resume={interrupted}", "force=yes")
    holder = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(interrupted)], stdout=subprocess.PIPE)
    assert holder.stdout.readline()
    assert "another process is running this" in refusal(f"resume={interrupted}")
    holder.kill()
    holder.communicate()
    config = (interrupted / "config.yaml").read_text()
    for target in UNTRUSTED:
        (interrupted / "config.yaml").write_text(config.replace("fa_jax.rules.fa.fa", str(target)))
        assert f"its config.yaml calls {target}" in refusal(f"resume={interrupted}")
    (interrupted / "config.yaml").write_text(config)
    record_other_code(interrupted / "environment.json")
    assert "fa-jax went from 0.0.1, commit 0123, sources 4567 to" in refusal(f"resume={interrupted}")
    assert main([f"resume={interrupted}", "force=true"]) == 0
    assert "this run has finished" in refusal(f"resume={interrupted}")


@pytest.mark.slow
def test_a_clock_set_back_and_fewer_devices_do_not_change_a_resumed_run(folder, monkeypatch):
    words = ["rule=dfa", "seeds=4", "architecture.dropout=0.2"]
    assert main([*DIGITS, *words, "hydra.run.dir=whole"]) == 0
    interrupted = interrupt(folder, monkeypatch, *words, "hydra.run.dir=cut")
    status = json.loads((interrupted / "status.json").read_text())
    (interrupted / "status.json").write_text(json.dumps({**status, "time": "2999-01-01T00:00:00+00:00"}))
    config = (interrupted / "config.yaml").read_text()
    assert "devices: all" in config
    (interrupted / "config.yaml").write_text(config.replace("devices: all", "devices: 1"))
    assert main(["resume=cut"]) == 0
    whole, cut = (read_run(folder / name).metrics for name in ("whole", "cut"))
    for name, values in whole.items():
        # Sums are rounded differently where a device has more seeds.
        np.testing.assert_allclose(cut[name], values, rtol=2e-4, atol=1e-4)


def test_files_of_a_run_killed_before_its_first_status_do_not_block_a_new_run(folder):
    (folder / "cut").mkdir()
    (folder / "cut" / "metrics.csv").write_text("")
    (folder / "cut" / ".lock").write_text("")
    assert main([*DIGITS, "rule=bp", "seeds=1", "epochs=1", "hydra.run.dir=cut"]) == 0
    assert not (folder / "cut" / ".lock").exists()


FILES = ("config.yaml", "status.json", "environment.json", "metrics.csv", "metrics.json", "summary.json")


@pytest.mark.parametrize("damage", ["half", "noise", "empty"])
def test_a_damaged_record_prints_one_line(folder, monkeypatch, capsys, damage):
    interrupted = interrupt(folder, monkeypatch, "rule=bp", "seeds=1", "evaluations=1", "epochs=1")
    for name in FILES:
        copy = folder / name.replace(".", "_")
        shutil.copytree(interrupted, copy)
        content = (copy / name).read_bytes()
        damaged = {"half": content[: len(content) // 2], "noise": b"\xff\x00{[" * 20, "empty": b""}[damage]
        (copy / name).write_bytes(damaged)
        capsys.readouterr()
        code = main([f"resume={copy}"])
        assert code in (0, 2), name  # a run can restore some damage, such as lost rows
        if code:
            line = capsys.readouterr().err.strip()
            assert line.startswith("fa-jax: "), name
            assert line.count("\n") == 0, name
        find_runs(folder)


def test_a_config_with_missing_or_wrong_options_is_refused_with_one_line(folder, monkeypatch, refusal):
    interrupted = interrupt(folder, monkeypatch, "rule=bp", "seeds=1", "evaluations=1", "epochs=1")
    path = interrupted / "config.yaml"
    text = path.read_text()
    for old, new in (
        ("adversarial: 0.0\n", ""),
        ("shuffle: true\n", "shuffle: [[]]\n"),
        ("batch_size: ", "batch_size: x"),
        ("optimizer:\n", "optimizer: 7\nother:\n"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        assert f"resume={interrupted}: " in refusal(f"resume={interrupted}")
