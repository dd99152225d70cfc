"""The progress of a run on the console."""

import io

import numpy as np
import pytest
from rich.console import Console

from fa_jax.core import Metric
from fa_jax.metrics.scores import ERROR
from fa_jax.training import progress
from fa_jax.training.progress import Progress

NSE = Metric("nse", "NSE", logarithmic=True)


@pytest.fixture
def console_text(monkeypatch):
    """Returns the text that a `Progress` over 200 seed-steps prints while a function calls it."""

    def print_progress(call, metrics=(ERROR,), *, is_terminal=False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=is_terminal, width=100)
        monkeypatch.setattr(progress, "Console", lambda: console)
        with Progress(200, metrics) as run_progress:
            call(run_progress)
        return text.getvalue()

    return print_progress


def test_lines_state_the_fraction_done_and_the_mean_and_range_over_seeds(console_text):
    def call(run_progress):
        run_progress.show(0, [{"test_error": np.array([90.0, 92.0]), "test_loss": np.ones(2)}])
        run_progress.advance(200, 6400)
        run_progress.show(6400, [{"test_error": np.array([2.0, np.nan]), "test_loss": np.ones(2)}])

    assert console_text(call).splitlines() == [
        "  0 %  0 examples  test_error 91 % (90 to 92 over 2 seeds)",
        "100 %  6400 examples  test_error 2 % (1 seed, 1 not finite)",
    ]


def test_evaluations_within_the_line_interval_print_one_line(console_text):
    def call(run_progress):
        for i in range(50):
            run_progress.show(i, [{"test_error": np.ones(1)}])

    assert len(console_text(call).splitlines()) == 1


def test_a_terminal_shows_a_bar_with_the_geometric_mean_of_a_logarithmic_metric(console_text):
    def call(run_progress):
        run_progress.show(0, [{"test_nse": np.array([1.0, 0.01])}])
        run_progress.advance(100, 3200)
        run_progress._bar.refresh()

    text = console_text(call, (NSE,), is_terminal=True)
    assert "50 %" in text
    assert "test_nse 0.1 (0.01 to 1 over 2 seeds)" in text


def test_only_the_test_scores_of_the_given_metrics_are_shown(console_text):
    values = {f"{split}_{name}": np.ones(1) for split in ("train", "test") for name in ("loss", "error", "nse")}
    text = console_text(lambda run_progress: run_progress.show(0, [values]), (NSE, ERROR))
    assert text.strip() == "0 %  0 examples  test_nse 1 (1 seed)  test_error 1 % (1 seed)"
