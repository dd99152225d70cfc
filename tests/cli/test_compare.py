"""The verbs that read recorded runs: compare and report."""

import csv
import shutil
import subprocess
import sys

import pytest

from fa_jax.cli.main import main
from tests.conftest import empty_figures, restored_logging

SWEEP = "--multirun task=digits rule=bp,fa seeds=3 epochs=1 evaluations=2 architecture.hidden=[10]"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a small sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    with restored_logging(), empty_figures():
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


def test_one_format_of_tables_is_printed_alone(sweep, tmp_path, capsys):
    words = ["compare", str(sweep), "columns=test_error,n,optimizer.learning_rate", f"output={tmp_path}/out"]
    assert main([*words, "spread=sd", "format=latex"]) == 0
    printed, errors = capsys.readouterr()
    assert printed == (tmp_path / "out" / "comparison.tex").read_text()
    assert printed.count("\\begin{table}") == 2
    assert "learning\\_rate" in printed
    assert "comparison: " in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["comparison.tex"]
    assert main([*words, "format=csv"]) == 0
    rows = read_rows(tmp_path / "out" / "comparison.csv")
    assert list(rows[0])[:3] == ["run", "test_error_mean", "test_error_sd"]
    assert rows[0]["n"] == "3"


@pytest.mark.draws
def test_figures_are_drawn_as_asked(sweep, tmp_path):
    words = ["title=digits", "size=5x3", "font_size=8", "axis=epochs", "layers=0", "format=svg"]
    assert main(["compare", str(sweep), *words, f"output={tmp_path}/out"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["comparison.svg"]
    assert 'width="360pt" height="216pt"' in (tmp_path / "out" / "comparison.svg").read_text()
    assert main(["report", str(sweep), "title=mine", "axis=epochs", f"output={tmp_path}/out"]) == 0
    assert "<title>mine</title>" in (tmp_path / "out" / "report.html").read_text()


def test_only_options_that_change_the_numbers_of_a_comparison_change_where_it_is_written(sweep, folder, capsys):
    shutil.copytree(sweep, folder / "runs")
    assert main(["report", "runs", "title=mine", "metric=test_loss"]) == 0
    assert "<title>mine</title>" in (folder / "runs" / "report.html").read_text()
    (folder / "runs" / "comparison.md").unlink()
    assert main(["compare", "runs", "format=markdown"]) == 0
    assert (folder / "runs" / "comparison.md").exists()
    assert not (folder / "outputs").exists()
    capsys.readouterr()
    assert main(["compare", "runs", "spread=sd", "format=latex"]) == 0
    assert "; with spread=sd it does not take the place of the one in runs" in capsys.readouterr().err.replace(
        "\n", " "
    )
    (written,) = (folder / "outputs" / "comparisons").glob("*/*")
    assert written.name == "comparison.tex"


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
        ("compare {sweep} metrics=test_loss", "font_size, axis, layers, notes; got 'metrics'; did you mean 'metric'?"),
        ("compare {sweep} columns=test_eror", "columns must be of metrics such as test_error"),
        ("compare {sweep} format=html", "format must be one of png, pdf, svg, csv, markdown, latex; got 'html'"),
        ("compare {sweep} format=latex size=6x4", "size must be left out with format=latex, which draws nothing"),
        ("compare {sweep} format=png columns=n", "columns must be left out with format=png, which has no table"),
        ("compare {sweep} notes=no", "notes must be true or false; got 'no'"),
        ("compare {sweep} contrast_columns=p", "a column of contrasts must be one of difference, interval, d, p_t"),
        ("compare {sweep} contrast_columns=d format=csv", "contrast_columns must be left out with format=csv, which"),
        ("compare {sweep} layers=5", "layers must be of those whose angles are recorded, 0; got 5"),
        ("report {sweep} layers=5", "layers must be of those whose angles are recorded, 0; got 5"),
        ("report {sweep} size=6x4", "report: an option must be one of metric, against, contrasts, output, title"),
        ("compare {sweep} against=dfa", "against must be one of bp, fa, BP, FA; got 'dfa'"),
        ("compare {sweep} contrasts=fa", "contrasts must be pairs such as dfa:bp,dfa:fa; got 'fa'"),
        ("compare {sweep} metric=error", "metric must be one of test_error"),
    ],
)
def test_a_mistake_prints_one_line(sweep, tmp_path, refusal, words, message):
    assert message in refusal(*words.format(sweep=sweep, empty=tmp_path).split())
