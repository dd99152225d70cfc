"""Reading runs back from their folders, however they ended."""

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fa_jax.records.statistics import has_diverged

log = logging.getLogger(__name__)

SWEEP = "sweep.json"
"""The file of a sweep's folder that says what it is."""
STUDY = "study.db"
"""The file of a folder whose runs are the trials of a study."""
KEYS = ("seed", "step", "examples", "epoch")
"""The columns of `metrics.csv` that say which row it is."""


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
    def main_metric(self) -> str:
        """The metric of the test examples that a run is judged by: the task's own, or else the loss."""
        test = [name for name in self.metrics if name.startswith("test_")]
        return next((name for name in test if name != "test_loss"), "test_loss")

    @property
    def seeds(self) -> list[int]:
        """The seeds that have rows, in order."""
        return list(self.rows())

    @property
    def diverged(self) -> list[int]:
        """Seeds that diverged, by `has_diverged`."""
        return [seed for seed, rows in self.rows().items() if has_diverged(self.metrics["test_loss"][rows].tolist())]

    def curves(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples `[evaluations]` and the metric `[seeds, evaluations]` of the seeds that did not diverge.

        Where a run ended before all groups of seeds had come as far, these are the seeds that came furthest.
        """
        furthest = self._furthest()
        if not furthest:
            return np.zeros(0), np.zeros((0, 0))
        return self.metrics["examples"][furthest[0]], np.stack([self.metrics[metric][r] for r in furthest])

    def at_end(self, metric: str) -> dict[int, float]:
        """Returns a metric at the last evaluation, by seed; the seeds are those that `curves` has."""
        return {int(self.metrics["seed"][rows[-1]]): float(self.metrics[metric][rows[-1]]) for rows in self._furthest()}

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
        rows = [r for seed, r in self.rows().items() if seed not in diverged]
        return [r for r in rows if len(r) == max(map(len, rows))]

    def rows(self) -> dict[int, np.ndarray]:
        """Returns the numbers of the rows of each seed."""
        seeds = self.metrics.get("seed", np.zeros(0))
        return {int(seed): np.flatnonzero(seeds == seed) for seed in np.unique(seeds)}


def read_run(folder: Path | str) -> Run:
    """Returns the run in a folder.

    Raises:
      FileNotFoundError: if there is none.
    """
    folder = Path(folder)
    config = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    summary = folder / "summary.json"
    status = json.loads((folder / "status.json").read_text())
    if not isinstance(config, dict) or not isinstance(config.get("choices"), dict):
        raise ValueError("its config.yaml has no choices")
    if not isinstance(status, dict) or not {"status", "reason", "time"} <= status.keys():
        raise ValueError("its status.json has no status")
    return Run(
        folder,
        config,
        status,
        json.loads(summary.read_text()) if summary.exists() else None,
        json.loads((folder / "environment.json").read_text()),
        _read_metrics(folder / "metrics.csv"),
    )


def find_runs(*folders: Path) -> list[Run]:
    """Returns all runs in folders and below them, in the order of their jobs in a sweep; no run comes twice.

    Of one that cannot be read, since a file of it is damaged, it is warned. The trials of a study that lies below are
    left out, for they are means to something else.
    """
    places: dict[Path, Path] = {}
    for folder in folders:
        there = [path.parent for path in folder.rglob("status.json") if (path.parent / "config.yaml").exists()]
        studies = {path.parent for path in folder.rglob(STUDY)} - {folder}
        there = [one for one in there if not studies.intersection(one.parents)]
        for one in sorted(there, key=_job_number):
            places.setdefault(one.resolve(), one)
    runs = []
    for place in places.values():
        try:
            runs.append(read_run(place))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError, OmegaConfBaseException) as problem:
            log.warning("%s cannot be read: %s", place, str(problem).partition("\n")[0])
    return runs


def jobs_of(sweep: Path) -> int:
    """Returns how many runs the record in a sweep's folder speaks of; 0 where there is none that can be read."""
    try:
        return int(json.loads((sweep / SWEEP).read_text())["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


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
