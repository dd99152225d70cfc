"""Runs by the folder: what is there is not trained again, and is not taken for something else."""

import csv
import sys

import pytest

from experiments.common import provenance, trained, write_table
from fa_jax.records.reader import read_run
from fa_jax.records.writer import Writer


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A run that was told two words and has finished."""
    folder = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["fa-jax", "rule=fa", "seeds=2", f"hydra.run.dir={folder}"])
    writer = Writer(folder, {"choices": {"rule": "fa"}})
    writer.status("finished")
    writer.close()
    monkeypatch.setattr("subprocess.run", lambda *args, **options: pytest.fail("trained again"))
    return folder


def test_a_run_that_is_there_is_not_trained_again(recorded):
    assert trained(recorded, "seeds=2", "rule=fa").folder == recorded


@pytest.mark.parametrize("words", [("rule=fa", "seeds=3"), ("rule=fa",), ("rule=fa", "seeds=2", "epochs=1")])
def test_a_run_of_other_options_is_not_taken_for_it(recorded, words):
    with pytest.raises(ValueError, match="holds a run of other options"):
        trained(recorded, *words)


def test_a_table_names_the_commits_of_the_runs_of_each_row_and_keeps_rows_of_other_runs(recorded, tmp_path):
    run, table = read_run(recorded), tmp_path / "table.csv"
    one, other = (run._replace(environment={**run.environment, "commit": commit * 8}) for commit in ("a1", "b2"))
    assert provenance([one, other, one]).endswith("commit a1a1a1a1 and commit b2b2b2b2")

    def rows():
        with table.open(newline="") as file:
            return list(csv.DictReader(file))

    write_table(table, [({"a": 1, "b": 2}, [one]), ({"a": 3}, [one, other])], "a")
    first = [{"a": "1", "b": "2", "measured": provenance([one])}]
    assert rows() == [*first, {"a": "3", "b": "", "measured": provenance([one, other])}]
    write_table(table, [({"a": 3, "c": 4}, [other])], "a")
    new = {"a": "3", "b": "", "c": "4", "measured": provenance([other])}
    assert rows() == [{**first[0], "c": ""}, new]
    write_table(table, [({"c": 5}, [other])])
    assert rows() == [{"c": "5", "measured": provenance([other])}]
