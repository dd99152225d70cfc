"""Many short runs in one process, as in a sweep: memory stays constant."""

import gc
import os
from pathlib import Path

import pytest

from fa_jax.cli.main import main

RUN = ["task=digits", "epochs=0.2", "evaluations=1", "seeds=2", "probe=4", "checkpoint=false", "checkpoint_every=null"]
RULES = ("bp", "fa", "dfa", "kolen_pollack", "node_perturbation")


def resident_bytes():
    """The bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_many(folder, runs, interval):
    """Runs as many runs, and returns the memory after each interval of them."""
    sizes = []
    for i in range(runs):
        words = [f"rule={RULES[i % len(RULES)]}", f"seed={i}", f"hydra.run.dir={folder}/{i}"]
        assert main([*RUN, *words]) == 0
        if (i + 1) % interval == 0:
            sizes.append(resident_bytes())
            print(f"{i + 1} runs: {sizes[-1] / 2**20:.0f} MiB", flush=True)
    return sizes


@pytest.mark.slow
def test_the_memory_of_five_hundred_runs_in_one_process_stays_constant(folder):
    sizes = run_many(folder, 500, 50)
    assert sizes[-1] < 1.1 * sizes[1]
