"""The end of a sweep: the comparison of all its runs, and a list of those that failed."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fa_jax.records.conditions import ENDED
from fa_jax.records.reader import find_runs, jobs_of


class Comparison(Callback):
    """The Hydra callback that compares the runs of a sweep, whatever became of some of them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compares; exits with 1 if a run did not come to its end."""
        del kwargs
        if compare(Path(config.hydra.sweep.dir)):
            raise SystemExit(1)


def compare(folder: Path) -> int:
    """Prints and writes the comparison of the runs in a sweep's folder; returns how many did not end."""
    from fa_jax.reports import comparison  # not before it is needed
    from fa_jax.reports.tables import wide_console

    runs = find_runs(folder)
    if runs:
        console = wide_console()
        found = comparison.compare(runs)
        comparison.show(found, console)
        comparison.write(found, folder)
        console.print(
            f"tables: {folder}/comparison.csv, .md, .tex  figure: {folder}/comparison.png",
            highlight=False,
            soft_wrap=True,
        )
    return max(0, jobs_of(folder) - sum(run.status["status"] in ENDED for run in runs))
