"""Tables with provenance."""

import csv
import dataclasses

from experiments.common import provenance, read_rows, write_table
from fa_jax.records.reader import read_run
from fa_jax.records.writer import Writer


def record(folder, status):
    """Records a run of two overrides."""
    config = {"choices": {"rule": "fa", "task": "linear"}, "seeds": 2, "epochs": 1, "spacing": "linear"}
    writer = Writer(folder, config, command=["fa-jax", "rule=fa", "seeds=2", f"hydra.run.dir={folder}"])
    writer.status(status)
    writer.close()
    return folder


def test_table_has_the_provenance_of_each_row_and_keeps_rows_with_other_keys(tmp_path):
    run, table = read_run(record(tmp_path / "run", "finished")), tmp_path / "table.csv"
    first, second = (
        dataclasses.replace(run, environment={**run.environment, "commit": commit * 8}) for commit in ("a1", "b2")
    )
    assert provenance([first, second, first]).endswith("commit a1a1a1a1 and commit b2b2b2b2")

    def rows():
        with table.open(newline="") as file:
            return list(csv.DictReader(file))

    write_table(table, [({"a": 1, "b": 2}, [first]), ({"a": 3}, [first, second])], "a")
    kept = {"a": "1", "b": "2", "measured": provenance([first])}
    assert rows() == [kept, {"a": "3", "b": "", "measured": provenance([first, second])}]
    write_table(table, [({"a": 3, "c": 4}, [second])], "a")
    assert rows() == [{**kept, "c": ""}, {"a": "3", "b": "", "c": "4", "measured": provenance([second])}]
    write_table(table, [({"c": 5}, [second])])
    assert rows() == [{"c": "5", "measured": provenance([second])}]


def test_comments_of_a_table_are_not_read(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("# where it is from\na,b\n1,2\n")
    assert read_rows(table) == [{"a": "1", "b": "2"}]
    assert read_rows(tmp_path / "missing.csv") == []
