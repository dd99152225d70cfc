"""Several processes train one run, and the loss of a process costs only the steps since the last checkpoint."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.cli import processes
from fa_jax.cli.main import main
from fa_jax.records.reader import read_run
from fa_jax.training import distributed
from tests.conftest import assert_same_runs, wait_until

SHORT = ["task=digits", "rule=dfa", "architecture.dropout=0.3", "epochs=1", "evaluations=2", "probe=10"]
LONG = ["task=digits", "rule=dfa", "seeds=2", "epochs=20000", "evaluations=2", "probe=0", "checkpoint_every=0.2"]
ONE_DEVICE = (
    "import os, sys; os.sched_setaffinity(0, [int(sys.argv.pop(1))]); "
    "from fa_jax.initializers import QUICKLY_COMPILED; QUICKLY_COMPILED.clear(); "  # as in the process of the tests
    "from fa_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
"""A program that runs `fa-jax` on one core, so that JAX has one device."""


def unused_port():
    """A port that no process listens at."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def start_processes(count, *words):
    """Starts processes that train together, each with a device of its own."""
    cores = sorted(os.sched_getaffinity(0))
    together = [f"processes={count}", f"coordinator=127.0.0.1:{unused_port()}"]

    def start_process(rank):
        core = str(cores[rank % len(cores)])
        command = [sys.executable, "-c", ONE_DEVICE, core, *words, *together, f"process={rank}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return [start_process(rank) for rank in range(count)]


def wait_for(processes):
    """Waits for processes; returns exit code, stdout and stderr of each."""
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, outputs, strict=True)]


def assert_runs_agree(folder, other, *, exactly):
    """Asserts that two runs agree: bit for bit, or up to the rounding of sums over differently many seeds."""
    if exactly:
        assert_same_runs(folder, other)
        return
    columns, other_columns = (read_run(path).metrics for path in (folder, other))
    assert columns.keys() == other_columns.keys()
    for name, values in columns.items():
        np.testing.assert_allclose(other_columns[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (2, ["seeds=2"]),
        (2, ["seeds=3", "batch_devices=2"]),
        (4, ["seeds=4", "rule=kolen_pollack", "optimizer=adam"]),
    ],
)
@pytest.mark.slow
def test_several_processes_compute_the_same_run_as_one_and_only_process_0_records(folder, count, words):
    assert main([*SHORT, *words, "hydra.run.dir=single"]) == 0
    results = wait_for(start_processes(count, *SHORT, *words, "hydra.run.dir=distributed"))
    assert [code for code, *_ in results] == [0] * count
    (_, main_stdout, _), *others = results
    assert "recorded in distributed" in main_stdout
    assert all("%" not in stdout for _, stdout, _ in others)
    # If this process has fewer devices than there were processes, its devices train more seeds each.
    assert_runs_agree(folder / "single", folder / "distributed", exactly=count <= len(jax.devices()))
    assert sorted(path.name for path in folder.iterdir()) == ["distributed", "single"]


def kill_one_process(folder, count, rank):
    """Starts processes, kills one after a checkpoint, and returns the results of the others."""
    processes = start_processes(count, *LONG, f"seeds={count}", "hydra.run.dir=cut")
    wait_until(lambda: len(list(folder.glob("cut/resume/*.json"))) >= 2)
    processes[rank].send_signal(signal.SIGKILL)
    results = wait_for(processes)
    assert results.pop(rank)[0] == -signal.SIGKILL
    return results


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rank"), [(2, 1), (4, 2)])
def test_after_the_kill_of_a_process_the_others_end_with_one_line_and_the_run_can_be_resumed(folder, count, rank):
    for code, _, stderr in kill_one_process(folder, count, rank):
        assert code == 1
        assert "fa-jax: another process of this run is lost" in stderr
        assert "Traceback" not in stderr
    status = read_run(folder / "cut").status
    assert status["status"] == "interrupted"
    assert "another process of this run is lost" in status["reason"]
    manifest = max(folder.glob("cut/resume/*.json"))
    checkpoint_step = int(manifest.stem.partition("_")[2])
    assert checkpoint_step > 0
    # The resumed run shall end soon after the checkpoint.
    config, epochs = folder / "cut" / "config.yaml", checkpoint_step // 44 + 400
    config.write_text(re.sub("epochs: 20000", f"epochs: {epochs}", config.read_text()))
    assert [code for code, *_ in wait_for(start_processes(2, "resume=cut"))] == [0, 0]
    assert "starts again" not in (folder / "cut" / "run.log").read_text()
    assert main([*LONG, f"seeds={count}", f"epochs={epochs}", "hydra.run.dir=whole"]) == 0
    # Two processes resumed the run of `count`.
    assert_runs_agree(folder / "whole", folder / "cut", exactly=count == 2 <= len(jax.devices()))


