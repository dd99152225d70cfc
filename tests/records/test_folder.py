"""A run's folder is readable at every moment, and says how the run ended."""

import json

import numpy as np
import pytest

from fa_jax.records.reader import find_runs, read_run
from fa_jax.records.writer import Writer, write_json

CONFIG = {"choices": {"rule": "fa", "task": "linear"}, "seeds": 2, "spacing": "linear"}


def rows(writer, step, losses, extra=0.0):
    metrics = {
        "train_loss": np.asarray(losses),
        "test_loss": np.asarray(losses),
        "signal_angle_0": np.full(len(losses), extra),
    }
    writer.evaluation([3, 4], step, 10 * step, step / 5, metrics)


@pytest.fixture
def writer(tmp_path):
    writer = Writer(tmp_path / "run", CONFIG)
    yield writer
    writer.close()


def test_rows_can_be_read_while_the_run_goes_on(writer):
    rows(writer, 0, [1.0, 2.0])
    rows(writer, 5, [0.5, 1.5])
    run = read_run(writer.folder)
    assert run.status["status"] == "running"
    examples, values = run.curves("test_loss")
    np.testing.assert_array_equal(examples, [0, 50])
    np.testing.assert_array_equal(values, [[1.0, 0.5], [2.0, 1.5]])


def test_a_metric_after_an_epoch_is_that_of_each_seed(writer):
    rows(writer, 0, [1.0, 2.0])
    rows(writer, 5, [0.5, 1.5])
    rows(writer, 10, [0.25, 1.25])
    run = read_run(writer.folder)
    np.testing.assert_array_equal(run.at_epoch("test_loss", 1), [0.5, 1.5])
    np.testing.assert_array_equal(run.at_epoch("test_loss", 2), [0.25, 1.25])
    assert run.at_epoch("test_loss", 1.5) is None


def test_half_a_line_left_by_a_kill_is_no_row(writer):
    rows(writer, 0, [1.0, 2.0])
    with (writer.folder / "metrics.csv").open("a") as file:
        file.write("3,5,50,1,0.")
    assert len(read_run(writer.folder).metrics["seed"]) == 2


def test_scores_come_before_angles_in_the_columns(writer):
    rows(writer, 0, [1.0, 2.0])
    header = (writer.folder / "metrics.csv").read_text().splitlines()[0]
    assert header == "seed,step,examples,epoch,test_loss,train_loss,signal_angle_0"


def test_a_seed_that_diverged_once_is_named_and_left_out_of_the_means(writer):
    rows(writer, 5, [np.inf, 1.5])
    rows(writer, 10, [1.0, 1.0])
    summary = writer.summary({})
    assert summary["diverged_seeds"] == [3]
    assert summary["final"]["test_loss"]["n"] == 1
    writer.status("finished")
    run = read_run(writer.folder)
    assert run.diverged == [3]
    assert run.curves("test_loss")[1].shape == (1, 2)


def test_a_loss_over_a_hundred_times_the_first_is_a_divergence_and_one_that_rises_is_none(writer):
    rows(writer, 0, [1.0, 2.0])
    rows(writer, 5, [101.0, 199.0])
    assert writer.diverged == [3]
    assert read_run(writer.folder).diverged == [3]


def test_groups_of_seeds_that_came_less_far_are_not_in_the_summary_nor_in_the_curves(writer):
    for step in (0, 5):
        writer.evaluation([3], step, 10 * step, step / 5, {"test_loss": np.ones(1)})
    writer.evaluation([4], 0, 0, 0.0, {"test_loss": np.full(1, 9.0)})
    summary = writer.summary({})
    assert (summary["seeds"], summary["step"], summary["final"]["test_loss"]["mean"]) == ([3], 5, 1.0)
    assert read_run(writer.folder).curves("test_loss")[1].shape == (1, 2)


def test_the_training_loss_that_does_not_exist_before_the_first_step_is_no_divergence(writer):
    metrics = {"train_loss": np.full(2, np.nan), "test_loss": np.ones(2)}
    writer.evaluation([3, 4], 0, 0, 0.0, metrics)
    assert writer.diverged == []


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1.0, float("nan")], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.0, None], "b": {"c": None}}


def test_jobs_of_a_sweep_come_in_the_order_of_their_numbers(tmp_path):
    for number in (0, 2, 10, 1):
        Writer(tmp_path / f"{number}_fa", CONFIG).close()
    assert [run.folder.name for run in find_runs(tmp_path)] == ["0_fa", "1_fa", "2_fa", "10_fa"]


def test_a_checkpoint_is_read_back_bit_for_bit(writer):
    import orbax.checkpoint

    tree = {
        "params": {"readout": {"kernel": np.arange(6.0).reshape(1, 2, 3)}},
        "feedback": {"readout": np.ones((1, 2))},
    }
    writer.checkpoint(tree)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        back = checkpointer.restore((writer.folder / "checkpoint").absolute())
    np.testing.assert_array_equal(back["params"]["readout"]["kernel"], tree["params"]["readout"]["kernel"])
    np.testing.assert_array_equal(back["feedback"]["readout"], tree["feedback"]["readout"])
