"""Checkpoints that an interrupted run resumes from: its states, by Orbax, each with a manifest.

    resume/<group>_<step>/       the arrays of one group of seeds after a step
    resume/<group>_<step>.json   the manifest, written last: the digest of every file above, and the cost so far

A checkpoint without a manifest was not completed; one that differs from its manifest is damaged. In either case the one
before it is used.
"""

import contextlib
import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.records import schema
from fa_jax.records.files import remove_temporary, write_json
from fa_jax.records.writer import checkpointer, require_room
from fa_jax.training import distributed

log = logging.getLogger(__name__)

KEPT = 2
"""The number of checkpoints that are kept of the current group."""


class Checkpoint(NamedTuple):
    """A complete checkpoint."""

    path: Path
    group: int
    step: int
    cost: dict[str, float]


class Checkpoints:
    """The checkpoints of a run, written in the background."""

    def __init__(self, folder: Path):
        """Takes the run's folder."""
        self._folder = (folder / "resume").absolute()
        self._orbax: Any = None
        self._manifest_thread: threading.Thread | None = None
        self._orbax_is_done = threading.Event()

    def save(self, group: int, step: int, tree: PyTree, cost: Mapping[str, float]) -> None:
        """Copies the arrays of a tree to the host and starts writing them."""
        self.wait()
        arrays = {str(i): a for i, a in enumerate(distributed.gather_to_host(jax.tree.leaves(tree))) if a.size}
        if not distributed.is_main():
            return
        path = self._folder / f"{group:06}_{step:012}"
        if self._orbax is None:
            self._orbax = checkpointer()
        # Left from before the run was resumed, perhaps damaged.
        shutil.rmtree(path, ignore_errors=True)
        try:
            require_room(self._folder, arrays)
            path.with_suffix(".json").unlink(missing_ok=True)
            self._orbax.save(path, arrays, force=True)
        except (OSError, ValueError) as problem:
            log.warning("no checkpoint was written: %s", problem)
            return
        self._manifest_thread = threading.Thread(target=self._write_manifest, args=(path, dict(cost)))
        self._manifest_thread.start()

    def wait(self) -> None:
        """Waits until writing ends; a failure is logged and does not end the run."""
        if self._orbax is None:
            return
        try:
            self._orbax.wait_until_finished()
        except (OSError, ValueError) as problem:
            log.warning("no checkpoint was written: %s", problem)
        if self._manifest_thread is not None:
            self._orbax_is_done.set()
            self._manifest_thread.join()
            self._orbax_is_done.clear()
            self._manifest_thread = None

    def close(self, *, delete: bool) -> None:
        """Ends the writing; `delete` removes all checkpoints of a finished run."""
        self.wait()
        if self._orbax is not None:
            self._orbax.close()
        if delete:
            for path, *_ in self._saved():
                _remove(path)
            with contextlib.suppress(OSError):  # there is none, or it holds something else
                remove_temporary(self._folder)
                self._folder.rmdir()

    def usable(self, last: int) -> list[Checkpoint]:
        """Returns the newest complete checkpoint of each group of seeds up to the current one.

        Damaged checkpoints are logged; those that cannot be used are deleted.

        Args:
          last: the last step of a group. A group is used only if all groups before it reached it.
        """
        newest: dict[int, Checkpoint] = {}
        for manifest, group, step in self._saved():
            if manifest.suffix != ".json":
                continue
            try:
                content = schema.read_json(manifest, schema.Manifest)
                complete = content["digests"] == _digests(manifest.with_suffix(""))
            except (OSError, ValueError):
                complete = False
            if complete:
                cost = {k: v for k, v in content["cost"].items() if k in schema.CostSoFar.__annotations__}
                newest[group] = Checkpoint(manifest.with_suffix(""), group, step, cost)
            else:
                log.warning("%s is damaged; the checkpoint before it is used", manifest.with_suffix(""))
        used = []
        while len(used) in newest and (not used or used[-1].step == last):
            used.append(newest[len(used)])
        # Otherwise they would count among the newest of the resumed run.
        for path, group, step in self._saved():
            if group >= len(used) or step > used[group].step:
                _remove(path)
        return used

    def load(self, checkpoint: Checkpoint, like: PyTree) -> PyTree:
        """Returns the arrays of a checkpoint as a tree like `like`.

        Raises:
          BadOption: if they cannot be read, or their shapes differ from those of `like`.
        """
        try:
            with checkpointer() as orbax:
                arrays = dict(orbax.restore(checkpoint.path))
        except Exception as problem:  # whatever Orbax raises about files that are not its own
            reason = str(problem).partition("\n")[0]
            raise BadOption(f"resume: {checkpoint.path} cannot be read: {reason}") from problem
        leaves, structure = jax.tree.flatten(like)
        loaded = [
            np.asarray(arrays.pop(str(i), np.nan)) if leaf.size else np.zeros(leaf.shape, leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]
        if arrays or any((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in zip(loaded, leaves, strict=True)):
            raise BadOption(
                f"resume: {checkpoint.path} holds arrays of other shapes than the code has now; start a new run"
            )
        return structure.unflatten(loaded)

    def _saved(self) -> list[tuple[Path, int, int]]:
        """Returns the manifests and the folders of arrays, those of Orbax in progress included, with group and step.

        What anything else put into the folder is ignored.
        """
        paths = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        matched = [(path, re.fullmatch(r"([0-9]{6,})_([0-9]{12,})([.].+)?", path.name)) for path in paths]
        return [(path, int(match[1]), int(match[2])) for path, match in matched if match]

    def _write_manifest(self, path: Path, cost: dict[str, float]) -> None:
        """Writes the manifest of a checkpoint as soon as Orbax has renamed its folder, its last action."""
        while not path.exists() and not self._orbax_is_done.wait(0.02):
            pass
        if not path.exists():
            return
        try:
            write_json(path.with_suffix(".json"), {"digests": _digests(path), "cost": cost})
        except OSError as problem:
            log.warning("no checkpoint was written: %s", problem)
            return
        group = path.name.partition("_")[0]
        manifests = [saved for saved, *_ in self._saved() if saved.match(f"{group}_*.json")]
        for manifest in manifests[:-KEPT]:
            manifest.unlink()
            shutil.rmtree(manifest.with_suffix(""), ignore_errors=True)


def _remove(path: Path) -> None:
    """Removes a file, a link or a folder; a link's target stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
