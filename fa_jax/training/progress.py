"""The progress of a run: a bar in a terminal or a notebook, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fa_jax.core import Metric
from fa_jax.records.statistics import SMALLEST
from fa_jax.training.announce import announced
from fa_jax.user.text import say

LINE_INTERVAL = 10.0
"""Seconds between two plain lines."""


class Progress:
    """A context that shows the seed-steps done (steps times seeds) and the test scores over seeds."""

    def __init__(
        self, steps: int, metrics: Sequence[Metric], done: int = 0, *, bar: bool = True, plain_lines: bool = True
    ):
        """Takes what there is to do and how it is shown.

        Args:
          steps: the number of seed-steps to do.
          metrics: the scores to show.
          done: the seed-steps done before a resume.
          bar: whether a bar is shown in a terminal or a notebook.
          plain_lines: whether lines are printed elsewhere.
        """
        self.done = done
        self._steps, self._metrics = steps, metrics
        self._console = Console()
        self._last_line = -LINE_INTERVAL
        self._text = ""
        columns = (
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        can_draw = self._console.is_terminal or self._console.is_jupyter
        self._plain_lines = plain_lines and not can_draw
        self._bar = Bar(*columns, console=self._console, disable=not (bar and can_draw), transient=True)
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    @contextlib.contextmanager
    def preparing(self, text: str) -> Iterator[None]:
        """While entered, the bar says what is being done; elsewhere a line does, if it takes long."""
        self._bar.update(self._task, description=text)
        with announced(text, self._console) if self._plain_lines else contextlib.nullcontext():
            yield

    def advance(self, seed_steps: int, examples: int) -> None:
        """Moves the bar by a number of seed-steps."""
        self.done += seed_steps
        self._bar.update(self._task, completed=self.done, description=f"{examples} examples  {self._text}")

    def show(self, examples: int, runs: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Shows an evaluation of each of the runs that are trained together: scores of each seed, by column."""
        self._text = scores_text(self._metrics, *runs)
        self._bar.update(self._task, description=f"{examples} examples  {self._text}")
        now = time.monotonic()
        if self._plain_lines and (self.done >= self._steps or now - self._last_line >= LINE_INTERVAL):
            line = f"{100 * self.done / self._steps:3.0f} %  {examples} examples  {self._text}"
            say(self._console, line)
            self._last_line = now


def scores_text(metrics: Sequence[Metric], *runs: Mapping[str, np.ndarray]) -> str:
    """Returns the test scores of runs as text: of a single run the mean over seeds with the range, else of all."""
    if len(runs) == 1:
        return "  ".join(_summary(metric, runs[0][f"test_{metric.name}"]) for metric in metrics)
    return "  ".join(_range(metric, [run[f"test_{metric.name}"] for run in runs]) for metric in metrics)


def _range(metric: Metric, runs: Sequence[np.ndarray]) -> str:
    """Returns the range of the mean over seeds, as text."""
    means = [_mean(metric, finite) for values in runs if len(finite := values[np.isfinite(values)])]
    digits, name = ".3g" if metric.logarithmic else ".4g", f"test_{metric.name}"
    if not means:
        return f"{name} not finite"
    return f"{name} {min(means):{digits}} to {max(means):{digits}}{_unit(metric)} in {len(runs)} runs"


def _mean(metric: Metric, values: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, SMALLEST)))) if metric.logarithmic else values.mean())


def _summary(metric: Metric, values: np.ndarray) -> str:
    """Returns the mean over seeds with the range, as text."""
    name, finite = f"test_{metric.name}", values[np.isfinite(values)]
    if not len(finite):
        return f"{name} not finite"
    mean, digits = _mean(metric, finite), ".3g" if metric.logarithmic else ".4g"
    low, high, n, others = finite.min(), finite.max(), len(finite), len(values) - len(finite)
    seeds = f"{low:{digits}} to {high:{digits}} over {n} seeds" if n > 1 else "1 seed"
    return f"{name} {mean:{digits}}{_unit(metric)} ({seeds}{f', {others} not finite' if others else ''})"


def _unit(metric: Metric) -> str:
    return f" {metric.unit}" if metric.unit else ""
