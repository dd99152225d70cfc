"""Tuning by Optuna: what is tried, what is pruned, what a second call goes on with."""

import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs
from tests.cli.test_cli import folder  # noqa: F401

pytest.importorskip("optuna")
FIXED = ["task=digits", "task.validation=200", "rule=fa", "seeds=2", "epochs=1", "evaluations=2", "probe=0"]
RATE = "optimizer.learning_rate=tag(log,interval(1e-2,1))"


@pytest.mark.filterwarnings("default")
def test_a_study_is_gone_on_with_and_tries_nothing_twice(folder, capsys):  # noqa: F811
    assert main(["tune", *FIXED, RATE, "trials=2"]) == 0
    assert main(["tune", *FIXED, RATE, "trials=4"]) == 0
    printed = capsys.readouterr().out
    runs = find_runs(folder / "outputs" / "tune" / "digits_fa")
    assert len({run.config["optimizer"]["learning_rate"] for run in runs}) == len(runs) == 4
    best = min(runs, key=lambda run: run.summary["final"]["validation_error"]["mean"])
    assert f"optimizer.learning_rate={best.config['optimizer']['learning_rate']}" in printed.splitlines()[-1]


@pytest.mark.filterwarnings("default")
def test_a_trial_that_diverges_is_pruned(folder, capsys):  # noqa: F811
    words = [*FIXED, "evaluations=8", "optimizer.learning_rate=0.1,1000", "loss=squared_error", "trials=4"]
    assert main(["tune", *words, "architecture.activation=relu"]) == 0
    printed = capsys.readouterr().out
    assert "pruned: a seed diverged by step" in printed
    pruned = [
        run
        for run in find_runs(folder / "outputs" / "tune" / "digits_fa")
        if run.config["optimizer"]["learning_rate"] == 1000
    ]
    assert pruned
    for run in pruned:
        assert run.status["status"] == "interrupted"
        assert "pruned" in run.status["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "tune needs an option with a range"),
        ([RATE, "metric=test_error"], "tuning on it would spoil it"),
        ([RATE, "metric=validation_eror"], "metric must be one of validation_loss, validation_error"),
        ([RATE, "task.validation=0"], "tune needs examples that are held out, such as task.validation=200"),
        ([RATE, "trials=0"], "trials must be an integer of at least 1; got 0"),
        (["optimizer.learning_rate=glob(*)"], "must be interval(a,b)"),
        ([RATE, "--multirun"], "tune takes overrides and trials"),
        ([RATE, "batch_size=0"], "batch_size must be an integer"),
    ],
)
def test_a_mistake_costs_one_line(folder, capsys, words, message):  # noqa: F811
    assert main(["tune", *FIXED, *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (folder / "outputs").exists()
