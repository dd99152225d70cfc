"""Several processes train one run, and the loss of one costs no more than the time since the last checkpoint."""

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
from fa_jax.cli.main import main
from fa_jax.records.reader import read_run
from fa_jax.training import distributed as processes
from tests.cli.test_cli import folder  # noqa: F401
from tests.cli.test_resume import same

SHORT = ["task=digits", "rule=dfa", "architecture.dropout=0.3", "epochs=1", "evaluations=2", "probe=10"]
LONG = ["task=digits", "rule=dfa", "seeds=2", "epochs=20000", "evaluations=2", "probe=0", "checkpoint_every=0.2"]


def free_port():
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def begin(many, *words):
    """Starts processes that train together, each with a device of its own."""
    cores = sorted(os.sched_getaffinity(0))
    one_device = "import os, sys; os.sched_setaffinity(0, [int(sys.argv.pop(1))]); "
    one_device += "from fa_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    own = [f"processes={many}", f"coordinator=127.0.0.1:{free_port()}"]
    return [
        subprocess.Popen(
            [sys.executable, "-c", one_device, str(cores[i % len(cores)]), *words, *own, f"process={i}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(many)
    ]


def ends(started):
    """Waits for processes; returns exit code, stdout and stderr of each."""
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


@pytest.mark.parametrize(
    ("many", "words"),
    [
        (2, ["seeds=2"]),
        (2, ["seeds=3", "batch_devices=2"]),
        (4, ["seeds=4", "rule=kolen_pollack", "optimizer=adam"]),
    ],
)
@pytest.mark.slow
def test_several_processes_have_the_numbers_of_one(folder, many, words):  # noqa: F811
    assert main([*SHORT, *words, "hydra.run.dir=alone"]) == 0
    first, *others = ends(begin(many, *SHORT, *words, "hydra.run.dir=together"))
    assert [code for code, *_ in (first, *others)] == [0] * many
    assert "recorded in together" in first[1]
    assert all("%" not in stdout for _, stdout, _ in others)
    alike(folder, "alone", "together", exactly=many <= len(jax.devices()))
    assert sorted(path.name for path in folder.iterdir()) == ["alone", "together"]


def alike(folder, one, other, exactly):  # noqa: F811
    """The same run, bit for bit if no device had more seeds in one than in the other, which rounds sums differently."""
    if exactly:
        same(folder / one, folder / other)
    else:
        columns = [read_run(folder / name).metrics for name in (one, other)]
        assert columns[0].keys() == columns[1].keys()
        for name, values in columns[0].items():
            np.testing.assert_allclose(columns[1][name], values, rtol=1e-4, atol=1e-6)


def lose(folder, many, victim):  # noqa: F811
    """Kills one of several processes once a checkpoint is there; returns the ends of the others."""
    started = begin(many, *LONG, f"seeds={many}", "hydra.run.dir=cut")
    until = time.monotonic() + 120
    while len(list(folder.glob("cut/resume/*.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    started[victim].send_signal(signal.SIGKILL)
    found = ends(started)
    assert found.pop(victim)[0] == -signal.SIGKILL
    return found


@pytest.mark.parametrize(("many", "victim"), [(2, 1), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_where_one_is_killed_the_others_say_so_and_the_run_goes_on_later(folder, many, victim):  # noqa: F811
    for code, _, stderr in lose(folder, many, victim):
        assert code == 1
        assert "fa-jax: another process of this run is gone" in stderr
        assert "Traceback" not in stderr
    status = read_run(folder / "cut").status
    assert status["status"] == "interrupted"
    assert "another process of this run is gone" in status["reason"]
    listing = max(folder.glob("cut/resume/*.json"))
    reached = int(listing.stem.partition("_")[2])
    assert reached > 0
    # To its end, which is brought closer.
    config = folder / "cut" / "config.yaml"
    config.write_text(re.sub("epochs: 20000", f"epochs: {reached // 44 + 400}", config.read_text()))
    codes = [code for code, *_ in ends(begin(2, "resume=cut"))]
    assert codes == [0, 0]
    assert "begins again" not in (folder / "cut" / "run.log").read_text()
    assert main([*LONG, f"seeds={many}", f"epochs={reached // 44 + 400}", "hydra.run.dir=whole"]) == 0
    # Two processes went on with what `many` began.
    alike(folder, "whole", "cut", exactly=many == 2 <= len(jax.devices()))


@pytest.mark.slow
def test_where_the_first_is_killed_the_others_end_too(folder):  # noqa: F811
    begun = time.monotonic()
    ((code, _, stderr),) = lose(folder, 2, 0)
    assert code != 0
    assert "another" in stderr  # in our words or in JAX's, whichever is quicker
    assert time.monotonic() - begun < 120
    assert json.loads((folder / "cut" / "status.json").read_text())["status"] == "running"
    assert main(["status", "cut"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["process=0"], "process needs processes"),
        (["processes=2", "process=0"], "processes=2 needs coordinator too"),
        (["processes=auto", "process=0"], "processes=auto finds out process and coordinator by itself"),
        (["processes=two", "process=0", "coordinator=a:1"], "processes must be a whole number; got 'two'"),
        (["processes=2", "process=2", "coordinator=a:1"], "process must be less than processes, which is 2; got 2"),
        (["processes=2", "process=1", "coordinator=a"], "coordinator must be HOST:PORT"),
        (["processes=2", "process=1", "coordinator=a:99999"], "coordinator must be HOST:PORT"),
    ],
)
def test_mistakes_cost_one_line(words, said, capsys):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_where_the_first_process_does_not_come_it_costs_one_line(monkeypatch, capsys):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    assert main(["processes=2", "process=1", f"coordinator=127.0.0.1:{free_port()}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the first process was not to be reached within 0.5 s" in line


def devices(*counts):
    return [SimpleNamespace(process_index=i, id=n) for i, count in enumerate(counts) for n in range(count)]


@pytest.mark.parametrize(
    ("counts", "seeds", "batch_devices", "used"),
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
def test_seeds_are_shared_out_evenly_and_every_process_has_some(counts, seeds, batch_devices, used):
    found = processes.shared_out(devices(*counts), seeds, batch_devices)
    assert [device.process_index for device in found] == used


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(BadOption, match="3 at a time, with batch_devices=1, cannot be shared evenly by 2 processes"):
        processes.shared_out(devices(1, 1), 3, 1)


def test_what_the_others_have_must_be_what_the_first_has(monkeypatch):
    processes.check_same("options", [{"a": 1}])
    monkeypatch.setattr(processes, "several", lambda: True)
    first = json.dumps([{"a": 1, "b": {"c": 0.1}}], indent=0).splitlines()
    monkeypatch.setattr(processes, "told", lambda decide: first)
    processes.check_same("options", [{"a": 1, "b": {"c": 0.1}}])
    with pytest.raises(BadOption, match=r'same options; the first has "c": 0.1, this one "c": 0.2$'):
        processes.check_same("options", [{"a": 1, "b": {"c": 0.2}}])


def test_alone_there_is_nobody_to_ask():
    assert processes.told(lambda: {"a": 1}) == {"a": 1}
    assert processes.is_first()
    assert not processes.several()
