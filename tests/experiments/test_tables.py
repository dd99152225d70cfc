"""The rows of the published tables build, their searches choose, and the README has what was measured."""

import itertools
import types

import numpy as np
import pytest

from experiments.tables import results, rows, search
from experiments.tables.row import (
    CONTROL,
    HERE,
    LAST,
    LOWEST_TEST,
    LOWEST_VALIDATION_LOSS,
    METRICS,
    OUTPUTS,
    Row,
    Setting,
    Table,
    glorot,
    published,
    scales,
)
from experiments.tables.tables import TABLES
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose

ROWS = {f"{table.name} {row.name}": row for table in TABLES.values() for row in table.rows}
FIRST = {f"{name} {TABLES[name].rows[2].name}" for name in ("frenkel2021", "bartunov2018", "sanfiz_akrout2021")}
"""Rows that are built in every test run; the settings that they share are built with every config."""


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_every_row_builds(few_images, name):
    row = ROWS[name]
    searched = [argument.split(",")[0] for argument in row.search]
    given = [argument for argument in (*row.arguments, *searched) if not argument.startswith("task.validation=")]
    job = compose(parse([*given, "task.validation=8", "batch_size=8"])).runs[0].job
    assert job.task.input_shape[0] >= 28


def test_every_control_whose_hidden_layers_are_frozen_is_searched_up_to_a_hundred_times_a_rate():
    for name, row in ROWS.items():
        if row.kind == CONTROL:
            option, _, values = next(a for a in row.search if "learning_rate" in a).partition("=")
            tried = sorted(map(float, values.split(",")))
            assert option == "optimizer.learning_rate", name
            assert tried[-1] == pytest.approx(100 * tried[-5]), name
            assert not any(argument.startswith("optimizer.learning_rate=") for argument in row.arguments), name


def test_names_and_folders_are_unique_unless_rows_are_one_rule():
    for table in TABLES.values():
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names)
        of_folder: dict = {}
        for row in table.rows:
            assert OUTPUTS in row.folder.parents
            assert of_folder.setdefault(row.folder, row.arguments) == row.arguments


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_and_rows_belong_together(name):
    table, numbers = TABLES[name], published(name)
    compared = {(row.setting, row.published) for row in table.rows if row.published}
    assert compared - set(numbers) == set()
    assert {number.provenance for number in numbers.values()} <= {
        "read",
        "code",
        "logs",
        "README",
        "talk",
        "quoted",
        "remembered",
    }
    assert all(0 < number.error < 100 for number in numbers.values())
    assert table.choice in (LAST, *METRICS)


def test_the_readme_has_the_tables_of_what_was_measured():
    assert results.generated(HERE) in (HERE / results.README).read_text()


def test_a_table_without_measured_rows_shows_none_and_names_no_row_twice():
    table = TABLES["frenkel2021"]
    text = results.markdown(table, {})
    assert "30 rows, none measured: they take about" in text
    assert "\n|" not in text
    notes = text.partition("Of single rows:")[2].partition("Not configured")[0]
    assert notes.count("frozen hidden layers") == notes.count("frozen blocks") == notes.count("BP;") == 1
    assert "DFA (500, 1000): at one hidden layer one rule with FA; this is the run of FA; to be searched" in notes


def run_of(test, validation_loss, diverged=()):
    """A run of two evaluations after the start, with curves of each seed."""
    curves = {"test_error": np.array(test), "validation_loss": np.array(validation_loss)}
    return types.SimpleNamespace(
        metrics=curves,
        seeds=list(range(len(test))),
        diverged=list(diverged),
        config={"epochs": 2},
        curves=lambda metric: (np.arange(3), curves[metric]),
        at_end=lambda metric: dict(enumerate(curves[metric][:, -1])),
        summary={"cost": {"compile_seconds": 1.0, "train_seconds": 2.0, "evaluation_seconds": 0.4}},
    )


def test_the_error_at_the_epoch_that_a_table_chooses_is_that_of_each_seed():
    run = run_of([[90.0, 4.0, 6.0], [90.0, 3.0, 2.0]], [[0.0, 0.2, 0.3], [0.0, 0.3, 0.1]])
    row = Setting("t", "net", ("a=1",), 1.0).row("BP")
    lines = {
        choice: results.measured(Table("t", "T", choice, (row,), ()), row, run, None)
        for choice in (LAST, LOWEST_TEST, LOWEST_VALIDATION_LOSS)
    }
    assert [line["the table's epoch"] for line in lines.values()] == ["4.000", "3.000", "3.000"]
    line = lines[LAST]
    assert (line["last epoch"], line["best validation epoch"], line["seconds"]) == ("4.000", "", 3)
    assert float(str(line["last epoch, high"])) > 4


