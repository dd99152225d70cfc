"""Checks that a program fits into memory before it runs: one that does not can stop without an error."""

import contextlib
import sys

import jax
import psutil

from fa_jax.checks import BadOption
from fa_jax.core import PyTree


class TooLittleMemory(BadOption):
    """A program needs more memory than is free."""


def bytes_of(tree: PyTree) -> int:
    """Returns the bytes of all arrays, or shapes of arrays, in a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def bytes_at_once(program: jax.stages.Compiled) -> int:
    """Returns XLA's estimate of what a program needs on each device: arguments, results and temporaries; 0: unknown."""
    memory = program.memory_analysis()
    if memory is None:
        return 0
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return total - memory.alias_size_in_bytes


def is_out_of_memory(problem: BaseException) -> bool:
    """Returns whether JAX failed to allocate memory; its exception has no type of its own, but a status in front."""
    return isinstance(problem, jax.errors.JaxRuntimeError) and str(problem).startswith("RESOURCE_EXHAUSTED")


def available_bytes(device: jax.Device) -> int | None:
    """Returns the bytes that can still be allocated on a device; None if that is unknown."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    free = psutil.virtual_memory().available
    if sys.platform == "win32":
        return free
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(psutil.Error):
            free = min(free, limit - psutil.Process().memory_info().vms)
    return free


def require_memory(needed: int, device: jax.Device, seeds: int, what: str) -> None:
    """Checks that so many bytes can be allocated on a device.

    Args:
      needed: the bytes needed.
      device: one of those that share the memory.
      seeds: the number of seeds that are trained at once.
      what: what needs the memory, shown in the message.

    Raises:
      TooLittleMemory: if there is less; names the number of seeds that fit.
    """
    available = available_bytes(device)
    if available is None or needed <= available:
        return
    fitting = int(seeds * available / needed)
    advice = f"seeds_per_batch={fitting} fits" if fitting else "a smaller network or batch_size needs less"
    gibibytes = f"{needed / 2**30:.3g} GiB at once, and {available / 2**30:.3g} GiB are free"
    raise TooLittleMemory(f"{what} of {seeds} seed{'s' * (seeds > 1)} needs {gibibytes}; {advice}")
