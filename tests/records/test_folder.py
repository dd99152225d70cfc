"""The folder of a run is readable at every moment, and records how the run ended."""

import errno
import json
import shutil

import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.records.columns import Declared
from fa_jax.records.files import write_json
from fa_jax.records.reader import find_runs, read_checkpoint, read_run
from fa_jax.records.writer import Writer
from tests.records.conftest import CONFIG, LOSS, NSE
from tests.reports.conftest import COST


def evaluate(writer, step, losses, angle=0.0):
    metrics = {
        "train_loss": np.asarray(losses),
        "test_loss": np.asarray(losses),
        "test_error": np.asarray(losses),
        "signal_angle_0": np.full(len(losses), angle),
    }
    writer.evaluation([3, 4], step, 10 * step, step / 5, metrics)


@pytest.fixture
def writer(tmp_path, declared):
    writer = Writer(tmp_path / "run", CONFIG, declared)
    yield writer
    writer.close()


def test_rows_can_be_read_while_the_run_trains(writer):
    evaluate(writer, 0, [1.0, 2.0])
    evaluate(writer, 5, [0.5, 1.5])
    run = read_run(writer.folder)
    assert run.status["status"] == "running"
    assert not run.is_finished
    examples, values = run.curves("test_loss")
    np.testing.assert_array_equal(examples, [0, 50])
    np.testing.assert_array_equal(values, [[1.0, 0.5], [2.0, 1.5]])


def test_a_run_without_an_evaluation_can_be_read(writer):
    run = read_run(writer.folder)
    assert (run.metrics, run.columns, run.main_metric, run.seeds) == ({}, {}, "", [])


def test_at_epoch_returns_a_metric_of_each_seed(writer):
    evaluate(writer, 0, [1.0, 2.0])
    evaluate(writer, 5, [0.5, 1.5])
    evaluate(writer, 10, [0.25, 1.25])
    run = read_run(writer.folder)
    np.testing.assert_array_equal(run.at_epoch("test_loss", 1), [0.5, 1.5])
    np.testing.assert_array_equal(run.at_epoch("test_loss", 2), [0.25, 1.25])
    assert run.at_epoch("test_loss", 1.5) is None


def test_an_incomplete_last_line_is_not_a_row(writer):
    evaluate(writer, 0, [1.0, 2.0])
    with (writer.folder / "metrics.csv").open("a") as file:
        file.write("3,5,50,1,0.")
    assert len(read_run(writer.folder).metrics["seed"]) == 2


def test_scores_precede_angles_in_the_columns(writer):
    evaluate(writer, 0, [1.0, 2.0])
    header = (writer.folder / "metrics.csv").read_text().splitlines()[0]
    assert header == "seed,step,examples,epoch,test_error,test_loss,train_loss,signal_angle_0"


def test_a_seed_that_diverged_is_listed_and_excluded_from_means(writer):
    evaluate(writer, 5, [1.0, 1.5])
    evaluate(writer, 10, [np.inf, 1.0])
    summary = writer.summary(COST)
    assert summary["diverged_seeds"] == [3]
    assert summary["final"]["test_loss"]["n"] == 1
    writer.status("finished")
    run = read_run(writer.folder)
    assert run.diverged == [3]
    assert run.is_finished
    assert run.curves("test_loss")[1].shape == (1, 2)


def test_a_seed_that_recovered_has_not_diverged(writer):
    for step, losses in ((0, [1.0, 2.0]), (5, [np.inf, np.nan]), (10, [0.5, np.nan])):
        evaluate(writer, step, losses)
    assert writer.diverged == [4]
    assert writer.summary(COST)["final"]["test_loss"]["mean"] == 0.5
    writer.status("finished")
    assert read_run(writer.folder).diverged == [4]


def test_a_seed_whose_unbounded_score_rises_a_hundredfold_has_diverged(tmp_path):
    writer = Writer(tmp_path / "run", CONFIG, Declared((NSE, LOSS), ()))
    for step, scores in ((0, [1.0, 2.0]), (5, [102.0, 199.0])):
        writer.evaluation([3, 4], step, step, 0.0, {"test_nse": np.array(scores), "test_loss": np.ones(2)})
    writer.close()
    assert writer.diverged == [3]
    assert read_run(writer.folder).diverged == [3]


