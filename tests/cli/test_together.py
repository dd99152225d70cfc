"""Runs that differ in numbers alone are trained by one program, with the results of each alone."""

import errno
import shutil

import jax
import numpy as np
import pytest

from fa_jax import training
from fa_jax.checks import BadOption
from fa_jax.cli import together
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.cli.main import main
from fa_jax.records import locks
from fa_jax.records.checkpoints import Checkpoints
from fa_jax.records.reader import find_runs, read_run
from fa_jax.records.writer import Writer
from fa_jax.training.memory import TooLittleMemory
from fa_jax.training.progress import Progress
from fa_jax.training.record import Record, Request, Stopped
from fa_jax.training.run import run_together
from tests.conftest import assert_same_runs

SMALL = ["task=linear", "task.train_examples=60", "task.test_examples=20"]
SHORT = [*SMALL, "evaluations=2", "seeds=2", "probe=0"]


def runs_of(*words):
    return compose(parse(["--multirun", *words])).runs


def groups(*words):
    """The runs that are trained together, and the names of their numbers."""
    return [(alike.indices, sorted(alike.numbers[0])) for alike in together.alike(runs_of(*SHORT, *words))]


def assert_close_runs(folder, other):
    """Asserts that two runs have the same metrics, up to what differently compiled sums make of rounding."""
    ours, theirs = read_run(folder), read_run(other)
    assert list(ours.metrics) == list(theirs.metrics)
    for name, values in ours.metrics.items():
        near_zero = 1e-3 if "angle" in name else 0  # degrees: an angle of 0 is one of rounding errors
        np.testing.assert_allclose(values, theirs.metrics[name], rtol=2e-6, atol=near_zero, err_msg=name)


@pytest.mark.parametrize(
    ("rule", "swept"),
    [
        pytest.param(
            "fa", ["feedback.scale=0.3,0.5", "architecture.init_scale=0.1,0.2", "probe=0"], marks=pytest.mark.slow
        ),
        (
            "dfa",
            ["architecture.dropout=0.1,0.2", "architecture.density=0.5,0.9", "feedback.density=0.5,0.9"],
        ),
        pytest.param("fa", ["optimizer.learning_rate=0.001,0.003", "feedback.scale=0.3,0.5"], marks=pytest.mark.slow),
        pytest.param(
            "node_perturbation",
            ["optimizer=momentum", "optimizer.scaling.decay=0.5,0.9", "rule.sigma=0.1,0.2"],
            marks=pytest.mark.slow,
        ),
        pytest.param("kolen_pollack", ["optimizer.weight_decay=0.1,0.2"], marks=pytest.mark.slow),
        pytest.param(
            "fa", ["task=digits", "optimizer.weight_decay=0.001,0.01", "adversarial=0.05,0.1"], marks=pytest.mark.slow
        ),
    ],
)
def test_swept_numbers_give_the_results_of_runs_of_their_own(rule, swept, folder):
    small = ["epochs=0.5"] if "task=digits" in swept else SMALL
    words = [*small, "evaluations=2", "seeds=2", f"rule={rule}", *swept]
    runs = runs_of(*words)
    assert [len(alike.indices) for alike in together.alike(runs)] == [len(runs)]
    assert main(["--multirun", *words, "hydra.sweep.dir=sweep"]) == 0
    last = runs[-1]
    assert main([*last.overrides, "hydra.run.dir=alone"]) == 0
    assert_close_runs(folder / "sweep" / last.folder, folder / "alone")


def test_a_number_and_null_have_programs_of_their_own():
    assert groups("architecture.biases=true", "architecture.bias_scale=null,0.1,0.2") == [
        ([0], []),
        ([1, 2], ["architecture.bias_scale"]),
    ]


def test_options_that_decide_what_a_program_does_have_programs_of_their_own():
    assert groups("rule=fa,bp", "optimizer.learning_rate=0.1,0.2") == [
        ([0, 1], ["optimizer.learning_rate"]),
        ([2, 3], ["optimizer.learning_rate"]),
    ]
    assert groups("architecture.hidden=[5],[6]") == [([0], []), ([1], [])]
    assert groups("rule=product_feedback_alignment", "rule.density=0.1,0.2") == [([0], []), ([1], [])]
    assert groups("batch_size=1,2") == [([0], []), ([1], [])]


