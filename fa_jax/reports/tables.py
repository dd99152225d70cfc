"""Tables of recorded runs, for the terminal and as CSV."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fa_jax.records.reader import Run
from fa_jax.records.statistics import is_logarithmic
from fa_jax.reports.figures import main_metric
from fa_jax.reports.labels import flatten, labels


def run_table(summary: dict[str, Any]) -> Table:
    """Returns the table at the end of a run: every score and angle over seeds at the last evaluation."""
    table = Table(box=SIMPLE_HEAD, caption=caption(summary), caption_justify="left")
    table.add_column("last evaluation")
    for heading in ("mean", "95 % interval", "median", "n"):
        table.add_column(heading, justify="right")
    for name, numbers in summary["final"].items():
        if name.startswith(("test_", "validation_", "train_", "signal_angle", "weight_angle")) and numbers["n"]:
            label = f"{name} (geometric)" if is_logarithmic(name) else name
            table.add_row(label, *_mean_and_interval(name, numbers), _number(numbers["median"]), str(numbers["n"]))
    if not table.rows:
        table.add_row("every seed diverged", "-", "-", "-", "0")
    return table


def comparison_table(runs: Sequence[Run]) -> Table:
    """Returns the table at the end of a sweep: a row a run, with the metric it is judged by and its cost."""
    metrics = list(dict.fromkeys(main_metric(run) for run in runs if run.metrics))
    several = len(metrics) > 1
    table = Table(box=SIMPLE_HEAD, caption_justify="left")
    table.add_column("run", overflow="fold")
    if several:
        table.add_column("metric")
    for heading in ("mean" if several else "".join(metrics), "95 % interval", "n", "angle", "steps/s"):
        table.add_column(heading, justify="right")
    troubled = any(run.status["status"] != "finished" or run.diverged for run in runs)
    if troubled:
        table.add_column("status")
    for run, label in zip(runs, labels(runs), strict=True):
        final = (run.summary or {}).get("final", {})
        metric = main_metric(run)
        numbers = final.get(metric, {"n": 0})
        angle = final.get("signal_angle_0", {}).get("mean")
        speed = (run.summary or {}).get("cost", {}).get("seed_steps_per_second")
        lost = len(run.diverged)
        table.add_row(
            label,
            *([metric if run.metrics else "-"] if several else []),
            *(_mean_and_interval(metric, numbers) if numbers["n"] else ("-", "-")),
            str(numbers["n"]),
            "-" if angle is None else f"{angle:.0f}°",
            "-" if not speed else f"{speed:,.0f}",
            *([run.status["status"] + (f", {lost} seeds diverged" if lost else "")] if troubled else []),
        )
    means = ", ".join(f"{m}: {'geometric mean' if is_logarithmic(m) else 'mean'}" for m in metrics)
    table.caption = (
        f"{means} over n seeds at the last evaluation, interval by Student's t; diverged seeds left out\n"
        "angle: of the first hidden layer's signal to BP's; steps/s: summed over seeds"
    )
    return table


def write_comparison(runs: Sequence[Run], path: Path) -> None:
    """Writes a CSV with a row a run: its choices, its status, each metric over seeds, the options that differ."""
    rows = []
    flat = [flatten(run.config) for run in runs]
    differing = [
        key for key in dict.fromkeys(k for options in flat for k in options) if len({o.get(key) for o in flat}) > 1
    ]
    for run, label, options in zip(runs, labels(runs), flat, strict=True):
        row = {"run": label, "folder": run.folder.name, **run.choices, "status": run.status["status"]}
        row |= {"reason": run.status["reason"] or "", "diverged": len(run.diverged)}
        if run.summary:
            for name, numbers in run.summary["final"].items():
                row |= {f"{name}_{part}": value for part, value in numbers.items() if part != "geometric"}
                row |= {f"{name}_geometric_{part}": v for part, v in numbers.get("geometric", {}).items()}
            row |= run.summary["cost"]
        rows.append({**row, **{f"config.{key}": options.get(key) for key in differing}})
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def caption(summary: dict[str, Any]) -> str:
    """Says what a run's table holds and what it cost."""
    cost = summary["cost"]
    lost = summary["diverged_seeds"]
    parts = [f"{len(summary['seeds'])} seeds"]
    parts += [f"{len(lost)} of them diverged and left out: {lost}"] if lost else []
    parts += [f"{cost['effective_params']:,} params"]
    parts += [f"{cost['affiliated_params']:,} more in training"] if cost["affiliated_params"] else []
    parts += [f"{cost['feedback_weights']:,} feedback weights"] if cost["feedback_weights"] else []
    parts += [
        f"{cost['seed_steps_per_second']:,.0f} steps/s over all seeds",
        f"compiled in {cost['compile_seconds']:.1f} s",
        f"trained in {cost['train_seconds']:.1f} s",
        f"evaluated in {cost['evaluation_seconds']:.1f} s",
    ]
    return ", ".join(parts)


def _mean_and_interval(name: str, numbers: dict[str, Any]) -> tuple[str, str]:
    """The mean and its interval as text; the geometric ones for a metric that ranges over decades."""
    chosen = numbers["geometric"] if is_logarithmic(name) else numbers
    low, high = chosen["low"], chosen["high"]
    return _number(chosen["mean"]), "-" if low is None or math.isnan(low) else f"{_number(low)} – {_number(high)}"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.2e}" if value and abs(value) < 1e-2 else f"{value:.4g}"
