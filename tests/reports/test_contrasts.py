"""Contrasts between conditions, against SciPy and by hand."""

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import stats

from fa_jax.checks import BadOption
from fa_jax.records.conditions import conditions
from fa_jax.reports.comparison import compare
from fa_jax.reports.paired import seeds_needed
from fa_jax.reports.paper import paper_table
from fa_jax.reports.tables import score_table
from tests.reports.conftest import make_run

RANDOM = np.random.default_rng(3)
BP, FA = RANDOM.normal(5, 1, 12), RANDOM.normal(6, 1, 12)


def test_a_contrast_across_metrics_says_that_not_both_have_it():
    runs = [make_run("bp", BP), make_run("fa", FA, metric="accuracy")]
    notes = compare(runs, contrasts="fa:bp").notes
    assert notes[-1] == "without a test, since not both have the metric: FA - BP"
    unfinished = [make_run("bp", BP), make_run("fa", FA, status="failed")]
    assert compare(unfinished, contrasts="fa:bp").notes == ["without a test, since a run is not finished: FA - BP"]


def test_a_contrast_is_the_paired_tests_over_the_common_seeds():
    (contrast,) = compare([make_run("bp", BP), make_run("fa", FA[2:], first=2)]).contrasts
    ours, theirs = FA[2:], BP[2:]
    differences = ours - theirs
    assert contrast.n == 10
    assert contrast.difference == pytest.approx(differences.mean())
    low, high = stats.t.interval(0.95, 9, differences.mean(), stats.sem(differences))
    assert (contrast.low, contrast.high) == pytest.approx((low, high))
    assert contrast.effect == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert contrast.p_t == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert contrast.p_wilcoxon == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)
    assert (contrast.holm_t, contrast.holm_wilcoxon) == (contrast.p_t, contrast.p_wilcoxon)


def test_holm_corrects_for_the_number_of_contrasts_and_keeps_their_order():
    runs = [make_run(rule, RANDOM.normal(5 + 0.4 * i, 1, 12)) for i, rule in enumerate(("fa", "dfa", "ifa"))]
    contrasts = sorted(compare([make_run("bp", BP), *runs]).contrasts, key=lambda contrast: contrast.p_t)
    by_hand = [contrast.p_t * (3 - i) for i, contrast in enumerate(contrasts)]
    by_hand = np.minimum(1, np.maximum.accumulate(by_hand))
    assert [contrast.holm_t for contrast in contrasts] == pytest.approx(by_hand.tolist())


def test_the_contrast_of_a_logarithmic_metric_is_a_ratio():
    bp, fa = np.exp(BP), np.exp(FA)
    (contrast,) = compare([make_run("bp", bp, metric="nse"), make_run("fa", fa, metric="nse")]).contrasts
    assert contrast.difference == pytest.approx(math.exp((FA - BP).mean()))
    assert contrast.p_t == pytest.approx(stats.ttest_rel(FA, BP).pvalue)


def test_differences_have_the_same_decimals_unless_they_are_tiny():
    def shown(scale):
        runs = [make_run("bp", scale * BP), make_run("fa", scale * FA), make_run("dfa", scale * (BP + 1.5))]
        compared = compare(runs)
        return [row[1:3] for row in compared.tables()[-1].rows]

    (fa, interval), equal = shown(1)
    difference = FA - BP
    low, high = stats.t.interval(0.95, 11, difference.mean(), stats.sem(difference))
    assert (fa, interval) == (f"{difference.mean():+.1f}", f"{low:.1f} – {high:.1f}")  # as their scores
    assert equal == ["+1.5", "-"]  # all pairs differ by the same amount
    assert float(shown(1e-7)[0][0]) == pytest.approx(1e-7 * difference.mean(), rel=1e-2)


