"""Every test of the command line runs in an empty folder."""

import json

import pytest

from fa_jax.cli.main import main
from tests.conftest import empty_figures, restored_logging

SWEEP_WORDS = [
    "--multirun",
    "task=digits",
    "rule=shallow,bp,fa,dfa",
    "epochs=2",
    "evaluations=2",
    "seeds=2",
    "checkpoint_every=0",
    "probe=0",
]


def record_code(path, version):
    """Records in an environment.json that a run was trained by fa-jax of this version, commit and sources."""
    environment = json.loads(path.read_text())
    environment["packages"]["fa-jax"] = version
    path.write_text(json.dumps(environment))


def record_other_code(path):
    """Records in an environment.json that a run was trained by other code."""
    record_code(path, "0.0.1, commit 0123, sources 4567")


@pytest.fixture(autouse=True)
def _empty_folder(folder):
    """Makes `folder` the working folder of every test."""


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory):
    """The folder of the sweep of `SWEEP_WORDS`, which was not interrupted."""
    sweep = tmp_path_factory.mktemp("finished") / "sweep"
    with restored_logging(), empty_figures():
        assert main([*SWEEP_WORDS, f"hydra.sweep.dir={sweep}"]) == 0
    return sweep


@pytest.fixture
def refusal(capsys):
    """Runs words that are refused, and returns the one line that says why."""

    def run(*words):
        capsys.readouterr()
        assert main(list(words)) == 2
        printed, line = capsys.readouterr()
        assert printed == ""
        assert line.startswith("fa-jax: ")
        assert line.count("\n") == 1, line
        return line

    return run
