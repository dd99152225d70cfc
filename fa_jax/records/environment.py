"""The environment of a run: versions, devices, commit and command; and how it changed before a resume."""

import datetime
import os
import platform
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fa_jax.records import sources

SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable")
"""The settings of JAX that numbers depend on."""


def environment(command: Sequence[str] | None = None, user_packages: Collection[str] = ()) -> dict[str, Any]:
    """Returns the environment of this process, as it is recorded.

    Args:
      command: what was typed; None: the arguments of this process.
      user_packages: packages of the user, as of `sources.own_packages`.
    """
    return {
        "time": now(),
        "command": list(command or sys.argv),
        "commit": sources.commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpuinfo("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "packages": {**sources.versions(), **sources.own_versions(user_packages)},
        "settings": {name: getattr(jax.config, name) for name in SETTINGS},
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yields a phrase for each change of code, packages or settings between two environments."""
    yield from sources.changes(before.get("packages", {}), after.get("packages", {}))
    old, new = before.get("settings", {}), after.get("settings", {})
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name} went from {old.get(name)} to {new.get(name)}"


def now() -> str:
    """Returns the time in UTC, ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def cpuinfo(*names: str) -> str:
    """Returns the first entry of /proc/cpuinfo with one of these names; empty: there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")
