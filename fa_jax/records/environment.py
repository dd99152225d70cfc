"""The environment of a run: versions, devices, commit and command; and how it changed before a resume."""

import ast
import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fa_jax.user.code import site_packages

SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable")
"""The settings of JAX that numbers depend on."""
PACKAGES = ("fa-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "hydra-core", "numpy", "scipy")


NOT_USERS = ("fa_jax", "jax", "flax", "optax")
"""The packages in configs that are not the user's own."""


def environment(command: Sequence[str] | None = None, user_packages: Collection[str] = ()) -> dict[str, Any]:
    """Returns the environment of this process, as it is recorded.

    Args:
      command: what was typed; None: the arguments of this process.
      user_packages: packages of the user, as of `own_packages`.
    """
    return {
        "time": now(),
        "command": list(command or sys.argv),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpuinfo("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "packages": {**versions(), **own_versions(user_packages)},
        "settings": {name: getattr(jax.config, name) for name in SETTINGS},
    }


def own_packages(config: Any) -> list[str]:
    """Returns the packages of the user whose functions a config calls."""
    packages: set[str] = set()
    for key, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        if key in ("_target_", "module") and isinstance(value, str) and "." in value:
            packages.add(value.partition(".")[0])
        elif isinstance(value, Mapping | list):
            packages |= set(own_packages(value))
    return sorted(packages - set(NOT_USERS))


def own_versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns version, commit and a digest of the sources of packages of the user, of those that are found."""
    return {name: described for name in packages if (described := _describe(name)) is not None}


def own_changes(config: Any, environment: Mapping[str, Any]) -> list[str]:
    """Returns a phrase for each package of the user that is another one now than when a run was trained.

    Args:
      config: of the run.
      environment: of the run.
    """
    recorded, current = environment.get("packages", {}), own_versions(own_packages(config))
    known = {name: recorded[name] for name in current if name in recorded}
    return list(_moved(known, {name: current[name] for name in known}))


def _describe(package: str) -> str | None:
    """Returns version, commit and a digest of the sources of a package, as far as they exist; None: it is unknown.

    Sources are those of the package, and of what it imports from the folder that it lies in.
    """
    try:
        spec = importlib.util.find_spec(package)  # which does not import it
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    folders = [Path(path) for path in spec.submodule_search_locations or ()]
    files = [Path(spec.origin)] if spec.origin and Path(spec.origin).is_file() else []
    in_package = sorted({*files, *(path for folder in folders for path in folder.rglob("*.py"))})
    if not in_package:
        return None
    beside = {folder.parent for folder in folders} or {path.parent for path in files}
    sources = in_package if beside & site_packages() else _with_imports(in_package, beside)
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    parts = []
    with contextlib.suppress(KeyError, importlib.metadata.PackageNotFoundError):
        parts.append(importlib.metadata.version(_distributions(tuple(sys.path))[package][0]))
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        parts.append(f"commit {_git(in_package[0].parent, 'rev-parse', 'HEAD')[:8]}")
    return ", ".join([*parts, f"sources {digest.hexdigest()[:8]}"])


def _with_imports(sources: Sequence[Path], folders: Collection[Path]) -> list[Path]:
    """Returns source files with the user's that they import from folders, in an order that is always the same."""
    collected, remaining = dict.fromkeys(sources), list(sources)
    followed: set[str] = set(NOT_USERS)
    while remaining:
        names = sorted(_imported_names(remaining.pop().read_bytes()) - followed)
        followed.update(names)
        for folder, name in itertools.product(sorted(folders), names):
            paths = [folder / f"{name}.py", *sorted((folder / name).rglob("*.py"))]
            new = [path for path in paths if path not in collected and path.is_file()]
            collected.update(dict.fromkeys(new))
            remaining += new
    return list(collected)


@functools.lru_cache(maxsize=10_000)
def _imported_names(source: bytes) -> frozenset[str]:
    """Returns the modules of the top level that a source imports."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return frozenset()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return frozenset(name.partition(".")[0] for name in names)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yields a phrase for each change of code, packages or settings between two environments."""
    old, new = (env["commit"] or "" for env in (before, after))
    if old != new and old.partition("+")[0] == new.partition("+")[0] != "":
        yield f"uncommitted changes of the code differ (commit {old[:8]})"
    elif old != new:
        yield f"the code went from {before['commit'] or 'no commit'} to {after['commit'] or 'no commit'}"
    for kind in ("packages", "settings"):
        yield from _moved(before.get(kind, {}), after.get(kind, {}))


def _moved(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(recorded.keys() | current.keys()):
        if recorded.get(name) != current.get(name):
            yield f"{name} went from {recorded.get(name)} to {current.get(name)}"


def now() -> str:
    """Returns the time in UTC, ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@functools.lru_cache(maxsize=1)
def _distributions(search_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Returns the distributions by the packages in them; a distribution may have another name than its package."""
    del search_path
    return importlib.metadata.packages_distributions()


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of the packages that numbers depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def commit() -> str | None:
    """Returns the commit of the checkout that this code is in, with a digest of uncommitted changes; None outside.

    It is that of the first call: this process continues with the code that it has loaded.
    """
    checkout = Path(__file__).parents[2]

    try:
        # An installed package may lie in the virtual environment of another repository.
        if Path(_git(checkout, "rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None
        difference = _git(checkout, "status", "--porcelain") and _git(checkout, "diff", "HEAD")
        digest = f"+{hashlib.sha256(difference.encode()).hexdigest()[:8]}" if difference else ""
        return _git(checkout, "rev-parse", "HEAD") + digest
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        timeout=10,
    )
    return result.stdout.strip()


def cpuinfo(*names: str) -> str:
    """Returns the first entry of /proc/cpuinfo with one of these names; empty: there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")
