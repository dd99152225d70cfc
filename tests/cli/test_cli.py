"""Runs and sweeps on the command line: what they print and record, and their exit codes."""

import csv
import errno
import json
import signal

import numpy as np
import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs, read_run
from fa_jax.records.writer import Writer
from fa_jax.training import run as runner
from tests.conftest import start, wait_until

SHORT = ["task.train_examples=40", "evaluations=2", "seeds=2", "probe=0", "checkpoint=false"]


def read_comparison(folder):
    """The rows of the only comparison.csv below a folder."""
    (path,) = folder.rglob("comparison.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def only_run(folder):
    (run,) = find_runs(folder)
    return run


@pytest.mark.draws
def test_a_run_writes_all_its_files_and_prints_its_folder(folder, capsys):
    assert main(["rule=fa", *SHORT, "checkpoint=true"]) == 0
    run = only_run(folder)
    assert run.folder.relative_to(folder).parts[:3] == ("outputs", "linear", "fa")
    assert str(run.folder.relative_to(folder)) in capsys.readouterr().out
    assert {path.name for path in run.folder.iterdir()} == {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "metrics.json",
        "status.json",
        "summary.json",
        "curves.png",
        "curves.pdf",
        "checkpoint",
        "run.log",
    }
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run.folder / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert run.status["status"] == "finished"
    assert run.choices["rule"] == "fa"
    np.testing.assert_array_equal(run.metrics["examples"], [0, 0, 20, 20, 40, 40])
    np.testing.assert_array_equal(run.metrics["seed"], [0, 1, 0, 1, 0, 1])
    assert run.main_metric == "test_nse"
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["packages"]["jax"]
    assert environment["command"] == ["fa-jax", "rule=fa", *SHORT, "checkpoint=true"]
    assert run.summary["final"]["test_nse"]["n"] == 2
    assert run.summary["cost"]["seed_steps_per_second"] > 0
    assert run.summary["cost"]["effective_params"] > 0


@pytest.mark.slow
def test_seeds_in_groups_give_the_metrics_of_all_seeds_at_once(folder):
    words = ["rule=fa", *SHORT, "seeds=3", "probe=10"]
    assert main([*words, "hydra.run.dir=whole"]) == 0
    assert main([*words, "seeds_per_batch=2", "hydra.run.dir=groups"]) == 0
    whole, groups = read_run(folder / "whole"), read_run(folder / "groups")
    for metric in ("test_nse", "train_loss", "signal_angle_0"):
        np.testing.assert_allclose(whole.curves(metric)[1], groups.curves(metric)[1], rtol=1e-4, atol=1e-4)


def test_a_list_of_seeds_trains_these_seeds(folder):
    assert main(["rule=bp", *SHORT, "seeds=[3,8]"]) == 0
    assert set(only_run(folder).metrics["seed"]) == {3, 8}


def test_a_sweep_ends_in_one_table_one_csv_and_one_figure(folder, capsys):
    assert main(["--multirun", "rule=shallow,bp", *SHORT]) == 0
    (sweep,) = (folder / "outputs" / "sweeps").iterdir()
    assert {"comparison.csv", "comparison.png", "comparison.pdf", "0_shallow", "1_bp"} <= {
        path.name for path in sweep.iterdir()
    }
    rows = read_comparison(sweep)
    assert [row["run"] for row in rows] == ["shallow", "BP"]
    assert [row["test_nse_n"] for row in rows] == ["2", "2"]
    printed = capsys.readouterr().out
    assert "shallow" in printed
    assert "comparison.csv" in printed


def test_labels_of_a_sweep_over_an_option_contain_the_option(folder):
    assert main(["--multirun", "rule=bp", "optimizer.learning_rate=0.001,0.01", *SHORT]) == 0
    assert [row["run"] for row in read_comparison(folder)] == ["BP learning_rate=0.001", "BP learning_rate=0.01"]


def fail_in_group(monkeypatch, number, problem):
    """Makes the training of the n-th group of seeds, from 1, raise an exception."""
    train_group, calls = runner._train_group, []

    def fail_once(*arguments):
        calls.append(None)
        if len(calls) == number:
            raise problem
        return train_group(*arguments)

    monkeypatch.setattr(runner, "_train_group", fail_once)


def test_a_failed_job_is_recorded_and_the_others_are_compared(folder, capsys, monkeypatch):
    fail_in_group(monkeypatch, 1, RuntimeError("the device caught fire"))
    assert main(["--multirun", "rule=shallow,bp", *SHORT]) == 1
    printed = capsys.readouterr().out
    assert "RuntimeError: the device caught fire" in printed
    assert [run.status["status"] for run in find_runs(folder)] == ["failed", "finished"]
    assert [row["status"] for row in read_comparison(folder)] == ["failed", "finished"]


def test_an_interrupted_sweep_compares_its_finished_runs(folder, monkeypatch):
    fail_in_group(monkeypatch, 2, KeyboardInterrupt())
    assert main(["--multirun", "rule=shallow,bp,fa", *SHORT]) == 130
    assert [row["status"] for row in read_comparison(folder)] == ["finished", "interrupted"]


def test_diverged_seeds_are_counted_and_excluded_from_means(folder, capsys):
    assert main(["rule=bp", *SHORT, "task.train_examples=400", "optimizer.learning_rate=10"]) == 0
    run = only_run(folder)
    assert run.status["status"] == "diverged"
    assert run.diverged == [0, 1]
    assert run.summary["final"]["test_nse"]["n"] == 0
    assert "2 of them diverged and left out" in capsys.readouterr().out.replace("\n", " ")


def test_an_interrupted_run_keeps_its_rows_and_is_recorded_as_interrupted(folder, capsys, monkeypatch):
    record_evaluation = Writer.evaluation

    def interrupt(self, seeds, step, *arguments):
        record_evaluation(self, seeds, step, *arguments)
        if step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "evaluation", interrupt)
    assert main(["rule=bp", *SHORT]) == 130
    assert "interrupted" in capsys.readouterr().err
    run = only_run(folder)
    assert run.status["status"] == "interrupted"
    assert len(run.curves("test_nse")[0]) == 2
    assert run.summary["final"]["test_nse"]["n"] == 2


