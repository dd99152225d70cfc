"""A run that was cut off ends, once resumed, bit for bit as if it had never been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import read_run
from fa_jax.records.writer import Writer
from fa_jax.training import run as runner
from tests.cli.test_cli import folder  # noqa: F401

DIGITS = ["task=digits", "epochs=4", "evaluations=4", "checkpoint_every=0", "probe=10"]
RUNS = {
    "dropout": ["rule=dfa", "seeds=2", "architecture.dropout=0.3"],
    "learned feedback in groups": ["rule=kolen_pollack", "optimizer=adam", "seeds=3", "seeds_per_batch=2"],
    "feedback with an optimizer of its own": ["rule=weight_mirror", "optimizer=momentum", "seeds=1"],
    "running statistics": [
        "architecture=cnn",
        "architecture.topology=conv4x3s2-8",
        "architecture.norm=batch",
        "seeds=1",
    ],
    "rates of their own": ["rule=associated_learning", "rule.width=8", "seeds=1"],
    "running means": ["rule=forward_forward", "architecture.hidden=[20,20]", "seeds=1"],
    "convolutions": ["rule=fa", "architecture=cnn", "seeds=1", "epochs=1", "augmentation.shift=1"],
}


def weights(at):
    import orbax.checkpoint

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((at / "checkpoint").absolute())


def same(one, other):
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    for a, b in zip(jax.tree.leaves(weights(one)), jax.tree.leaves(weights(other)), strict=True):
        np.testing.assert_array_equal(a, b)
    ours, theirs = (json.loads((at / "summary.json").read_text()) for at in (one, other))
    assert ours.pop("cost")
    assert theirs.pop("cost")
    assert ours == theirs
    assert not (other / "resume").exists()


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        pytest.param("dropout", 4, marks=pytest.mark.slow),
        ("learned feedback in groups", 8),
        pytest.param("running statistics", 4, marks=pytest.mark.slow),
        pytest.param("rates of their own", 4, marks=pytest.mark.slow),
        pytest.param("running means", 4, marks=pytest.mark.slow),
        pytest.param("feedback with an optimizer of its own", 4, marks=pytest.mark.slow),
        pytest.param("convolutions", 4, marks=pytest.mark.slow),
        pytest.param("learned feedback in groups", 4, marks=pytest.mark.slow),
        pytest.param("learned feedback in groups", 6, marks=pytest.mark.slow),
    ],
)
def test_the_end_is_that_of_a_run_never_cut_off(folder, monkeypatch, name, cut):  # noqa: F811
    words = RUNS[name]
    assert main([*DIGITS, *words, "hydra.run.dir=whole"]) == 0
    evaluate, count = Writer.evaluation, []

    def cut_off(self, *arguments):
        count.append(None)
        if len(count) == cut:
            raise RuntimeError("power failure")
        evaluate(self, *arguments)

    # Long slices would leave nothing between two evaluations to be cut off at.
    monkeypatch.setattr(runner, "SLICE", 0.0)
    monkeypatch.setattr(Writer, "evaluation", cut_off)
    with pytest.raises(RuntimeError, match="power failure"):
        main([*DIGITS, *words, "hydra.run.dir=cut"])
    assert read_run(folder / "cut").status["status"] == "failed"
    monkeypatch.setattr(Writer, "evaluation", evaluate)
    assert main(["resume=cut"]) == 0
    same(folder / "whole", folder / "cut")
    assert len(read_run(folder / "cut").environment["continued"]) == 1


def kill_at_random(folder, words, moments):  # noqa: F811
    """Begins or resumes a run in `cut`, kills it after each of these seconds of training, and resumes it to its end."""
    command = words
    for seconds in moments:
        process = subprocess.Popen([sys.executable, "-m", "fa_jax", *command], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        rows = (folder / "cut" / "metrics.csv").read_text() if (folder / "cut" / "metrics.csv").exists() else ""
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
            status = folder / "cut" / "status.json"
            mine = status.exists() and json.loads(status.read_text())["pid"] == process.pid
            if mine and (folder / "cut" / "metrics.csv").read_text() not in ("", rows):
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        command = ["resume=cut"]
        if read_run(folder / "cut").status["status"] == "finished":
            return
    assert subprocess.run([sys.executable, "-m", "fa_jax", *command], check=False).returncode == 0


LONG = ["task=digits", "seeds=2", "epochs=150", "evaluations=30", "checkpoint_every=0", "probe=10"]


def test_killed_at_a_random_moment_nothing_is_lost(folder):  # noqa: F811
    words = [*LONG, "rule=dfa", "architecture.dropout=0.2"]
    assert main([*words, "hydra.run.dir=whole"]) == 0
    kill_at_random(folder, [*words, "hydra.run.dir=cut"], [random.Random(os.getpid()).uniform(0, 1.5)])
    same(folder / "whole", folder / "cut")


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_polite_interrupt_loses_nothing_of_the_work(folder, sent):  # noqa: F811
    words = ["task=digits", "rule=fa", "seeds=2", "epochs=4000", "evaluations=4", "probe=10", "hydra.run.dir=cut"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fa_jax", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 120
    metrics = folder / "cut" / "metrics.csv"
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"fa-jax resume=cut goes on with it" in said
    assert read_run(folder / "cut").status["status"] == "interrupted"
    (listing,) = (folder / "cut" / "resume").glob("*.json")
    assert int(listing.stem.partition("_")[2]) > 0


def interrupted(folder, monkeypatch, *words):  # noqa: F811
    """Leaves an interrupted run in the folder `outputs`."""
    evaluate = Writer.evaluation

    def stop(self, seeds, step, *arguments):
        evaluate(self, seeds, step, *arguments)
        if step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "evaluation", stop)
    assert main([*DIGITS, *words]) == 130
    monkeypatch.setattr(Writer, "evaluation", evaluate)
    (status,) = [path for path in folder.rglob("status.json") if "interrupted" in path.read_text()]
    return status.parent


def test_auto_goes_on_with_the_run_of_the_same_words_and_else_begins_it(folder, monkeypatch, capsys):  # noqa: F811
    at = interrupted(folder, monkeypatch, "rule=fa", "seeds=2")
    assert main([*DIGITS, "rule=fa", "seeds=2", "resume=auto"]) == 0
    assert "going on with" in capsys.readouterr().out
    assert read_run(at).status["status"] == "finished"
    assert main([*DIGITS, "rule=fa", "seeds=3", "resume=auto", "hydra.run.dir=elsewhere"]) == 0
    assert "going on with" not in capsys.readouterr().out
    assert len(list(folder.rglob("config.yaml"))) == 2


HOLD = """
import pathlib, sys, time
from fa_jax.records import locks
lock = locks.take(pathlib.Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(60)
"""


def test_what_may_not_be_resumed_is_refused_in_one_line(folder, monkeypatch, capsys):  # noqa: F811
    at = interrupted(folder, monkeypatch, "rule=fa", "seeds=1").relative_to(folder)

    def refused(*words):
        capsys.readouterr()
        assert main(list(words)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "no run is recorded there" in refused("resume=nowhere")
    assert "takes all its options from what is there; got also seeds=3" in refused(f"resume={at}", "seeds=3")
    assert "force must be true" in refused(f"resume={at}", "force=yes")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(at)], stdout=subprocess.PIPE)
    assert holder.stdout.readline()
    assert "this run is still going on, in another process" in refused(f"resume={at}")
    holder.kill()
    holder.communicate()
    config = (at / "config.yaml").read_text()
    strangers = (
        "os.system",
        "fa_jax.rules.fa.os.system",
        "fa_jax.rules.nothing",
        "fa_jax.cli.main.main",
        "optaxes.sgd",
        3,
    )
    for stranger in strangers:
        (at / "config.yaml").write_text(config.replace("fa_jax.rules.fa.fa", str(stranger)))
        assert f"its config.yaml calls {stranger}" in refused(f"resume={at}")
    (at / "config.yaml").write_text(config)
    environment = json.loads((at / "environment.json").read_text())
    (at / "environment.json").write_text(json.dumps({**environment, "commit": "0123"}))
    assert "the code went from 0123 to" in refused(f"resume={at}")
    assert main([f"resume={at}", "force=true"]) == 0
    assert "this run has finished" in refused(f"resume={at}")


@pytest.mark.slow
def test_a_clock_that_goes_back_and_fewer_devices_change_nothing(folder, monkeypatch):  # noqa: F811
    words = ["rule=dfa", "seeds=4", "architecture.dropout=0.2"]
    assert main([*DIGITS, *words, "hydra.run.dir=whole"]) == 0
    at = interrupted(folder, monkeypatch, *words, "hydra.run.dir=cut")
    status = json.loads((at / "status.json").read_text())
    (at / "status.json").write_text(json.dumps({**status, "time": "2999-01-01T00:00:00+00:00"}))
    config = (at / "config.yaml").read_text()
    assert "devices: all" in config
    (at / "config.yaml").write_text(config.replace("devices: all", "devices: 1"))
    assert main(["resume=cut"]) == 0
    whole, cut = (read_run(folder / name).metrics for name in ("whole", "cut"))
    for name, values in whole.items():
        # Sums are rounded differently where a device has more seeds.
        np.testing.assert_allclose(cut[name], values, rtol=2e-4, atol=1e-4)


def test_what_a_kill_leaves_before_there_is_a_status_is_in_nobody_s_way(folder):  # noqa: F811
    (folder / "cut").mkdir()
    (folder / "cut" / "metrics.csv").write_text("")
    (folder / "cut" / ".lock").write_text("")
    assert main([*DIGITS, "rule=bp", "seeds=1", "epochs=1", "hydra.run.dir=cut"]) == 0
    assert not (folder / "cut" / ".lock").exists()


@pytest.mark.parametrize("harm", ["cut", "noise", "empty"])
def test_a_damaged_record_costs_one_line(folder, monkeypatch, capsys, harm):  # noqa: F811
    from fa_jax.records.reader import find_runs

    at = interrupted(folder, monkeypatch, "rule=bp", "seeds=1", "evaluations=1", "epochs=1")
    for name in ("config.yaml", "status.json", "environment.json", "metrics.csv", "summary.json"):
        copy = folder / name.partition(".")[0]
        shutil.copytree(at, copy)
        content = (copy / name).read_bytes()
        damaged = {"cut": content[: len(content) // 2], "noise": b"\xff\x00{[" * 20, "empty": b""}[harm]
        (copy / name).write_bytes(damaged)
        capsys.readouterr()
        code = main([f"resume={copy}"])
        assert code in (0, 2), name  # some damage, such as rows that a run can make anew, is none
        if code:
            printed = capsys.readouterr().err.strip()
            assert printed.startswith("fa-jax: "), name
            assert printed.count("\n") == 0, name
        find_runs(folder)
