"""Comparison of a new run with recorded numbers: its tolerance, its exit code, and a prefix of a run."""

import argparse
import types

import numpy as np
import pytest

from experiments import page, queue, training, verify
from experiments.reproduced import Claim, Measured, from_interval, mean_of, percent_claim
from experiments.training import CUT_OFF, NOT_STARTED, Training
from fa_jax.checks import BadOption
from tests.experiments.conftest import record


def run_with(errors):
    return types.SimpleNamespace(
        at_epoch=lambda metric, epoch: errors if (metric, epoch) == ("test_error", 2) else None
    )


def test_tolerance_is_that_of_two_means():
    means = Measured(2.0, 0.1, 10), Measured(2.0, 0.3, 10)
    pooled = ((0.1**2 + 0.3**2) / 2) ** 0.5  # of equally many seeds
    assert verify.tolerance(*means, None, 1) == pytest.approx(2.101 * pooled * (2 / 10) ** 0.5, rel=1e-3)  # 18 freedom
    assert verify.tolerance(*means, None, 20) > verify.tolerance(*means, None, 1)
    few = Measured(2.0, 0.01, 2, resolution=0.005), Measured(2.0, None, 1)
    assert verify.tolerance(*few, 0.2, 1) == pytest.approx(1.96 * 0.2 * 1.5**0.5 + 0.005, rel=1e-3)
    assert verify.tolerance(Measured(1.0, None, 1), Measured(1.0, None, 1), None, 1) is None


def test_deviation_follows_from_an_interval():
    assert from_interval(2.0, 1.9, 2.1, 20).sd == pytest.approx(0.1 * 20**0.5 / 2.093, rel=1e-3)
    assert mean_of(np.array([1.0, 3.0])) == Measured(2.0, 2**0.5, 2)


@pytest.mark.parametrize(("new", "holds"), [([5.1, 5.2], True), ([6.5, 6.6], False)])
def test_a_number_holds_if_chance_explains_the_difference(new, holds):
    claims = [percent_claim(f"epoch {epoch}", "test_error", epoch, Measured(5.0, 0.1, 2)) for epoch in (2, 10)]
    table, held = verify.compare(claims, [run_with(np.array(new))])
    assert held is holds
    assert "epoch 10" not in table  # which the run has not reached
    with pytest.raises(BadOption, match="has not come to an epoch"):
        verify.compare(claims[1:], [run_with(np.array(new))])


def test_a_number_of_one_seed_without_a_known_deviation_is_not_said_to_hold():
    unknown = Claim("angle", Measured(40.0, None, 1), lambda runs: Measured(80.0, None, 1))
    with pytest.raises(BadOption, match="none of 1 numbers can be judged: of one seed each, no deviation"):
        verify.compare([unknown], [])
    known = Claim("error", Measured(5.0, 0.1, 3), lambda runs: Measured(5.0, 0.1, 3))
    table, holds = verify.compare([unknown, known], [])
    assert holds
    assert "no deviation is known" in table


def test_an_accuracy_is_compared_with_the_error_of_a_run():
    claim = percent_claim("accuracy", "test_error", 2, Measured(95.0, None, 1), accuracy=True)
    assert claim.new([run_with(np.array([4.0]))]).value == 96.0


def test_most_rows_on_the_page_that_were_measured_can_be_verified():
    for name, module in page.modules().items():
        rows = {r.row for r in module.results() if r.row and r.measured and r.verdict != "shortened"}
        without = {row for row in rows if not module.claims(row)}
        assert without <= {
            "lillicrap2014/task2",
            "lillicrap2014/task2_300epochs",
            "yagi2022/task2",
            "hinton2022/jitter",
        }
        assert all(isinstance(claim, Claim) for row in rows - without for claim in module.claims(row)), name


@pytest.fixture
def verified(tmp_path, monkeypatch):
    """Returns the function that verifies a row of a made-up run; its argument is the test error after two epochs."""

    def run(error, *words):
        monkeypatch.setattr(verify, "train", lambda training, until: None)
        monkeypatch.setattr(verify.queue, "refusal", lambda row: None)
        monkeypatch.setattr(Training, "runs", lambda training: [run_with(np.array([error]))])
        parser = argparse.ArgumentParser()
        for name, kind in (("--until", float), ("--seeds", int)):
            parser.add_argument(name, type=kind)
        options = parser.parse_args(words[1:])
        return verify.verify(argparse.Namespace(row=words[0], out=tmp_path, **vars(options)))

    return run


def test_exit_code_tells_whether_the_numbers_hold(verified, capsys):
    row = "nokland2016/10epochs/1x800_dfa"
    assert verified(8.5, row) == 0
    assert verified(12.0, row) == 1
    assert "NO" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["hinton2022"], "name one row; hinton2022 names"),
        (["hinton2022/larg"], "did you mean 'hinton2022/large'"),
        (["kao2019/cifar10/vgg_al"], "nothing is recorded of kao2019/cifar10/vgg_al"),
        (["lillicrap2014/task1", "--until", "1"], "lillicrap2014/task1 is a sweep"),
    ],
)
def test_what_cannot_be_verified_costs_a_line(verified, words, problem):
    with pytest.raises(BadOption, match=problem):
        verified(1.0, *words)


def test_a_prefix_is_interrupted_once_its_epoch_is_reached(tmp_path, monkeypatch):
    folder, stopped, reached = record(tmp_path / "run", "running"), [], [0.0, 0.5, 2.0]
    monkeypatch.setattr(verify, "reached", lambda training: reached.pop(0))
    monkeypatch.setattr(verify, "start", lambda training, now: types.SimpleNamespace(poll=lambda: None))
    monkeypatch.setattr(verify, "stop", stopped.append)
    monkeypatch.setattr(verify, "POLL", 0.0)
    row = Training(folder, ("rule=fa",), ("seeds=2",))
    assert training.state(row).kind == CUT_OFF
    verify.train(row, until=2.0)
    assert (len(stopped), reached) == (1, [])
    reached[:] = [2.0]
    verify.train(row, until=2.0)  # has come so far before
    assert len(stopped) == 1


def test_a_row_is_trained_in_a_folder_of_its_own(tmp_path):
    (row,) = queue.select(queue.experiments()["nokland2016"].rows(3), ["nokland2016/300epochs/2x800_bp"])
    moved = verify.elsewhere(row, tmp_path)
    assert moved.folder == tmp_path / row.name != row.folder
    assert "seeds=3" in moved.arguments
    assert training.state(moved).kind == NOT_STARTED
