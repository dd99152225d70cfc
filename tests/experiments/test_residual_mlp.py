"""The rows of the residual network: rates are chosen on held-out images, and tables say what is above the controls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import controlled
from experiments.common import read_rows
from experiments.controlled import Study
from experiments.residual_mlp import local_losses, rows
from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.reports.comparison import compare
from tests.conftest import MLP, between_states, layerwise
from tests.reports.conftest import make_run

ERRORS = {
    "frozen_blocks": [65.0, 66.0, 64.0],
    "shallow": [75.0, 74.0, 75.0],
    "fa": [60.0, 62.0, 59.0],
    "dfa": [69.0, 68.0, 70.0],
}


def ended(rule, errors, rate=0.001, **final):
    """A run in memory with the summary of its last evaluation."""
    mean = float(np.mean(errors))
    shown = {"test_error": {"mean": mean, "low": mean - 1, "high": mean + 1, "n": len(errors)}}
    shown |= {name: {"mean": value, "n": len(errors)} for name, value in final.items()}
    environment = {"time": "2026", "devices": [], "processor": "p", "cores": 2, "packages": {"jax": "1"}, "commit": "c"}
    run = make_run(rule, errors, rate=rate)
    return dataclasses.replace(run, summary={"final": shown}, environment=environment)


def test_the_rate_with_the_lowest_validation_error_is_trained_unless_it_diverges(monkeypatch):
    trials = [
        ended("fa", [1.0], rate, validation_error=error) for rate, error in ((0.1, 50.0), (0.3, 40.0), (1.0, 30.0))
    ]
    trials[2].metrics["test_loss"][-1] = np.nan
    assert trials[2].diverged
    monkeypatch.setattr(controlled.Training, "runs", lambda training: trials)
    searched, final = rows.STUDY.trainings("cifar10", "fa", 30, None)
    assert "optimizer.learning_rate=0.0001,0.0003,0.001,0.003,0.01" in searched.arguments
    assert {"epochs=10", "task.validation=5000"} <= set(searched.arguments)
    assert {"epochs=30", "optimizer.learning_rate=0.3"} <= set(final.arguments)
    assert not any(word.startswith("task.validation") for word in final.arguments)
    assert final.defaults == ("seeds=5",)


def test_rates_beyond_the_edge_are_tried_until_the_best_one_is_inside(monkeypatch):
    errors = {0.0001: 50.0, 0.0003: 49.0, 0.001: 48.0, 0.003: 47.0, 0.01: 46.0, 0.03162: 45.0, 0.09999: np.inf}

    def trials(sweep):
        (rates,) = (word.partition("=")[2].split(",") for word in sweep.arguments if "learning_rate" in word)
        return [ended("fa", [1.0], float(rate), validation_error=errors[float(rate)]) for rate in rates]

    monkeypatch.setattr(controlled.Training, "runs", trials)
    *sweeps, final = rows.STUDY.trainings("cifar10", "fa", 30, None)
    assert [sweep.folder.name for sweep in sweeps] == ["trials", "trials_0.03162", "trials_0.09999"]
    assert "optimizer.learning_rate=0.03162" in final.arguments
    tried = rows.STUDY.tried("cifar10", "fa", 30)
    assert tried == sorted(errors)
    compared = compare([ended("fa", [60.0, 61.0], 0.03162)])
    assert not rows.STUDY.measured("cifar10", "fa", compared, tried)["at the edge of the grid"]
    assert rows.STUDY.measured("cifar10", "fa", compared, tried[:-1])["at the edge of the grid"]


def test_the_recipe_of_2026_has_one_rate_without_trials_and_trains_its_own_rules():
    (final,) = rows.STUDY.trainings("cifar10_2026", "fa", 10, 1)
    assert {"optimizer.learning_rate=0.001", "seeds=1", "epochs=10"} <= set(final.arguments)
    (run,) = compose(parse([word for word in final.arguments if not word.startswith("task")])).runs
    assert run.config["rule"]["_target_"] == "experiments.residual_mlp.local_losses.fa"
    assert run.config["feedback"]["_target_"] == "experiments.residual_mlp.local_losses.between_states"
    assert not any("_target_" in word for word in rows.STUDY.overrides("cifar10", "fa", 10))
    assert not any("_target_" in word for word in rows.STUDY.overrides("cifar10_2026", "bp", 10))


def test_rules_without_arguments_of_their_own_are_trained_once_for_both_forms_of_the_recipe():
    names = {row.name.removeprefix("residual_mlp/10epochs/") for row in rows.rows()}
    assert {f"cifar10_2026/{rule}" for rule in rows.STUDY.rules} <= names
    assert {name for name in names if name.startswith("cifar10_2026_batch/")} == {
        "cifar10_2026_batch/fa",
        "cifar10_2026_batch/dfa",
    }
    assert rows.STUDY.row_of("cifar10_2026_batch", "shallow", 10).name == "residual_mlp/10epochs/cifar10_2026/shallow"


def test_hours_are_those_of_the_run_and_of_the_trials_that_a_rule_has():
    of_run = rows.STUDY.lengths[10]
    assert rows.STUDY.row_of("cifar10_2026", "fa", 10).hours == pytest.approx(of_run)
    assert rows.STUDY.row_of("cifar10", "fa", 10).hours == pytest.approx(of_run * (5 + 2 * 5 * 0.3) / 5)
    assert rows.STUDY.row_of("cifar10", "fa", 10, seeds=1).hours == pytest.approx(of_run * (1 + 2 * 5 * 0.3) / 5)


def test_a_single_rate_is_at_no_edge():
    runs = {rule: ended(rule, errors) for rule, errors in ERRORS.items()}
    tried = rows.STUDY.tried("cifar10_2026", "fa", 10)
    measured = rows.STUDY.measured("cifar10_2026", "fa", compare(list(runs.values())), tried)
    assert (measured["learning rate"], measured["at the edge of the grid"]) == ("0.001", False)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_signals_of_any_size_have_a_root_mean_square_of_1_over_the_batch_size(size):
    signal = size * jnp.asarray([[0.0, 0.0], [3.0, 4.0]])
    of_example = local_losses.normalised(signal, local_losses.OF_EXAMPLE)
    np.testing.assert_allclose(of_example, [[0, 0], [3 / 12.5**0.5 / 2, 4 / 12.5**0.5 / 2]], rtol=1e-6)
    of_batch = local_losses.normalised(signal, local_losses.OF_BATCH)
    np.testing.assert_allclose(jnp.sqrt((of_batch**2).mean()), 1 / 2, rtol=1e-6)


def test_a_signal_that_is_not_finite_is_not_hidden():
    assert np.isnan(local_losses.normalised(jnp.asarray([[np.nan, 1.0]]), local_losses.OF_EXAMPLE)).all()


def test_feedback_between_states_has_the_deviation_of_its_distribution_and_differs_by_layer():
    network = mlp((12,), 3, hidden=[100, 100, 100], dropout=0.0, **MLP)
    drawn = between_states(distribution="fan_normal", scale=2.0, density=0.5)(
        network, jax.random.key(0), jax.eval_shape(network.init, jax.random.key(0))
    )
    assert list(drawn) == list(network.hidden_shapes)[1:]
    for matrix in drawn.values():
        assert matrix.shape == (100, 100)
        assert float(jnp.mean(matrix == 0)) == pytest.approx(0.5, abs=0.02)
        assert float(matrix[matrix != 0].std()) == pytest.approx(0.2, rel=0.05)
    first, second = drawn.values()
    assert not np.any((first == second) & (first != 0))


def test_bad_feedback_between_states_is_refused():
    def init(rule, *, hidden=(4, 4), **options):
        network = mlp((12,), 3, hidden=list(hidden), dropout=0.0, **MLP)
        return rule(network, cross_entropy().value, **options).init(jax.random.key(0))

    with pytest.raises(BadOption, match="needs hidden layers of one width"):
        init(local_losses.fa, hidden=(4, 5), init_feedback=between_states())
    with pytest.raises(BadOption, match=r"^rank must be null between hidden states"):
        init(local_losses.fa, init_feedback=between_states(rank=1))
    with pytest.raises(BadOption, match="needs a matrix of each hidden layer but the first"):
        init(local_losses.fa, init_feedback=layerwise())


def test_a_table_has_the_margins_above_both_controls(tmp_path, monkeypatch):
    done = {rule: ended(rule, errors, signal_angle_0=80.0, signal_angle_1=91.0) for rule, errors in ERRORS.items()}
    names = {f"residual_mlp/30epochs/cifar10/{rule}": run for rule, run in done.items()}
    monkeypatch.setattr(controlled, "runs_of", lambda row: [names[row.name]] if row.name in names else [])
    monkeypatch.setattr(Study, "tried", lambda *_: [])
    rows.collect(tmp_path, [rows.STUDY.row_of("cifar10", rule, 30) for rule in ("fa", "dfa")])
    fa, dfa = read_rows(tmp_path / "measured_30epochs.csv")
    assert (fa["above frozen_blocks"], fa["above shallow"]) == ("+4.67", "+14.33")
    assert (dfa["above frozen_blocks"], dfa["above frozen_blocks, n"]) == ("-4.00", "3")
    assert fa["angles of the signals, layer by layer"] == "80 91"
    monkeypatch.setattr(Study, "folder", tmp_path)
    assert "-8.97 to +0.97" in rows.tables()
    assert pytest.approx(float(fa["test error"]), abs=0.01) == 60.33
