"""The contract of a logger, which sends the records of a run to an experiment tracker.

At each evaluation, over training examples, for each metric: `metric/seed_3` of every seed, and over the seeds that have
not diverged by then `metric/mean` with its 95 % interval by Student's t, `metric/low` and `metric/high`. At the end,
the figure of the run. A logger that fails is not called again; the run continues, and its own folder has everything.
"""

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fa_jax.checks import BadOption
from fa_jax.records.columns import Declared
from fa_jax.records.files import write_text
from fa_jax.records.reader import KEYS, read_run
from fa_jax.records.statistics import band, has_diverged

log = logging.getLogger(__name__)

RUN_ID = "logger_run.txt"
"""The file with the tracker's identifier of a run."""


class Logger(NamedTuple):
    """An open connection of one run to an experiment tracker."""

    scalars: Callable[[int, Mapping[str, float]], None]
    """`(training examples, values by name)`."""
    figure: Callable[[Path], None]
    """Takes the path of a PNG."""
    close: Callable[[bool], None]
    """`(whether the run is finished)`."""


SILENT = Logger(lambda examples, scalars: None, lambda path: None, lambda finished: None)
OpenLogger = Callable[[Path, Mapping[str, Any]], Logger]
"""`(folder, config) -> Logger` of a run."""


class RunLogger:
    """Sends a run to a tracker while it trains."""

    def __init__(
        self,
        open_logger: OpenLogger,
        folder: Path,
        config: Mapping[str, Any],
        groups: Sequence[Sequence[int]],
        declared: Declared,
    ):
        """Opens the logger of a run, given its folder, config, groups of seeds and metrics."""
        self._folder, self._one_group, self._declared = folder, len(groups) == 1, declared
        self._logger: Logger | None = None
        with self._dropped_if_it_fails():
            self._logger = open_logger(folder, config)
        # A resumed run has earlier evaluations.
        before = read_run(folder) if (folder / "metrics.csv").exists() else None
        self._first_scores: dict[int, float] = {}
        if before and before.metrics:
            scores = before.metrics[before.main_metric]
            self._first_scores = {seed: float(scores[rows[0]]) for seed, rows in before.rows.items()}
        examples = before.metrics.get("examples", np.zeros(0)) if before and self._one_group else np.zeros(0)
        self._averaged: set[int] = set(examples.astype(int).tolist())
        """The numbers of examples at which means have been sent."""

    def evaluation(self, seeds: Sequence[int], examples: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Sends an evaluation of a group of seeds; means over seeds only if there is one group."""
        scalars = {f"{name}/seed_{seed}": metrics[name][i] for name in metrics for i, seed in enumerate(seeds)}
        main, columns = self._declared.main, self._declared.columns(list(metrics))
        for i, seed in enumerate(seeds):
            self._first_scores.setdefault(seed, float(metrics[main][i]))
        if self._one_group:
            ends = [(self._first_scores[seed], float(metrics[main][i])) for i, seed in enumerate(seeds)]
            losses = metrics["test_loss"].tolist()
            diverged = [has_diverged(loss, *pair, columns[main]) for loss, pair in zip(losses, ends, strict=True)]
            healthy = np.flatnonzero(~np.array(diverged))
            for name, values in metrics.items():
                scalars |= _over_seeds(name, np.asarray(values)[healthy], logarithmic=columns[name].logarithmic)
            self._averaged.add(examples)
        self._send(examples, scalars)

    def close(self, finished: bool) -> None:
        """Sends what is known only at the end: the figure, and means over several groups of seeds.

        Args:
          finished: whether the run is finished; if not, means would be over the seeds that came furthest.
        """
        from fa_jax.reports.figures import comparison_figure  # imports matplotlib, which is slow

        run = read_run(self._folder)
        for name in run.metrics if finished else ():
            if name not in KEYS:
                examples, values = run.curves(name)
                for count, column in zip(examples.astype(int).tolist(), values.T, strict=True):
                    if count not in self._averaged:
                        self._send(count, _over_seeds(name, column, logarithmic=run.columns[name].logarithmic))
        if run.metrics:
            with self._dropped_if_it_fails() as logger:
                comparison_figure([run], self._folder / "curves")
                logger.figure(self._folder / "curves.png")
        with self._dropped_if_it_fails() as logger:
            logger.close(finished)

    def _send(self, examples: int, scalars: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in scalars.items() if np.isfinite(value)}
        if finite:
            with self._dropped_if_it_fails() as logger:
                logger.scalars(examples, finite)

    @contextlib.contextmanager
    def _dropped_if_it_fails(self) -> Iterator[Logger]:
        """Yields the logger; after its first exception, which is logged, a silent one."""
        try:
            yield self._logger or SILENT
        except Exception as problem:
            log.warning("the logger failed and is not used further: %s", str(problem).partition("\n")[0])
            self._logger = SILENT


def run_id(folder: Path, make: Callable[[], str]) -> str:
    """Returns the tracker's identifier of the run in a folder, made at the start of the run."""
    path = folder / RUN_ID
    if not path.exists():
        write_text(path, make())
    return path.read_text(encoding="utf-8")


def import_package(logger: str, package: str) -> Any:
    """Returns an imported package of a tracker.

    Raises:
      BadOption: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as problem:
        raise BadOption(f"needs {problem.name}, which is not installed: pip install 'fa-jax[{logger}]'") from None


def _over_seeds(name: str, values: np.ndarray, *, logarithmic: bool) -> dict[str, float]:
    """Returns mean and interval of one number per seed."""
    parts = zip(("mean", "low", "high"), band(values[:, None], logarithmic=logarithmic), strict=True)
    return {f"{name}/{part}": float(value[0]) for part, value in parts}