def test_a_published_number_that_a_control_reaches_is_marked(monkeypatch):
    setting = Setting("frenkel2021", "500", (), 1.0)
    of_table = setting.row("BP"), setting.row("DRTP"), setting.row("frozen", kind=CONTROL)
    line = {"the table's epoch, low": "", "the table's epoch, high": "", "last epoch": "4.1", "measured": "today"}
    line |= {"best validation epoch": "", "seeds": "1", "diverged": "0", "epochs": "2", "seconds": "3"}
    lines = {("t", row.name): {**line, "the table's epoch": "4.1"} for row in of_table[1:]}
    monkeypatch.setattr(results, "published", lambda _: published("frenkel2021"))
    text = results.markdown(Table("t", "T", LAST, of_table, ()), lines)
    cells = {
        line.split("|")[2].strip(): [cell.strip() for cell in line.split("|")[3:-1]]
        for line in text.splitlines()
        if line.startswith("| 500")
    }
    assert cells["BP"][2] == "not measured: 0.5 h"
    assert cells["BP"][-1] == "none: 4.10"
    assert cells["DRTP"][2:5] == ["4.10", "–", "-0.48"]
    assert cells["DRTP"][-1] == "**frozen: 4.10**"
    assert cells["frozen"][-1] == "is a control"


def test_the_summary_counts_published_numbers_that_are_reached_without_learning(monkeypatch):
    setting = Setting("frenkel2021", "500", (), 1.0)
    of_table = setting.row("BP"), setting.row("DRTP"), setting.row("frozen", kind=CONTROL)
    monkeypatch.setattr(results, "TABLES", {"frenkel2021": Table("frenkel2021", "T", LAST, of_table, ())})
    line = {"the table's epoch": "4.1", "the table's epoch, low": "4", "the table's epoch, high": "4.2"}
    text = results.summary({("frenkel2021", of_table[2].name): line})
    assert text.startswith("1 of 3 rows are measured. The others take about 1 h on two cores of a CPU")
    reached = "reaches 1 of the 2 published numbers that have such a control measured: DRTP of frenkel2021, 500: 4.58 %"
    assert text.endswith(f"{reached}, control 4.10.")
    text = results.summary({("frenkel2021", of_table[2].name): {**line, "the table's epoch, high": "4.6"}})
    assert text.endswith(f"{reached}, control 4.10 (4.00 to 4.60, which contains it).")


def test_a_control_judges_the_rows_of_its_group_alone():
    setting = Setting("frenkel2021", "500", (), 1.0)
    of_table = setting.row("BP", group="a"), setting.row("DRTP"), setting.row("frozen", kind=CONTROL, group="a")
    line = {"the table's epoch": "0.9", "the table's epoch, low": "", "the table's epoch, high": ""}
    lines = dict.fromkeys(of_table[:2]) | {of_table[2]: line}
    numbers = published("frenkel2021")
    assert results._reached(of_table[0], lines, numbers["500", "BP"]) == "**frozen: 0.90**"
    assert results._reached(of_table[1], lines, numbers["500", "DRTP"]) == "no control measured yet"


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_controls_of_a_network_whose_rates_are_printed_are_searched_around_them(table):
    for row in table.rows:
        if "rule=frozen_blocks" in row.arguments or row.kind == CONTROL:
            (rates,) = [argument for argument in row.search if argument.startswith("optimizer.learning_rate=")]
            assert len(rates.split(",")) >= 4


def searched_row():
    return Setting("t", "net", ("rule=bp", "epochs=100"), 1.0).row(
        "BP", search=("task.validation=9", "optimizer.learning_rate=1,0.5,0.1", "optimizer.clip=1,2")
    )


def trial(error):
    diverged = [0] if np.isinf(error) else []
    return types.SimpleNamespace(diverged=diverged, summary={"final": {"validation_error": {"mean": error}}})


@pytest.fixture
def errors(monkeypatch):
    """Validation errors of trials by rate and clip; infinite: a seed diverged."""
    known = {}

    def runs(sweep):
        given = dict(argument.split("=") for argument in sweep.arguments)
        options = ("optimizer.learning_rate", "optimizer.clip")
        tried = itertools.product(*(given[option].split(",") for option in options))
        return [trial(known[values]) for values in tried]

    monkeypatch.setattr(search.Training, "runs", runs)
    return known


