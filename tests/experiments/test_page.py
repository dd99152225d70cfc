"""The page of all published results is what the script writes from the CSVs; its verdicts follow from the numbers."""

import functools

import pytest

from experiments import learning, page, queue
from experiments.lillicrap2014.reproduced import bound
from experiments.reproduced import (
    COVERED,
    MEANING,
    NO,
    NOT_MEASURED,
    OWN_BOUND,
    PARTLY,
    REMEMBERED,
    SHORTENED,
    YES,
    Result,
    cost,
    interval_of,
    judge,
    yes,
)
from experiments.rules.recorded import Recorded

RESULTS = functools.cache(lambda: {name: module.results() for name, module in page.modules().items()})


def test_the_page_is_what_the_script_writes():
    assert page.PAGE.read_text() == page.written(), "run `python -m experiments.page`"


def test_the_page_on_learning_is_what_the_script_writes():
    assert learning.PAGE.read_text() == learning.page(Recorded()), "run `python -m experiments.learning`"


def test_every_result_has_a_verdict_and_names_a_row_that_can_be_trained():
    rows = [row for module in queue.experiments().values() for row in module.rows()]
    for results in RESULTS().values():
        assert {result.verdict for result in results} <= MEANING.keys()
        assert all(result.published and result.provenance for result in results)
        assert all(bool(result.measured) == (result.verdict != "not measured") for result in results)
        queue.select(rows, {result.row for result in results if result.row})


def test_remembered_values_are_never_called_read():
    assert {r.provenance for r in RESULTS()["nokland2016"]} == {"remembered", "abstract (mean), remembered (sd)"}
    assert not any(r.provenance == "read" for name in ("hinton2022", "kao2019") for r in RESULTS()[name])


def test_a_bound_that_leaves_out_the_published_value_shows_no_agreement():
    by_verdict = {
        verdict: {r.what for results in RESULTS().values() for r in results if r.verdict == verdict}
        for verdict in (YES, OWN_BOUND)
    }
    outside = {
        r.what for results in RESULTS().values() for r in results if r.verdict == OWN_BOUND and r.published != "–"
    }
    assert outside == {
        "3x1000 supervised, 100 epochs",  # 1.65, accepted 1.25 to 1.55
        "Task 1, BP, eta 0.010, median NSE at 500",  # 0.0022, accepted 0.00034 within a factor 3
        "Task 1, BP, eta 0.010, median NSE at 1000",  # 1.3e-6, accepted 1.1e-8 within a factor 10
        "Task 1, shallow, mean test NSE at 1975",  # 0.45, accepted 0.39 ± 0.05
    }
    assert "Task 1, node perturbation, median NSE at 500" in by_verdict[YES]  # 0.2, accepted 0.27 within a factor 1.5
    nothing = {r.what for r in RESULTS()["lillicrap2014"] if r.published == "–"}
    assert nothing
    assert nothing.isdisjoint(by_verdict[YES])


def test_remembered_values_and_ranges_of_our_own_are_counted_apart():
    results = [r for of_experiment in RESULTS().values() for r in of_experiment]
    assert {r.verdict for r in results if r.provenance == "remembered"}.isdisjoint({YES, OWN_BOUND, COVERED})
    assert all(r.provenance.startswith("remembered") for r in results if r.verdict == REMEMBERED)
    assert {r.verdict for r in RESULTS()["yagi2022"]} == {COVERED, NO}


def test_what_a_yes_says():
    assert yes("read", published_within=True) == YES
    assert yes("remembered", published_within=True) == REMEMBERED
    assert yes("abstract (mean), remembered (sd)", published_within=True) == YES
    assert yes("read", published_within=False) == yes("remembered", published_within=False) == OWN_BOUND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.2 within a factor 2", (0.1, 0.4)),
        ("paper 4.6e-03 within a factor 1.5", (4.6e-3 / 1.5, 6.9e-3)),
        ("paper 4.2 ± 0.8 %", (3.4, 5.0)),
        ("paper 7.6 %; 6.5 to 10.5 %", (6.5, 10.5)),
        ("30 to 70", (30, 70)),
    ],
)
def test_bounds_in_words(text, expected):
    assert bound(text) == pytest.approx(expected)
    assert bound("ratio at most 0.8, p < 0.01") is bound("below 1e-11") is None


def test_summary_counts_results_and_the_rows_they_share():
    read = Result("", "1", "read", "", YES, "a/1", "1")
    results = [read, read, read._replace(row="a/long", run="a/2"), read._replace(verdict=NO)]
    unmeasured = Result("", "1", "remembered", "", "not measured", "a/3")
    cells = page.summary({"a": ("A", [*results, unmeasured])}).splitlines()[-1].split(" | ")
    assert cells[:4] == ["| [A](a)", "5 (2)", "1", "3 (2)"]
    assert cells[8:] == ["1 (1)", "", "1 |"]


@pytest.mark.parametrize(
    ("value", "interval", "seeds", "expected"),
    [
        (1.6, None, 3, YES),
        (1.6, None, 1, PARTLY),
        (1.8, (1.7, 1.9), 3, PARTLY),
        (1.9, (1.8, 2.0), 3, NO),
        (1.2, (1.1, 1.3), 3, NO),
        (1.9, None, 1, NO),
    ],
)
def test_verdict_of_a_mean(value, interval, seeds, expected):
    assert judge(value, (1.5, 1.75), interval, seeds, least=3) == expected


def test_interval_follows_from_mean_deviation_and_seeds():
    low, high = interval_of(2.0, "0.1", 3)  # Student's t with two degrees of freedom: 4.303
    assert (2.0 - low, high - 2.0) == pytest.approx((4.303 * 0.1 / 3**0.5,) * 2, rel=1e-3)
    assert interval_of(2.0, "", 3) is interval_of(2.0, "0.1", 1) is None


def test_cost_has_hours_and_machine():
    assert cost("3600", "2026-11-25T02:58:54+00:00, AMD EPYC, 2 cores, jax 0.10.2") == "1.00 h, AMD EPYC, 2 cores"
    gpu = "2026-11-27T05:30:18+00:00, NVIDIA H200 (seconds of training alone), Intel(R) Xeon(R) Processor, 16 cores"
    assert cost(72, gpu) == "0.02 h, NVIDIA H200"


def test_what_was_not_measured_at_its_own_length_says_the_hours_that_it_takes():
    every = [result for results in RESULTS().values() for result in results]
    left = {result.what: page.left_to_run(result) for result in every}
    assert all(bool(left[r.what]) == (r.verdict in (NOT_MEASURED, SHORTENED)) for r in every)
    assert "unknown" not in left.values()
    assert left["CIFAR-10, VGG, BP, accuracy, epoch 200"] == "290 h"
