"""What a command does about its terminal and its machine: dropped output, signals, cores."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0
"""Seconds after a second signal in which the command may still end by itself."""


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Tolerant:
    """A text stream whose errors silence it: its reader is gone, its disk is full, or its terminal is closed."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._silence()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def _silence(self) -> None:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    """While entered, an error of stdout or stderr drops their output and raises nothing."""
    streams = sys.stdout, sys.stderr
    tolerant = [_Tolerant(stream) for stream in streams]
    sys.stdout, sys.stderr = tolerant  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in tolerant:
            stream.flush()
        sys.stdout, sys.stderr = streams


def sigterm_interrupts() -> None:
    """Makes SIGTERM an interrupt, as Ctrl+C is."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def second_signal_ends() -> Iterator[None]:
    """While entered, a second SIGINT or SIGTERM ends the process, also while JAX keeps Python from handling it.

    A closed terminal (SIGHUP) is no reason to end.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN) if hasattr(signal, "SIGHUP") else None
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second_signal, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writing)  # ends the thread
        if hangup is not None:
            signal.signal(signal.SIGHUP, hangup)


def end_if_orbax_waits(code: int) -> None:
    """Ends the process if threads of Orbax would keep it for minutes, as they do after it could not open a file."""
    threads = (thread for thread in threading.enumerate() if not thread.daemon)
    if any(type(thread).__module__.partition(".")[0] == "orbax" for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _end_at_second_signal(reading: int) -> None:
    received, deadline = 0, None
    while True:
        seconds = None if deadline is None else max(0, deadline - time.monotonic())
        if not select.select([reading], [], [], seconds)[0]:
            os.write(2, b"fa-jax: ended by a second signal; what was recorded stays, marked as running\n")
            os._exit(130)
        numbers = os.read(reading, 64)
        if not numbers:  # the command has ended
            os.close(reading)
            return
        received += sum(number in SIGNALS for number in numbers)
        if received >= 2 and deadline is None:
            deadline = time.monotonic() + GRACE
