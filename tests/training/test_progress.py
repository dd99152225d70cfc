"""What a person sees while a run goes on."""

import io

import numpy as np
from rich.console import Console

from fa_jax.training import progress
from fa_jax.training.progress import Progress, shown


def spoken(monkeypatch, terminal, act):
    text = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda: Console(file=text, force_terminal=terminal, width=100))
    with Progress(200) as shown_progress:
        act(shown_progress)
    return text.getvalue()


def test_plain_lines_say_how_far_it_is_and_the_spread_over_seeds(monkeypatch):
    def act(bar):
        bar.show(0, {"test_error": np.array([90.0, 92.0]), "test_loss": np.ones(2)})
        bar.advance(200, 6400)
        bar.show(6400, {"test_error": np.array([2.0, np.nan]), "test_loss": np.ones(2)})

    lines = spoken(monkeypatch, False, act).splitlines()
    assert lines[0] == "  0 %  0 examples  test_error 91 (all from 90 to 92), n = 2"
    assert lines[1] == "100 %  6400 examples  test_error 2 (all from 2 to 2), n = 1, 1 diverged"


def test_evaluations_in_quick_succession_are_not_all_printed(monkeypatch):
    lines = spoken(monkeypatch, False, lambda bar: [bar.show(i, {"test_loss": np.ones(1)}) for i in range(50)])
    assert len(lines.splitlines()) == 1


def test_a_terminal_gets_a_bar(monkeypatch):
    def act(bar):
        bar.show(0, {"test_nse": np.array([1.0, 0.01])})
        bar.advance(100, 3200)
        bar._bar.refresh()

    text = spoken(monkeypatch, True, act)
    assert "50 %" in text
    assert "test_nse 0.1 (all from 0.01 to 1)" in text


def test_the_loss_is_shown_only_where_there_is_nothing_else():
    assert shown({"test_loss": 0, "test_error": 0, "train_error": 0}) == ["test_error"]
    assert shown({"test_loss": 0, "train_loss": 0}) == ["test_loss"]
