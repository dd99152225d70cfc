"""Training of what is missing: states of rows, the order, what ends a queue, and that the same command continues."""

import argparse
import shutil
import signal
import types

import pytest

from experiments import queue, training
from experiments.training import CUT_OFF, DONE, NOT_STARTED, RUNNING, UNUSABLE, Row, Training, run_row, state, sweep_row
from fa_jax.checks import BadOption
from fa_jax.records import locks
from fa_jax.records.files import write_json
from fa_jax.records.reader import SWEEP
from tests.experiments.conftest import record


def record_sweep(folder, *statuses):
    """Records a sweep of two runs, of which some have a status."""
    folder.mkdir(parents=True, exist_ok=True)
    overrides = ["rule=fa,bp", f"hydra.sweep.dir={folder}"]
    write_json(folder / SWEEP, {"overrides": overrides, "config_dir": None, "jobs": 2})
    for number, status in enumerate(statuses):
        record(folder / str(number), status)
    return folder


def run_of(folder, seeds=None, hours=1.0):
    return run_row(f"linear/{folder.name}", folder, ["rule=fa"], hours, seeds=seeds, default=2)


def sweep_of(folder):
    return sweep_row(f"linear/{folder.name}", folder, ["rule=fa,bp"], None, seeds=None)


def only(row):
    (training,) = row.trainings()
    return training


class Processes:
    """Stands for `subprocess`: each process has an effect on the folder that its last argument names."""

    def __init__(self, effect, code=0):
        self.started, self.environments, self.stopped, self.effect, self.code = [], [], [], effect, code

    def Popen(self, command, env, **_):  # noqa: N802 - as in subprocess
        self.started.append(command[3:])
        self.environments.append(env)
        folder = next(word for word in command if word.startswith(("resume=", "hydra."))).partition("=")[2]
        self.effect(training.Path(folder))
        process = types.SimpleNamespace(returncode=self.code, pid=0, poll=lambda: self.code, wait=lambda: self.code)
        process.send_signal = lambda number: self.stopped.append((folder, number))
        return process


@pytest.fixture
def processes(monkeypatch):
    """Returns a function that replaces processes by an effect on their folders."""

    def replace(effect=lambda folder: record(folder, "finished"), code=0):
        replaced = Processes(effect, code)
        monkeypatch.setattr(training, "subprocess", replaced)
        monkeypatch.setattr(training, "POLL", 0.0)
        return replaced

    return replace


@pytest.mark.parametrize(
    ("status", "kind"),
    [("finished", DONE), ("diverged", DONE), ("running", CUT_OFF), ("interrupted", CUT_OFF), ("failed", CUT_OFF)],
)
def test_state_of_a_run_and_of_a_sweep(tmp_path, status, kind):
    assert state(only(run_of(record(tmp_path / "run", status)))).kind == kind
    assert state(only(sweep_of(record_sweep(tmp_path / "sweep", "finished", status)))).kind == kind


def test_state_of_what_is_missing_or_half_made(tmp_path):
    assert state(only(run_of(tmp_path / "run"))).kind == NOT_STARTED
    assert state(only(sweep_of(tmp_path / "sweep"))).kind == NOT_STARTED
    half = state(only(sweep_of(record_sweep(tmp_path / "half", "finished"))))
    assert (half.kind, half.share) == (CUT_OFF, 0.5)
    lock = locks.acquire(record(tmp_path / "held", "running"))
    assert state(only(run_of(tmp_path / "held"))).kind == RUNNING
    locks.release(lock)


def test_what_is_damaged_or_has_other_options_is_unusable(tmp_path):
    folder = record(tmp_path / "run", "finished")
    for other in (Training(folder, ("rule=bp",)), Training(folder, ("rule=fa", "seeds=3")), Training(folder, ())):
        assert "was trained with other options" in state(other).why
    assert state(only(run_of(folder))).kind == state(only(run_of(folder, seeds=2))).kind == DONE
    assert state(Training(folder, ("rule=fa",), ("seeds=9",))).kind == DONE  # a default, not asked for
    for path, row in ((folder / "status.json", run_of(folder)), (record_sweep(tmp_path / "s") / SWEEP, None)):
        path.write_text("{")
        assert state(only(row or sweep_of(path.parent))).kind == UNUSABLE