GRID = {
    ("1", "1"): np.inf,
    ("1", "2"): 5.0,
    ("0.5", "1"): 4.0,
    ("0.5", "2"): 3.0,
    ("0.1", "1"): 3.5,
    ("0.1", "2"): 3.5,
}


def test_a_search_chooses_the_values_of_the_lowest_validation_error(errors):
    errors |= GRID
    (sweep,) = search.sweeps(searched_row())
    assert sweep.is_sweep
    assert sweep.folder.name == "bp_search"
    assert "epochs=100" not in sweep.arguments
    assert {"epochs=10", "rule=bp", "task.validation=9"} < set(sweep.arguments)
    trials = search.trials(searched_row(), [sweep])
    assert trials.chosen == ("optimizer.learning_rate=0.5", "optimizer.clip=2")
    assert trials.tried == ("optimizer.learning_rate=1,0.5,0.1", "optimizer.clip=1,2")
    assert trials.beyond == {}, "two values have no inside"


def test_a_search_goes_on_beyond_an_edge_until_the_best_value_is_inside(errors):
    errors |= GRID | {("0.1", "2"): 2.0, ("0.03162", "2"): 1.0, ("0.009999", "2"): 1.0, ("0.003162", "2"): 9.0}
    done = list(search.sweeps(searched_row()))
    assert [sweep.folder.name for sweep in done[1:]] == [
        "bp_search_learning_rate_0.03162",
        "bp_search_learning_rate_0.009999",
        "bp_search_learning_rate_0.003162",
    ]
    assert {"optimizer.learning_rate=0.03162", "optimizer.clip=2", "task.validation=9"} < set(done[1].arguments)
    trials = search.trials(searched_row(), done)
    assert trials.chosen == ("optimizer.learning_rate=0.009999", "optimizer.clip=2"), "of equal ones, the lowest"
    assert trials.tried[0] == "optimizer.learning_rate=1,0.5,0.1,0.03162,0.009999,0.003162"
    assert trials.beyond == {}


def test_a_search_that_does_not_come_to_an_inside_says_so(errors):
    errors |= GRID | {("0.1", "2"): 2.0}
    errors |= {(rate, "2"): 1.0 for rate in ("0.03162", "0.009999", "0.003162", "0.0009999")}
    done = list(search.sweeps(searched_row()))
    assert len(done) == 5
    line = results.measured(
        Table("t", "T", LAST, (searched_row(),), ()),
        searched_row(),
        run_of([[9.0, 1.0]], [[1.0, 1.0]]),
        search.trials(searched_row(), done),
    )
    assert line["chosen"] == "optimizer.learning_rate=0.0009999 optimizer.clip=2"
    assert line["at the edge"] == "optimizer.learning_rate"


def test_a_row_is_trained_with_what_its_search_chose(errors):
    errors |= GRID
    row = searched_row()
    sweep, run = rows.trainings(row, seeds=3)
    assert [sweep] == list(search.sweeps(row))
    chosen = ("optimizer.learning_rate=0.5", "optimizer.clip=2")
    assert (run.folder, run.arguments) == (row.folder, ("rule=bp", "epochs=100", *chosen, "seeds=3"))
    (alone,) = rows.trainings(row._replace(search=()))
    assert alone.arguments == ("rule=bp", "epochs=100")


def test_rows_that_are_one_rule_are_trained_once():
    names = [row.name for row in rows.rows()]
    assert len(set(names)) == len(names)
    assert "tables/frenkel2021/500/fa" in names
    assert "tables/frenkel2021/500/dfa" not in names


def test_scales_are_one_number_or_a_list():
    assert scales([0.5, 0.5]) == "0.5"
    assert scales([0.5, 1 / 3]) == "[0.5,0.333333]"
    assert glorot(4, 2, 4) == [1.0, 1.0]
    assert isinstance(searched_row(), Row)


def test_controls_are_searched_at_larger_rates_than_rules():
    setting = Setting("t", "net", (), 1.0)
    search = ("task.validation=9", "optimizer.learning_rate=0.4,0.1", "optimizer.clip=1,2")
    assert setting.row("BP", search=search).search == search
    (held_out, rates, clips) = setting.row("frozen", kind=CONTROL, search=search).search
    assert (held_out, clips) == (search[0], search[2])
    assert rates == "optimizer.learning_rate=0.4,0.1,1.2,4,12,40"
