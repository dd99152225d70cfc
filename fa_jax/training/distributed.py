"""Several processes that train one run together by `jax.distributed`.

Every process is started with the same arguments; the devices of all of them share the seeds, or the batches. Process 0
makes all decisions that depend on time, files or signals and broadcasts them, and it alone records. With one process,
everything here is a no-op.
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
TIMEOUT = 60
"""Seconds within which all processes must connect."""
LINGER = 2
"""Seconds for which process 0, to which the others are connected, outlives them."""
PEER_ERRORS = ("gloo", "nccl", "connection", "unavailable", "deadline", "heartbeat", "coordination")
"""Words in the errors of a failed transfer; JAX has no exception type of its own for it."""


class PeerLost(BaseException):
    """Raised if a run cannot continue because another process does not answer; the message says what to do.

    Like `KeyboardInterrupt`, it is no `Exception`, since no caller can handle it.
    """


@contextlib.contextmanager
def joined(options: Mapping[str, str]) -> Iterator[None]:
    """Joins the processes of a run, before JAX is used for anything else.

    While entered, other processes than 0 print errors only, and the loss of one process ends all of them with one line
    and exit code 1.

    Args:
      options: the `OPTIONS` that were given: `processes=auto`, if JAX knows the cluster (Slurm, Open MPI, Kubernetes,
        TPU pods), or their number with `process`, the rank of this one from 0, and `coordinator`, HOST:PORT of process
        0, equal for all.

    Raises:
      BadOption: if the options are wrong, or process 0 cannot be reached. If other processes are missing, JAX ends
        process 0.
    """
    jax.config.update("jax_enable_preemption_service", False)
    # Otherwise the death of one process would end all others at once without a message.
    jax.config.update("jax_enable_recoverability", True)
    _connect(options)
    try:
        counts = Counter(device.process_index for device in jax.devices())
        if len(set(counts.values())) > 1:
            raise BadOption(
                f"must have equal numbers of devices; got {' and '.join(map(str, counts.values()))}", "processes"
            )
        with contextlib.nullcontext() if is_main() else contextlib.redirect_stdout(io.StringIO()):
            yield
    except (PeerLost, Exception) as problem:
        if not isinstance(problem, PeerLost) and not is_peer_error(problem):
            raise
        line = str(problem) if isinstance(problem, PeerLost) else describe_peer_error(problem)
        print(f"fa-jax: {line}", file=sys.stderr, flush=True)
        _linger()
        os._exit(1)  # an orderly exit would wait for the lost process
    finally:
        _linger()


def _linger() -> None:
    if is_main():
        time.sleep(LINGER)


def _connect(options: Mapping[str, str]) -> None:
    if "processes" not in options:
        raise BadOption("needs processes, as in processes=2 process=0 coordinator=10.0.0.1:8476", next(iter(options)))
    auto = options["processes"] == "auto"
    if auto and len(options) > 1:
        raise BadOption(f"finds {' and '.join(OPTIONS[1:])} itself; leave them out", "processes=auto")
    arguments = {} if auto else _explicit(options)
    if arguments.get("process_id"):
        _wait_for(options["coordinator"])
    elif not auto:
        print(f"waiting for {arguments['num_processes']} processes, at most {TIMEOUT} s", flush=True)
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=TIMEOUT)
    except (ValueError, RuntimeError) as problem:
        if auto and isinstance(problem, ValueError):
            raise BadOption(
                f"finds no cluster that JAX knows here; give {', '.join(OPTIONS)}", "processes=auto"
            ) from None
        reason = str(problem).strip().partition("\n")[0]
        typed = " ".join(f"{name}={value}" for name, value in options.items())
        raise BadOption(f"{typed}: the processes did not connect: {reason}") from None


def _wait_for(coordinator: str) -> None:
    """Waits until process 0 listens; JAX would end this process without a clear message."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=TIMEOUT).close()
            return
        except OSError as problem:
            if time.monotonic() > until:
                reason = f"process 0 could not be reached within {TIMEOUT} s: {problem}"
                raise BadOption(f"coordinator={coordinator}: {reason}") from None
            time.sleep(0.2)


