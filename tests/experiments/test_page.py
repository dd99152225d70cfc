"""The page of all published results is what the script writes from the CSVs; its verdicts follow from the numbers."""

import functools

import pytest

from experiments import page, queue
from experiments.reproduced import MEANING, NO, PARTLY, YES, cost, interval_of, judge

RESULTS = functools.cache(lambda: {name: module.results() for name, module in page.modules().items()})


def test_the_page_is_what_the_script_writes():
    assert page.PAGE.read_text() == page.written(), "run `python -m experiments.page`"


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
