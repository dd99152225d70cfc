"""What an unfinished run leaves to be continued from: its states, by Orbax, each with a list of what belongs to it.

    resume/<group>_<step>/       the arrays of one group of seeds after so many steps
    resume/<group>_<step>.json   written last: the digest of every file above, and the cost so far

A checkpoint without its list is one that was being written when the run was cut off; one that its list does not fit is
damaged. Either way the one before is used.
"""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fa_jax.checks import BadOption
from fa_jax.core import PyTree
from fa_jax.records.writer import checkpointer, write_json
from fa_jax.training import distributed as processes

log = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints of the group under way that are kept."""


class Checkpoint(NamedTuple):
    """One that can be continued from."""

    path: Path
    group: int
    step: int
    cost: dict[str, float]


class Checkpoints:
    """The folder of a run's checkpoints, which are written while the run goes on."""

    def __init__(self, folder: Path):
        """Takes the run's folder."""
        self._folder = (folder / "resume").absolute()
        self._orbax: Any = None
        self._listing: threading.Thread | None = None
        self._over = threading.Event()

    def save(self, group: int, step: int, tree: PyTree, cost: Mapping[str, float]) -> None:
        """Copies the arrays of a tree to the host and begins to write them."""
        self.wait()
        arrays = {str(i): a for i, a in enumerate(processes.whole(jax.tree.leaves(tree))) if a.size}
        if not processes.is_first():
            return
        path = self._folder / f"{group:06}_{step:012}"
        if self._orbax is None:
            self._orbax = checkpointer()
        # Left over from before the run was resumed, perhaps damaged.
        shutil.rmtree(path, ignore_errors=True)
        try:
            path.with_suffix(".json").unlink(missing_ok=True)
            self._orbax.save(path, arrays, force=True)
        except (OSError, ValueError) as problem:
            log.warning("no checkpoint was written: %s", problem)
            return
        self._listing = threading.Thread(target=self._list, args=(path, dict(cost)))
        self._listing.start()

    def wait(self) -> None:
        """Waits until nothing is being written; what could not be is said, and the run goes on."""
        if self._orbax is None:
            return
        try:
            self._orbax.wait_until_finished()
        except (OSError, ValueError) as problem:
            log.warning("no checkpoint was written: %s", problem)
        if self._listing is not None:
            self._over.set()
            self._listing.join()
            self._over.clear()
            self._listing = None

    def close(self, *, delete: bool) -> None:
        """Ends the writing; deletes all of it once the run needs it no more."""
        self.wait()
        if self._orbax is not None:
            self._orbax.close()
        if delete:
            shutil.rmtree(self._folder, ignore_errors=True)

    def found(self, last: int) -> list[Checkpoint]:
        """Returns what a run can be continued from: a checkpoint of each group of seeds up to the one under way.

        These are the newest whole ones; of damaged ones it is warned, and what cannot be used is deleted.

        Args:
          last: the step at which a group is complete. A group is used only if all before it are.
        """
        newest: dict[int, Checkpoint] = {}
        for listing in sorted(self._folder.glob("*_*.json")):
            group, step = map(int, listing.stem.split("_"))
            try:
                content = json.loads(listing.read_text())
                whole = content["digests"] == _digests(listing.with_suffix(""))
            except (OSError, ValueError, KeyError):
                whole = False
            if whole:
                newest[group] = Checkpoint(listing.with_suffix(""), group, step, content["cost"])
            else:
                log.warning("%s is damaged; the checkpoint before it is used", listing.with_suffix(""))
        used = []
        while len(used) in newest and (not used or used[-1].step == last):
            used.append(newest[len(used)])
        # Otherwise they would count among the newest when the run goes on.
        for path in self._folder.glob("*_*"):
            group, step = map(int, path.stem.split(".")[0].split("_"))
            if group >= len(used) or step > used[group].step:
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        return used

    def load(self, checkpoint: Checkpoint, like: PyTree) -> PyTree:
        """Returns the arrays of a checkpoint in a tree with the shapes of `like`.

        Raises:
          BadOption: if they are not of these shapes.
        """
        with checkpointer() as orbax:
            arrays = orbax.restore(checkpoint.path)
        leaves, structure = jax.tree.flatten(like)
        found = [
            np.asarray(arrays.pop(str(i), np.nan)) if leaf.size else np.zeros(leaf.shape, leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]
        if arrays or any((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in zip(found, leaves, strict=True)):
            raise BadOption(f"resume: {checkpoint.path} holds other arrays than the code has now; begin the run anew")
        return structure.unflatten(found)

    def _list(self, path: Path, cost: dict[str, float]) -> None:
        """Lists what belongs to a checkpoint as soon as Orbax has moved it to its place, which it does at the end."""
        while not path.exists() and not self._over.wait(0.02):
            pass
        if not path.exists():
            return
        try:
            write_json(path.with_suffix(".json"), {"digests": _digests(path), "cost": cost})
        except OSError as problem:
            log.warning("no checkpoint was written: %s", problem)
            return
        group = path.name.partition("_")[0]
        for listing in sorted(self._folder.glob(f"{group}_*.json"))[:-KEPT]:
            listing.unlink()
            shutil.rmtree(listing.with_suffix(""), ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