def test_missing_rows_are_trained_shortest_first_and_others_not_again(tmp_path, processes):
    ran = processes()
    rows = [run_of(tmp_path / name, hours=hours) for name, hours in (("a", 3.0), ("b", None), ("c", 1.0), ("d", 2.0))]
    record(tmp_path / "d", "finished")
    done = []
    assert training.train(rows, finished=done.append) == []
    assert [words[-1] for words in ran.started] == [f"hydra.run.dir={tmp_path / name}" for name in "cab"]
    assert ran.started[0][:-1] == ["rule=fa", "seeds=2"]
    assert [row.name for row in done] == ["linear/c", "linear/a", "linear/b"]
    assert training.train(rows) == []
    assert len(ran.started) == 3


def test_what_was_cut_off_resumes(tmp_path, processes):
    ran = processes(lambda folder: record_sweep(folder, "finished", "finished"))
    training.train([sweep_of(record_sweep(tmp_path / "sweep", "finished", "interrupted")), sweep_of(tmp_path / "new")])
    assert ran.started[0] == [f"resume={tmp_path / 'sweep'}"]
    assert ran.started[1] == ["--multirun", "rule=fa,bp", f"hydra.sweep.dir={tmp_path / 'new'}"]
    training.train([sweep_of(record_sweep(tmp_path / "other", "failed"))], force=True)
    assert ran.started[2] == [f"resume={tmp_path / 'other'}", "force=true"]


@pytest.mark.parametrize(
    ("given", "arguments", "trusted"),
    [
        ({}, ["rule=fa"], None),
        ({}, ["rule=fa", "rule._target_=experiments.own.fa"], "experiments"),
        ({"FA_JAX_TRUST": "mylab"}, ["rule=fa", "rule._target_=experiments.own.fa"], "mylab,experiments"),
    ],
)
def test_functions_of_experiments_are_trusted_where_they_are_called(
    tmp_path, processes, monkeypatch, given, arguments, trusted
):
    monkeypatch.delenv("FA_JAX_TRUST", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    ran = processes()
    training.train([run_row("linear/run", tmp_path / "run", arguments, None, seeds=None, default=2)])
    assert ran.environments[0].get("FA_JAX_TRUST") == trusted


def test_a_row_of_several_trainings_chooses_the_next_by_the_results_of_the_last(tmp_path, processes):
    ran, first = processes(), Training(tmp_path / "first", ("rule=fa",), ("seeds=2",))

    def trainings():
        yield first
        (run,) = first.runs()  # which is there now
        yield Training(tmp_path / f"after_{run.choices['rule']}", ("rule=fa",), ("seeds=2",))

    row = Row("linear/two", tmp_path, trainings)
    assert [run.folder.name for run in training.trained(row)] == ["after_fa"]
    assert len(ran.started) == 2


def test_a_row_that_fails_leaves_the_others_and_is_told(tmp_path, processes):
    ran = processes(lambda folder: record(folder, "failed" if folder.name == "a" else "finished"), code=1)
    problems = training.train([run_of(tmp_path / "a"), run_of(tmp_path / "b")])
    assert len(ran.started) == 2
    assert problems == [f"linear/a: ended with exit code 1; the same command resumes; see {tmp_path / 'a'}"]
    with pytest.raises(SystemExit, match="linear/a: ended with exit code 1"):
        training.trained(run_of(tmp_path / "a"))


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, processes, monkeypatch):
    ran = processes()
    lock = locks.acquire(record(tmp_path / "a", "running"))

    def sleep(_):
        record(tmp_path / "a", "finished")
        locks.release(lock)

    monkeypatch.setattr(training.time, "sleep", sleep)
    assert training.train([run_of(tmp_path / "a")]) == []
    assert ran.started == []


