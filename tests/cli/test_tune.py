"""Tuning by Optuna: what a study tries, prunes and recommends."""

import json
import sqlite3

import numpy as np
import pytest
from rich.console import Console

from fa_jax.checks import BadOption
from fa_jax.cli.main import main
from fa_jax.cli.ranges import parse_ranges
from fa_jax.cli.study import opened, storage
from fa_jax.cli.tune import _report
from fa_jax.core import Metric
from fa_jax.records.reader import find_runs

optuna = pytest.importorskip("optuna")
SMALL = ["task=digits", "task.validation=200", "architecture.hidden=[9]"]
FIXED = [*SMALL, "rule=fa", "seeds=2", "epochs=1", "evaluations=2", "probe=0"]
RATE = "optimizer.learning_rate=tag(log,interval(1e-2,1))"
ACCURACY_TASK = """
from fa_jax.core import Metric
from fa_jax.metrics.scores import error
from fa_jax.tasks.digits import digits


def digits_by_accuracy(**options):
    def accuracy(outputs, targets):
        return 100 - error(outputs, targets)

    metric = Metric("accuracy", "accuracy", "%", better="higher", bounds=(0, 100), score=accuracy)
    return digits(**options)._replace(metrics=(metric,))
"""


def trials(folder):
    """The runs of the trials of the only study in a folder."""
    return find_runs(folder / "outputs" / "tune" / "digits_fa")


def rate(run):
    return run.config["optimizer"]["learning_rate"]


@pytest.mark.filterwarnings("default")
def test_a_study_is_continued_and_tries_nothing_twice(folder, capsys):
    assert main(["tune", *FIXED, RATE, "trials=2"]) == 0
    assert main(["tune", *FIXED, RATE, "trials=4"]) == 0
    printed = capsys.readouterr().out
    runs = trials(folder)
    assert len({rate(run) for run in runs}) == len(runs) == 4
    best = min(runs, key=lambda run: run.summary["final"]["validation_error"]["mean"])
    assert f"optimizer.learning_rate={rate(best)}" in printed.splitlines()[-1]
    assert main(["tune", *FIXED, RATE, "trials=4"]) == 0
    assert "all 4 trials have been made" in capsys.readouterr().out
    assert len(trials(folder)) == 4


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("metric", "column", "best"),
    [
        ([], "validation_accuracy", max),
        pytest.param(["metric=train_accuracy"], "train_accuracy", max, marks=pytest.mark.slow),
        pytest.param(["metric=validation_loss"], "validation_loss", min, marks=pytest.mark.slow),
    ],
)
def test_a_study_goes_in_the_direction_that_its_metric_declares(folder, capsys, monkeypatch, metric, column, best):
    (folder / "tasks_by_accuracy.py").write_text(ACCURACY_TASK)
    monkeypatch.syspath_prepend(folder)
    fixed = [*FIXED, "task._target_=tasks_by_accuracy.digits_by_accuracy", *metric]
    assert main(["tune", *fixed, RATE, "trials=4"]) == 0
    printed = capsys.readouterr().out
    means = {rate(run): run.summary["final"][column]["mean"] for run in trials(folder)}
    assert max(means.values()) > 1.02 * min(means.values())
    recommended = best(means, key=lambda learning_rate: means[learning_rate])
    assert f"optimizer.learning_rate={recommended}" in printed.splitlines()[-1]
    (summary,) = optuna.get_all_study_summaries("sqlite:///outputs/tune/digits_fa/study.db")
    assert summary.direction.name == {max: "MAXIMIZE", min: "MINIMIZE"}[best]
    assert json.loads(summary.study_name)[2] == column


@pytest.mark.filterwarnings("default")
def test_a_trial_that_diverges_is_pruned(folder, capsys):
    words = [*FIXED, "evaluations=8", "optimizer.learning_rate=0.1,1000", "loss=squared_error", "trials=4"]
    assert main(["tune", *words, "architecture.activation=relu"]) == 0
    assert "pruned: a seed diverged by step" in capsys.readouterr().out
    pruned = [run for run in trials(folder) if rate(run) == 1000]
    assert pruned
    for run in pruned:
        assert run.status["status"] == "interrupted"
        assert "pruned" in run.status["reason"]


