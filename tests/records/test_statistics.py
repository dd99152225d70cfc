"""Means, intervals and counts over seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from fa_jax.core import Metric
from fa_jax.records import statistics
from fa_jax.records.statistics import (
    band,
    bootstrap_interval,
    bootstrap_intervals,
    has_diverged,
    interquartile_mean,
    summarise,
    summarise_logarithm,
    summarise_rows,
)


def test_the_interval_is_student_s():
    values = np.random.default_rng(0).normal(3, 2, 20)
    summary = summarise(values)
    low, high = stats.t.interval(0.95, 19, values.mean(), stats.sem(values))
    np.testing.assert_allclose([summary.low, summary.high], [low, high])
    np.testing.assert_allclose(
        [summary.mean, summary.sd, summary.median],
        [values.mean(), values.std(ddof=1), np.median(values)],
    )
    assert summary.n == 20


def test_the_interval_covers_the_mean_in_95_of_100_cases():
    random = np.random.default_rng(1)
    summaries = [summarise(random.normal(size=5)) for _ in range(4000)]
    covered = [summary.low <= 0 <= summary.high for summary in summaries]
    assert abs(np.mean(covered) - 0.95) < 0.012  # 3.5 standard errors


NSE, R_SQUARED = Metric("nse", "NSE"), Metric("r2", "R²", better="higher", bounds=(None, 1))
ERROR = Metric("error", "error", "%", bounds=(0, 100))
ACCURACY = Metric("accuracy", "accuracy", "%", better="higher", bounds=(0, 100))
COUNT = Metric("count", "count", better="neither")


@pytest.mark.parametrize(
    ("loss", "first", "last", "score", "diverged"),
    [
        (math.nan, 90.0, 90.0, ERROR, True),
        (math.inf, 90.0, 45.0, ERROR, True),
        (1.0, 90.0, math.nan, ERROR, True),
        (1e9, 90.0, 45.0, ERROR, False),  # Forward-Forward by goodness
        (1e9, 0.5, 99.0, ERROR, False),
        (1e9, 99.5, 0.001, ACCURACY, False),
        (1e-9, 1.0, 102.0, NSE, True),
        (1e9, 1.0, 100.0, NSE, False),
        (1e9, math.nan, 1.0, NSE, False),
        (1e-9, -0.1, -10.2, R_SQUARED, True),
        (1e9, -0.1, -10.0, R_SQUARED, False),
        (1e9, 0.0, 1e9, NSE, False),
        (1e9, 1.0, 1e9, COUNT, False),
    ],
)
def test_a_seed_has_diverged_by_its_last_score_and_not_by_the_size_of_a_finite_loss(loss, first, last, score, diverged):
    assert has_diverged(loss, first, last, score) is diverged


def test_diverged_seeds_are_excluded_from_mean_and_n():
    summary = summarise([1.0, math.nan, 3.0, math.inf])
    assert (summary.mean, summary.n) == (2.0, 2)


def test_one_seed_has_a_mean_but_no_interval():
    summary = summarise([4.0])
    assert summary.mean == 4
    assert math.isnan(summary.low)


def test_without_a_finite_value_there_is_no_mean():
    assert summarise([math.nan]).n == 0
    assert math.isnan(summarise([]).mean)


def test_the_geometric_mean_is_the_exponential_of_the_mean_logarithm():
    summary = summarise_logarithm([1e-2, 1e-4])
    assert math.isclose(summary.mean, 1e-3)
    assert 0 < summary.low < 1e-4
    assert summary.high > 1e-2


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_band_is_the_summary_at_each_point(logarithmic):
    values = np.random.default_rng(0).lognormal(size=(6, 5))
    values[0, 1], values[1:, 2], values[:, 3], values[2, 4] = np.nan, np.inf, np.nan, 0.0
    curves = np.stack(band(values, logarithmic=logarithmic))
    summarise_column = summarise_logarithm if logarithmic else summarise
    points = [summarise_column(column) for column in values.T]
    np.testing.assert_allclose(curves, np.array([(p.mean, p.low, p.high) for p in points]).T, rtol=1e-12)


@pytest.mark.parametrize("missing", [(), (1, 2)])
@pytest.mark.parametrize("seeds", [1, 2, 6])
def test_summaries_of_rows_are_those_of_each(seeds, missing):
    values = np.random.default_rng(0).normal(size=(3, seeds))
    if missing and seeds > 2:
        values[missing] = np.nan
    np.testing.assert_allclose(summarise_rows(values), [summarise(row) for row in values], rtol=1e-12)


def test_the_bootstrap_covers_the_mean_as_often_as_its_docstring_says():
    random = np.random.default_rng(0)
    intervals = [bootstrap_interval(random.normal(size=10), 499) for _ in range(600)]
    assert abs(np.mean([low <= 0 <= high for low, high in intervals]) - 0.91) < 0.035  # three standard errors


def test_the_bootstrap_is_that_of_scipy_for_each_sample_however_many_are_resampled_at_once(monkeypatch):
    random = np.random.default_rng(0)
    samples = [random.normal(size=n) for n in (5, 3, 5, 2)]
    for value in (1.0, math.nan):  # neither one value nor equal ones have an interval
        assert np.isnan(bootstrap_intervals([[value], [1.0, 1.0, value]])).all()
    intervals = bootstrap_intervals([[*samples[0], math.nan, math.inf], *samples[1:]], 499)
    for sample, interval in zip(samples, intervals, strict=True):
        options = {"n_resamples": 499, "method": "BCa", "rng": np.random.default_rng(0)}
        assert interval == tuple(stats.bootstrap((sample,), np.mean, **options).confidence_interval)
    monkeypatch.setattr(statistics, "BOOTSTRAP_NUMBERS", 1)
    assert bootstrap_intervals(samples, 499) == intervals


def test_the_interquartile_mean_is_the_mean_of_the_middle_half():
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 60, -100, math.nan, math.inf]) == 3.5
    assert interquartile_mean([9, 1, 2, 3, 5]) == 10 / 3  # one of five at either end
    assert math.isnan(interquartile_mean([]))
