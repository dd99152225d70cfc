"""What becomes of output that cannot be shown, of a closed terminal, of a second signal, and of too little memory."""

import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from fa_jax.checks import BadOption
from fa_jax.cli.single import logged
from fa_jax.cli.terminal import end_if_orbax_waits, tolerant_output
from fa_jax.training import memory
from tests.conftest import wait_until

SHORT = ["task.train_examples=40", "evaluations=2", "seeds=2", "probe=0", "checkpoint=false", "hydra.run.dir=run"]
LONG = ["task=digits", "seeds=2", "epochs=100000", "evaluations=4", "probe=0", "hydra.run.dir=run"]


def started(words, **options):
    return subprocess.Popen([sys.executable, "-m", "fa_jax", *words], **options)


def status(folder):
    path = folder / "run" / "status.json"
    return json.loads(path.read_text())["status"] if path.exists() else None


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")  # noqa: PTH110
def test_output_to_a_full_disk_does_not_end_training(folder):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert started(SHORT, stdout=full, stderr=full).wait() == 0
    assert status(folder) == "finished"


def test_output_without_a_reader_is_dropped(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(BrokenPipeError):
            print("alone", flush=True)
        with tolerant_output():
            print("tolerated", flush=True)
            print("dropped", flush=True)


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_training(folder):
    process = started(SHORT, stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.wait() == 0
    assert status(folder) == "finished"


def test_a_closed_terminal_does_not_end_training_and_sigterm_does(folder):
    process = started(LONG, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: status(folder) == "running", process=process)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.terminate()
    assert process.wait() == 130
    assert status(folder) == "interrupted"


ASLEEP = """
import hashlib
import signal
from fa_jax.cli import terminal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background of a shell
terminal.GRACE = 0.2
with terminal.second_signal_ends():
    print("asleep", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # outside of Python, which then handles no signal
"""


def test_a_second_signal_ends_a_process_that_python_cannot_interrupt():
    with subprocess.Popen([sys.executable, "-c", ASLEEP], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"asleep\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("available", "advice"), [(1500, "seeds_per_batch=3 fits"), (100, "a smaller network or batch_size needs less")]
)
def test_too_little_memory_is_refused_with_the_seeds_that_fit(monkeypatch, available, advice):
    monkeypatch.setattr(memory, "available_bytes", lambda device: available)
    memory.require_memory(available, None, 4, "training")
    amounts = f"1.86e-06 GiB at once, and {available / 2**30:.3g} GiB are free"
    with pytest.raises(BadOption, match=f"training of 4 seeds needs {amounts}; {advice}"):
        memory.require_memory(2000, None, 4, "training")


def test_free_memory_is_that_of_the_machine_within_the_limit_of_the_process(monkeypatch):
    resource = pytest.importorskip("resource")
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(vms=600))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    cpu = SimpleNamespace(platform="cpu")
    for limit, free in ((resource.RLIM_INFINITY, 1000), (2000, 1000), (1500, 900)):
        monkeypatch.setattr(resource, "getrlimit", lambda of, limit=limit: (limit, resource.RLIM_INFINITY))
        assert memory.available_bytes(cpu) == free


def test_free_memory_of_an_accelerator_is_what_it_says():
    for stats, free in (({"bytes_limit": 1000, "bytes_in_use": 300}, 700), ({}, None), (None, None)):
        device = SimpleNamespace(platform="gpu", memory_stats=lambda stats=stats: stats)
        assert memory.available_bytes(device) == free


def test_a_network_larger_than_memory_is_refused_before_it_is_compiled(folder, refusal):
    line = refusal("rule=fa", "architecture.hidden=[400000,400000]", "seeds=2")
    assert "the state of 2 seeds needs 2.38e+03 GiB" in line


class FullDisk(io.StringIO):
    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_says_nothing_about_the_log(folder, capsys):
    with logged(folder):
        (handler,) = [h for h in logging.getLogger("fa_jax").handlers if isinstance(h, logging.FileHandler)]
        handler.stream.close()
        handler.stream = FullDisk()
        logging.getLogger("fa_jax").warning("lost")
    assert capsys.readouterr().err == ""


def test_a_process_ends_although_a_thread_of_orbax_waits(monkeypatch):
    ended, release = [], threading.Event()
    monkeypatch.setattr("os._exit", ended.append)
    end_if_orbax_waits(2)
    assert ended == []
    waiting = type("Waiting", (threading.Thread,), {"__module__": "orbax.checkpoint.futures"})(target=release.wait)
    waiting.start()
    end_if_orbax_waits(2)
    release.set()
    waiting.join()
    assert ended == [2]