def test_what_stands_for_nothing_has_a_program_of_its_own_and_whole_numbers_go_with_fractions():
    assert groups("architecture.density=0.5,1,0.9") == [([0, 2], ["architecture.density"]), ([1], [])]
    assert groups("optimizer.weight_decay=0,0.1,1") == [([0], []), ([1, 2], ["optimizer.weight_decay"])]


def test_rates_are_taken_as_arguments_without_a_trace_of_the_evaluation_which_uses_none(monkeypatch):
    def raising(*_):
        raise ValueError("on purpose")

    monkeypatch.setattr("fa_jax.training.loop.train_metrics", raising)
    assert groups("optimizer.learning_rate=0.1,0.2") == [([0, 1], ["optimizer.learning_rate"])]
    assert groups("rule=fa", "feedback.scale=0.1,0.2") == [([0], []), ([1], [])]


def test_only_so_many_runs_as_fit_are_trained_at_once(monkeypatch):
    monkeypatch.setattr(together, "MOST", 2)
    assert [indices for indices, _ in groups("optimizer.learning_rate=0.1,0.2,0.3")] == [[0, 1], [2]]
    monkeypatch.undo()
    monkeypatch.setattr(together, "_at_once", lambda job: 2)
    assert [indices for indices, _ in groups("optimizer.learning_rate=0.1,0.2,0.3")] == [[0, 1], [2]]


def test_what_ends_one_run_leaves_the_others(folder):
    runs = runs_of(*SHORT, "rule=fa", "optimizer.learning_rate=0.001,0.002,1e6")
    (alike,) = together.alike(runs)

    def stop(step, metrics):
        raise Stopped("enough")

    requests = [
        Request(run.job, run.config, folder / str(i), numbers=numbers, watch=stop if i == 0 else None)
        for i, (run, numbers) in enumerate(zip(runs, alike.numbers, strict=True))
    ]
    stopped, finished, diverged = run_together(requests)
    assert isinstance(stopped, Stopped)
    assert finished["diverged_seeds"] == []
    assert len(diverged["diverged_seeds"]) == 2
    assert [read_run(folder / str(i)).status["status"] for i in range(3)] == ["interrupted", "finished", "diverged"]


def requests_of_two(folder, *words, **options):
    """Requests for two runs that differ in a number, in folders `0` and `1`; words of both, options of the first."""
    runs = runs_of(*SHORT, *words, "rule=fa", "optimizer.learning_rate=0.001,0.002")
    (alike,) = together.alike(runs)
    return [
        Request(run.job, run.config, folder / str(i), numbers=numbers, **(options if i == 0 else {}))
        for i, (run, numbers) in enumerate(zip(runs, alike.numbers, strict=True))
    ]


@pytest.mark.parametrize(("files", "sizes"), [(24, [1, 1, 1]), (64 + 2 * 6, [2, 1]), (256, [3])])
def test_as_many_runs_are_trained_together_as_a_process_may_have_files(monkeypatch, files, sizes):
    monkeypatch.setattr(together, "_open_files", lambda: files)
    runs = runs_of(*SHORT, "rule=fa", "optimizer.learning_rate=0.001,0.002,0.003")
    assert [len(alike.indices) for alike in together.alike(runs)] == sizes


def test_runs_whose_program_does_not_fit_into_memory_are_trained_in_halves(folder, monkeypatch):
    def require(needed, device, seeds, what):
        if seeds > 2:
            raise TooLittleMemory("too little")

    monkeypatch.setattr(training.compile, "require_memory", require)
    assert [outcome["seeds"] for outcome in run_together(requests_of_two(folder))] == [[0, 1], [0, 1]]