def _explicit(options: Mapping[str, str]) -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize`."""
    for name in OPTIONS:
        if name not in options:
            raise BadOption(f"processes={options['processes']} needs {name} too; or processes=auto, on a cluster")
    for name in OPTIONS[:2]:
        if not options[name].isdecimal():
            raise BadOption(f"must be an integer of at least 0; got {options[name]!r}", name)
    rank, count = int(options["process"]), int(options["processes"])
    if rank >= count:
        raise BadOption(f"must be less than processes, which is {count}; got {rank}", "process")
    host, _, port = options["coordinator"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadOption(f"must be HOST:PORT, as in 10.0.0.1:8476; got {options['coordinator']!r}", "coordinator")
    return {"coordinator_address": options["coordinator"], "num_processes": count, "process_id": rank}


def active() -> bool:
    """Returns whether there is more than one process."""
    return jax.process_count() > 1


def is_main() -> bool:
    """Returns whether this is process 0, which decides and records."""
    return jax.process_index() == 0


def broadcast(decide: Callable[[], T]) -> T:
    """Returns in all processes what `decide` returns in process 0, which JSON must be able to represent.

    Raises:
      BadOption: in the other processes, if `decide` raised anything.
    """
    if not active():
        return decide()
    if not is_main():
        message = json.loads(_broadcast_bytes(b""))
        if "problem" in message:
            raise BadOption(message["problem"])
        return message["result"]
    try:
        result = decide()
    except BaseException as problem:
        _broadcast_bytes(json.dumps({"problem": str(problem).partition("\n")[0] or type(problem).__name__}).encode())
        raise
    _broadcast_bytes(json.dumps({"result": result}).encode())
    return result


def _broadcast_bytes(message: bytes) -> bytes:
    """Returns the message of process 0 in all processes: first its length, then its bytes."""
    length = int(multihost_utils.broadcast_one_to_all(np.uint32(len(message))))
    padded = np.frombuffer(message.ljust(length, b"\0")[:length], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes()


def check_same(name: str, value: Any) -> None:
    """Checks that all processes have the same value, which JSON must be able to represent.

    Raises:
      BadOption: in each process with another value than process 0.
    """
    if not active():
        return
    local = json.dumps(value, indent=0).splitlines()
    of_main = broadcast(lambda: local)
    if local != of_main:
        pairs = zip(of_main, local, strict=False)
        first, here = next((pair for pair in pairs if pair[0] != pair[1]), ("more", "less"))
        raise BadOption(
            f"must have the same {name}; process 0 has {first.rstrip(',')}, this one {here.rstrip(',')}", "processes"
        )


def all_gather(*flags: bool) -> np.ndarray:
    """Returns the flags of every process, `[processes, flags]`, bool."""
    mine = np.array(flags, np.uint8)
    return np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, len(flags)).astype(bool)


def gather_to_host(tree: PyTree) -> PyTree:
    """Returns the arrays of a tree on the host, from whichever devices of whichever processes hold them."""
    return multihost_utils.process_allgather(tree, tiled=True) if active() else jax.device_get(tree)


def device_put(tree: PyTree, shardings: PyTree) -> PyTree:
    """Returns host arrays, equal in all processes, on the devices of shardings.

    Args:
      tree: the arrays.
      shardings: one for all, or a tree of the same structure.
    """
    if not active():
        return jax.device_put(tree, shardings)

    def put(array, sharding):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    if isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(lambda array: put(array, shardings), tree)
    return jax.tree.map(put, tree, shardings)


def broadcast_arrays(load: Callable[[], PyTree], like: PyTree) -> PyTree:
    """Returns in all processes the host arrays that `load` returns in process 0, with the shapes of `like`."""
    if not active():
        return load()
    local = load() if is_main() else jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
    # As bytes, since the transfer is a sum over processes, and -0 + 0 = 0.
    sent = multihost_utils.broadcast_one_to_all(jax.tree.map(lambda a: np.frombuffer(a.tobytes(), np.uint8), local))
    return jax.tree.map(lambda a, b: np.frombuffer(np.asarray(b).tobytes(), a.dtype).reshape(a.shape), local, sent)


def devices_for(devices: Iterable[jax.Device], seeds: int, batch_devices: int) -> list[jax.Device]:
    """Returns the most devices that can share seeds evenly, with equal numbers from each process.

    Args:
      devices: of all processes.
      seeds: how many.
      batch_devices: how many devices train one seed together.

    Raises:
      BadOption: if there is no such number.
    """
    by_process: dict[int, list[jax.Device]] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    processes = list(by_process.values())
    for rows in range(min(seeds, sum(map(len, processes)) // batch_devices), 0, -1):
        each, remainder = divmod(rows * batch_devices, len(processes))
        if seeds % rows == 0 and not remainder and all(each <= len(devices) for devices in processes):
            return [device for devices in processes for device in devices[:each]]
    raise BadOption(
        f"seeds: {seeds} at a time, with batch_devices={batch_devices}, cannot be shared evenly by {len(processes)} "
        "processes"
    )


def describe_peer_error(problem: BaseException) -> str:
    """Returns one line about an error that means the loss of another process."""
    reason = str(problem).strip().partition("\n")[0]
    return f"another process of this run is lost or cannot be reached: {reason}"


def is_peer_error(problem: BaseException) -> bool:
    """Returns whether an error means the loss of another process."""
    text = str(problem).lower()
    is_jax_error = isinstance(problem, RuntimeError | ValueError) and not isinstance(problem, BadOption)
    return is_jax_error and active() and any(word in text for word in PEER_ERRORS)
