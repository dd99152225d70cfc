"""The status of runs: how far each has come."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fa_jax.records.reader import SWEEP, Run, find_runs, jobs_of
from fa_jax.reports.tables import Table

MEANING = {
    "finished": "reached the last step",
    "diverged": "reached the last step, every seed diverged",
    "running": "a process is training it",
    "cut off": "the process that trained it has ended; it can be resumed",
    "interrupted": "stopped by its user; it can be resumed",
    "failed": "stopped by an error; it can be resumed",
    "not started": "a run of a sweep without a folder yet",
}
"""What each `Run.state` means, and the state of runs that have no folder."""


def status_table(folders: Sequence[Path]) -> Table:
    """Returns one row per run, and one per sweep for its runs that have not started."""
    runs = find_runs(*folders)
    rows = [
        [
            str(run.folder),
            run.state,
            f"{progress(run):.0%}",
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
            counts["not started"] += missing
            text = f"{missing} run{'s' if missing > 1 else ''}"
            rows.append([str(sweep.parent), "not started", "0%", "-", "-", text])
    caption = "\n".join(f"{n} {kind}: {MEANING[kind]}" for kind, n in counts.items())
    return Table(["run", "status", "done", "seeds", "since (UTC)", "why"], rows, caption)


def progress(run: Run) -> float:
    """Returns the share of steps done at the last evaluation, averaged over groups of seeds."""
    if run.is_finished:
        return 1.0
    seeds = run.config["seeds"]
    n = len(seeds) if isinstance(seeds, list) else seeds
    epochs = sum(run.metrics["epoch"][rows[-1]] for rows in run.rows.values()) if run.metrics else 0.0
    return min(1.0, float(epochs) / (n * run.config["epochs"]))
