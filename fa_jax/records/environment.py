"""The environment of a run: versions, devices, commit and command; and how it changed before a resume."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable")
"""The settings of JAX that numbers depend on."""
PACKAGES = ("fa-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "hydra-core", "numpy", "scipy")


def environment(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the environment of this process, as it is recorded.

    Args:
      command: what was typed; None: the arguments of this process.
    """
    return {
        "time": now(),
        "command": list(command or sys.argv),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "settings": {name: getattr(jax.config, name) for name in SETTINGS},
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yields a phrase for each change of code, packages or settings between two environments."""
    old, new = (env["commit"] or "" for env in (before, after))
    if old != new and old.partition("+")[0] == new.partition("+")[0] != "":
        yield f"uncommitted changes of the code differ (commit {old[:8]})"
    elif old != new:
        yield f"the code went from {before['commit'] or 'no commit'} to {after['commit'] or 'no commit'}"
    for kind in ("packages", "settings"):
        recorded, current = before.get(kind, {}), after.get(kind, {})
        for name in sorted(recorded.keys() | current.keys()):
            if recorded.get(name) != current.get(name):
                yield f"{name} went from {recorded.get(name)} to {current.get(name)}"


def now() -> str:
    """Returns the time in UTC, ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """Returns the commit of the checkout that this code is in, with a digest of uncommitted changes; None outside."""
    checkout = Path(__file__).parents[2]

    def git(*arguments):
        result = subprocess.run(
            ["git", "-C", str(checkout), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=10,
        )
        return result.stdout.strip()

    try:
        # An installed package may lie in the virtual environment of another repository.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None
        difference = git("status", "--porcelain") and git("diff", "HEAD")
        digest = f"+{hashlib.sha256(difference.encode()).hexdigest()[:8]}" if difference else ""
        return git("rev-parse", "HEAD") + digest
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
