"""Several processes, on one machine or on many, that train one run together by `jax.distributed`.

Each is started with the same words, and all devices of all of them share the seeds, or the batches. What hangs on a
clock, a folder or a signal is decided by the first process and told to the others; it alone records. Where there is but
one process, everything here is as good as not there.
"""

import contextlib
import io
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from fa_jax.checks import BadOption
from fa_jax.core import PyTree

T = TypeVar("T")
OPTIONS = ("processes", "process", "coordinator")
PATIENCE = 60
"""Seconds in which all processes have to be there."""
LINGER = 2
"""Seconds that the first process, to which the others are connected, ends after them."""
MESSAGE = 2**14
"""Bytes that are sent at once where something is told."""
SIGNS = ("gloo", "nccl", "connection", "unavailable", "deadline", "heartbeat", "coordination")
"""Words in the errors of a transfer between processes."""


class Gone(BaseException):
    """Raised where a run cannot go on since another process does not answer; its one line says what can be done.

    Like an interrupt it is no `Exception`, since nobody on its way can mend it.
    """


@contextlib.contextmanager
def joined(words: Mapping[str, str]) -> Iterator[None]:
    """Joins the processes of a run, before JAX is used for anything else.

    While entered, the others print nothing but errors, and the loss of one process ends all, with one line and exit
    code 1.

    Args:
      words: option -> value of those in `OPTIONS` that were given: `processes` alone as `auto`, where JAX knows the
        cluster (Slurm, Open MPI, Kubernetes, TPU pods), or how many there are, with `process`, this one's number from
        0, and `coordinator`, HOST:PORT of the first, the same for all.

    Raises:
      BadOption: if they are not as they should be, or the first process cannot be reached. Where it is the others that
        do not come, JAX itself ends the first.
    """
    jax.config.update("jax_enable_preemption_service", False)
    # Else the death of one would be that of all, at once and without a word.
    jax.config.update("jax_enable_recoverability", True)
    _join(words)
    try:
        counts = Counter(device.process_index for device in jax.devices())
        if len(set(counts.values())) > 1:
            has = " and ".join(map(str, counts.values()))
            raise BadOption(f"processes must have as many devices each; they have {has}")
        with contextlib.nullcontext() if is_first() else contextlib.redirect_stdout(io.StringIO()):
            yield
    except (Gone, Exception) as problem:
        if not isinstance(problem, Gone) and not has_lost_one(problem):
            raise
        line = str(problem) if isinstance(problem, Gone) else what_is_lost(problem)
        print(f"fa-jax: {line}", file=sys.stderr, flush=True)
        _linger()
        os._exit(1)  # an orderly end would wait for the one that is gone
    finally:
        _linger()


def _linger() -> None:
    if is_first():
        time.sleep(LINGER)


def _join(words: Mapping[str, str]) -> None:
    """Does what `joined` begins with."""
    if "processes" not in words:
        raise BadOption(f"{next(iter(words))} needs processes, as in processes=2 process=0 coordinator=10.0.0.1:8476")
    if words["processes"] == "auto":
        if len(words) > 1:
            raise BadOption(f"processes=auto finds out {' and '.join(OPTIONS[1:])} by itself; leave them out")
        given = {}
    else:
        given = _given(words)
        if given["process_id"]:
            _wait_for(words["coordinator"])
        else:
            print(f"waiting for {given['num_processes']} processes, {PATIENCE} s at most", flush=True)
    try:
        jax.distributed.initialize(**given, initialization_timeout=PATIENCE)
    except (ValueError, RuntimeError) as problem:
        if not given and "defined" in str(problem):
            raise BadOption(
                f"processes=auto: there is no cluster here that JAX knows; give {', '.join(OPTIONS)}"
            ) from None
        reason = str(problem).strip().partition("\n")[0]
        asked = " ".join(f"{name}={value}" for name, value in words.items())
        raise BadOption(f"{asked}: the processes did not come together: {reason}") from None


def _wait_for(coordinator: str) -> None:
    """Waits until the first process listens, since JAX would end this one without a word of ours."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
            return
        except OSError as problem:
            if time.monotonic() > until:
                raise BadOption(
                    f"coordinator={coordinator}: the first process was not to be reached within {PATIENCE} s: {problem}"
                ) from None
            time.sleep(0.2)


def _given(words: Mapping[str, str]) -> dict[str, Any]:
    for name in OPTIONS:
        if name not in words:
            raise BadOption(f"processes={words['processes']} needs {name} too; or processes=auto, on a cluster")
    for name in OPTIONS[:2]:
        if not words[name].isdecimal():
            raise BadOption(f"{name} must be a whole number; got {words[name]!r}")
    number, many = int(words["process"]), int(words["processes"])
    if number >= many:
        raise BadOption(f"process must be less than processes, which is {many}; got {number}")
    host, _, port = words["coordinator"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadOption(f"coordinator must be HOST:PORT, as in 10.0.0.1:8476; got {words['coordinator']!r}")
    return {"coordinator_address": words["coordinator"], "num_processes": many, "process_id": number}


def several() -> bool:
    """Whether there are more processes than this."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that decides and records."""
    return jax.process_index() == 0


