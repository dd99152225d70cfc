"""Several processes that train one run together by `jax.distributed`.

Every process is started with the same arguments; the devices of all of them share the seeds, or the batches. Process 0
makes all decisions that depend on time, files or signals and broadcasts them, and it alone records. With one process,
everything here is a no-op.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from fa_jax.checks import BadOption
from fa_jax.core import PyTree

T = TypeVar("T")
PEER_ERRORS = ("gloo", "nccl", "connection", "unavailable", "deadline", "heartbeat", "coordination")
"""Words in the errors of a failed transfer; JAX has no exception type of its own for it."""


class PeerLost(BaseException):
    """Raised if a run cannot continue because another process does not answer; the message says what to do.

    Like `KeyboardInterrupt`, it is no `Exception`, since no caller can handle it.
    """


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