LONG = ["rule=fa", "epochs=2000", "evaluations=2000", "seeds=2", "hydra.run.dir=run"]


def start_long_run(folder):
    """Starts a long run, and returns its process after some evaluations."""
    process, metrics = start(LONG), folder / "run" / "metrics.csv"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 10, 60)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_a_run(folder, number):
    process = start_long_run(folder)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert read_run(folder / "run").status["status"] == "interrupted"


@pytest.mark.slow
def test_a_killed_run_stays_readable(folder):
    process = start_long_run(folder)
    process.kill()
    process.wait(30)
    run = read_run(folder / "run")
    assert run.status["status"] == "running"
    assert len(run.curves("test_nse")[0]) > 3


def test_a_folder_with_a_run_is_not_overwritten(folder, refusal):
    assert main(["rule=bp", *SHORT, "hydra.run.dir=run"]) == 0
    before = (folder / "run" / "metrics.csv").read_bytes()
    line = refusal("rule=fa", *SHORT, "hydra.run.dir=run")
    assert "hydra.run.dir=run: this folder already holds a run; choose another one" in line
    assert (folder / "run" / "metrics.csv").read_bytes() == before


def test_a_full_disk_is_refused_before_compilation(folder, refusal, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr(runner, "compiled", lambda *_: pytest.fail("compiled"))
    assert "less than 1 MiB is free" in refusal("rule=bp", *SHORT)
    assert list(folder.iterdir()) == []


def test_a_disk_that_fills_up_while_training_leaves_the_rows_so_far(folder, capsys, monkeypatch):
    record_evaluation = Writer.evaluation

    def fill_up(self, seeds, step, *arguments):
        if step == 40:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder / "metrics.csv"))
        record_evaluation(self, seeds, step, *arguments)

    monkeypatch.setattr(Writer, "evaluation", fill_up)
    assert main(["rule=bp", *SHORT]) == 2
    line = capsys.readouterr().err
    assert "No space left on device" in line
    assert line.count("\n") == 1
    run = only_run(folder)
    assert run.status["status"] == "failed"
    assert len(run.curves("test_nse")[0]) == 2


def test_a_run_with_fewer_steps_than_evaluations_is_evaluated_at_each_step(folder):
    assert main(["rule=bp", *SHORT, "task.train_examples=3", "evaluations=50"]) == 0
    np.testing.assert_array_equal(only_run(folder).metrics["step"], [0, 0, 1, 1, 2, 2, 3, 3])


def test_a_glob_sweeps_over_the_matching_choices_of_a_group(folder):
    assert main(["--multirun", "rule=glob([b*,df*],exclude=brsf)", *SHORT]) == 0
    assert [run.choices["rule"] for run in find_runs(folder)] == ["bp", "dfa"]