@pytest.mark.parametrize("apart", [0.1, 1.0, 30.0])
def test_scores_contrasts_and_margins_have_the_same_decimals_in_every_table(apart):
    of_rule = {"bp": BP, "fa": BP + apart * FA, "shallow": 2 * BP + apart}
    runs = [make_run(rule, values, rate=rate) for rule, values in of_rule.items() for rate in (0.1, 0.3)]
    compared = compare(runs)
    decimals = compared.decimals()
    first = score_table(compared.conditions, compared.names, decimals=decimals)
    tables = [first, paper_table(compared.conditions, compared.names, decimals=decimals), *compared.tables()]
    numbers = ("test_error (%)", "test error (%)", "95 % (t)", "95 % (bootstrap)", "median", "IQM", "0.1", "0.3")
    numbers += ("difference", "above it")
    texts = [c for t in tables for row in t.rows for head, c in zip(t.headings, row, strict=True) if head in numbers]
    assert len(texts) > 40
    assert {len(places) for text in texts for places in re.findall(r"\.(\d+)", text)} == set(decimals.values()) - {0}


def test_equal_runs_have_no_p():
    (contrast,) = compare([make_run("bp", BP), make_run("dfa", BP)]).contrasts
    assert contrast.difference == 0
    assert math.isnan(contrast.p_t)
    assert contrast.seeds_needed is None


def test_a_small_difference_of_large_values_is_tested_down_to_what_float32_resolves():
    large = np.float32(1e6 + RANDOM.normal(0, 0.3, 12))
    (contrast,) = compare(
        [make_run("bp", large), make_run("fa", large + np.float32(0.25 + 0.125 * (BP > 5)))]
    ).contrasts
    assert contrast.p_t < 0.001
    spacing = np.spacing(np.float32(1e6))
    (contrast,) = compare([make_run("bp", large), make_run("fa", large + spacing * (BP > 5))]).contrasts
    assert contrast.difference > 0
    assert math.isnan(contrast.p_t)


def test_a_large_pair_does_not_hide_the_differences_of_small_ones():
    bp = np.float32(np.append(BP, 1e7))
    fa = bp + np.float32(np.append(0.01 + 0.001 * FA, 1.0))
    (contrast,) = compare([make_run("bp", bp), make_run("fa", fa)]).contrasts
    assert not math.isnan(contrast.p_t)


def test_ratios_are_tested_down_to_what_float32_resolves():
    bp = np.float32(1e-6 * np.exp(BP))
    one_off = np.where(BP > 5, np.nextafter(bp, np.float32(1)), bp)
    for fa, tested in ((one_off, False), (bp * (1 + np.float32(1e-6) * (BP > 5)), True)):
        (contrast,) = compare([make_run("bp", bp, metric="nse"), make_run("fa", fa, metric="nse")]).contrasts
        assert math.isnan(contrast.p_t) is not tested


def test_a_diverged_seed_is_in_no_pair():
    fa = make_run("fa", FA)
    fa.metrics["test_loss"][-1] = np.nan
    (contrast,) = compare([make_run("bp", BP), fa]).contrasts
    assert contrast.n == 11


def test_each_condition_is_contrasted_with_the_closest_one():
    runs = [make_run(rule, errors, rate=rate) for rate in (0.1, 0.3) for rule, errors in (("bp", BP), ("fa", FA))]
    compared = compare(runs)
    assert compared.names == [
        "BP learning_rate=0.1",
        "FA learning_rate=0.1",
        "BP learning_rate=0.3",
        "FA learning_rate=0.3",
    ]
    assert [(contrast.condition, contrast.against) for contrast in compared.contrasts] == [(1, 0), (3, 2)]


def test_conditions_that_differ_in_options_of_the_rule_alone_are_contrasted():
    bp, forward_forward = make_run("bp", BP), make_run("forward_forward", FA)
    bp.config["feedback_optimizer"], forward_forward.config["feedback_optimizer"] = None, {"learning_rate": 1.0}
    forward_forward.config["feedback"] = {"scale": 1.0}
    assert len(compare([bp, forward_forward]).contrasts) == 1
    longer = dataclasses.replace(forward_forward, config={**forward_forward.config, "epochs": 3})
    assert not compare([bp, longer]).contrasts