@pytest.mark.filterwarnings("default")
def test_a_trial_with_a_seed_that_diverged_to_a_finite_loss_is_pruned_at_its_end(folder, capsys):
    words = ["task=linear", "task.train_examples=16", "rule=bp", "probe=0", "evaluations=2", "batch_size=1"]
    words += ["metric=train_loss", "optimizer.learning_rate=0.07,0.071", "trials=1", "output=study"]
    assert main(["tune", *words]) == 0
    assert "pruned: diverged seeds [0" in capsys.readouterr().out
    (run,) = find_runs(folder / "study")
    assert np.isfinite(run.metrics["test_loss"]).all()
    assert run.diverged
    (trial,) = optuna.load_study(study_name=None, storage="sqlite:///study/study.db").trials
    assert trial.state.name == "PRUNED"


def test_a_study_that_cannot_be_read_is_refused_with_one_line(folder, refusal):
    (folder / "study").mkdir()
    (folder / "study" / "study.db").write_bytes(b"mine" * 1000)
    line = refusal("tune", *FIXED, RATE, "output=study")
    assert "output=study: study.db cannot be read or written: file is not a database" in line
    assert (folder / "study" / "study.db").read_bytes() == b"mine" * 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "tune needs an option with a range, such as optimizer.learning_rate="),
        (
            [RATE, "metric=test_error"],
            "metric must be one of held-out or training examples; tuning on test_error would",
        ),
        ([RATE, "metric=validation_eror"], "metric must be one of validation_error, validation_loss, train_error"),
        ([RATE, "task.validation=0"], "metric must be one of train_error, train_loss; got 'validation_error'; "),
        ([RATE, "trails=9"], "trails is no option; did you mean 'trials'?"),
        ([RATE, "folder=here"], "folder is no option; did you mean 'output'?"),
        ([RATE, "trials=0"], "trials must be an integer of at least 1; got 0"),
        ([RATE, "sampler_seed=x"], "sampler_seed must be an integer of at least 0; got 'x'"),
        (["optimizer.learning_rate=glob(*)"], "must be interval(a,b), tag(log,interval(a,b)), range(a,b) or a,b,c"),
        ([RATE, "--multirun"], "tune takes overrides and trials, at_once, metric, output, sampler_seed; got "),
        ([RATE, "batch_size=0"], "batch_size must be an integer of at least 1; got 0"),
        ([RATE, "hydra.mode=MULTIRUN"], "tune runs one config at a time; these overrides are a sweep"),
    ],
)
def test_a_mistake_prints_one_line_and_starts_no_study(folder, refusal, words, message):
    assert message in refusal("tune", *FIXED, *words)
    assert not (folder / "outputs").exists()


def test_the_best_command_has_the_options_and_values_that_were_searched_alone(folder, capsys):
    """The study may come from anyone, and the command is printed to be typed."""
    ranges = parse_ranges([RATE, "optimizer.decay=0.1,1"], ())
    study = optuna.create_study()
    text = optuna.distributions.CategoricalDistribution
    real = optuna.distributions.FloatDistribution(0, 1)
    hostile = "{_target_:os.system,command:id}"
    for i, more in enumerate(({"hydra.callbacks.x._target_": "os.system"}, {}, {"optimizer.decay": hostile})):
        params = {"optimizer.learning_rate": 0.5, "optimizer.decay": "0.1", **more}
        kinds = {key: text([value]) if isinstance(value, str) else real for key, value in params.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=float(i)))
    _report(study, "train_loss", Metric("loss", "loss"), ranges, folder, Console(width=200))
    printed = capsys.readouterr().out
    assert "os.system" not in printed
    assert printed.splitlines()[-1] == "fa-jax optimizer.learning_rate=0.5 optimizer.decay=0.1"


DAMAGES = (
    "UPDATE trial_values SET value = 'x'",
    f"UPDATE trial_params SET distribution_json = '{'[' * 10**5}'",
    *(
        pytest.param(change, marks=pytest.mark.slow)
        for change in (
            "UPDATE trial_params SET distribution_json = '{'",
            """UPDATE trial_params SET distribution_json = '{"name": "os.system", "attributes": {}}'""",
            "UPDATE trials SET state = 'x'",
            "UPDATE study_directions SET direction = 'x'",
        )
    ),
)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_study_with_damaged_rows_is_refused_with_one_line(tmp_path, damage):
    path = tmp_path / "study.db"

    def load():
        return optuna.create_study(storage=storage(path), study_name="mine", load_if_exists=True)

    kinds = {"x": optuna.distributions.FloatDistribution(0, 1)}
    load().add_trial(optuna.trial.create_trial(params={"x": 0.5}, distributions=kinds, value=1.0))
    assert len(opened(load, path).trials) == 1
    with sqlite3.connect(path) as database:
        database.execute(damage)
    with pytest.raises(BadOption, match=r"study.db cannot be read: ") as raised:
        opened(load, path)
    assert "\n" not in str(raised.value)
