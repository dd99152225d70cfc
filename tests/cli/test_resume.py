"""A run that was cut off ends, once resumed, bit for bit as if it had never been."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from fa_jax import run as runner
from fa_jax.cli import main
from fa_jax.records.reader import read_run
from fa_jax.records.writer import Writer
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
        ("dropout", 4),
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
    """Begins a run, and kills it after each of these seconds of training, resuming it every time."""
    command = [*words, "hydra.run.dir=cut"]
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


LONG = ["task=digits", "seeds=2", "epochs=300", "evaluations=30", "checkpoint_every=0", "probe=10"]


def test_killed_at_a_random_moment_nothing_is_lost(folder):  # noqa: F811
    words = [*LONG, "rule=dfa", "architecture.dropout=0.2"]
    assert main([*words, "hydra.run.dir=whole"]) == 0
    kill_at_random(folder, words, [random.Random(os.getpid()).uniform(0, 1.5)])
    same(folder / "whole", folder / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["fa", "kolen_pollack", "weight_mirror", "drtp"])
def test_killed_again_and_again_nothing_is_lost(folder, rule):  # noqa: F811
    words = [*LONG, f"rule={rule}", "optimizer=adam"]
    assert main([*words, "hydra.run.dir=whole"]) == 0
    dice = random.Random(rule)
    kill_at_random(folder, words, [dice.uniform(0, 1) for _ in range(6)])
    same(folder / "whole", folder / "cut")


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
    (config,) = folder.rglob("config.yaml")
    return config.parent


def test_auto_goes_on_with_the_run_of_the_same_words_and_else_begins_it(folder, monkeypatch, capsys):  # noqa: F811
    at = interrupted(folder, monkeypatch, "rule=fa", "seeds=2")
    assert main([*DIGITS, "rule=fa", "seeds=2", "resume=auto"]) == 0
    assert "going on with" in capsys.readouterr().out
    assert read_run(at).status["status"] == "finished"
    assert main([*DIGITS, "rule=fa", "seeds=3", "resume=auto", "hydra.run.dir=elsewhere"]) == 0
    assert "going on with" not in capsys.readouterr().out
    assert len(list(folder.rglob("config.yaml"))) == 2


def test_what_may_not_be_resumed_is_refused_in_one_line(folder, monkeypatch, capsys):  # noqa: F811
    at = interrupted(folder, monkeypatch, "rule=fa", "seeds=1").relative_to(folder)

    def refused(*words):
        capsys.readouterr()
        assert main(list(words)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "no run is recorded there" in refused("resume=nowhere")
    assert "takes all its options from that run; got also seeds=3" in refused(f"resume={at}", "seeds=3")
    assert "force must be true" in refused(f"resume={at}", "force=yes")
    status = json.loads((at / "status.json").read_text())
    (at / "status.json").write_text(json.dumps({**status, "status": "running", "pid": os.getppid()}))
    assert f"still going on, in process {os.getppid()}" in refused(f"resume={at}")
    (at / "status.json").write_text(json.dumps(status))
    config = (at / "config.yaml").read_text()
    for stranger in ("os.system", "fa_jax.cli.os.system", "fa_jax.nothing"):
        (at / "config.yaml").write_text(config.replace("fa_jax.rules.fa.fa", stranger))
        assert f"its config.yaml calls {stranger}" in refused(f"resume={at}")
    (at / "config.yaml").write_text(config)
    environment = json.loads((at / "environment.json").read_text())
    (at / "environment.json").write_text(json.dumps({**environment, "commit": "0123"}))
    assert "the code went from 0123 to" in refused(f"resume={at}")
    assert main([f"resume={at}", "force=true"]) == 0
    assert "this run has finished" in refused(f"resume={at}")