@pytest.mark.slow
def test_after_the_kill_of_process_0_the_others_end(folder):
    began = time.monotonic()
    ((code, _, stderr),) = kill_one_process(folder, 2, 0)
    assert code != 0
    assert "another" in stderr  # the message is ours or that of JAX, whichever notices first
    assert time.monotonic() - began < 120
    assert json.loads((folder / "cut" / "status.json").read_text())["status"] == "running"
    assert main(["status", "cut"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["process=0"], "process needs processes"),
        (["processes=2", "process=0"], "processes=2 needs coordinator too"),
        (["processes=auto", "process=0"], "processes=auto finds process and coordinator itself"),
        (
            ["processes=two", "process=0", "coordinator=a:1"],
            "processes must be an integer of at least 0; got 'two'",
        ),
        (["processes=2", "process=2", "coordinator=a:1"], "process must be less than processes, which is 2; got 2"),
        (["processes=2", "process=1", "coordinator=a"], "coordinator must be HOST:PORT"),
        (["processes=2", "process=1", "coordinator=a:99999"], "coordinator must be HOST:PORT"),
    ],
)
def test_invalid_options_are_refused_in_one_line(words, message, capsys):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fa-jax: {message}")


def test_an_unreachable_process_0_is_reported_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(processes, "TIMEOUT", 0.5)
    assert main(["processes=2", "process=1", f"coordinator=127.0.0.1:{unused_port()}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "process 0 could not be reached within 0.5 s" in line


def fake_devices(*counts):
    """Devices of several processes; the counts are those of each."""
    return [SimpleNamespace(process_index=rank, id=i) for rank, count in enumerate(counts) for i in range(count)]


@pytest.mark.parametrize(
    ("counts", "seeds", "batch_devices", "ranks"),
    [
        ((4,), 6, 1, [0, 0, 0]),
        ((4,), 5, 2, [0, 0]),
        ((2, 2), 4, 1, [0, 0, 1, 1]),
        ((2, 2), 6, 1, [0, 1]),
        ((2, 2), 3, 2, [0, 1]),
        ((1, 1), 1, 2, [0, 1]),
        ((4, 2), 8, 1, [0, 0, 1, 1]),
    ],
)
def test_seeds_are_shared_evenly_by_the_devices_of_every_process(counts, seeds, batch_devices, ranks):
    devices = distributed.devices_for(fake_devices(*counts), seeds, batch_devices)
    assert [device.process_index for device in devices] == ranks


def test_seeds_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(BadOption, match="3 at a time, with batch_devices=1, cannot be shared evenly by 2 processes"):
        distributed.devices_for(fake_devices(1, 1), 3, 1)


def test_processes_with_different_options_are_refused(monkeypatch):
    distributed.check_same("options", [{"a": 1}])
    monkeypatch.setattr(distributed, "active", lambda: True)
    options_of_process_0 = json.dumps([{"a": 1, "b": {"c": 0.1}}], indent=0).splitlines()
    monkeypatch.setattr(distributed, "broadcast", lambda decide: options_of_process_0)
    distributed.check_same("options", [{"a": 1, "b": {"c": 0.1}}])
    with pytest.raises(BadOption, match=r'same options; process 0 has "c": 0.1, this one "c": 0.2$'):
        distributed.check_same("options", [{"a": 1, "b": {"c": 0.2}}])


def test_with_one_process_broadcast_returns_the_local_result():
    assert distributed.broadcast(lambda: {"a": 1}) == {"a": 1}
    assert distributed.is_main()
    assert not distributed.active()
