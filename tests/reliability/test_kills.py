"""A hundred kills at random moments: while starting, compiling, training, writing a checkpoint, resuming."""

import random
import signal
import time

import pytest

from fa_jax.records.reader import read_run
from tests.conftest import CUT_MNIST, assert_same_runs, kill_at_random, start

DIGITS = ["task=digits", "seeds=2", "epochs=4000", "evaluations=120", "checkpoint_every=0", "probe=10"]
MNIST = ["task=mnist", f"task.data_dir={CUT_MNIST}", "seeds=2", "epochs=8000", "evaluations=120", "checkpoint_every=0"]
KILLS = 20
RUNS = {
    "fa": [*DIGITS, "rule=fa", "optimizer=adam"],
    "dropout": [*DIGITS, "rule=dfa", "architecture.dropout=0.2"],
    "learned feedback in groups of seeds": [*DIGITS, "rule=kolen_pollack", "optimizer=adam", "seeds_per_batch=1"],
    "feedback learned from noise": [*DIGITS, "rule=weight_mirror", "optimizer=momentum"],
    "mnist": [*MNIST, "rule=drtp", "probe=10", "batch_size=8", "architecture.hidden=[32,32]"],
}


def kill_while_starting(folder, words, delays):
    """Kills a run after each delay, in seconds since the start of its process; resumes it if it exists."""
    for delay in delays:
        exists = (folder / "cut" / "status.json").exists()
        process = start(["resume=cut"] if exists else [*words, "hydra.run.dir=cut"])
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_a_hundred_times_loses_nothing(folder, name):
    words, rng = RUNS[name], random.Random(name)
    assert start([*words, "hydra.run.dir=whole"]).wait() == 0
    kill_while_starting(folder, words, [rng.uniform(0.5, 7) for _ in range(KILLS // 2)])
    exists = (folder / "cut" / "status.json").exists()  # perhaps not yet, on a busy machine
    unfinished = not exists or read_run(folder / "cut").status["status"] == "running"
    assert unfinished, "the run is too short to be killed as often"
    words = ["resume=cut"] if exists else [*words, "hydra.run.dir=cut"]
    kill_at_random(folder, words, [rng.uniform(0, 1) for _ in range(KILLS // 2)])
    assert_same_runs(folder / "whole", folder / "cut")
