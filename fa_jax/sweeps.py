"""The end of a sweep: one table, one CSV and one figure of all its runs, and a list of those that failed."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from fa_jax.records.reader import find_runs


class Comparison(Callback):
    """The Hydra callback that compares the runs of a sweep, whatever became of some of them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compares; exits with 1 if a run failed."""
        del kwargs
        if compare(Path(config.hydra.sweep.dir)):
            raise SystemExit(1)


def compare(folder: Path) -> int:
    """Prints and writes the comparison of the runs in a sweep's folder; returns how many failed."""
    from fa_jax.reports.figures import comparison_figure  # keeps matplotlib out of the start
    from fa_jax.reports.tables import comparison_table, write_comparison

    console = Console()
    runs = find_runs(folder)
    if runs:
        write_comparison(runs, folder / "comparison.csv")
        comparison_figure(runs, folder / "comparison")
        console.print(comparison_table(runs))
        console.print(
            f"table: {folder}/comparison.csv  figure: {folder}/comparison.png", highlight=False, soft_wrap=True
        )
    failed = [run for run in runs if run.status["status"] == "failed"]
    for run in failed:
        console.print(f"failed: {run.folder}: {run.status['reason']}", highlight=False, soft_wrap=True, markup=False)
    return len(failed)
