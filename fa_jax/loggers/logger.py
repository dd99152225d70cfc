"""The contract of a tracker, and what is sent to it of a run.

For each metric, at each evaluation, over training examples: `metric/seed_3` of every seed, and over those that did not
diverge `metric/mean` with its 95 % interval by t, `metric/low` and `metric/high`. At the end the run's figure.
A tracker that fails is left alone from then on; the run goes on, and its own folder has everything.
"""

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fa_jax.checks import BadOption
from fa_jax.records.reader import KEYS, read_run
from fa_jax.records.statistics import band, has_diverged, is_logarithmic

log = logging.getLogger(__name__)


NUMBER = "tracker_run.txt"
"""The file that keeps a tracker's number for a run."""


class Tracker(NamedTuple):
    """What takes a run's numbers."""

    scalars: Callable[[int, Mapping[str, float]], None]
    """(training examples, name -> number)."""
    figure: Callable[[Path], None]
    """Takes a PNG."""
    close: Callable[[bool], None]
    """(whether the run came to its end)."""


SILENT = Tracker(lambda examples, scalars: None, lambda path: None, lambda finished: None)
Opener = Callable[[Path, Mapping[str, Any]], Tracker]
"""`(folder, config) -> Tracker` of a run."""


class Tracking:
    """Sends a run to a tracker while it goes on."""

    def __init__(self, opener: Opener, folder: Path, config: Mapping[str, Any], groups: Sequence[Sequence[int]]):
        """Opens the tracker for a run: its folder, its config, and its seeds in the groups that are trained at once."""
        self._folder, self._together = folder, len(groups) == 1
        self._tracker: Tracker | None = None
        with self._left_alone_if_it_fails():
            self._tracker = opener(folder, config)
        # Of a run that is continued, also those before.
        before = read_run(folder) if (folder / "metrics.csv").exists() else None
        losses = before.metrics.get("test_loss", np.zeros(0)) if before else np.zeros(0)
        self._losses = {seed: losses[rows].tolist() for seed, rows in before.rows().items()} if before else {}
        sent = before.metrics.get("examples", np.zeros(0)) if before and self._together else np.zeros(0)
        self._averaged: set[int] = set(sent.astype(int).tolist())
        """The examples at which the means have been sent."""

    def evaluation(self, seeds: Sequence[int], examples: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Sends an evaluation of some of the seeds, one number a seed by name; that of all at once with its means."""
        scalars = {f"{name}/seed_{seed}": metrics[name][i] for name in metrics for i, seed in enumerate(seeds)}
        for i, seed in enumerate(seeds):
            self._losses.setdefault(seed, []).append(float(metrics["test_loss"][i]))
        if self._together:
            healthy = [i for i, seed in enumerate(seeds) if not has_diverged(self._losses[seed])]
            for name, values in metrics.items():
                scalars |= _over_seeds(name, np.asarray(values)[healthy])
            self._averaged.add(examples)
        self._send(examples, scalars)

    def close(self, finished: bool) -> None:
        """Sends what is known only at the end: means of seeds that were trained in groups, and the figure.

        Args:
          finished: whether the run came to its end.
        """
        from fa_jax.reports.figures import comparison_figure  # matplotlib takes a second to import

        run = read_run(self._folder)
        # Those of a run that is cut off would be of the seeds that came furthest.
        for name in run.metrics if finished else ():
            if name not in KEYS:
                examples, values = run.curves(name)
                for at, column in zip(examples.astype(int).tolist(), values.T, strict=True):
                    if at not in self._averaged:
                        self._send(at, _over_seeds(name, column))
        if run.metrics:
            with self._left_alone_if_it_fails() as tracker:
                comparison_figure([run], self._folder / "curves")
                tracker.figure(self._folder / "curves.png")
        with self._left_alone_if_it_fails() as tracker:
            tracker.close(finished)

    def _send(self, examples: int, scalars: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in scalars.items() if np.isfinite(value)}
        if finite:
            with self._left_alone_if_it_fails() as tracker:
                tracker.scalars(examples, finite)

    @contextlib.contextmanager
    def _left_alone_if_it_fails(self) -> Iterator[Tracker]:
        """Hands out the tracker; whatever it raises is said once, and from then on a silent one is handed out."""
        try:
            yield self._tracker or SILENT
        except Exception as problem:
            log.warning("the tracker failed and is left alone: %s", str(problem).partition("\n")[0])
            self._tracker = SILENT


def number_of(folder: Path, make: Callable[[], str]) -> str:
    """Returns the tracker's number for the run in a folder: the one it was given when it began, or else a new one."""
    path = folder / NUMBER
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(make())
        part.replace(path)
    return path.read_text()


def needed(option: str, package: str) -> Any:
    """Imports the package of a tracker.

    Raises:
      BadOption: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as problem:
        raise BadOption(
            f"logger={option} needs {problem.name}, which is not installed: pip install 'fa-jax[{option}]'"
        ) from None


def _over_seeds(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean and interval of one number a seed."""
    parts = zip(("mean", "low", "high"), band(values[:, None], logarithmic=is_logarithmic(name)), strict=True)
    return {f"{name}/{part}": float(value[0]) for part, value in parts}