def test_seeds_that_came_less_far_are_in_neither_summary_nor_curves(writer):
    for step in (0, 5):
        writer.evaluation([3], step, 10 * step, step / 5, {"test_loss": np.ones(1), "test_error": np.ones(1)})
    writer.evaluation([4], 0, 0, 0.0, {"test_loss": np.full(1, 9.0), "test_error": np.ones(1)})
    summary = writer.summary(COST)
    assert (summary["seeds"], summary["step"], summary["final"]["test_loss"]["mean"]) == ([3], 5, 1.0)
    assert read_run(writer.folder).curves("test_loss")[1].shape == (1, 2)


def test_the_missing_training_loss_before_the_first_step_is_no_divergence(writer):
    metrics = {"train_loss": np.full(2, np.nan), "test_loss": np.ones(2), "test_error": np.ones(2)}
    writer.evaluation([3, 4], 0, 0, 0.0, metrics)
    assert writer.diverged == []


def test_the_summary_of_a_logarithmic_metric_has_geometric_means(writer):
    metrics = {"test_loss": np.ones(2), "test_nse": np.array([1e-1, 1e-3]), "test_error": np.array([10.0, 30.0])}
    writer.evaluation([3, 4], 0, 0, 0.0, metrics)
    final = writer.summary({})["final"]
    assert final["test_nse"]["mean"] == pytest.approx(0.0505)
    assert final["test_nse"]["geometric"]["mean"] == pytest.approx(1e-2)
    assert final["test_error"]["mean"] == 20
    assert "geometric" not in final["test_error"]


def test_numbers_that_are_not_finite_become_null_in_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1.0, float("nan")], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.0, None], "b": {"c": None}}


def test_runs_of_a_sweep_are_sorted_by_their_job_numbers(tmp_path):
    for number in (0, 2, 10, 1):
        Writer(tmp_path / f"{number}_fa", CONFIG).close()
    assert [run.folder.name for run in find_runs(tmp_path)] == ["0_fa", "1_fa", "2_fa", "10_fa"]


def test_a_full_disk_at_the_final_checkpoint_is_an_error_of_the_disk(writer, monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def save(self, path, tree, force):
            raise ValueError("Failed to write 3133440 bytes: No space left on device [os_error_code='28']")

    monkeypatch.setattr("fa_jax.records.writer.checkpointer", Full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        writer.checkpoint({})
    assert raised.value.errno == errno.ENOSPC
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30, 2**18))
    with pytest.raises(OSError, match="No space left on device"):  # Orbax is not asked then
        writer.checkpoint({"a": np.zeros(1)})


def test_a_checkpoint_is_read_bit_for_bit(writer):
    tree = {
        "params": {"readout": {"kernel": np.arange(6.0).reshape(1, 2, 3)}},
        "feedback": {"readout": np.ones((1, 2))},
    }
    writer.checkpoint(tree)
    restored = read_checkpoint(read_run(writer.folder))
    np.testing.assert_array_equal(restored["params"]["readout"]["kernel"], tree["params"]["readout"]["kernel"])
    np.testing.assert_array_equal(restored["feedback"]["readout"], tree["feedback"]["readout"])


@pytest.mark.parametrize("content", ["[" * 10**5, '{"tree_metadata": {}}', '{"value_type": "os.system"}', ""])
def test_a_checkpoint_of_other_metadata_is_refused_with_one_line(writer, content):
    writer.checkpoint({"params": {"readout": np.ones((1, 2))}})
    (writer.folder / "checkpoint" / "_METADATA").write_text(content)
    with pytest.raises(BadOption, match="its checkpoint cannot be read: ") as raised:
        read_checkpoint(read_run(writer.folder), {"params": {"readout": np.ones((1, 2))}})
    assert "\n" not in str(raised.value)
