"""The verbs that read what has been recorded."""

import csv
import shutil
import subprocess
import sys

import pytest

from fa_jax.cli.main import main
from tests.cli.test_cli import logging_as_before

SWEEP = "--multirun task=digits rule=bp,fa seeds=3 epochs=1 evaluations=2 architecture.hidden=[10]"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a small sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    with logging_as_before():
        assert main([*SWEEP.split(), f"hydra.sweep.dir={folder}/runs"]) == 0
    return folder / "runs"


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep_ends_in_its_contrasts(sweep):
    (one,) = rows(sweep / "contrasts.csv")
    assert (one["condition"], one["against"], one["n"]) == ("FA", "BP", "3")
    assert 0 < float(one["p_t"]) <= 1


def test_compare_writes_the_tables_for_a_paper(sweep, tmp_path, capsys):
    assert main(["compare", str(sweep), "metric=test_loss", f"output={tmp_path}/out"]) == 0
    printed = capsys.readouterr().out
    assert "FA - BP" in printed
    assert "test_loss" in printed
    assert [row["run"] for row in rows(tmp_path / "out" / "comparison.csv")] == ["BP", "FA"]
    assert r"\toprule" in (tmp_path / "out" / "comparison.tex").read_text()
    assert (tmp_path / "out" / "comparison.md").read_text().startswith("| run")
    assert (tmp_path / "out" / "comparison.png").exists()


def test_the_report_is_one_page(sweep, tmp_path, capsys):
    assert main(["report", str(sweep), f"output={tmp_path}/out"]) == 0
    assert f"{tmp_path}/out/report.html" in capsys.readouterr().out.replace("\n", "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_compare_imports_no_training_code(sweep, tmp_path):
    code = f"""
import sys
from fa_jax.cli.main import main
from tests.cli.test_cli import logging_as_before
main(["compare", "{sweep}", "output={tmp_path}"])
main(["report", "{sweep}", "output={tmp_path}"])
loaded = [name for name in ("jax", "fa_jax.training.loop", "fa_jax.core", "orbax") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_damaged_run_is_named_and_the_others_are_compared(sweep, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(sweep, copy)
    (copy / "1_fa" / "status.json").write_text("{")
    words = [sys.executable, "-m", "fa_jax", "compare", str(copy)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"{copy}/1_fa cannot be read: Expecting property name" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [row["run"] for row in rows(copy / "comparison.csv")] == ["BP"]


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
def test_a_mistake_costs_one_line(sweep, tmp_path, capsys, words, message):
    assert main(words.format(sweep=sweep, empty=tmp_path).split()) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
