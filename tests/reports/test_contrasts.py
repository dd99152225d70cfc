"""Contrasts between conditions, against SciPy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from fa_jax.checks import BadOption
from fa_jax.records.conditions import conditions
from fa_jax.records.reader import Run
from fa_jax.records.statistics import bootstrap_interval, interquartile_mean
from fa_jax.reports.comparison import compare
from fa_jax.reports.contrasts import seeds_needed

RANDOM = np.random.default_rng(3)
BP, FA = RANDOM.normal(5, 1, 12), RANDOM.normal(6, 1, 12)


def run(rule, errors, first=0, rate=0.1, status="finished", metric="test_error", task="mnist", time="2026-01-01"):
    """A run as it would be read from the disk."""
    config = {"choices": {"rule": rule, "task": task, "architecture": "mlp", "loss": "squared_error"}}
    config["choices"] |= {"optimizer": "sgd", "experiment": None}
    config |= {"optimizer": {"learning_rate": rate}, "seed": first, "seeds": len(errors), "spacing": "linear"}
    n = len(errors)
    metrics = {"seed": np.tile(np.arange(first, first + n), 2), "step": np.repeat([0, 9], n)}
    metrics |= {"examples": np.repeat([0, 90], n), "epoch": np.repeat([0.0, 1.0], n)}
    metrics |= {"test_loss": np.ones(2 * n), metric: np.concatenate([np.full(n, 90.0), errors])}
    return Run(f"{rule}{first}{rate}", config, {"status": status, "time": time, "reason": None}, None, {}, metrics)


def test_a_contrast_is_that_of_the_paired_tests_over_the_seeds_both_have():
    (one,) = compare([run("bp", BP), run("fa", FA[2:], first=2)]).contrasts
    ours, theirs = FA[2:], BP[2:]
    differences = ours - theirs
    assert one.n == 10
    assert one.difference == pytest.approx(differences.mean())
    low, high = stats.t.interval(0.95, 9, differences.mean(), stats.sem(differences))
    assert (one.low, one.high) == pytest.approx((low, high))
    assert one.effect == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert one.p_t == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert one.p_wilcoxon == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)
    assert (one.holm_t, one.holm_wilcoxon) == (one.p_t, one.p_wilcoxon)


def test_holm_multiplies_the_smallest_p_by_the_number_of_contrasts_and_keeps_the_order():
    others = [run(rule, RANDOM.normal(5 + 0.4 * i, 1, 12)) for i, rule in enumerate(("fa", "dfa", "ifa"))]
    found = sorted(compare([run("bp", BP), *others]).contrasts, key=lambda one: one.p_t)
    by_hand = np.minimum(1, np.maximum.accumulate([one.p_t * (3 - i) for i, one in enumerate(found)]))
    assert [one.holm_t for one in found] == pytest.approx(by_hand.tolist())


def test_a_metric_that_spans_decades_is_contrasted_by_its_ratio():
    bp, fa = np.exp(BP), np.exp(FA)
    (one,) = compare([run("bp", bp, metric="test_nse"), run("fa", fa, metric="test_nse")]).contrasts
    assert one.difference == pytest.approx(math.exp((FA - BP).mean()))
    assert one.p_t == pytest.approx(stats.ttest_rel(FA, BP).pvalue)


def test_runs_that_are_alike_have_no_p():
    (one,) = compare([run("bp", BP), run("dfa", BP)]).contrasts
    assert one.difference == 0
    assert math.isnan(one.p_t)
    assert one.seeds_needed is None


def test_a_diverged_seed_is_in_no_pair():
    fa = run("fa", FA)
    fa.metrics["test_loss"][-1] = np.nan
    (one,) = compare([run("bp", BP), fa]).contrasts
    assert one.n == 11


def test_each_condition_is_contrasted_with_the_one_most_like_it():
    found = compare([run(rule, errors, rate=rate) for rate in (0.1, 0.3) for rule, errors in (("bp", BP), ("fa", FA))])
    assert found.names == [
        "BP learning_rate=0.1",
        "FA learning_rate=0.1",
        "BP learning_rate=0.3",
        "FA learning_rate=0.3",
    ]
    assert [(one.condition, one.against) for one in found.contrasts] == [(1, 0), (3, 2)]


def test_what_a_rule_brings_with_it_is_no_reason_against_a_contrast_and_all_else_is():
    one, other = run("bp", BP), run("forward_forward", FA)
    one.config["feedback_optimizer"], other.config["feedback_optimizer"] = None, {"learning_rate": 1.0}
    assert len(compare([one, other]).contrasts) == 1
    other.config["epochs"] = 3
    assert not compare([one, other]).contrasts


def test_where_several_are_as_close_there_is_no_contrast_and_it_is_said():
    found = compare([run("bp", BP, rate=0.1), run("bp", BP, rate=0.2), run("fa", FA, rate=0.3)])
    assert not found.contrasts
    why = "without a contrast: FA has several of bp to go with"
    assert found.note == f"{why}. contrasts='FA:BP learning_rate=0.1' asks for it all the same"
    (one,) = compare(
        [run("bp", BP, rate=0.1), run("bp", BP, rate=0.2), run("fa", FA, rate=0.3)], wanted="fa:BP learning_rate=0.2"
    ).contrasts
    assert (one.condition, one.against) == (2, 1)


def test_without_backprop_there_is_no_contrast_unless_it_is_declared():
    runs = [run("dfa", BP), run("fa", FA)]
    assert not compare(runs).contrasts
    assert "bp" in compare(runs).note
    assert len(compare(runs, against="fa").contrasts) == 1
    assert len(compare(runs, wanted="dfa:fa").contrasts) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"against": "fas"}, "against must be one of bp, fa, BP, FA; got 'fas'; did you mean 'fa'"),
        ({"metric": "test_eror"}, "did you mean 'test_error'"),
        ({"wanted": "fa"}, "must be pairs such as"),
        ({"wanted": "fa:dfa"}, "must name two of bp, fa, BP, FA; got 'dfa'"),
    ],
)
def test_a_wrong_name_is_said(words, message):
    with pytest.raises(BadOption, match=message):
        compare([run("bp", BP), run("fa", FA)], **words)


def test_an_unfinished_run_has_no_contrast():
    assert not compare([run("bp", BP), run("fa", FA, status="interrupted")]).contrasts


def test_runs_of_other_seeds_are_one_condition():
    (one,) = conditions([run("fa", FA[:6]), run("fa", FA[6:], first=6)])
    assert one.run.at_end("test_error") == pytest.approx(dict(enumerate(FA)))
    assert len(one.used) == 2


def test_of_two_runs_with_one_seed_the_newer_counts():
    old, new = run("fa", FA, time="2026-01-01"), run("fa", BP, time="2026-01-02")
    (one,) = conditions([new, old])
    assert one.run is new
    assert one.left_out == (old,)
    (one,) = conditions([old, run("fa", BP[:3], time="2026-01-02")])
    assert one.run.at_end("test_error") == pytest.approx(dict(enumerate([*BP[:3], *FA[3:]])))


def test_finished_runs_count_before_those_cut_off():
    done, cut_off = run("fa", FA[:6]), run("fa", FA[6:], first=6, status="interrupted")
    (one,) = conditions([cut_off, done])
    assert one.run is done
    assert one.left_out == (cut_off,)


def test_the_power_is_that_of_a_simulation():
    n = seeds_needed(0.8)
    draws = np.random.default_rng(0).normal(0.8, 1, (8000, n))
    power = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert 0.79 < power < 0.84
    assert stats.ttest_1samp(draws[:, :-1], 0, axis=1).pvalue.__lt__(0.05).mean() < 0.81
    assert seeds_needed(-0.8) == n
    assert seeds_needed(50) == 2
    assert seeds_needed(0.001) is None


def test_the_bootstrap_holds_the_mean_as_often_as_its_docstring_says():
    random = np.random.default_rng(0)
    intervals = [bootstrap_interval(random.normal(size=10), 499) for _ in range(600)]
    assert abs(np.mean([low <= 0 <= high for low, high in intervals]) - 0.91) < 0.035  # three standard errors
    assert math.isnan(bootstrap_interval([1.0, 1.0])[0])
    assert math.isnan(bootstrap_interval([1.0])[0])


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -100]) == 3.5
    assert math.isnan(interquartile_mean([]))


def test_where_more_differs_than_the_rule_it_is_said_in_what():
    one, other = run("bp", BP), run("fa", FA)
    other.config["epochs"] = 3
    other.config["batch_size"] = 7
    note = compare([one, other]).note
    assert note.startswith("without a contrast: FA differs also in batch_size, epochs. contrasts='FA:BP'"), note