def test_a_full_disk_stops_the_queue_before_and_after_a_training(tmp_path, processes, monkeypatch):
    free = [2**40, 0]
    monkeypatch.setattr(training.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free.pop(0)))
    ran = processes(lambda folder: record(folder, "failed"), code=1)
    with pytest.raises(SystemExit, match=r"1024 MiB are free .* the same command continues"):
        training.train([run_of(tmp_path / "a"), run_of(tmp_path / "b")])
    assert len(ran.started) == 1
    monkeypatch.setattr(training.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(SystemExit):
        training.train([run_of(tmp_path / "b")])
    assert len(ran.started) == 1


def test_an_interrupt_stops_the_queue_and_is_passed_on_once(tmp_path, processes, monkeypatch):
    ran = processes(lambda folder: record(folder, "running"), code=None)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        training.train([run_of(tmp_path / "a"), run_of(tmp_path / "b")])
    assert ran.stopped == [(str(tmp_path / "a"), signal.SIGINT)]


def test_a_training_that_its_user_stopped_stops_the_queue(tmp_path, processes):
    ran = processes(lambda folder: record(folder, "interrupted"), code=130)
    with pytest.raises(KeyboardInterrupt):
        training.train([run_of(tmp_path / "a"), run_of(tmp_path / "b")])
    assert len(ran.started) == 1


def test_rows_are_selected_by_name_by_folder_and_by_pattern(tmp_path):
    rows = [Row(name, tmp_path, tuple) for name in ("x/a", "x/b/1_al", "x/b/1_bp", "y/a")]

    def names(*given):
        return [row.name for row in queue.select(rows, given)]

    assert names("x/b", "x/a", "x/b/1_al") == ["x/b/1_al", "x/b/1_bp", "x/a"]
    assert names("*/a") == ["x/a", "y/a"]
    with pytest.raises(BadOption, match=r"no row is named 'x/b/1_all'; did you mean 'x/b/1_al'\?"):
        names("x/b/1_all")
    with pytest.raises(BadOption, match=r"no row is named 'zzzzzz'; rows lie in x, y$"):
        names("zzzzzz")


def test_status_has_the_hours_that_are_left(tmp_path):
    rows = [
        run_of(record(tmp_path / "a", "finished"), hours=5.0),
        run_of(tmp_path / "b", hours=2.5),
        sweep_of(tmp_path),
    ]
    *_, last = queue.status(rows).splitlines()
    assert last == "1 done, 2 not started; 2.5 hours left on two cores of a CPU, and 1 rows of unknown length"


def test_every_row_of_every_experiment_has_a_name_and_a_folder_of_its_own():
    rows = [row for module in queue.experiments().values() for row in module.rows()]
    assert len({row.name for row in rows}) == len({row.folder for row in rows}) == len(rows) > 500
    assert all(str(row.folder).endswith(row.name) for row in rows)
    of_one_training = "hinton2022", "kao2019", "lillicrap2014", "nokland2016", "yagi2022"
    more = [row for name in of_one_training for row in queue.experiments()[name].rows(7)]
    assert all("seeds=7" in training.arguments for row in more for training in row.trainings())


def test_missing_data_are_named_with_the_command_that_prepares_them_before_anything_is_trained(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (row,) = queue.select(queue.experiments()["hinton2022"].rows(), ["hinton2022/full"])
    monkeypatch.chdir(tmp_path)
    assert "must hold mnist" in queue.refusal(row)
    assert "tfds.data_source('mnist')" in queue.refusal(row)
    wrong = run_row("linear/x", tmp_path / "x", ["task=linear", "rule=faa"], None, seeds=None)
    assert "did you mean 'fa'" in queue.refusal(wrong)


def test_committed_results_are_replaced_only_if_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, out = tmp_path / "experiments" / "kao2019", tmp_path / "mine"
    parser = argparse.ArgumentParser()
    queue.add_output_options(parser)
    folders = [queue.results_folder(parser.parse_args(words), here) for words in ([], ["--out", "mine"], ["--update"])]
    assert [folder.resolve() for folder in folders] == [tmp_path / "outputs" / "kao2019" / "results", out, here]
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", "mine", "--update"])
