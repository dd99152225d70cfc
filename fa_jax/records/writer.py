"""Writing a run's folder while it trains, so that a kill at any moment leaves it readable.

config.yaml        the resolved config
environment.json   versions, devices, commit, command
metrics.csv        one row per seed and evaluation
metrics.json       what its columns mean
status.json        running, finished, interrupted, diverged or failed, with the reason
summary.json       the last evaluation over seeds, and the cost
checkpoint/        final params and feedback, by Orbax
"""

import errno
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import OmegaConf

from fa_jax.checks import BadOption
from fa_jax.records import schema
from fa_jax.records.columns import Column, Declared
from fa_jax.records.environment import environment, now
from fa_jax.records.files import write_json, write_text
from fa_jax.records.reader import COLUMNS, KEYS
from fa_jax.records.sources import own_packages
from fa_jax.records.statistics import DIVERGED, has_diverged, summarise, summarise_logarithm

MARGIN = 2**18
"""The bytes that a checkpoint needs besides its arrays."""


class Writer:
    """The folder of a run in progress."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        declared: Declared | None = None,
        *,
        command: Sequence[str] | None = None,
        resumed_steps: Mapping[int, int] | None = None,
    ):
        """Makes the folder, and writes config, environment and status.

        Args:
          folder: of the run.
          config: the resolved config, with `choices`.
          declared: the metrics of the run; None: nothing is evaluated.
          command: what was typed; None: the arguments of this process.
          resumed_steps: of a run that is resumed in this folder, the step from which each seed is trained again. Rows
            after it, and rows of other seeds, are removed.

        Raises:
          BadOption: if the folder of a new run holds one already.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._declared = declared
        self._columns: dict[str, Column] = {}
        self._last: dict[int, tuple[int, dict[str, float]]] = {}
        self._first: dict[int, dict[str, float]] = {}
        if resumed_steps is not None:
            self._resume(resumed_steps)
            return
        metrics = folder / "metrics.csv"
        # A run killed before its first status leaves this file empty.
        if (folder / "status.json").exists() or (metrics.exists() and metrics.stat().st_size):
            raise BadOption(f"{folder}: this folder already holds a run; choose another one")
        write_text(metrics, "")
        self._metrics = metrics.open("a", buffering=1, encoding="utf-8")
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        write_json(folder / "environment.json", environment(command, own_packages(config)))
        self.status("running")

    def _resume(self, steps: Mapping[int, int]) -> None:
        """Restores the rows up to the checkpoints."""
        path = self.folder / "metrics.csv"
        header, *lines = (schema.read_lines(path) if path.exists() else "").split("\n")
        rows = [line for line in lines if line.strip()]
        seeds_and_steps = [[int(float(key)) for key in row.split(",")[:2]] for row in rows]
        remaining = [
            row for row, (seed, step) in zip(rows, seeds_and_steps, strict=True) if step <= steps.get(seed, -1)
        ]
        if remaining:
            self._declare(header.split(",")[len(KEYS) :])
        for line in remaining:
            seed, step, _, _, *numbers = line.split(",")
            # Nine digits identify a float32.
            values = dict(zip(self._columns, (float(np.float32(n)) for n in numbers), strict=True))
            self._remember(int(float(seed)), int(float(step)), values)
        write_text(path, "".join(f"{line}\n" for line in ([header, *remaining] if remaining else [])))
        self._metrics = path.open("a", buffering=1, encoding="utf-8")
        before = schema.read_json(self.folder / "environment.json", schema.Environment)
        resumed = [*before.pop("resumed", []), environment()]
        write_json(self.folder / "environment.json", {**before, "resumed": resumed})
        self.status("running")

    def _declare(self, names: Sequence[str]) -> None:
        """Records the meaning of the columns."""
        if self._declared is None:
            raise TypeError("a run that is evaluated needs declared metrics")
        self._columns = self._declared.columns(names)
        columns = {name: column._asdict() for name, column in self._columns.items()}
        write_json(self.folder / COLUMNS, {"main": self._declared.main, "columns": columns})

    def _remember(self, seed: int, step: int, values: dict[str, float]) -> None:
        self._first.setdefault(seed, values)
        self._last[seed] = step, values

    def flush(self) -> None:
        """Makes sure that all rows are on disk."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())

    def status(self, status: str, reason: str | None = None) -> None:
        """Records the status, with a reason of one line if something went wrong."""
        write_json(self.folder / "status.json", {"status": status, "reason": reason, "time": now(), "pid": os.getpid()})

    def evaluation(
        self, seeds: Sequence[int], step: int, examples: int, epoch: float, metrics: Mapping[str, np.ndarray]
    ) -> None:
        """Appends one row per seed; `metrics` holds an array over seeds by column."""
        if not self._columns:
            self._declare(list(metrics))
            self._metrics.write(",".join((*KEYS, *self._columns)) + "\n")
        rows = []
        for i, seed in enumerate(seeds):
            values = {name: float(metrics[name][i]) for name in self._columns}
            self._remember(seed, step, values)
            rows.append(
                ",".join([str(seed), str(step), str(examples), f"{epoch:g}", *(f"{v:.9g}" for v in values.values())])
            )
        self._metrics.write("\n".join(rows) + "\n")

    @property
    def diverged(self) -> list[int]:
        """The seeds that have diverged by their last evaluation."""
        main = self._declared.main if self._declared else ""
        return sorted(
            seed
            for seed, (_, last) in self._last.items()
            if has_diverged(last["test_loss"], self._first[seed][main], last[main], self._columns[main])
        )

    def summary(self, cost: Mapping[str, float]) -> dict[str, Any]:
        """Writes and returns the summary of the last evaluation; diverged seeds are listed and excluded from means.

        If a run ends before all groups of seeds reach the same step, the summary is over those that came furthest.
        """
        last = max((step for step, _ in self._last.values()), default=0)
        reached = {seed: values for seed, (step, values) in self._last.items() if step == last}
        diverged = [seed for seed in self.diverged if seed in reached]
        healthy = [values for seed, values in reached.items() if seed not in diverged]
        final = {}
        for name, column in self._columns.items():
            values = [seed_values[name] for seed_values in healthy]
            final[name] = summarise(values)._asdict()
            if column.logarithmic:
                final[name]["geometric"] = summarise_logarithm(values)._asdict()
        summary = {
            "seeds": list(reached),
            "diverged_seeds": diverged,
            "divergence": DIVERGED,
            "step": last,
            "interval": "95 %, Student's t over seeds; geometric: of the logarithm",
            "final": final,
            "cost": dict(cost),
        }
        write_json(self.folder / "summary.json", summary)
        return summary

    def checkpoint(self, tree: Any) -> None:
        """Saves a tree of arrays with a leading axis of seeds.

        Raises:
          OSError: if they cannot be written.
        """
        path = (self.folder / "checkpoint").absolute()
        require_room(path, tree)
        try:
            with checkpointer() as orbax:
                # It exists already if the run was killed just before its end.
                orbax.save(path, tree, force=True)
        except ValueError as problem:
            code = re.search(r"os_error_code='(\d+)'", str(problem))  # as TensorStore reports an error of the disk
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from problem

    def close(self) -> None:
        """Closes the file of metrics."""
        self._metrics.close()


def require_room(path: Path, tree: Any) -> None:
    """Checks that the disk has room for the arrays of a checkpoint: Orbax would fail in several threads at once.

    Raises:
      OSError: if it has not.
    """
    disk = shutil.disk_usage(path.parent)
    needed = sum(array.nbytes for array in jax.tree.leaves(tree)) + MARGIN
    if disk.total and disk.free < needed:  # some file systems do not say how large they are
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def checkpointer() -> Any:
    """Returns an Orbax checkpointer that involves process 0 alone."""
    import orbax.checkpoint  # takes a second

    # What fails is raised, and said in one line.
    logging.getLogger("absl").addFilter(_is_not_of_orbax)
    alone = orbax.checkpoint.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    return orbax.checkpoint.StandardCheckpointer(multiprocessing_options=alone)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts
