"""A value that a metric declares to be unreliable is shown with a mark, wherever it is shown."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from fa_jax.core import Flag, Metric
from fa_jax.records.columns import Declared, Random
from fa_jax.records.conditions import conditions
from fa_jax.records.reader import find_runs
from fa_jax.records.writer import Writer
from fa_jax.reports.comparison import compare, show, write
from fa_jax.reports.curves import CROSS
from fa_jax.reports.figures import angles_figure, curves_figure
from fa_jax.reports.flags import MARK, flag_notes, flagged, seeds_flagged
from fa_jax.reports.html import write_report
from fa_jax.reports.layers import layer_table, since_start
from fa_jax.reports.options import FigureOptions
from fa_jax.reports.page_data import page_data
from fa_jax.reports.paper import paper_table
from fa_jax.reports.run_table import run_table
from tests.reports.conftest import CHOICES, COST, SCORES

FLOOR = Flag("reference_norm", (1.3e-5, None), "the reference is too small")
MEASURED = (
    Metric("signal_angle", "angle", "degrees", bounds=(0, 180), flag=FLOOR, random=(90, 57.0)),
    Metric("dead_signals", "dead", "%", plotted=False),
    Metric("reference_norm", "reference", better="neither", logarithmic=True, plotted=False),
    Metric("scale", "scale", better="neither", logarithmic=True, plotted=False),
    Metric("growth", "growth", better="neither", logarithmic=True, flag=Flag("growth", (None, 50.0), "it explodes")),
)
DECLARED = Declared((SCORES["error"], Metric("loss", "loss")), MEASURED, units=(4, 100), examples=25)


@pytest.fixture
def record_run(tmp_path):
    """Records a run of two seeds with two evaluations, and returns all runs recorded so far."""

    def record(rule="dfa", references=(1.0, 1.0), growths=(2.0, 2.0)):
        number = len(list(tmp_path.glob("*/status.json")))
        config = {"choices": {"rule": rule, **CHOICES}, "seeds": 2, "epochs": 1, "spacing": "linear"}
        writer = Writer(tmp_path / f"{number}", config, DECLARED)
        for step in (0, 5):
            columns = {"test_error": np.array([9.0, 8.0]) - step, "test_loss": np.ones(2)}
            for layer in range(2):
                reference = np.ones(2) if step == 0 or layer == 0 else np.asarray(references)
                columns |= {
                    f"signal_angle_{layer}": np.full(2, 60.0 + layer),
                    f"dead_signals_{layer}": np.full(2, 25.0),
                }
                columns |= {
                    f"reference_norm_{layer}": reference,
                    f"scale_{layer}": np.full(2, 2.0 + step * (1 + layer)),
                }
            writer.evaluation([0, 1], step, 10 * step, step / 5, {**columns, "growth": np.asarray(growths)})
        writer.summary(COST)
        writer.status("finished")
        writer.close()
        return find_runs(tmp_path)

    return record


def printed(*tables):
    console = Console(width=160, record=True, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("references", "growths", "marked"),
    [
        ((1.3e-5, 1.4e-5), (50.0, 49.0), {}),
        ((1.2e-5, 1.4e-5), (50.0, 49.0), {"signal_angle_1": 1}),
        ((1.2e-5, 0.0), (50.1, np.inf), {"signal_angle_1": 2, "growth": 2}),
        ((np.nan, 1.0), (np.nan, 51.0), {"growth": 1}),
    ],
)
def test_a_value_is_marked_beyond_its_limit_and_not_at_it(record_run, references, growths, marked):
    (run,) = record_run(references=references, growths=growths)
    assert {name: n for name in run.columns if (n := seeds_flagged(run, name))} == marked


def test_a_mark_is_of_the_row_and_the_layer_of_its_limit(record_run):
    (run,) = record_run(references=(1e-9, 1.0))
    np.testing.assert_array_equal(flagged(run, "signal_angle_1"), [[False, True], [False, False]])
    assert not flagged(run, "signal_angle_0").any()


def test_an_older_run_without_the_column_that_decides_has_no_marks(record_run):
    (run,) = record_run(references=(1e-9, 1e-9))
    del run.metrics["reference_norm_1"]
    assert not flagged(run, "signal_angle_1").any()


@pytest.fixture
def marked(record_run):
    """Two runs: one without marks, and one with a small reference and an explosion."""
    record_run("bp")
    return record_run("dfa", references=(1e-9, 1.0), growths=(60.0, 70.0))


def test_tables_mark_a_value_and_say_why(marked):
    plain, exploded = marked
    text = printed(run_table(exploded))
    assert f"61{MARK}" in text
    assert f"60{MARK}" not in text
    assert f"{MARK}: in at least one seed, the reference is too small" in text
    assert f"{MARK}: in at least one seed, it explodes" in text
    assert MARK not in printed(run_table(plain))
    compared = compare(marked)
    console = Console(width=160, record=True, file=io.StringIO())
    show(compared, console)
    notes = console.export_text()
    assert f"{MARK} the reference is too small: DFA (layer 1)" in notes
    assert f"{MARK} it explodes: DFA" in notes
    table = paper_table(compared.conditions, compared.names, ["signal_angle_1", "growth", "n"])
    assert [cell.endswith(MARK) for cell in table.rows[0][1:]] == [False, False, False]
    assert [cell.endswith(MARK) for cell in table.rows[1][1:]] == [True, True, False]
    assert "it explodes" in table.caption
    assert r"\dag{}" in table.latex()


def test_files_count_the_marked_seeds(marked, tmp_path):
    write(compare(marked), tmp_path / "out", formats=["csv"])
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
    assert [row["signal_angle_1_marked"] for row in rows] == ["0", "1"]
    assert [row["growth_marked"] for row in rows] == ["0", "2"]


def crosses(figure):
    return [
        line.get_xdata().tolist() for axes in figure.get_axes() for line in axes.lines if line.get_marker() == CROSS
    ]


def test_figures_have_a_cross_at_a_marked_value_and_grey_bands_for_random_signals(marked):
    figure = angles_figure(marked)
    assert crosses(figure) == [[50]]
    notes = " ".join(text.get_text() for text in figure.texts)
    assert f"{CROSS}: in at least one seed, the reference is too small" in notes
    assert "grey: 90 degrees" in notes
    first, second = figure.get_axes()
    for axes, of_one in ((first, 28.5), (second, 5.7)):
        heights = sorted(patch.get_height() for patch in axes.patches)
        np.testing.assert_allclose(heights, [2 * of_one / 5, 2 * of_one])
    assert crosses(curves_figure(marked, "growth")) == [[0, 50]]
    assert crosses(curves_figure(marked)) == []


def test_the_page_has_marks_bands_and_a_table_of_layers(marked, tmp_path):
    compared = compare(marked)
    data = page_data(compared, FigureOptions())
    plain, exploded = (condition["metrics"] for condition in data["conditions"])
    assert exploded["signal_angle_1"]["marked"] == [1]
    assert exploded["growth"]["marked"] == [0, 1]
    assert not [name for name, curve in plain.items() if "marked" in curve]
    assert plain["signal_angle_1"]["random"] == [90, 5.7, 5.7 / 5]
    write_report(compared, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert 'id="layers"' in page
    assert f"<td>61{MARK}</td>" in page
    assert f"{MARK} it explodes: DFA" in page


def test_the_table_of_layers_has_a_row_for_each_and_no_mean_over_them(marked):
    compared = compare(marked)
    table = layer_table(compared.conditions, compared.names)
    assert [row[:2] for row in table.rows] == [["BP", "0"], ["BP", "1"], ["DFA", "0"], ["DFA", "1"]]
    angle, random, dead, _, scale, by_layer, grown = table.rows[1][2:]
    assert (angle, random, dead) == ("61", "90 ± 1.1", "25 %")
    assert (scale, by_layer, grown) == ("12", "× 1.714", "× 6")  # 2 at the start; 7 and 12 at the end
    np.testing.assert_allclose(since_start(marked[1], "scale_1").mean, 6)
    assert table.rows[3][2] == f"61{MARK}"
    for run in marked:
        run.metrics["scale_0"] = run.metrics["scale_1"] / 50.1
    assert layer_table(compared.conditions, compared.names).rows[1][7] == f"× 50.1{MARK}"
    assert "the reference is too small" in table.caption


def test_seeds_of_an_older_run_are_pooled_with_newer_ones_in_the_columns_that_both_have(record_run, tmp_path):
    (run,) = record_run(growths=(60.0, 60.0))
    old = {name: values for name, values in run.metrics.items() if name != "growth" and "scale" not in name}
    old["seed"] = old["seed"] + 2
    older = dataclasses.replace(run, metrics=old, columns={n: c for n, c in run.columns.items() if n in old})
    compared = compare([run, older])
    (condition,) = compared.conditions
    assert condition.run.columns == older.columns
    assert condition.run.seeds == [0, 1, 2, 3]
    assert layer_table(compared.conditions, compared.names).rows == []
    write(compared, tmp_path / "out", formats=["csv"])
    assert "growth" not in (tmp_path / "out" / "comparison.csv").read_text()


def test_a_note_names_a_condition_once_with_its_layers(record_run):
    (read,) = record_run(references=(1e-9, 1e-9))
    run = dataclasses.replace(read, metrics=dict(read.metrics), columns=dict(read.columns))
    column = run.columns["signal_angle_1"]
    expected = {2: "DFA (layers 1, 2)", 3: "DFA (layers 1, 2, 3)", 4: "DFA (4 layers)"}
    for layer, where in expected.items():
        for name in ("signal_angle", "reference_norm"):
            run.metrics[f"{name}_{layer}"] = run.metrics[f"{name}_1"]
        flag = column.flag._replace(by=f"reference_norm_{layer}")
        run.columns[f"signal_angle_{layer}"] = column._replace(layer=layer, flag=flag)
        assert flag_notes(conditions([run]), ["DFA"]) == [f"{MARK} the reference is too small: {where}"]


def test_random_signals_have_a_deviation_by_the_units_of_the_layer_and_the_examples(marked):
    columns = marked[0].columns
    assert columns["signal_angle_0"].random == Random(90, 28.5, 5.7)
    assert columns["signal_angle_1"].random == Random(90, 5.7, 5.7 / 5)
    assert columns["scale_1"].random is None
