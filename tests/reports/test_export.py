"""What runs record is text in every table, and files are replaced rather than written through a link."""

import csv
import shutil
import subprocess

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs
from fa_jax.reports import comparison
from fa_jax.reports.comparison import compare
from fa_jax.reports.curves import curves_of, draw_curves
from fa_jax.reports.export import markdown
from fa_jax.reports.html import write_report
from fa_jax.reports.latex import latex
from fa_jax.reports.tables import Table, terminal

HOSTILE = "=HYPERLINK(1)|[a](b) `c` <i> [/b] \x1b]52;c;x\x07 a_b $x$"


@pytest.fixture
def hostile_table():
    return Table(["run", HOSTILE], [["fa", HOSTILE]], f"about {HOSTILE}\nmore")


def test_hostile_text_is_no_command_and_no_markup_in_a_terminal(hostile_table):
    console = Console(width=300, force_terminal=True, record=True, color_system=None)
    with console.capture() as captured:
        console.print(terminal(hostile_table, 300))
    shown = captured.get().replace("\x1b[1m", "").replace("\x1b[3m", "").replace("\x1b[2;3m", "").replace("\x1b[0m", "")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.count(r"=HYPERLINK(1)|[a](b) `c` <i> [/b] \x1b]52;c;x\x07 a_b $x$") == 3


def test_hostile_text_stays_one_cell_of_text_in_markdown(hostile_table):
    text = markdown(hostile_table)
    heading, _, row, _, caption, *_ = text.split("\n")
    escaped = r"=HYPERLINK(1)\|\[a\](b) \`c\` \<i> \[/b\] \\x1b\]52;c;x\\x07 a_b $x$"
    assert heading.endswith(f" {escaped} |")
    assert row.endswith(f" {escaped} |")
    assert caption == f"about {escaped}"


def test_hostile_text_is_escaped_in_latex(hostile_table):
    text = latex(hostile_table)
    assert r"\caption{About =HYPERLINK(1)\textbar{}[a](b)" in text
    row = text.split("\\midrule\n")[1].split("\n")[0]
    assert r"a\_b \$x\$" in row
    assert r"\textbackslash{}x1b" in row
    assert "\x1b" not in text


LONG = "weight mirror hidden=[200,100] learning_rate=0.3"


def test_a_wide_table_is_small_in_latex_and_long_headings_and_labels_are_broken():
    heading = "angle of the learning signal [layer 0]"
    text = latex(Table(["run", heading], [["fa", "1"]], "about"))
    assert r"\shortstack[r]{angle of the \\{} learning signal \\{} [layer 0]}" in text
    assert r"\begin{tabular}{lr}" in text
    assert "small" not in text
    assert r"\footnotesize" in latex(Table(["run", *"abcdef"], [["fa", *6 * ["12.3 ± 4.5"]]], "about"))
    text = latex(Table(["run", *"abcdef"], [[f"{LONG} - {LONG}", *6 * ["12.3"]]], "about"))
    assert r"{>{\raggedright\hangindent=1em\arraybackslash}p{1" in text
    assert r"=0.3 $-$~weight" in text


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 4, 7, 9])
@pytest.mark.parametrize("label", ["FA", LONG, f"{LONG} - {LONG}"])
def test_a_table_fits_the_line_of_a_page(tmp_path, columns, label):
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no LaTeX")
    cells = ["-12.34 ± 0.56", "0.123", "1.000", "-1.2 – -0.3", "5", "p (t)", "1.000", "2102", "0.062"][:columns]
    headings = ["test error (%)", "p (Holm)", "angle of the signal to backprop's, layer 0", *"abcdef"][:columns]
    text = latex(Table(["run", *headings], [[label, *cells]] * 3, "about"))
    page = r"\documentclass{article}\usepackage{array,booktabs}\begin{document}" + text + r"\end{document}"
    (tmp_path / "page.tex").write_text(page.replace("%", "\n%", 1))
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "Overfull" not in result.stdout


@pytest.mark.parametrize("value", ["=HYPERLINK(1)", "+a", "@SUM(1)", "-a", " =1", "\t=1"])
def test_text_is_no_formula_in_a_csv(record, tmp_path, value):
    record("bp", options={"note": value})
    runs = record("bp", options={"note": "-1e-3"})
    compared = compare(runs)
    comparison.write(compared, tmp_path, formats=["csv"])
    first, second = csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines())
    assert first["config.note"].lstrip("'").replace("\\t", "\t") == value
    assert first["config.note"][0] in "'\\"
    assert second["config.note"] == "-1e-3"


def test_the_files_of_a_comparison_replace_links(record, tmp_path):
    compared = compare(record("bp"))
    outside = tmp_path / "outside"
    outside.write_text("mine")
    names = [f"comparison{suffix}" for suffix in (".csv", ".md", ".tex", ".png", ".pdf")] + ["contrasts.csv"]
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(outside)
    comparison.write(compared, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert not any(path.is_symlink() or not path.stat().st_size for path in folder.iterdir())
    assert outside.read_text() == "mine"


def test_a_report_replaces_a_link(record, tmp_path):
    record("bp")
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "report.html").symlink_to(outside)
    assert main(["report", str(tmp_path)]) == 0
    assert outside.read_text() == "mine"
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()


def test_an_image_that_cannot_be_drawn_leaves_the_old_one(record, tmp_path, monkeypatch):
    compared = compare(record("bp"))
    comparison.write(compared, tmp_path)
    before = (tmp_path / "comparison.pdf").read_bytes()

    def fail(figure, file, **options):
        file.write(b"%PDF")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space"):
        comparison.write(compared, tmp_path)
    assert (tmp_path / "comparison.pdf").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("value", ["$x", "$x_$", "_", "$\\frac{$", "\x1b[31m", "a" * 100_000])
def test_recorded_text_is_drawn_as_it_is(record, tmp_path, value):
    record("bp", options={"note": value})
    runs = record("bp", options={"note": "other"})
    figure = Figure()
    axes = figure.subplots()
    draw_curves(axes, curves_of(runs, [value, "other"]), "test_error")
    _, names = axes.get_legend_handles_labels()
    assert len(names) == 2
    axes.legend()
    with (tmp_path / "a.png").open("wb") as file:
        figure.savefig(file)
    assert not any("\x1b" in name or len(name) > 400 for name in names)


def test_recorded_text_is_no_html_and_a_link_leads_to_its_folder(record, tmp_path):
    record("bp", options={"note": "<script>alert(1)</script>"})
    (tmp_path / "0_bp").rename(tmp_path / "a#b?c d")
    compared = compare(find_runs(tmp_path))
    write_report(compared, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    assert 'href="./a%23b%3Fc%20d/"' in text
