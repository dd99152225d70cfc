"""The meaning of the columns of `metrics.csv`, as metrics declare it and `metrics.json` records it."""

import json

import numpy as np
import pytest

from fa_jax.core import Flag, Metric
from fa_jax.records.columns import Column, Declared, merged, read_column
from fa_jax.records.reader import read_run
from fa_jax.records.writer import Writer
from tests.records.conftest import ACCURACY, CONFIG, ERROR, LOSS

COLUMNS = {
    "test_error": Column("error", "test error", "%", "lower", False, (0, 100), split="test"),
    "validation_accuracy": Column(
        "accuracy", "validation accuracy", "%", "higher", False, (0, 100), split="validation"
    ),
    "train_nse": Column("nse", "train NSE", "", "lower", True, (None, None), split="train"),
    "signal_angle_12": Column(
        "signal_angle", "angle of the signal, layer 12", "degrees", "lower", False, (0, 180), layer=12
    ),
    "signal_norm_0": Column("signal_norm", "norm of the signal, layer 0", "", "neither", False, (None, None), layer=0),
    "sparsity": Column("sparsity", "sparsity", "", "neither", False, (0, 1)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_has_the_declaration_of_its_metric_with_split_and_layer(declared, name):
    assert declared.columns([name])[name] == COLUMNS[name]


@pytest.mark.parametrize("name", ["test_eror", "error", "signal_angle_0_1", "signal_angle_x", "test_", "other_error"])
def test_a_column_that_no_metric_declares_is_an_error(declared, name):
    with pytest.raises(KeyError, match=f"no metric is declared for the column {name}"):
        declared.columns([name])


def test_columns_are_sorted_test_scores_first_then_angles_then_layers(declared):
    names = ["signal_norm_0", "signal_angle_10", "signal_angle_2", "sparsity", "train_error", "validation_error"]
    names += ["test_loss", "test_error"]
    assert list(declared.columns(names)) == [
        "test_error",
        "test_loss",
        "validation_error",
        "train_error",
        "signal_angle_2",
        "signal_angle_10",
        "signal_norm_0",
        "sparsity",
    ]


def test_a_metric_whose_name_ends_in_a_number_is_not_a_layer_of_another():
    declared = Declared((ERROR,), (Metric("top", "top"), Metric("top_5", "top 5")))
    assert declared.columns(["top_5"])["top_5"].layer is None
    assert declared.columns(["top_4"])["top_4"].layer == 4


def test_axes_show_units():
    assert COLUMNS["test_error"].axis == "test error (%)"
    assert COLUMNS["train_nse"].axis == "train NSE"


@pytest.mark.parametrize("scores", [(ERROR, ACCURACY, LOSS), (ACCURACY, ERROR, LOSS)])
def test_the_first_score_is_the_main_metric_whatever_its_name(scores):
    assert Declared(scores, ()).main == f"test_{scores[0].name}"


def test_metrics_json_records_every_column_and_is_read_back(declared, tmp_path):
    writer = Writer(tmp_path / "run", CONFIG, declared)
    names = [*COLUMNS, "test_loss"]
    writer.evaluation([0, 1], 0, 0, 0.0, {name: np.ones(2) for name in names})
    writer.close()
    recorded = json.loads((writer.folder / "metrics.json").read_text())
    assert recorded["main"] == "test_error"
    header = (writer.folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert list(recorded["columns"]) == header[4:]
    for name, column in COLUMNS.items():
        assert recorded["columns"][name] == {**column._asdict(), "bounds": list(column.bounds)}
        assert read_column(recorded["columns"][name]) == column
    run = read_run(writer.folder)
    assert run.main_metric == "test_error"
    assert {name: run.columns[name] for name in COLUMNS} == COLUMNS


def test_a_run_that_is_judged_by_a_column_it_does_not_have_cannot_be_read(declared, tmp_path):
    writer = Writer(tmp_path / "run", CONFIG, declared)
    writer.evaluation([0, 1], 0, 0, 0.0, {name: np.ones(2) for name in (*COLUMNS, "test_loss")})
    writer.close()
    path = writer.folder / "metrics.json"
    for damaged in (lambda recorded: recorded | {"main": "test_eror"}, lambda recorded: recorded | {"columns": {}}):
        content = path.read_bytes()
        path.write_text(json.dumps(damaged(json.loads(content))))
        with pytest.raises(ValueError, match=r"^its metrics\.json: (has test_eror for the|describes other) column"):
            read_run(writer.folder)
        path.write_bytes(content)


def test_a_flag_and_the_value_of_random_signals_are_recorded_and_an_older_record_has_neither(tmp_path):
    flag = Flag("norm", (1e-5, None), "small")
    angle, norm = Metric("angle", "angle", flag=flag, random=(90, 57.0)), Metric("norm", "norm", flag=flag)
    declared = Declared((ERROR, LOSS), (angle, norm), units=(4,), examples=100)
    writer = Writer(tmp_path / "run", CONFIG, declared)
    writer.evaluation([0], 0, 0, 0.0, {name: np.ones(1) for name in ("test_error", "test_loss", "angle_0", "norm")})
    writer.close()
    columns = read_run(writer.folder).columns
    assert columns["angle_0"].flag == ("norm_0", 1e-5, None, "small")
    assert columns["angle_0"].random == (90, 28.5, 2.85)
    assert (columns["norm"].flag, columns["norm"].random) == (("norm", 1e-5, None, "small"), None)
    recorded = json.loads((writer.folder / "metrics.json").read_text())
    for column in recorded["columns"].values():
        del column["flag"], column["random"]
    (writer.folder / "metrics.json").write_text(json.dumps(recorded))
    assert read_run(writer.folder).columns["angle_0"] == columns["angle_0"]._replace(flag=None, random=None)


def test_training_scores_by_another_prediction_than_test_scores_say_so(declared):
    columns = declared._replace(train_prediction="softmax").columns(["train_error", "train_nse", "test_error"])
    axes = {name: column.axis for name, column in columns.items()}
    assert axes == {
        "train_error": "train error (softmax, %)",
        "train_nse": "train NSE (softmax)",
        "test_error": "test error (%)",
    }


def test_merged_columns_say_if_some_are_predicted_otherwise(declared):
    by_softmax = declared._replace(train_prediction="softmax")
    names = ["train_error", "test_error"]
    described = [by_softmax.columns(names), declared.columns(names), declared.columns(["test_error", "sparsity"])]
    columns = merged(described)
    assert columns["train_error"].axis == "train error (some by softmax, %)"
    assert columns["test_error"].axis == "test error (%)"
    assert "sparsity" in columns
    assert merged(described[:1]) == described[0]
