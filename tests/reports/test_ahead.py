"""Results are the same whether the process that trained shows them, or one that imported ahead what they need."""

import pytest

from fa_jax.cli import results


@pytest.fixture
def printed(capfd, monkeypatch):
    """The text that showing a run prints, by a process that imports ahead, after something is done to it."""
    monkeypatch.setattr(results, "cores", lambda: 2)
    monkeypatch.setattr(results._Ahead, "is_allowed", True)

    def show(folder, done=lambda process: None):
        with results.ahead("run"):
            process = results._Ahead.process
            done(process)
            results.show("run", folder)
        assert results._Ahead.process is None
        return process, capfd.readouterr().out

    return show


def test_a_process_that_imports_ahead_shows_what_this_one_would(record, printed, capfd):
    (run,) = record("fa")
    results.show_run(run.folder)
    expected, curves = capfd.readouterr().out, run.folder / "curves.png"
    assert f"recorded in {run.folder}" in expected.replace("\n", "")
    drawn = curves.read_bytes()
    curves.unlink()
    process, text = printed(run.folder)
    assert (process.returncode, text) == (0, expected)
    assert curves.read_bytes() == drawn


def test_without_that_process_this_one_shows_the_results(record, printed, capfd):
    (run,) = record("fa")
    process, text = printed(run.folder, lambda process: process.kill())
    assert process.returncode != 0
    assert "recorded in" in text
    with pytest.raises(FileNotFoundError):
        printed(run.folder / "missing", lambda process: process.kill())


def test_a_process_with_nothing_to_show_is_ended(printed):
    with results.ahead("sweep"):
        process = results._Ahead.process
        assert process is not None
    assert process.returncode != 0
