"""Joining the processes that train one run together, see `fa_jax.training.distributed`."""

import contextlib
import io
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import PROCESSES
from fa_jax.training import distributed

TIMEOUT = 60
"""Seconds within which all processes must connect."""
LINGER = 2
"""Seconds for which process 0, to which the others are connected, outlives them."""


@contextlib.contextmanager
def joined(options: Mapping[str, str]) -> Iterator[None]:
    """Joins the processes of a run, before JAX is used for anything else.

    While entered, other processes than 0 print errors only, and the loss of one process ends all of them with one line
    and exit code 1.

    Args:
      options: the `PROCESSES` that were given: `processes=auto`, if JAX knows the cluster (Slurm, Open MPI, Kubernetes,
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
        with contextlib.nullcontext() if distributed.is_main() else contextlib.redirect_stdout(io.StringIO()):
            yield
    except (distributed.PeerLost, Exception) as problem:
        if not isinstance(problem, distributed.PeerLost) and not distributed.is_peer_error(problem):
            raise
        line = str(problem) if isinstance(problem, distributed.PeerLost) else distributed.describe_peer_error(problem)
        print(f"fa-jax: {line}", file=sys.stderr, flush=True)
        _linger()
        os._exit(1)  # an orderly exit would wait for the lost process
    finally:
        _linger()


def _linger() -> None:
    if distributed.is_main():
        time.sleep(LINGER)


def _connect(options: Mapping[str, str]) -> None:
    if "processes" not in options:
        raise BadOption("needs processes, as in processes=2 process=0 coordinator=10.0.0.1:8476", next(iter(options)))
    auto = options["processes"] == "auto"
    if auto and len(options) > 1:
        raise BadOption(f"finds {' and '.join(PROCESSES[1:])} itself; leave them out", "processes=auto")
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
                f"finds no cluster that JAX knows here; give {', '.join(PROCESSES)}", "processes=auto"
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
    for name in PROCESSES:
        if name not in options:
            raise BadOption(f"processes={options['processes']} needs {name} too; or processes=auto, on a cluster")
    for name in PROCESSES[:2]:
        if not options[name].isdecimal():
            raise BadOption(f"must be an integer of at least 0; got {options[name]!r}", name)
    rank, count = int(options["process"]), int(options["processes"])
    if rank >= count:
        raise BadOption(f"must be less than processes, which is {count}; got {rank}", "process")
    host, _, port = options["coordinator"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadOption(f"must be HOST:PORT, as in 10.0.0.1:8476; got {options['coordinator']!r}", "coordinator")
    return {"coordinator_address": options["coordinator"], "num_processes": count, "process_id": rank}
