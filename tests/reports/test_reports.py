"""Labels, colours, tables and figures of runs as they come off the disk."""

import csv
import io

from rich.console import Console

from fa_jax.records.conditions import conditions
from fa_jax.reports.comparison import compare, write
from fa_jax.reports.figures import comparison_figure
from fa_jax.reports.labels import OTHERS, colours, labels
from fa_jax.reports.tables import score_sheet, terminal


def printed(table):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def scores(runs):
    found = conditions(runs)
    return score_sheet(found, labels([one.run for one in found]))


def test_a_run_is_called_by_its_rule_and_by_what_only_it_has(record):
    record("fa", options={"optimizer": {"learning_rate": 0.1}, "rule": {"scale": 1.0}})
    record("fa", options={"optimizer": {"learning_rate": 0.2}, "rule": {"scale": 1.0}})
    runs = record("bp", options={"optimizer": {"learning_rate": 0.3}})
    assert labels(runs) == ["FA learning_rate=0.1", "FA learning_rate=0.2", "BP"]


def test_a_task_brings_its_own_options_and_its_name_is_enough(record):
    record("fa", options={"batch_size": 64}, choices={"task": "mnist"})
    runs = record("fa", options={"batch_size": 1}, choices={"task": "linear", "loss": "squared_error"})
    assert labels(runs) == ["FA mnist", "FA linear"]


def test_experiments_are_called_by_what_they_do_not_share(record):
    record("fa", choices={"experiment": "lillicrap2014_task2_fa"})
    runs = record("bp", choices={"experiment": "lillicrap2014_task2_bp"})
    assert labels(runs) == ["fa", "bp"]


def test_colours_are_the_paper_s_and_no_two_runs_share_one(record):
    for rule in ("bp", "fa", "dfa", "ifa", "fa", "dfa"):
        runs = record(rule)
    chosen = colours(runs)
    assert chosen[:2] == ["black", "#00A651"]
    assert chosen[4] == "blue"
    assert {chosen[i] for i in (2, 3, 5)} <= set(OTHERS)
    assert len(set(chosen)) == len(chosen)


def test_the_comparison_says_what_each_run_is_judged_by(record):
    record("fa", metric="nse", values=(0.1, 0.001), choices={"task": "linear"})
    runs = record("fa")
    assert [run.main_metric for run in runs] == ["test_nse", "test_error"]
    text = printed(terminal(scores(runs), 160))
    assert "test_nse: geometric mean, test_error: mean" in text
    assert "0.01" in text
    assert "3 " in text


def test_failed_and_unfinished_runs_have_their_row_and_their_reason(record, tmp_path):
    record("fa")
    runs = record("bp", status="failed")
    assert "failed" in printed(terminal(scores(runs), 160))
    write(compare(runs), tmp_path / "all")
    with (tmp_path / "all" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "failed"]
    assert rows[1]["reason"] == "it broke"
    assert float(rows[0]["test_error_mean"]) == 3
    assert int(rows[0]["test_error_n"]) == 2


def test_the_figure_is_drawn_for_print_and_screen(record, tmp_path):
    record("fa")
    comparison_figure(record("bp"), tmp_path / "figure")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
