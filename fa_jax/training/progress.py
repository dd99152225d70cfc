"""Showing how a run gets on: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fa_jax.records.statistics import SMALLEST, is_logarithmic

PLAIN_EVERY = 10.0
"""Seconds between two plain lines."""


class Progress:
    """A context in which a run shows how many seed-steps it has made and how its test metrics stand over seeds."""

    def __init__(self, steps: int, done: int = 0):
        """Takes the number of seed-steps to make, and how many of them a continued run has made before."""
        self.done = done
        self._steps = steps
        self._console = Console()
        self._spoke = -PLAIN_EVERY
        self._text = ""
        columns = (
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Bar(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def advance(self, seed_steps: int, examples: int) -> None:
        """Moves the bar by so many seed-steps."""
        self.done += seed_steps
        self._bar.update(self._task, completed=self.done, description=f"{examples} examples  {self._text}")

    def show(self, examples: int, metrics: Mapping[str, np.ndarray]) -> str:
        """Shows the metrics of an evaluation, and returns what it says of them."""
        self._text = "  ".join(_stand(name, metrics[name]) for name in shown(metrics))
        self._bar.update(self._task, description=f"{examples} examples  {self._text}")
        now = time.monotonic()
        if not self._console.is_terminal and (self.done >= self._steps or now - self._spoke >= PLAIN_EVERY):
            line = f"{100 * self.done / self._steps:3.0f} %  {examples} examples  {self._text}"
            self._console.print(line, highlight=False, soft_wrap=True)
            self._spoke = now
        return f"{examples} examples  {self._text}"


def shown(metrics: Mapping[str, object]) -> list[str]:
    """The metrics that a person follows: those of the test examples but the loss where there is another."""
    test = [name for name in metrics if name.startswith("test_")]
    return [name for name in test if name != "test_loss"] or test


def _stand(name: str, values: np.ndarray) -> str:
    fine = values[np.isfinite(values)]
    if not len(fine):
        return f"{name} diverged"
    if is_logarithmic(name):
        middle = (
            f"{np.exp(np.mean(np.log(np.maximum(fine, SMALLEST)))):.3g} (all from {fine.min():.2g} to {fine.max():.2g})"
        )
    else:
        middle = f"{fine.mean():.4g} (all from {fine.min():.4g} to {fine.max():.4g})"
    lost = len(values) - len(fine)
    return f"{name} {middle}, n = {len(fine)}" + (f", {lost} diverged" if lost else "")
