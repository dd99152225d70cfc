"""Means, intervals and counts over seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from fa_jax.records.statistics import band, is_logarithmic, summarise, summarise_logarithm


def test_the_interval_is_student_s():
    values = np.random.default_rng(0).normal(3, 2, 20)
    summary = summarise(values)
    low, high = stats.t.interval(0.95, 19, values.mean(), stats.sem(values))
    np.testing.assert_allclose([summary.low, summary.high], [low, high])
    np.testing.assert_allclose(
        [summary.mean, summary.sd, summary.median],
        [*map(float, (values.mean(), values.std(ddof=1), np.median(values)))],
    )
    assert summary.n == 20


def test_the_interval_holds_the_mean_95_times_in_a_hundred():
    random = np.random.default_rng(1)
    held = [s.low <= 0 <= s.high for s in (summarise(random.normal(size=5)) for _ in range(4000))]
    assert abs(np.mean(held) - 0.95) < 0.012  # 3.5 standard errors


def test_diverged_seeds_are_left_out_and_not_in_n():
    assert summarise([1.0, math.nan, 3.0, math.inf])[:1] == (2.0,)
    assert summarise([1.0, math.nan, 3.0, math.inf]).n == 2


def test_one_seed_has_a_mean_and_no_interval():
    summary = summarise([4.0])
    assert summary.mean == 4
    assert math.isnan(summary.low)


def test_no_seed_has_nothing():
    assert summarise([math.nan]).n == 0
    assert math.isnan(summarise([]).mean)


def test_the_geometric_mean_is_that_of_the_logarithms():
    summary = summarise_logarithm([1e-2, 1e-4])
    assert math.isclose(summary.mean, 1e-3)
    assert 0 < summary.low < 1e-4
    assert summary.high > 1e-2


@pytest.mark.parametrize(("name", "answer"), [("test_nse", True), ("train_nse", True), ("test_error", False)])
def test_the_nse_ranges_over_decades_and_the_error_does_not(name, answer):
    assert is_logarithmic(name) is answer


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_band_is_the_summary_at_each_point(logarithmic):
    values = np.random.default_rng(0).lognormal(size=(6, 5))
    values[0, 1], values[1:, 2], values[:, 3], values[2, 4] = np.nan, np.inf, np.nan, 0.0
    found = np.stack(band(values, logarithmic=logarithmic))
    over = summarise_logarithm if logarithmic else summarise
    points = [over(column) for column in values.T]
    np.testing.assert_allclose(found, np.array([(p.mean, p.low, p.high) for p in points]).T, rtol=1e-12)
