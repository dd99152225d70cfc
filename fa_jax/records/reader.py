"""Reading runs from their folders, however they ended."""

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

from fa_jax.records.columns import Column, read_column
from fa_jax.records.statistics import has_diverged
from fa_jax.text import printable

log = logging.getLogger(__name__)

SWEEP = "sweep.json"
"""The file that marks the folder of a sweep."""
STUDY = "study.db"
"""The file that marks a folder whose runs are the trials of a study."""
COLUMNS = "metrics.json"
"""The file that says what the columns of `metrics.csv` mean."""
KEYS = ("seed", "step", "examples", "epoch")
"""The columns of `metrics.csv` that identify a row."""
FINISHED = ("finished", "diverged")
"""The statuses of a run that reached its last step."""


class Run(NamedTuple):
    """A run as it is recorded."""

    folder: Path
    config: dict[str, Any]
    status: dict[str, Any]
    summary: dict[str, Any] | None
    """None unless the run ended, or was interrupted."""
    environment: dict[str, Any]
    metrics: dict[str, np.ndarray]
    """One number per row, by column; empty before the first evaluation."""
    columns: dict[str, Column]
    """The meaning of each column but the keys."""
    main_metric: str
    """The column that the run is judged by; empty before the first evaluation."""

    @property
    def choices(self) -> dict[str, str]:
        """The choice of each config group, such as `fa` of `rule`."""
        return self.config["choices"]

    @property
    def is_finished(self) -> bool:
        """Whether the run reached its last step."""
        return self.status["status"] in FINISHED

    @property
    def seeds(self) -> list[int]:
        """The seeds with rows, in order."""
        return list(self.rows())

    @property
    def diverged(self) -> list[int]:
        """The seeds that diverged."""
        return [seed for seed, rows in self.rows().items() if has_diverged(self.metrics["test_loss"][rows].tolist())]

    def curves(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples `[evaluations]` and the metric `[seeds, evaluations]` of the seeds that did not diverge.

        If a run ended before all groups of seeds reached the same step, these are the seeds that came furthest.
        """
        furthest = self._furthest()
        if not furthest:
            return np.zeros(0), np.zeros((0, 0))
        return self.metrics["examples"][furthest[0]], np.stack([self.metrics[metric][r] for r in furthest])

    def at_end(self, metric: str) -> dict[int, float]:
        """Returns a metric at the last evaluation, by seed; the seeds are those of `curves`."""
        return {int(self.metrics["seed"][rows[-1]]): float(self.metrics[metric][rows[-1]]) for rows in self._furthest()}

    def at_epoch(self, metric: str, epoch: float) -> np.ndarray | None:
        """Returns a metric after an epoch, `[seeds]` of the seeds of `curves`; None if it was not measured there.

        The nearest evaluation counts, up to 1 % away: the examples that batches leave out make an epoch of steps
        slightly shorter than one of examples.
        """
        seeds = self._furthest()
        if not seeds:
            return None
        epochs = self.metrics["epoch"][seeds[0]]
        nearest = int(np.argmin(np.abs(epochs - epoch)))
        if abs(epochs[nearest] / epoch - 1) > 0.01:
            return None
        return np.array([self.metrics[metric][rows[nearest]] for rows in seeds])

    def _furthest(self) -> list[np.ndarray]:
        """Returns the rows of each seed that did not diverge and came furthest."""
        diverged = self.diverged
        rows = [r for seed, r in self.rows().items() if seed not in diverged]
        return [r for r in rows if len(r) == max(map(len, rows))]

    def rows(self) -> dict[int, np.ndarray]:
        """Returns the row indices of each seed."""
        seeds = self.metrics.get("seed", np.zeros(0))
        return {int(seed): np.flatnonzero(seeds == seed) for seed in np.unique(seeds)}


def read_run(folder: Path | str) -> Run:
    """Returns the run in a folder.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if a file is damaged.
    """
    folder = Path(folder)
    config = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    summary = folder / "summary.json"
    status = json.loads((folder / "status.json").read_text())
    if not isinstance(config, dict) or not isinstance(config.get("choices"), dict):
        raise ValueError("its config.yaml has no choices")
    if not isinstance(status, dict) or not {"status", "reason", "time"} <= status.keys():
        raise ValueError("its status.json has no status")
    metrics = _read_metrics(folder / "metrics.csv")
    declared = json.loads((folder / COLUMNS).read_text()) if metrics else {"main": "", "columns": {}}
    return Run(
        folder,
        config,
        status,
        json.loads(summary.read_text()) if summary.exists() else None,
        json.loads((folder / "environment.json").read_text()),
        metrics,
        {name: read_column(content) for name, content in declared["columns"].items()},
        declared["main"],
    )


def read_checkpoint(run: Run) -> dict[str, Any]:
    """Returns the final `params` and `feedback` of a run, with a leading axis of seeds."""
    import orbax.checkpoint  # takes a second

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((run.folder / "checkpoint").absolute())


def find_runs(*folders: Path) -> list[Run]:
    """Returns all runs in folders and below them, each once, in the order of their jobs in a sweep.

    Damaged runs are skipped with a warning. So are the trials of studies below the folders, without one.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        recorded = [path.parent for path in folder.rglob("status.json") if (path.parent / "config.yaml").exists()]
        studies = {path.parent for path in folder.rglob(STUDY)} - {folder}
        recorded = [path for path in recorded if not studies.intersection(path.parents)]
        for path in sorted(recorded, key=_job_number):
            paths.setdefault(path.resolve(), path)
    runs = []
    for path in paths.values():
        try:
            runs.append(read_run(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError, OmegaConfBaseException) as problem:
            log.warning("%s cannot be read: %s", printable(path), printable(problem))
    return runs


def jobs_of(sweep: Path) -> int:
    """Returns the number of runs of a sweep; 0 if its record is missing or damaged."""
    try:
        return int(json.loads((sweep / SWEEP).read_text())["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _job_number(folder: Path) -> tuple[Path, int, str]:
    number = folder.name.partition("_")[0]
    return folder.parent, int(number) if number.isdigit() else 0, folder.name


def _read_metrics(path: Path) -> dict[str, np.ndarray]:
    # A kill may leave half a last line.
    complete, end, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
    rows = list(csv.reader(io.StringIO(complete + end)))
    if len(rows) < 2:
        return {}
    columns = np.array(rows[1:], dtype=float).T
    return dict(zip(rows[0], columns, strict=True))