def test_conditions_that_differ_in_other_options_are_not_contrasted_and_a_note_names_these():
    bp, fa = make_run("bp", BP), make_run("fa", FA)
    fa.config["epochs"], fa.config["batch_size"] = 3, 7
    (note,) = compare([bp, fa]).notes
    assert note.startswith("without a contrast: FA differs also in batch_size, epochs. contrasts='FA:BP'"), note


def test_a_condition_with_several_equally_close_ones_has_no_contrast_and_a_note_says_so():
    runs = [make_run("bp", BP, rate=0.1), make_run("bp", BP, rate=0.2), make_run("fa", FA, rate=0.3)]
    compared = compare(runs)
    assert not compared.contrasts
    reason = "without a contrast: FA learning_rate=0.3 matches several conditions of bp"
    example = "contrasts='FA learning_rate=0.3:BP learning_rate=0.1'"
    assert compared.notes == [f"{reason}. {example} asks for it all the same"]
    (contrast,) = compare(runs, contrasts="fa:BP learning_rate=0.2").contrasts
    assert (contrast.condition, contrast.against) == (2, 1)


def test_without_backprop_only_requested_contrasts_are_made_unless_there_are_two_rules():
    runs = [make_run("dfa", BP), make_run("fa", FA), make_run("ifa", BP)]
    assert not compare(runs).contrasts
    assert "bp is not among the rules" in compare(runs).notes[0]
    assert len(compare(runs, against="fa").contrasts) == 2
    assert len(compare(runs, contrasts="dfa:fa").contrasts) == 1
    (contrast,) = compare(runs[:2]).contrasts
    assert (contrast.condition, contrast.against) == (1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"against": "fas"}, "^against must be one of bp, fa, BP, FA; got 'fas'; did you mean 'fa'"),
        (
            {"metric": "test_eror"},
            r"^metric must be one of test_error, .*; got 'test_eror'; did you mean 'test_error'",
        ),
        ({"contrasts": "fa"}, "^contrasts must be pairs such as dfa:bp,dfa:fa; got 'fa'"),
        ({"contrasts": "fa:dfa"}, "^contrasts must name two of bp, fa, BP, FA; got 'dfa'"),
        ({"contrasts": "fa:fa"}, "^contrasts must be of two different conditions; got 'fa:fa'"),
    ],
)
def test_a_wrong_name_is_refused(options, message):
    with pytest.raises(BadOption, match=message):
        compare([make_run("bp", BP), make_run("fa", FA)], **options)


def test_an_unfinished_run_has_no_contrast():
    assert not compare([make_run("bp", BP), make_run("fa", FA, status="interrupted")]).contrasts


def test_runs_that_differ_in_seeds_alone_are_one_condition():
    (condition,) = conditions([make_run("fa", FA[:6]), make_run("fa", FA[6:], first=6)])
    assert condition.run.at_end("test_error") == pytest.approx(dict(enumerate(FA)))
    assert len(condition.used) == 2


def test_of_two_runs_with_the_same_seed_the_newer_one_counts():
    old, new = make_run("fa", FA, time="2026-01-01"), make_run("fa", BP, time="2026-01-02")
    (condition,) = conditions([new, old])
    assert condition.run is new
    assert condition.left_out == (old,)
    (condition,) = conditions([old, make_run("fa", BP[:3], time="2026-01-02")])
    assert condition.run.at_end("test_error") == pytest.approx(dict(enumerate([*BP[:3], *FA[3:]])))


def test_finished_runs_replace_interrupted_ones():
    finished, interrupted = make_run("fa", FA[:6]), make_run("fa", FA[6:], first=6, status="interrupted")
    (condition,) = conditions([interrupted, finished])
    assert condition.run is finished
    assert condition.left_out == (interrupted,)


def test_seeds_needed_give_the_power_of_a_simulation():
    n, *others = seeds_needed([0.8, -0.8, 50, 0.001, math.nan])
    draws = np.random.default_rng(0).normal(0.8, 1, (8000, n))
    power, power_of_fewer = (np.mean(stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05) for x in (draws, draws[:, :-1]))
    assert 0.79 < power < 0.84
    assert power_of_fewer < 0.81
    assert others == [n, 2, None, None]
