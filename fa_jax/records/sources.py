"""The code that numbers depend on: versions, commits and digests of the sources of packages."""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fa_jax.user.code import site_packages

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "hydra-core", "numpy", "scipy")
"""The libraries that numbers depend on."""
NOT_USERS = ("fa_jax", "jax", "flax", "optax")
"""The packages in configs that are not the user's own."""


@functools.cache
def versions() -> dict[str, str]:
    """Returns versions of the libraries that numbers depend on, and version, commit and a digest of this package.

    They are those of the first call: this process continues with the code that it has loaded.
    """
    folder = Path(__file__).parents[1]
    own = _described(importlib.metadata.version("fa-jax"), commit(), sorted(folder.rglob("*.py")), [folder])
    return {"fa-jax": own, **{name: importlib.metadata.version(name) for name in PACKAGES}}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """Yields a phrase for each package that is another one, such as `jax went from 0.9.0 to 0.10.2`.

    A package with the same sources is the same, whatever its version and commit are: a commit may change other files.

    Args:
      before: what packages were, as of `versions` and `own_versions`.
      after: what they are.
    """
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if code_key(old) != code_key(new):
            yield f"{name} went from {old} to {new}"


def code_key(described: str | None) -> str | None:
    """Returns the part of a described package that tells whether it is the same: its sources, or else its version."""
    _, found, digest = (described or "").rpartition("sources ")
    return digest if found else described


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
    return {name: described for name in packages if (described := _describe_own(name)) is not None}


def own_changes(config: Any, environment: Mapping[str, Any]) -> list[str]:
    """Returns a phrase for each package of the user that is another one now than when a run was trained.

    Args:
      config: of the run.
      environment: of the run.
    """
    recorded, current = environment.get("packages", {}), own_versions(own_packages(config))
    known = {name: recorded[name] for name in current if name in recorded}
    return list(changes(known, {name: current[name] for name in known}))


def _describe_own(package: str) -> str | None:
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
    version = commit = None
    with contextlib.suppress(KeyError, importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(_distributions(tuple(sys.path))[package][0])
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = _git(in_package[0].parent, "rev-parse", "HEAD")
    return _described(version, commit, sources, beside)


def _described(version: str | None, commit: str | None, sources: Iterable[Path], folders: Collection[Path]) -> str:
    """Returns version and commit, as far as they are known, with a digest of sources and their paths in folders."""
    digest = hashlib.sha256()
    for path in sources:
        inside = next(path.relative_to(folder) for folder in folders if path.is_relative_to(folder))
        digest.update(f"{inside.as_posix()}\0".encode() + path.read_bytes())
    parts = [version, commit and f"commit {commit[:8]}", f"sources {digest.hexdigest()[:8]}"]
    return ", ".join(part for part in parts if part)


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


@functools.lru_cache(maxsize=1)
def _distributions(search_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Returns the distributions by the packages in them; a distribution may have another name than its package."""
    del search_path
    return importlib.metadata.packages_distributions()


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
