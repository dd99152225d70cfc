"""Sweeps whose jobs run side by side, in processes of their own."""

import os
import subprocess
import sys

import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs
from tests.cli.test_cli import folder  # noqa: F401
from tests.cli.test_resume import same

WORDS = ["--multirun", "task=digits", "rule=bp,fa", "seeds=2", "epochs=1", "evaluations=2", "probe=10"]


def sweep(*words):
    # Its workers are processes of their own, which take over nothing of pytest's.
    subprocess.run([sys.executable, "-m", "fa_jax", *WORDS, *words], check=True, capture_output=True)


def test_no_jobs_at_once_cost_one_line(capsys):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert main([*WORDS, "hydra/launcher=cores", "hydra.launcher.n_jobs=0"]) == 2
    assert "hydra.launcher.n_jobs must be how many run at once" in capsys.readouterr().err


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("joblib", "submitit_local")]


@pytest.mark.parametrize("launcher", ["cores", *OTHERS])
def test_jobs_side_by_side_have_the_numbers_of_jobs_in_turn(folder, launcher):  # noqa: F811
    pytest.importorskip(f"hydra_plugins.hydra_{'submitit' if 'submitit' in launcher else 'joblib'}_launcher")
    sweep("hydra.sweep.dir=in_turn", "devices=1")
    further = ["hydra.launcher.n_jobs=2"] if launcher != "submitit_local" else []
    sweep(f"hydra/launcher={launcher}", *further, "hydra.sweep.dir=beside", "devices=1")
    for name in ("0_bp", "1_fa"):
        same(folder / "in_turn" / name, folder / "beside" / name)
    assert (folder / "beside" / "comparison.csv").exists()
    assert all(run.environment["command"][:2] == ["fa-jax", "--multirun"] for run in find_runs(folder / "beside"))


@pytest.mark.slow
def test_a_job_has_its_share_of_the_cores(folder):  # noqa: F811
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep("hydra/launcher=cores", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=beside")
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {len(run.environment["devices"]) for run in find_runs(folder / "beside")} == {share}
