"""Training of missing runs, and tables with provenance."""

import csv
import dataclasses
import types

import pytest

from experiments import common
from experiments.common import provenance, read_rows, trained, trained_sweep, write_table
from fa_jax.records.files import write_json
from fa_jax.records.reader import SWEEP, read_run
from fa_jax.records.writer import Writer


@pytest.fixture
def calls(monkeypatch):
    """The arguments of the Python processes that were started, none of which does anything."""
    return fake_processes(monkeypatch, lambda: None)


def fake_processes(monkeypatch, effect):
    """Replaces processes by an effect; returns a list to which their arguments are added."""
    calls = []

    def run(command, **_):
        calls.append(command[1:])
        effect()

    monkeypatch.setattr(common, "subprocess", types.SimpleNamespace(run=run))
    return calls


def record(folder, status):
    """Records a run of two overrides."""
    config = {"choices": {"rule": "fa", "task": "linear"}, "seeds": 2, "epochs": 1, "spacing": "linear"}
    writer = Writer(folder, config, command=["fa-jax", "rule=fa", "seeds=2", f"hydra.run.dir={folder}"])
    writer.status(status)
    writer.close()
    return folder


def record_sweep(folder, *statuses):
    """Records a sweep of two runs, of which some have a status."""
    folder.mkdir()
    overrides = ["rule=fa,bp", f"hydra.sweep.dir={folder}"]
    write_json(folder / SWEEP, {"overrides": overrides, "config_dir": None, "jobs": 2})
    for number, status in enumerate(statuses):
        record(folder / str(number), status)
    return folder


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_finished_run_is_not_trained_again(tmp_path, calls, status):
    folder = record(tmp_path / "run", status)
    assert trained(folder, "seeds=2", "rule=fa").folder == folder
    assert calls == []


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_unfinished_run_is_resumed(tmp_path, calls, status):
    folder = record(tmp_path / "run", status)
    trained(folder, "rule=fa", "seeds=2")
    assert calls == [["-m", "fa_jax", f"resume={folder}"]]


def test_missing_run_is_trained_in_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    calls = fake_processes(monkeypatch, lambda: record(folder, "finished"))
    assert trained(folder, "rule=fa", "seeds=2").folder == folder
    assert calls == [["-m", "fa_jax", "rule=fa", "seeds=2", f"hydra.run.dir={folder}"]]


@pytest.mark.parametrize("overrides", [("rule=fa", "seeds=3"), ("rule=fa",), ("rule=fa", "seeds=2", "epochs=1")])
def test_run_with_other_options_is_an_error(tmp_path, calls, overrides):
    folder = record(tmp_path / "run", "finished")
    with pytest.raises(ValueError, match="was trained with other options"):
        trained(folder, *overrides)
    assert calls == []


def test_a_run_is_trained_without_compilation_caches_since_its_time_to_compile_is_recorded(tmp_path, monkeypatch):
    environments = []

    def run(command, *, env, **_):
        environments.append(env)
        record(tmp_path / "run", "finished")

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(common, "subprocess", types.SimpleNamespace(run=run))
    trained(tmp_path / "run", "rule=fa", "seeds=2")
    (environment,) = environments
    assert "JAX_COMPILATION_CACHE_DIR" not in environment
    assert environment["FA_JAX_COMPILATION_CACHE"] == "off"


def test_finished_sweep_is_not_trained_again(tmp_path, calls):
    folder = record_sweep(tmp_path / "sweep", "finished", "diverged")
    assert [run.folder for run in trained_sweep(folder, "rule=fa,bp")] == [folder / "0", folder / "1"]
    assert calls == []


@pytest.mark.parametrize("statuses", [(), ("finished",), ("finished", "interrupted")])
def test_unfinished_sweep_is_resumed(tmp_path, calls, statuses):
    folder = record_sweep(tmp_path / "sweep", *statuses)
    trained_sweep(folder, "rule=fa,bp")
    assert calls == [["-m", "fa_jax", f"resume={folder}"]]


def test_missing_sweep_is_trained_in_its_folder(tmp_path, calls):
    folder = tmp_path / "sweep"
    assert trained_sweep(folder, "rule=fa,bp") == []
    assert calls == [["-m", "fa_jax", "--multirun", "rule=fa,bp", f"hydra.sweep.dir={folder}"]]


def test_sweep_with_other_options_is_an_error(tmp_path, calls):
    folder = record_sweep(tmp_path / "sweep", "finished", "finished")
    with pytest.raises(ValueError, match="was trained with other options"):
        trained_sweep(folder, "rule=fa,dfa")
    assert calls == []


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
