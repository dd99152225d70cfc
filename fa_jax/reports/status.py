"""How far the runs in folders have come."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fa_jax.records.conditions import ENDED
from fa_jax.records.locks import is_taken
from fa_jax.records.reader import SWEEP, Run, find_runs, jobs_of
from fa_jax.reports.tables import Sheet

MEANING = {
    "finished": "came to its end",
    "diverged": "came to its end, every seed diverged",
    "running": "a process has it in hand",
    "cut off": "the process that had it in hand is gone; fa-jax resume= goes on with it",
    "interrupted": "stopped by its user; fa-jax resume= goes on with it",
    "failed": "stopped by an error; fa-jax resume= tries again",
    "not begun": "of a sweep, a run that has no folder yet",
}


def state(run: Run) -> str:
    """Returns one of `MEANING`: the status that a run has set down, unless its process is gone."""
    status = run.status["status"]
    return "cut off" if status == "running" and not is_taken(run.folder) else status


def status_sheet(folders: Sequence[Path]) -> Sheet:
    """Returns a row a run, and for each sweep that has not begun all its runs, how many those are."""
    runs = find_runs(*folders)
    rows = [
        [
            str(run.folder),
            state(run),
            f"{_reached(run):.0%}",
            str(len(run.seeds)),
            run.status["time"][:16].replace("T", " "),
            run.status["reason"] if run.status["reason"] not in (None, run.status["status"]) else "",
        ]
        for run in runs
    ]
    counts = Counter(row[1] for row in rows)
    for sweep in sorted({path for folder in folders for path in folder.rglob(SWEEP)}):
        missing = jobs_of(sweep.parent) - len(find_runs(sweep.parent))
        if missing > 0:
            counts["not begun"] += missing
            rows.append([str(sweep.parent), "not begun", "0%", "-", "-", f"{missing} run{'s' if missing > 1 else ''}"])
    told = [f"{n} {kind}: {MEANING[kind]}" for kind, n in counts.items()]
    return Sheet(["run", "status", "done", "seeds", "since (UTC)", "why"], rows, "\n".join(told))


def _reached(run: Run) -> float:
    """The share of its steps that a run has been evaluated after; of several groups of seeds, their mean."""
    if run.status["status"] in ENDED:
        return 1.0
    seeds = run.config["seeds"]
    n = len(seeds) if isinstance(seeds, list) else seeds
    epochs = sum(run.metrics["epoch"][rows[-1]] for rows in run.rows().values()) if run.metrics else 0.0
    return min(1.0, float(epochs) / (n * run.config["epochs"]))
