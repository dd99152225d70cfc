"""Reading runs back from their folders, however they ended."""

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from omegaconf import OmegaConf


class Run(NamedTuple):
    """A run as it lies on disk."""

    folder: Path
    config: dict[str, Any]
    status: dict[str, Any]
    summary: dict[str, Any] | None
    """None where the run did not come to its end."""
    metrics: dict[str, np.ndarray]
    """Column -> one number a row, in the order of the rows; empty before the first evaluation."""

    @property
    def choices(self) -> dict[str, str]:
        """Config group -> the option chosen, such as `rule` -> `fa`."""
        return self.config["choices"]

    def curves(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples `[evaluations]` and the metric `[seeds, evaluations]` of the seeds that did not diverge.

        Seeds that were interrupted at different points are cut to the shortest.
        """
        seeds = [s for s in np.unique(self.metrics["seed"]) if s not in set(self.status["diverged_seeds"])]
        of_seed = [self.metrics["seed"] == s for s in seeds]
        length = min((int(rows.sum()) for rows in of_seed), default=0)
        if not length:
            return np.zeros(0), np.zeros((0, 0))
        values = np.stack([self.metrics[metric][rows][:length] for rows in of_seed])
        return self.metrics["examples"][of_seed[0]][:length], values


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
