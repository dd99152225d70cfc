"""Sweeps whose jobs run in parallel, each in a separate process."""

import os
import subprocess
import sys

import pytest

from fa_jax.records.reader import find_runs
from tests.conftest import assert_same_runs

WORDS = ["--multirun", "task=digits", "rule=bp,fa", "seeds=2", "epochs=1", "evaluations=2", "probe=10"]


def sweep(*words):
    # The workers are separate processes, which inherit nothing from pytest.
    subprocess.run([sys.executable, "-m", "fa_jax", *WORDS, *words], check=True, capture_output=True)


def test_zero_parallel_jobs_are_refused(refusal):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    line = refusal(*WORDS, "hydra/launcher=cores", "hydra.launcher.n_jobs=0")
    assert "hydra.launcher.n_jobs must be how many run at once" in line


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["cores", "joblib", "submitit_local"])
def test_parallel_jobs_give_the_results_of_sequential_ones(folder, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{'submitit' if 'submitit' in launcher else 'joblib'}_launcher")
    sweep("hydra.sweep.dir=sequential", "devices=1")
    options = ["hydra.launcher.n_jobs=2"] if launcher != "submitit_local" else []
    sweep(f"hydra/launcher={launcher}", *options, "hydra.sweep.dir=parallel", "devices=1")
    for name in ("0_bp", "1_fa"):
        assert_same_runs(folder / "sequential" / name, folder / "parallel" / name)
    assert (folder / "parallel" / "comparison.csv").exists()
    runs = find_runs(folder / "parallel")
    assert all(run.environment["command"][:2] == ["fa-jax", "--multirun"] for run in runs)


@pytest.mark.slow
def test_a_parallel_job_has_its_share_of_the_cores(folder):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep("hydra/launcher=cores", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=parallel")
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {len(run.environment["devices"]) for run in find_runs(folder / "parallel")} == {share}
