"""Reading runs from their folders, however they ended."""

import dataclasses
import functools
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_jax.checks import BadOption
from fa_jax.records import schema
from fa_jax.records.columns import Column, read_column
from fa_jax.records.locks import is_held
from fa_jax.records.options import options
from fa_jax.records.statistics import has_diverged
from fa_jax.user.text import printable

log = logging.getLogger(__name__)

SWEEP = "sweep.json"
"""The file that marks the folder of a sweep."""
STUDY = "study.db"
"""The file that marks a folder whose runs are the trials of a study."""
COLUMNS = "metrics.json"
"""The file that says what the columns of `metrics.csv` mean."""
KEYS = ("seed", "step", "examples", "epoch")
"""The columns of `metrics.csv` that identify a row."""
MOST_COLUMNS = 10_000
"""The most columns that `metrics.csv` may have."""
FINISHED = ("finished", "diverged")
"""The statuses of a run that reached its last step."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run as it is recorded."""

    folder: Path
    config: dict[str, Any]
    status: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    """None unless the run ended, or was interrupted."""
    environment: Mapping[str, Any]
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

    @functools.cached_property
    def options(self) -> dict[str, str]:
        """The options of the config that decide what is learned, by dotted name."""
        return options(self.config)

    @property
    def state(self) -> str:
        """The recorded status, or `cut off` if that is `running` and no process holds the folder any more."""
        status = self.status["status"]
        return "cut off" if status == "running" and not is_held(self.folder) else status

    @property
    def is_finished(self) -> bool:
        """Whether the run reached its last step."""
        return self.status["status"] in FINISHED

    @property
    def seeds(self) -> list[int]:
        """The seeds with rows, in order."""
        return list(self.rows)

    @functools.cached_property
    def diverged(self) -> list[int]:
        """The seeds that have diverged by their last evaluation."""
        if not self.metrics:
            return []
        losses, scores = (self.metrics[name].tolist() for name in ("test_loss", self.main_metric))
        column, ends = self.columns[self.main_metric], {seed: rows[[0, -1]] for seed, rows in self.rows.items()}
        return [
            seed
            for seed, (first, last) in ends.items()
            if has_diverged(losses[last], scores[first], scores[last], column)
        ]

    def curves(self, metric: str, over: str = "examples") -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples `[evaluations]` and the metric `[seeds, evaluations]` of the seeds that did not diverge.

        If a run ended before all groups of seeds reached the same step, these are the seeds that came furthest.

        Args:
          metric: a column.
          over: another key instead of the examples, such as `epoch`.
        """
        furthest = self._furthest
        if not furthest:
            return np.zeros(0), np.zeros((0, 0))
        return self.metrics[over][furthest[0]], self.metrics[metric][np.stack(furthest)]

    def at_end(self, metric: str) -> dict[int, float]:
        """Returns a metric at the last evaluation, by seed; the seeds are those of `curves`."""
        if not self._furthest:
            return {}
        seeds, values = (column.tolist() for column in self.ends(("seed", metric)))
        return dict(zip(map(int, seeds), values, strict=True))

    def ends(self, names: Sequence[str]) -> np.ndarray:
        """Returns columns at the last evaluation, `[columns, seeds]` of the seeds of `curves`."""
        ends = [rows[-1] for rows in self._furthest]
        return np.array([self.metrics[name][ends] for name in names], float).reshape(len(names), len(ends))

    def at_epoch(self, metric: str, epoch: float) -> np.ndarray | None:
        """Returns a metric after an epoch, `[seeds]` of the seeds of `curves`; None if it was not measured there.

        The nearest evaluation counts, up to 1 % away: the examples that batches leave out make an epoch of steps
        slightly shorter than one of examples.
        """
        seeds = self._furthest
        if not seeds:
            return None
        epochs = self.metrics["epoch"][seeds[0]]
        nearest = int(np.argmin(np.abs(epochs - epoch)))
        if abs(epochs[nearest] / epoch - 1) > 0.01:
            return None
        return np.array([self.metrics[metric][rows[nearest]] for rows in seeds])

    @functools.cached_property
    def _furthest(self) -> list[np.ndarray]:
        """The rows of each seed that did not diverge and came furthest."""
        diverged = self.diverged
        rows = [r for seed, r in self.rows.items() if seed not in diverged]
        longest = max(map(len, rows), default=0)
        return [r for r in rows if len(r) == longest]

    @functools.cached_property
    def rows(self) -> dict[int, np.ndarray]:
        """The row indices of each seed."""
        seeds = self.metrics.get("seed", np.zeros(0))
        return {int(seed): np.flatnonzero(seeds == seed) for seed in np.unique(seeds)}


def read_run(folder: Path | str) -> Run:
    """Returns the run in a folder.

    Raises:
      OSError: if there is none, or it cannot be read.
      ValueError: if a file is damaged; the message names it.
    """
    folder = Path(folder)
    config = schema.read_config(folder / "config.yaml")
    status = schema.read_json(folder / "status.json", schema.Status)
    environment = schema.read_json(folder / "environment.json", schema.Environment)
    metrics, summary, columns, main = _read_metrics(folder / "metrics.csv"), None, {}, ""
    if metrics:
        columns, main = _read_columns(folder / COLUMNS, metrics)
    if (folder / "summary.json").exists():
        summary = _read_summary(folder / "summary.json", columns)
    return Run(folder, config, status, summary, environment, metrics, columns, main)


def read_checkpoint(run: Run, like: Any = None) -> dict[str, Any]:
    """Returns the final `params` and `feedback` of a run, with a leading axis of seeds.

    Args:
      run: that saved them.
      like: a tree of shapes that they have; None: the containers of the tree may be others than those of the rule.

    Raises:
      BadOption: if they cannot be read, or have other shapes.
    """
    import orbax.checkpoint  # takes a second

    try:
        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            return checkpointer.restore((run.folder / "checkpoint").absolute(), like)
    except Exception as problem:  # whatever Orbax raises about damaged files, or those of others
        reason = printable(str(problem).partition("\n")[0])
        raise BadOption(f"{run.folder}: its checkpoint cannot be read: {reason}") from problem


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
        except (OSError, ValueError) as problem:
            log.warning("%s cannot be read: %s", printable(path), printable(problem))
    return runs


def jobs_of(sweep: Path) -> int:
    """Returns the number of runs of a sweep; 0 if its record is missing or damaged."""
    try:
        return read_sweep(sweep)["jobs"]
    except (OSError, ValueError):
        return 0


def read_sweep(folder: Path) -> schema.Sweep:
    """Returns the record of the sweep in a folder.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is damaged.
    """
    return schema.read_json(folder / SWEEP, schema.Sweep)


def _job_number(folder: Path) -> tuple[Path, int, str]:
    number = folder.name.partition("_")[0]
    return folder.parent, int(number) if number.isdigit() else 0, folder.name


def _read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Returns the numbers of `metrics.csv` by column; none before the first evaluation."""
    header, _, lines = (schema.read_lines(path) if path.exists() else "").partition("\n")
    if not lines.strip():
        return {}
    names = header.split(",")
    if len(names) > MOST_COLUMNS or len(set(names)) < len(names):
        raise schema.damaged(path, f"has more than {MOST_COLUMNS} columns, or two of one name")
    if missing := [name for name in (*KEYS, "test_loss") if name not in names]:
        raise schema.damaged(path, f"has no column {missing[0]}")
    try:
        numbers = np.loadtxt(io.StringIO(lines), float, delimiter=",", ndmin=2, comments=None)
    except ValueError as problem:
        raise schema.damaged(path, str(problem).partition(";")[0]) from None
    if numbers.shape[1] != len(names):
        raise schema.damaged(path, f"has {len(names)} columns in its first line, and {numbers.shape[1]} in others")
    metrics = dict(zip(names, np.ascontiguousarray(numbers.T), strict=True))
    for name in KEYS:
        whole = name == "epoch" or np.array_equal(metrics[name], np.floor(metrics[name]))
        if not whole or not (np.abs(metrics[name]) < 2**53).all():
            raise schema.damaged(path, f"has a {name} that is none")
    return metrics


def _read_columns(path: Path, metrics: Mapping[str, np.ndarray]) -> tuple[dict[str, Column], str]:
    """Returns the meaning of every column of numbers, and the column that the run is judged by."""
    columns, main = schema.read(path, _columns)
    if columns.keys() != metrics.keys() - set(KEYS):
        raise schema.damaged(path, "describes other columns than metrics.csv has")
    if main not in columns:
        raise schema.damaged(path, f"has {main} for the column that the run is judged by, and does not describe it")
    return columns, main


@functools.lru_cache(maxsize=64)
def _columns(content: bytes) -> tuple[dict[str, Column], str]:
    """Returns the content of a file of columns, which is the same for most runs of a sweep."""
    declared = schema.decode(content, schema.Columns)
    return {name: read_column(described) for name, described in declared["columns"].items()}, declared["main"]


def _read_summary(path: Path, columns: Mapping[str, Column]) -> schema.Summary:
    """Returns the summary of a run with these columns."""
    summary = schema.read_json(path, schema.Summary)
    for name, numbers in summary["final"].items():
        if name not in columns or columns[name].logarithmic != ("geometric" in numbers):
            raise schema.damaged(path, f"has {name}, which metrics.json describes otherwise")
    return summary
