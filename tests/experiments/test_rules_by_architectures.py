"""The comparison of rules on architectures: its trials, and the table of tuned values that it updates."""

import shutil

import numpy as np
import pytest
from scipy import stats

from experiments.common import read_rows
from experiments.rules_by_architectures import compare, draw
from experiments.rules_by_architectures.case import Case, NotTrained, case_of, row_of, write_tuned
from fa_jax.cli.arguments import parse
from fa_jax.cli.build import build
from fa_jax.cli.compose import compose
from fa_jax.cli.tuned import TABLE
from fa_jax.records.statistics import summarise
from fa_jax.training.operations import operations
from tests.conftest import CUT_MNIST


@pytest.fixture
def table(tmp_path):
    """A copy of the table of tuned values."""
    return shutil.copy(TABLE, tmp_path / "tuned.csv")


def test_values_that_are_tuned_again_leave_the_table_unchanged(table):
    values = {"optimizer.learning_rate": 0.3, "feedback.scale": 3.0}
    case = Case("mnist", "mlp", "ifa", 2)
    write_tuned(case.tuned_row(values, "sgd"), table)
    assert table.read_bytes() == TABLE.read_bytes()


def test_new_values_replace_one_row(table):
    case = Case("mnist", "mlp", "ifa", 2)
    write_tuned(case.tuned_row({"optimizer.learning_rate": 0.1}, "sgd"), table)
    before, after = ({(r["task"], r["architecture"], r["rule"]): r for r in read_rows(path)} for path in (TABLE, table))
    assert list(before) == list(after)
    assert [key for key in before if before[key] != after[key]] == [("mnist", "mlp", "ifa")]
    row = after["mnist", "mlp", "ifa"]
    assert row["overrides"] == "architecture.hidden=[100,100] optimizer.learning_rate=0.1"
    assert row["command"] == "python -m experiments.rules_by_architectures.compare mnist --epochs 2"


def test_row_of_a_new_architecture_is_added(table):
    write_tuned(Case("digits", "vgg", "fa", None).tuned_row({"optimizer.learning_rate": 0.1}, "sgd"), table)
    before, after = read_rows(TABLE), read_rows(table)
    (new,) = [row for row in after if row not in before]
    assert (new["task"], new["architecture"], new["rule"], new["overrides"]) == (
        "digits",
        "vgg",
        "fa",
        "optimizer.learning_rate=0.1",
    )
    assert [row for row in after if row != new] == before


@pytest.mark.parametrize("rule", ["fa", "bp", "forward_forward"])
def test_tuned_values_are_used_by_tuned_true(rule):
    (row,) = [
        row for row in read_rows(TABLE) if (row["task"], row["architecture"], row["rule"]) == ("digits", "mlp", rule)
    ]
    by_option, by_hand = (
        compose(parse(["task=digits", f"rule={rule}", *more])).runs[0].config
        for more in (["tuned=true"], row["overrides"].split())
    )
    assert {**by_option, "tuned": False} == by_hand


def rate_of(values):
    return values["optimizer.learning_rate"]


@pytest.mark.parametrize(
    ("rule", "error", "expected", "number"),
    [
        ("fa", rate_of, {"optimizer.learning_rate": 0.0003}, 11),
        ("fa", lambda values: abs(rate_of(values) - 9), {"optimizer.learning_rate": 3 * 10**0.5}, 9),
        (
            "fa",
            lambda values: 1 - rate_of(values) if rate_of(values) < 0.005 else float("inf"),
            {"optimizer.learning_rate": 0.003},
            10,
        ),
        ("bp", lambda values: abs(rate_of(values) - 0.5), {"optimizer.learning_rate": 0.3 * 3**0.5}, 7),
        (
            "fa",
            lambda values: abs(rate_of(values) - 0.1) - values.get("feedback.scale", 1),
            {"optimizer.learning_rate": 0.1, "feedback.scale": 243.0},
            19,
        ),
        (
            "fa",
            lambda values: (
                -rate_of(values) - 0.01 / values.get("feedback.scale", 1)
                if rate_of(values) * values.get("feedback.scale", 1) < 0.15
                else float("inf")
            ),
            {"optimizer.learning_rate": 1.0, "feedback.scale": 1 / 27},
            16,
        ),
        (
            "fa",
            lambda values: abs(rate_of(values) - 0.1) + abs(values.get("feedback.scale", 1) - 4),
            {"optimizer.learning_rate": 0.1, "feedback.scale": 3.0},
            10,
        ),
    ],
)
def test_tuning_chooses_the_lowest_validation_error_and_follows_values_at_the_edge(
    monkeypatch, rule, error, expected, number
):
    trials = []

    def validation_errors(case, option, tried, fixed):
        trials.extend({**fixed, option: value} for value in tried)
        return [error(values) for values in trials[-len(tried) :]]

    monkeypatch.setattr(Case, "validation_errors", validation_errors)
    case = Case("digits", "mlp", rule, None)
    values, edge = case.tune(compare.default_scale(case.config()))
    assert values == pytest.approx(expected)
    assert edge == (number in (11, 16, 19))
    assert len(trials) == number


def test_the_trials_of_a_row_follow_from_the_results_of_those_before(monkeypatch):
    trained = []

    def validation_errors(case, option, tried, fixed):
        words = (option, *tried)
        if words not in trained:
            raise NotTrained(words)
        return [abs(value - 0.5) if option == "optimizer.learning_rate" else 1.0 for value in tried]

    monkeypatch.setattr(Case, "validation_errors", validation_errors)
    row = row_of(Case("digits", "mlp", "fa", 2, trial_seeds=3))
    assert case_of(row).__dict__ == {**Case("digits", "mlp", "fa", 2.0, 3).__dict__}
    steps = row.trainings()
    assert next(steps).folder.name == "as_it_comes"
    for words in (("optimizer.learning_rate", 0.03, 0.1, 0.3, 1.0, 3.0), ("feedback.scale", 1 / 3, 3.0)):
        assert next(steps) == words
        trained.append(words)
    last = next(steps)
    assert (last.folder.name, "optimizer.learning_rate=0.3" in last.arguments) == ("tuned", True)
    assert list(steps) == []


def test_row_of_which_every_seed_diverged_has_no_error_and_says_so():
    row = {"rule": "dfa", "diverged": "5", "n": "0", "test error": "", "low": "", "high": "", "learning rate": "0.03"}
    row |= {"at the edge of the grid": "False", "feedback scale": "1", "angle of the first layer": "", "MB": "1"}
    row |= {"seed-steps/s": "1", "Mflop a step": "", "compile seconds": "1"}
    assert compare.line("dfa", row, row, [row, None])[1:6] == ["(5 of 5 diverged)", "(5 of 5 diverged)", *"---"]


def test_rule_that_is_not_defined_on_an_architecture_has_no_config(capsys):
    assert Case("digits", "cnn", "ifa", None).config() is None
    assert "ifa on cnn: rule=ifa needs" in capsys.readouterr().out


def test_the_figure_has_every_measured_rule_from_the_lowest_error_down_to_the_highest():
    (axes,) = draw.figure("digits", "mlp").axes
    rows = [row for row in read_rows(compare.HERE / "measured_digits.csv") if row["architecture"] == "mlp"]
    tuned = {row["rule"]: float(row["test error"]) for row in rows if row["values"] == "tuned" and row["test error"]}
    errors = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert errors == sorted(tuned.values(), reverse=True)
    assert len(axes.get_yticklabels()) == len(tuned)


def test_the_margin_above_a_control_has_welchs_interval():
    samples = np.array([5.0, 6.5, 5.5, 7.0]), np.array([3.0, 2.0, 4.5])
    control, row = ({"n": len(sample), **columns(sample)} for sample in samples)
    margin = compare.above(row, control)
    expected = stats.ttest_ind(*samples, equal_var=False).confidence_interval(0.95)
    assert (margin.low, margin.high) == pytest.approx((expected.low, expected.high))
    assert margin.mean == pytest.approx(6.0 - 9.5 / 3)
    assert compare.above({**row, "n": "1"}, control) is None


def columns(sample):
    """The columns of a measured table for the errors of some seeds."""
    summary = summarise(sample.tolist())
    return {"test error": summary.mean, "low": summary.low, "high": summary.high}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["digits", "mnist"])
def test_recorded_operations_are_those_of_the_present_code(task, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(CUT_MNIST))
    recorded = {
        row["rule"]: float(row["Mflop a step"])
        for row in read_rows(compare.HERE / f"measured_{task}.csv")
        if row["architecture"] == "mlp"
    }
    counted = {rule: operations(build(Case(task, "mlp", rule, None).config())) / 1e6 for rule in recorded}
    assert counted == pytest.approx(recorded, abs=0.006)