def told(decide: Callable[[], T]) -> T:
    """Returns what `decide` returns in the first process, in all of them; it is of what JSON can hold.

    Raises:
      BadOption: in the others, if `decide` raised anything.
    """
    if not several():
        return decide()
    if not is_first():
        said = json.loads(_sent(b""))
        if "problem" in said:
            raise BadOption(said["problem"])
        return said["result"]
    try:
        result = decide()
    except BaseException as problem:
        _sent(json.dumps({"problem": str(problem).partition("\n")[0] or type(problem).__name__}).encode())
        raise
    _sent(json.dumps({"result": result}).encode())
    return result


def check_same(what: str, own: Any) -> None:
    """Refuses to train with others that have something else than the first process: some of the seeds would use it.

    Args:
      what: its name.
      own: this process's, of what JSON can hold.
    """
    if not several():
        return
    ours = json.dumps(own, indent=0).splitlines()
    theirs = told(lambda: ours)
    if ours != theirs:
        first, here = next((pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]), ("more", "less"))
        raise BadOption(
            f"processes must have the same {what}; the first has {first.rstrip(',')}, this one {here.rstrip(',')}"
        )


def _sent(message: bytes) -> bytes:
    """Returns the message of the first process, in all of them."""
    parts = []
    while True:
        part = np.zeros(MESSAGE, np.uint8)
        head = message[: MESSAGE - 4]
        part[:4] = np.frombuffer(np.uint32(len(message)).tobytes(), np.uint8)
        part[4 : 4 + len(head)] = np.frombuffer(head, np.uint8)
        got = np.asarray(multihost_utils.broadcast_one_to_all(part))
        left = int(np.frombuffer(got[:4].tobytes(), np.uint32)[0])
        parts.append(got[4 : 4 + left].tobytes())
        if left <= MESSAGE - 4:
            return b"".join(parts)
        message = message[MESSAGE - 4 :]


def votes(*own: bool) -> np.ndarray:
    """Returns what each process says to some questions, `[processes, questions]`, bool."""
    mine = np.array(own, np.uint8)
    return np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, len(own)).astype(bool)


def whole(tree: PyTree) -> PyTree:
    """Returns the arrays of a tree, whatever devices of whatever process hold them, on the host."""
    return multihost_utils.process_allgather(tree, tiled=True) if several() else jax.device_get(tree)


def placed(tree: PyTree, shardings: PyTree) -> PyTree:
    """Returns host arrays, the same in all processes, on the devices that shardings say.

    Args:
      tree: the arrays.
      shardings: one for all, or a tree of the same structure.
    """
    if not several():
        return jax.device_put(tree, shardings)

    def place(array, sharding):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    if isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(lambda array: place(array, shardings), tree)
    return jax.tree.map(place, tree, shardings)


def shared(load: Callable[[], PyTree], like: PyTree) -> PyTree:
    """Returns the host arrays that `load` returns in the first process, in all; they have the shapes of `like`."""
    if not several():
        return load()
    own = load() if is_first() else jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
    # As bytes, since what is sent is added up on the way, and -0 + 0 = 0.
    sent = multihost_utils.broadcast_one_to_all(jax.tree.map(lambda a: np.frombuffer(a.tobytes(), np.uint8), own))
    return jax.tree.map(lambda a, b: np.frombuffer(np.asarray(b).tobytes(), a.dtype).reshape(a.shape), own, sent)


def shared_out(devices: Iterable[jax.Device], seeds: int, batch_devices: int) -> list[jax.Device]:
    """Returns the most of the devices among which seeds can be shared evenly, as many of each process.

    Args:
      devices: those there are, of all processes.
      seeds: how many.
      batch_devices: how many devices train a seed together.

    Raises:
      BadOption: if there is no such number.
    """
    of: dict[int, list[jax.Device]] = {}
    for device in devices:
        of.setdefault(device.process_index, []).append(device)
    for rows in range(min(seeds, sum(map(len, of.values())) // batch_devices), 0, -1):
        each, left = divmod(rows * batch_devices, len(of))
        if seeds % rows == 0 and not left and all(each <= len(own) for own in of.values()):
            return [device for own in of.values() for device in own[:each]]
    raise BadOption(
        f"seeds: {seeds} at a time, with batch_devices={batch_devices}, cannot be shared evenly by {len(of)} processes"
    )


def what_is_lost(problem: BaseException) -> str:
    """One line about an error that tells that another process is gone."""
    return f"another process of this run is gone, or cannot be reached: {str(problem).strip().partition(chr(10))[0]}"


def has_lost_one(problem: BaseException) -> bool:
    """Whether an error tells that another process is gone."""
    text = str(problem).lower()
    # JAX raises either, with the text of the failed transfer.
    failed = isinstance(problem, RuntimeError | ValueError) and not isinstance(problem, BadOption)
    return failed and several() and any(sign in text for sign in SIGNS)
