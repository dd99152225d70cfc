"""Reading runs back from their folders, however they ended."""

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from omegaconf import OmegaConf

from fa_jax.records.statistics import has_diverged


class Run(NamedTuple):
    """A run as it lies on disk."""

    folder: Path
    config: dict[str, Any]
    status: dict[str, Any]
    summary: dict[str, Any] | None
    """None where the run did not come to its end."""
    environment: dict[str, Any]
    metrics: dict[str, np.ndarray]
    """Column -> one number a row, in the order of the rows; empty before the first evaluation."""

    @property
    def choices(self) -> dict[str, str]:
        """Config group -> the option chosen, such as `rule` -> `fa`."""
        return self.config["choices"]

    @property
    def diverged(self) -> list[int]:
        """Seeds that diverged, by `has_diverged`."""
        return [seed for seed, rows in self._rows().items() if has_diverged(self.metrics["test_loss"][rows].tolist())]

    def curves(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples `[evaluations]` and the metric `[seeds, evaluations]` of the seeds that did not diverge.

        Where a run ended before all groups of seeds had come as far, these are the seeds that came furthest.
        """
        furthest = self._furthest()
        if not furthest:
            return np.zeros(0), np.zeros((0, 0))
        return self.metrics["examples"][furthest[0]], np.stack([self.metrics[metric][r] for r in furthest])

    def at_epoch(self, metric: str, epoch: float) -> np.ndarray | None:
        """Returns a metric after an epoch, `[seeds]` of the seeds that `curves` has, or None where it was not measured.

        The epoch is above 0. It is that of the nearest evaluation, no more than a hundredth of the time away: examples
        that no batch takes in make an epoch of steps a little shorter than one of examples.
        """
        seeds = self._furthest()
        if not seeds:
            return None
        epochs = self.metrics["epoch"][seeds[0]]
        at = int(np.argmin(np.abs(epochs - epoch)))
        return (
            np.array([self.metrics[metric][rows[at]] for rows in seeds])
            if abs(epochs[at] / epoch - 1) <= 0.01
            else None
        )

    def _furthest(self) -> list[np.ndarray]:
        """The rows of each seed that did not diverge and came as far as any."""
        diverged = self.diverged
        rows = [r for seed, r in self._rows().items() if seed not in diverged]
        return [r for r in rows if len(r) == max(map(len, rows))]

    def _rows(self) -> dict[int, np.ndarray]:
        """The numbers of the rows of each seed."""
        seeds = self.metrics.get("seed", np.zeros(0))
        return {int(seed): np.flatnonzero(seeds == seed) for seed in np.unique(seeds)}


def read_run(folder: Path) -> Run:
    """Returns the run in a folder.

    Raises:
      FileNotFoundError: if there is none.
    """
    config = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    summary = folder / "summary.json"
    return Run(
        folder,
        config,
        json.loads((folder / "status.json").read_text()),
        json.loads(summary.read_text()) if summary.exists() else None,
        json.loads((folder / "environment.json").read_text()),
        _read_metrics(folder / "metrics.csv"),
    )


def find_runs(folder: Path) -> list[Run]:
    """Returns all runs in a folder and below it, in the order of their jobs in a sweep."""
    folders = [path.parent for path in folder.rglob("status.json") if (path.parent / "config.yaml").exists()]
    return [read_run(one) for one in sorted(folders, key=_job_number)]


def _job_number(folder: Path) -> tuple[Path, int, str]:
    number = folder.name.partition("_")[0]
    return folder.parent, int(number) if number.isdigit() else 0, folder.name


def _read_metrics(path: Path) -> dict[str, np.ndarray]:
    # A kill may leave half a last line: what comes after the last line end does not count.
    whole, end, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
    rows = list(csv.reader(io.StringIO(whole + end)))
    if len(rows) < 2:
        return {}
    columns = np.array(rows[1:], dtype=float).T
    return dict(zip(rows[0], columns, strict=True))
