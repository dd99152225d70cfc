"""The checks of Lillicrap et al., and the search for settings of task 3: the same numbers as a run, and resumption."""

import sys

import numpy as np
import pytest

from experiments.common import read_rows
from experiments.lillicrap2014 import search
from experiments.lillicrap2014.common import mean_check, median_check
from fa_jax.cli.main import main
from fa_jax.records.reader import read_run


def test_interval_of_a_median_is_that_of_order_statistics():
    check = median_check("8", "x", "below 1", np.arange(20.0), lambda median: median > 9)
    # Of 20 values, the 6th and the 15th enclose the median with a probability of 95.9 %.
    assert (check.measured, check.low, check.high, check.holds, check.seeds) == ("9.5", "5", "14", True, 20)


def test_a_check_of_a_mean_has_the_interval_of_student():
    check = mean_check("8", "x", "2 ± 1", np.array([1.0, 2.0, 3.0]), lambda mean: abs(mean - 2) <= 1, ".2f")
    assert (check.measured, check.low, check.high, check.holds) == ("2.00", "-0.48", "4.48", True)


def test_settings_follow_from_their_number_alone():
    first, again, other = (search.settings("fa4", index, 5) for index in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in search.RANGES)
    assert tuple(first) == search.NAMES["fa4"]
    assert not np.array_equal(first["rate"], other["rate"])
    assert "feedback_1" not in search.settings("fa3", 3, 5)
    for name, (low, high) in search.RANGES.items():
        assert np.all((first[name] >= low * 0.999) & (first[name] <= high * 1.001))


@pytest.mark.slow
def test_a_teacher_is_as_nearly_affine_as_the_published_curves_say():
    teacher = search.teacher(3)
    assert teacher == search.teacher(3)
    task = teacher.task(search.TEST_EXAMPLES)
    assert search.AFFINE[0] <= search.affine_nse(task) <= search.AFFINE[1]
    assert search.SHALLOW[0] <= search.shallow_level(task) <= search.SHALLOW[1]


CALLS = []


class Trained:
    """Stands for the program of a curve."""

    points = np.array([100, 200])

    def __init__(self, curve, examples):
        self.curve = curve

    def nse(self, task, numbers, seeds):
        CALLS.append((self.curve, len(seeds)))
        better = 0.5 if self.curve == "fa4" else 1.0
        chance = 1 + 0.1 * np.random.default_rng(0).random((len(seeds), 1))
        return better * chance * np.stack([numbers["rate"], 0.1 * numbers["rate"]], 1)

    def distance(self, nse):
        return np.abs(np.log(nse[:, -1] / 1e-3))


def test_a_search_that_was_cut_off_goes_on_and_its_best_are_compared_on_many_seeds(tmp_path, monkeypatch):
    CALLS.clear()
    monkeypatch.setattr(search, "Trainer", Trained)
    monkeypatch.setattr(search, "is_accepted", lambda task: True)
    monkeypatch.setattr(search, "TEST_EXAMPLES", 200)
    table = tmp_path / "search.csv"
    search.search(table, range(1), search.COMPARED, 3, 200)
    search.search(table, range(2), search.COMPARED, 3, 200)
    assert CALLS == [("fa3", 3), ("fa4", 3)] * 2
    rows = read_rows(table)
    assert [(row["curve"], row["teacher"]) for row in rows[::3]] == [
        ("fa3", "0"),
        ("fa4", "0"),
        ("fa3", "1"),
        ("fa4", "1"),
    ]
    search.best(table, tmp_path / "best.csv", 1, 200)
    closest, lowest = read_rows(tmp_path / "best.csv")
    assert (closest["settings"], lowest["settings"], lowest["seeds"]) == ("closest", "lowest", "20")
    rates = [float(r["rate"]) for r in rows if (r["curve"], r["teacher"]) == ("fa3", lowest["teacher"])]
    assert float(lowest["fa3"]) == pytest.approx(0.105 * min(rates), rel=0.02)
    assert float(closest["fa3"]) > 0
    assert float(lowest["ratio"]) == pytest.approx(float(lowest["fa4"]) / float(lowest["fa3"]), rel=1e-2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--best", "2", "--teacher", "3"], "--teacher has no effect with --best"),
        (["--best", "2", "--curves", "bp3"], "--curves has no effect with --best"),
        (["--teachers", "3", "--teacher", "3"], "--teachers has no effect with --teacher"),
    ],
)
def test_an_option_of_the_search_without_effect_is_refused(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search", *words])
    with pytest.raises(SystemExit):
        search.main()
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_search_trains_as_a_run_does(tmp_path):
    words = ["experiment=lillicrap2014/task3_fa4", "seeds=2", "task.train_examples=2000", "probe=0", "evaluations=1"]
    assert main([*words, "checkpoint=false", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    _, recorded = read_run(tmp_path / "run").curves("test_nse")
    trainer = search.Trainer("fa4", 2000)
    numbers = {"rate": 0.0898, "feedback_1": 0.151, "feedback_2": 0.178, "weights": 0.0206, "biases": 0.2}
    task = search.Teacher(23, 0.0807626, 0.385079, 0.752668, 0.262328).task(2000)
    nse = trainer.nse(task, {name: np.full(2, value, np.float32) for name, value in numbers.items()}, [0, 1])
    np.testing.assert_allclose(nse[:, -1], recorded[:, -1], rtol=1e-3)
    # Another teacher, with the same program.
    other = trainer.nse(
        search.Teacher(5, 0.1, 0.3, 0.5, 0.3).task(2000),
        {n: np.full(2, v, np.float32) for n, v in numbers.items()},
        [0, 1],
    )
    assert not np.allclose(other, nse, rtol=0.1)
