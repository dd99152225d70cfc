"""A hundred kills at random moments: in starting, in compiling, in training, in writing a checkpoint, in resuming."""

import random
import signal
import subprocess
import sys
import time

import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import read_run
from tests.cli.test_cli import folder  # noqa: F401
from tests.cli.test_resume import kill_at_random, same
from tests.tasks.test_tfds import CUT

DIGITS = ["task=digits", "seeds=2", "epochs=4000", "evaluations=120", "checkpoint_every=0", "probe=10"]
MNIST = ["task=mnist", f"task.data_dir={CUT}", "seeds=2", "epochs=8000", "evaluations=120", "checkpoint_every=0"]
KILLS = 20
RUNS = {
    "fa": [*DIGITS, "rule=fa", "optimizer=adam"],
    "dropout": [*DIGITS, "rule=dfa", "architecture.dropout=0.2"],
    "learned feedback in groups of seeds": [*DIGITS, "rule=kolen_pollack", "optimizer=adam", "seeds_per_batch=1"],
    "feedback learned from noise": [*DIGITS, "rule=weight_mirror", "optimizer=momentum"],
    "mnist": [*MNIST, "rule=drtp", "probe=10", "batch_size=8", "architecture.hidden=[32,32]"],
}


def kill_while_it_starts(folder, words, moments):  # noqa: F811
    """Kills a run after each of these seconds, in whatever it is just doing, its start included."""
    for seconds in moments:
        begun = (folder / "cut" / "status.json").exists()
        command = ["resume=cut"] if begun else [*words, "hydra.run.dir=cut"]
        process = subprocess.Popen([sys.executable, "-m", "fa_jax", *command], stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_a_hundred_times_nothing_is_lost(folder, name):  # noqa: F811
    words, dice = RUNS[name], random.Random(name)
    assert main([*words, "hydra.run.dir=whole"]) == 0
    kill_while_it_starts(folder, words, [dice.uniform(0.5, 7) for _ in range(KILLS // 2)])
    begun = (folder / "cut" / "status.json").exists()  # on a busy machine perhaps not even that
    unfinished = not begun or read_run(folder / "cut").status["status"] == "running"
    assert unfinished, "the run is too short to be killed as often"
    words = ["resume=cut"] if begun else [*words, "hydra.run.dir=cut"]
    kill_at_random(folder, words, [dice.uniform(0, 1) for _ in range(KILLS // 2)])
    same(folder / "whole", folder / "cut")