def test_memory_that_runs_out_in_training_is_told_in_one_line_and_recorded(folder):
    message = "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"

    def run_out(step, metrics):
        raise jax.errors.JaxRuntimeError(f"{message}\nand many lines more")

    failed, finished = run_together(requests_of_two(folder, watch=run_out))
    assert isinstance(failed, BadOption)
    assert str(failed) == f"{message}; a smaller seeds_per_batch needs less memory"
    status = read_run(folder / "0").status
    assert (status["status"], status["reason"]) == ("failed", f"JaxRuntimeError: {message}")
    assert finished["seeds"] == [0, 1]


def test_the_seed_steps_of_all_runs_and_the_examples_of_each_are_counted(folder):
    advanced, shown, expected = [], [], []

    class Kept(Progress):
        def __init__(self, seed_steps, *arguments, **options):
            super().__init__(seed_steps, *arguments, **options)
            expected.append(seed_steps)

        def advance(self, seed_steps, examples):
            super().advance(seed_steps, examples)
            advanced.append((seed_steps, examples))

        def show(self, examples, runs):
            super().show(examples, runs)
            shown.append((examples, len(runs)))

    requests = requests_of_two(folder, "batch_size=4")
    costs = [outcome["cost"] for outcome in run_together(requests, Kept)]
    job = requests[0].job
    size, steps = 4, job.evaluations
    assert shown == [(size * step, 2) for step in steps]
    assert [sum(seed_steps for seed_steps, _ in advanced)] == expected == [2 * 2 * steps[-1]]
    done = np.cumsum([seed_steps for seed_steps, _ in advanced]) // 4  # two runs of two seeds
    assert [examples for _, examples in advanced] == [size * step for step in done]
    counted = [cost["seed_steps_per_second"] * cost["train_seconds"] for cost in costs]
    np.testing.assert_allclose(counted, 2 * steps[-1], rtol=1e-6)


def test_a_run_whose_folder_is_deleted_leaves_the_others(folder):
    def delete(step, metrics):
        shutil.rmtree(folder / "0")
        raise Stopped("deleted")

    deleted, finished = run_together(requests_of_two(folder, watch=delete))
    assert isinstance(deleted, Stopped)
    assert finished["seeds"] == [0, 1]


def test_a_full_disk_ends_the_checkpoints_too_and_deletes_none(folder, monkeypatch):
    """A thread that waits for one being written would keep the process for ever."""
    closed = []

    def fail(writer, *, close=Writer.close):
        close(writer)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Writer, "close", fail)
    monkeypatch.setattr(Checkpoints, "close", lambda checkpoints, *, delete: closed.append(delete))
    outcomes = run_together(requests_of_two(folder))
    assert [outcome.errno for outcome in outcomes] == [errno.ENOSPC] * 2
    assert closed == [False, False]
    assert read_run(folder / "0").status["status"] == "failed"


def test_an_interrupt_while_runs_are_started_is_recorded(folder, monkeypatch):
    def acquire(path, *, really=locks.acquire):
        if path.name == "1":
            raise KeyboardInterrupt
        return really(path)

    monkeypatch.setattr(locks, "acquire", acquire)
    with pytest.raises(KeyboardInterrupt):
        run_together(requests_of_two(folder))
    assert read_run(folder / "0").status["status"] == "interrupted"
    assert not (folder / "0" / ".lock").exists()


def test_a_sweep_that_was_interrupted_within_a_program_resumes_bit_for_bit(folder, monkeypatch):
    words = ["--multirun", *SHORT, "rule=fa", "optimizer.learning_rate=0.001,0.002", "evaluations=4"]
    words += ["checkpoint_every=0"]
    assert main([*words, "hydra.sweep.dir=whole"]) == 0

    def interrupt(record, seeds, step, metrics, *, evaluation=Record.evaluation):
        evaluation(record, seeds, step, metrics)
        if step > 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Record, "evaluation", interrupt)
        assert main([*words, "hydra.sweep.dir=cut"]) == 130
    assert [run.status["status"] for run in find_runs(folder / "cut")] == ["interrupted"] * 2
    assert main(["resume=cut"]) == 0
    for name in ("0_fa", "1_fa"):
        assert_same_runs(folder / "whole" / name, folder / "cut" / name)
