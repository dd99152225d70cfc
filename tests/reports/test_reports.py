"""Labels, colours, tables and figures of recorded runs."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from fa_jax.records.columns import Column
from fa_jax.records.conditions import conditions
from fa_jax.records.locks import acquire, release
from fa_jax.records.reader import read_run
from fa_jax.records.statistics import DIVERGED
from fa_jax.reports.comparison import compare, show, write
from fa_jax.reports.contrast_table import contrast_table
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.curves import curves_of, draw_curves
from fa_jax.reports.figures import comparison_figure
from fa_jax.reports.labels import labels
from fa_jax.reports.looks import looks
from fa_jax.reports.run_table import run_caption, run_table
from fa_jax.reports.status import status_table
from fa_jax.reports.tables import score_table, terminal


def printed(table):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def scores(runs):
    compared = conditions(runs)
    return score_table(compared, labels([condition.run for condition in compared]))


def test_a_label_is_the_rule_and_the_options_that_distinguish_its_runs(record):
    record("fa", options={"optimizer": {"learning_rate": 0.1}, "feedback": {"scale": 1.0}})
    record("fa", options={"optimizer": {"learning_rate": 0.2}, "feedback": {"scale": 1.0}})
    runs = record("bp", options={"optimizer": {"learning_rate": 0.3}})
    assert labels(runs) == ["FA learning_rate=0.1", "FA learning_rate=0.2", "BP learning_rate=0.3"]


def test_a_label_shows_nested_values_and_nothing_that_a_run_does_not_have(record):
    record("fa", options={"architecture": {"arguments": None}})
    record("fa", options={"architecture": {"arguments": {"width": 30}}})
    record("bp", options={"architecture": {"arguments": {"width": 30}}})
    runs = record("dfa")
    assert labels(runs) == ["FA", "FA width=30", "BP width=30", "DFA"]
    assert len({look.dash for look in looks(runs[:2])}) == 2


def test_a_label_names_a_function_by_its_part_and_its_name(record):
    for schedule in ("constant", "cosine"):
        options = {"optimizer": {"schedule": {"_target_": f"fa_jax.optimizers.{schedule}", "_partial_": True}}}
        runs = record("fa", options=options)
    assert labels(runs) == ["FA schedule=constant", "FA schedule=cosine"]


def test_a_label_names_the_task_instead_of_the_options_that_come_with_it(record):
    record("fa", options={"batch_size": 64}, choices={"task": "mnist"})
    runs = record("fa", options={"batch_size": 1}, choices={"task": "linear", "loss": "squared_error"})
    assert labels(runs) == ["FA mnist", "FA linear"]


@pytest.mark.parametrize(
    ("experiments", "expected"),
    [
        (("lillicrap2014/task2_fa", "lillicrap2014/task2_bp"), ["fa", "bp"]),
        (("yagi2022/task1_fa", "yagi2022/task2_fa"), ["task1_fa", "task2_fa"]),
        (("nokland2016/mnist", "nokland2016/conv_cifar10"), ["mnist", "conv_cifar10"]),
        (("hinton2022/mnist", "kao2019/mnist"), ["hinton2022_mnist", "kao2019_mnist"]),
        (("yagi2022/task3", "yagi2022/task3_fa2"), ["yagi2022/task3", "fa2"]),
    ],
)
def test_labels_of_experiments_omit_the_beginning_that_all_share(record, experiments, expected):
    for experiment in experiments:
        runs = record("fa", choices={"experiment": experiment})
    assert labels(runs) == expected


def test_runs_with_different_main_metrics_are_each_judged_by_their_own(record):
    record("fa", metrics=["nse"], values=(0.1, 0.001), choices={"task": "linear"})
    runs = record("fa")
    assert [run.main_metric for run in runs] == ["test_nse", "test_error"]
    table = scores(runs)
    assert table.headings[1:3] == ["metric", "mean"]
    assert [row[1:3] for row in table.rows] == [["test_nse", "0.01"], ["test_error (%)", "3"]]
    assert "test NSE: geometric mean, test error: mean" in printed(terminal(table, 160))


@pytest.mark.parametrize("metrics", [("error", "balanced_error"), ("balanced_error", "error"), ("accuracy", "error")])
def test_tables_judge_a_run_by_the_metric_that_its_task_declares_first(record, tmp_path, metrics):
    record("bp", metrics, values=(8.0, 6.0))
    runs = record("fa", metrics)
    main = f"test_{metrics[0]}"
    compared = compare(runs)
    assert [condition.run.main_metric for condition in compared.conditions] == [main, main]
    assert [contrast.metric for contrast in compared.contrasts] == [main]
    assert scores(runs).headings[1] == f"{main} (%)"
    assert [row[1] for row in scores(runs).rows] == ["7", "3"]
    console = Console(width=160, record=True, file=io.StringIO())
    show(compared, console)
    assert f"test {metrics[0].replace('_', ' ')}: mean over n seeds" in console.export_text()
    write(compared, tmp_path / "all")
    for name, column in (("comparison.csv", "metric"), ("contrasts.csv", "metric")):
        with (tmp_path / "all" / name).open() as file:
            assert {row[column] for row in csv.DictReader(file)} == {main}


def test_the_table_of_a_run_shows_scores_and_angles_but_no_norms(record):
    text = printed(run_table(record("fa", ["nse"], values=(0.1, 0.001))[0]))
    assert "test_nse (geometric)" in text
    assert "signal_angle_0" in text
    assert "signal_norm_0" not in text


def test_seeds_that_agree_have_no_interval(record):
    record("bp", values=(2.521, 2.521))
    table = scores(record("fa"))
    assert [row[2:4].count("-") for row in table.rows] == [2, 0]
    assert table.caption.endswith("-: all seeds agree, and have no interval")
    assert "agree" not in scores(record("fa")[1:]).caption


def test_failed_runs_have_a_row_and_a_reason(record, tmp_path):
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


def test_a_run_is_cut_off_in_every_table_once_no_process_trains_it(record):
    record("fa")
    runs = record("bp", status="running")
    folder = runs[1].folder

    def shown():
        return scores(runs).rows[1][-1], status_table([folder.parent]).rows[1][1]

    lock = acquire(folder)
    assert shown() == ("running", "running")
    release(lock)
    assert shown() == ("cut off", "cut off")


def test_a_figure_is_written_as_png_and_pdf(record, tmp_path):
    record("fa")
    comparison_figure(record("bp"), tmp_path / "figure")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("metric", "values", "label", "scale", "top"),
    [
        ("error", (90.0, 95.0), "test error (%)", "linear", 100),
        ("accuracy", (90.0, 95.0), "test accuracy (%)", "linear", 100),
        ("error", (4.0, 2.0), "test error (%)", "linear", 1.25 * 3),
        ("nse", (0.1, 0.001), "test NSE", "log", None),
    ],
)
def test_an_axis_has_the_label_the_scale_and_the_bounds_of_its_metric(record, metric, values, label, scale, top):
    axes = Figure().subplots()
    draw_curves(axes, curves_of(record("fa", [metric], values=values)), f"test_{metric}")
    assert (axes.get_ylabel(), axes.get_yscale()) == (label, scale)
    if top is not None:
        assert axes.get_ylim() == (0, pytest.approx(top))


@pytest.mark.parametrize("diverged", [False, True])
def test_a_table_says_what_divergence_means_if_a_seed_diverged(record, diverged):
    (run,) = record("fa", values=(4.0, np.nan if diverged else 2.0))
    table = score_table(conditions([run]), ["FA"])
    assert (DIVERGED in table.caption) is diverged
    assert (DIVERGED in run_caption(read_run(run.folder).summary)) is diverged
    assert [row[table.headings.index("n")] for row in table.rows] == ["1" if diverged else "2"]


def test_training_scores_by_another_prediction_are_marked_in_tables_and_figures(record):
    (run,) = record("forward_forward")
    train_error = Column("error", "train error", "%", "lower", False, (0, 100), split="train", prediction="softmax")

    def with_training(run, prediction):
        column = train_error._replace(prediction=prediction)
        columns = {**run.columns, "train_error": column}
        return dataclasses.replace(
            run, columns=columns, metrics={**run.metrics, "train_error": run.metrics["test_error"]}
        )

    bp = with_training(record("bp")[-1], "")
    run = with_training(run, "softmax")
    alone, both = (conditions(runs) for runs in ([run], [run, bp]))
    assert "train_error (softmax, %)" in score_table(alone, ["FF"], "train_error").headings
    table = score_table(both, ["FF", "BP"], "train_error")
    titles = [row[table.headings.index("metric")] for row in table.rows]
    assert titles == ["train_error (softmax, %)", "train_error (%)"]
    compared = compare([run, bp], metric="train_error", contrasts="forward_forward:bp")
    table = contrast_table(compared.contrasts, compared.names, columns_of(both))
    assert "train error (some by softmax, %)" in table.caption
    run.summary["final"]["train_error"] = run.summary["final"]["test_error"]
    assert "train_error (softmax, %)" in printed(run_table(run))
    for runs, axis, names in (
        ([run], "train error (softmax, %)", ["Forward-Forward, n = 2"]),
        ([run, bp], "train error (some by softmax, %)", ["Forward-Forward (softmax), n = 2", "BP, n = 2"]),
    ):
        axes = Figure().subplots()
        draw_curves(axes, curves_of(runs), "train_error")
        assert axes.get_ylabel() == axis
        assert axes.get_legend_handles_labels()[1] == names
