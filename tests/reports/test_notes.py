"""A comparison says what it did with each run."""

import numpy as np

from fa_jax.reports.comparison import compare
from tests.reports.conftest import make_run

BP, FA = (np.random.default_rng(3).normal(mean, 1, 6) for mean in (5, 6))


def test_runs_of_equal_settings_are_pooled_and_older_ones_left_out():
    runs = [make_run("fa", FA[:3], rate=1), make_run("fa", FA[3:], first=3, rate=1.0), make_run("bp", BP, rate=1)]
    pooled, *_ = compare(runs).notes
    assert pooled == "pooled, since their settings are equal but for seeds: FA of 2 runs"
    old, cut = make_run("fa", FA, time="2025"), make_run("fa", FA, first=9, status="interrupted")
    notes = compare([old, make_run("fa", BP), cut]).notes
    assert notes[0] == "left out, since newer runs of the same settings have their seeds: FA: fa00.1"
    assert notes[1].startswith("left out, since they are not finished and others of the same settings are: FA: fa90.1")


def test_several_tasks_and_metrics_are_named():
    runs = [make_run("fa", FA), make_run("fa", FA, task="linear", metric="nse"), make_run("bp", BP)]
    compared = compare(runs)
    text = (
        "judged by several metrics, each with panels and contrasts of its own: test_error on mnist, test_nse on linear"
    )
    assert compared.notes[0] == text
    assert [compared.names[contrast.condition] for contrast in compared.contrasts] == ["FA mnist"]
    assert "without a contrast: FA linear differs also in task" in compared.notes[1]
    assert compare(runs, metric="test_error").notes[0] == "without test_error, and in no figure: FA linear"
    one_metric = [make_run("fa", FA), make_run("fa", FA, task="digits"), make_run("bp", BP)]
    assert compare(one_metric).notes[0].startswith("several tasks, each with panels and contrasts of its own: mnist, d")


def test_conditions_that_end_equal_in_every_seed_are_named():
    runs = [make_run("bp", BP), make_run("fa", FA), make_run("dfa", np.array(FA) * (1 + 1e-6))]
    assert "equal in every seed: FA, DFA; one algorithm here, or" in " ".join(compare(runs).notes)
    assert not any(note.startswith("equal") for note in compare(runs[:2]).notes)


def test_with_two_conditions_to_be_contrasted_with_each_is_accounted_for():
    runs = [make_run("fa", FA, rate=0.1), make_run("fa", FA, rate=0.3), make_run("bp", BP, rate=0.1)]
    compared = compare(runs, against="fa")
    assert [(contrast.condition, contrast.against) for contrast in compared.contrasts] == [(2, 0)]
    (note,) = compared.notes
    assert note == (
        "2 conditions are of fa; each other one is contrasted with the closest of them, which is never "
        "FA learning_rate=0.3"
    )
    asked = compare(runs, contrasts="FA learning_rate=0.3:bp")
    assert asked.notes == ["in none of the contrasts: FA learning_rate=0.1"]
