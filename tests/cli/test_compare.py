"""The verbs that read recorded runs: compare and report."""

import csv
import shutil
import subprocess
import sys

import pytest

from fa_jax.cli.main import main
from tests.conftest import restored_logging

SWEEP = "--multirun task=digits rule=bp,fa seeds=3 epochs=1 evaluations=2 architecture.hidden=[10]"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a small sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    with restored_logging():
        assert main([*SWEEP.split(), f"hydra.sweep.dir={folder}/runs"]) == 0
    return folder / "runs"


def read_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_ends_in_its_contrasts(sweep):
    (contrast,) = read_rows(sweep / "contrasts.csv")
    assert (contrast["condition"], contrast["against"], contrast["n"]) == ("FA", "BP", "3")
    assert 0 < float(contrast["p_t"]) <= 1


def test_compare_writes_tables_for_papers(sweep, tmp_path, capsys):
    assert main(["compare", str(sweep), "metric=test_loss", f"output={tmp_path}/out"]) == 0
    printed = capsys.readouterr().out
    assert "FA - BP" in printed
    assert "test_loss" in printed
    assert [row["run"] for row in read_rows(tmp_path / "out" / "comparison.csv")] == ["BP", "FA"]
    assert [row["metric"] for row in read_rows(tmp_path / "out" / "comparison.csv")] == ["test_loss", "test_loss"]
    assert r"\toprule" in (tmp_path / "out" / "comparison.tex").read_text()
    assert (tmp_path / "out" / "comparison.md").read_text().startswith("| run")
    assert (tmp_path / "out" / "comparison.png").exists()


def test_report_writes_one_page(sweep, tmp_path, capsys):
    assert main(["report", str(sweep), f"output={tmp_path}/out"]) == 0
    assert f"{tmp_path}/out/report.html" in capsys.readouterr().out.replace("\n", "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_compare_and_report_import_neither_jax_nor_training_code(sweep, tmp_path):
    code = f"""
import sys
from fa_jax.cli.main import main
assert main(["compare", "{sweep}", "output={tmp_path}/out"]) == 0
assert main(["report", "{sweep}", "output={tmp_path}/out"]) == 0
assert main(["status", "{sweep}"]) == 0
loaded = [name for name in ("jax", "flax", "hydra", "orbax", "fa_jax.core", "fa_jax.training") if name in sys.modules]
assert not loaded, loaded
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"comparison.csv", "report.html"}


def test_a_damaged_run_is_reported_and_the_others_are_compared(sweep, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(sweep, copy)
    (copy / "1_fa" / "status.json").write_text("{")
    words = [sys.executable, "-m", "fa_jax", "compare", str(copy)]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"{copy}/1_fa cannot be read: its status.json: Input data was truncated" in result.stderr
    assert result.stderr.count("\n") == 1
    assert [row["run"] for row in read_rows(copy / "comparison.csv")] == ["BP"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare", "compare needs the folder of a run or a sweep"),
        ("compare nowhere", "compare: nowhere is no folder"),
        ("compare {empty}", "compare: no run is recorded in"),
        ("compare {sweep} metrics=test_loss", "must be one of metric, against, contrasts, output; got 'metrics'"),
        ("compare {sweep} against=dfa", "against must be one of bp, fa, BP, FA; got 'dfa'"),
        ("compare {sweep} contrasts=fa", "contrasts must be pairs such as dfa:bp,dfa:fa; got 'fa'"),
        ("compare {sweep} metric=error", "metric must be one of test_error"),
    ],
)
def test_a_mistake_prints_one_line(sweep, tmp_path, refusal, words, message):
    assert message in refusal(*words.format(sweep=sweep, empty=tmp_path).split())
