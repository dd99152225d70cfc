"""Sweeps whose jobs run in parallel, each in a separate process."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fa_jax
from fa_jax.records.reader import find_runs, read_run
from tests.conftest import assert_same_runs

WORDS = ["--multirun", "task=digits", "rule=bp,fa", "seeds=2", "epochs=1", "evaluations=2", "probe=10"]


def sweep(*words):
    # The workers are separate processes, which inherit nothing from pytest.
    subprocess.run([sys.executable, "-m", "fa_jax", *WORDS, *words], check=True, capture_output=True)


def as_script(words):
    """Runs the script `fa-jax`, which unlike `python -m` does not import from the working folder."""
    environment = {**os.environ, "PYTHONPATH": str(Path(fa_jax.__file__).parents[1])}
    subprocess.run([sys.executable, "-P", "-m", "fa_jax", *words], check=True, capture_output=True, env=environment)


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


@pytest.mark.slow
def test_the_jobs_of_a_launcher_find_a_rule_in_the_working_folder_and_what_it_imports(folder):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    Path("my_helper.py").write_text("from fa_jax.rules.bp import bp\n")
    Path("my_rules.py").write_text(
        "import my_helper\n\ndef mine(network, loss):\n    return my_helper.bp(network, loss)\n"
    )
    words = [
        "task=linear",
        "task.train_examples=40",
        "rule._target_=my_rules.mine",
        "seeds=1,2",
        "evaluations=1",
        "probe=0",
    ]
    as_script(["--multirun", *words, "hydra/launcher=cores", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"])
    assert [run.status["status"] for run in find_runs(Path("sweep"))] == ["finished"] * 2


class Payload:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(Path("taken").absolute()),)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["cores", "submitit_local"])
def test_a_launcher_imports_and_unpickles_nothing_of_a_foreign_folder(finished_sweep, folder, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{'submitit' if 'submitit' in launcher else 'joblib'}_launcher")
    shutil.copytree(finished_sweep, "copy")
    shutil.rmtree("copy/1_bp")
    record = json.loads(Path("copy/sweep.json").read_text())
    Path("copy/sweep.json").write_text(
        json.dumps({**record, "overrides": [*record["overrides"], f"hydra/launcher={launcher}"]})
    )
    for name in ("joblib", "submitit", "multiprocessing", "cloudpickle"):
        Path(f"{name}.py").write_text("import os\nos.mkdir('taken')\n")
    first = os.getpid()
    for number in range(first, first + 2000):  # the numbers of the next processes, which jobs have
        path = Path("copy", ".submitit", str(number), f"{number}_0_result.pkl")
        path.parent.mkdir(parents=True)
        path.write_bytes(pickle.dumps(("success", Payload())))
    as_script(["resume=copy", "force=true"])
    assert read_run(Path("copy/1_bp")).is_finished
    assert not Path("taken").exists()
