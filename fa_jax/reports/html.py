"""The report of runs and sweeps: one HTML page that needs no network; Plotly draws its figures in the browser."""

import json
import math
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_jax.records.conditions import Condition, options
from fa_jax.records.files import write_text
from fa_jax.records.reader import Run
from fa_jax.records.statistics import DIVERGED, band, summarise
from fa_jax.reports.comparison import Comparison
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.labels import OTHERS, colours
from fa_jax.reports.tables import Table, contrast_table, score_table

PAGE = Path(__file__).parent / "page"
SHOWN = 8
"""The number of conditions that the figures show at first, if there are more than `SHOW_ALL`."""
SHOW_ALL = 16
SIZES = ("effective_params", "affiliated_params", "feedback_weights")
HIDDEN = ("_target_", "_partial_")
MANY_NUMBERS = 300_000
"""Above this many numbers in all runs, bands and single seeds are kept for test scores alone."""


def write_report(comparison: Comparison, path: Path) -> None:
    """Writes the report of a comparison; its folder exists."""
    import jinja2
    from plotly.offline import get_plotlyjs

    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.jinja")
    compared, names = comparison.conditions, comparison.names
    runs = [run for condition in compared for run in (*condition.used, *condition.left_out)]
    tasks = ", ".join(dict.fromkeys(run.choices["task"] for run in runs))
    rules = ", ".join(dict.fromkeys(run.choices["rule"] for run in runs))
    data = _data(comparison)
    shared, differences = _options(compared, names)
    contrasts = contrast_table(comparison.contrasts, names, columns_of(compared)) if comparison.contrasts else None
    text = page.render(
        title=f"{tasks}: {rules}" if len(rules) < 60 else f"{tasks}: {len(compared)} conditions",
        subtitle=f"{len(runs)} runs, {len(compared)} conditions, started {_started(runs)}",
        css=(PAGE / "report.css").read_text(encoding="utf-8"),
        js=(PAGE / "report.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        # The only text of a run that Jinja does not escape.
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        angles=data["angles"],
        sparse=_is_sparse(compared),
        most=SHOWN,
        shared=shared,
        differences=differences,
        scores=score_table(compared, names, comparison.metric),
        contrasts=contrasts,
        note=comparison.note,
        cost=_cost(compared, names),
        failures=_failures(compared, names),
        runs=_runs(compared, names, path),
        environment=_environment(runs),
    )
    write_text(path, text)


def _data(comparison: Comparison) -> dict[str, Any]:
    """Returns the data of the figures."""
    runs = [condition.run for condition in comparison.conditions]
    sparse = _is_sparse(comparison.conditions)
    columns = columns_of(comparison.conditions)
    shown = [name for name, column in columns.items() if column.plotted]
    main = comparison.metric or next((run.main_metric for run in runs if run.metrics), "")
    layers: dict[str, set[int]] = {}
    for column in columns.values():
        if column.unit == "degrees" and column.layer is not None:
            layers.setdefault(column.metric, set()).add(column.layer)
    return {
        "main": main,
        "metrics": [name for name in shown if columns[name].metric not in layers],
        "axes": {name: columns[name].axis for name in shown},
        "bounds": {name: columns[name].bounds for name in shown},
        "logarithmic": [name for name, column in columns.items() if column.logarithmic],
        "log_x": any(run.config["spacing"] == "log" for run in runs),
        "angles": {metric: sorted(numbers) for metric, numbers in layers.items()},
        "best": _best(runs, main),
        "conditions": [
            {
                "name": name,
                "colour": colour,
                "dash": "dash" if colour in OTHERS else "solid",
                **_curves(run, shown, sparse=sparse),
            }
            for run, name, colour in zip(runs, comparison.names, colours(runs), strict=True)
        ],
    }


def _curves(run: Run, names: Sequence[str], *, sparse: bool) -> dict[str, Any]:
    """Returns the curves of a condition by column: mean, band, and single seeds; if `sparse`, not of every column."""
    metrics = {}
    examples: list[int] = []
    for name in names:
        if name not in run.metrics:
            continue
        counts, values = run.curves(name)
        if not values.size or not np.isfinite(values).any():
            continue
        examples = counts.astype(int).tolist()
        mean, low, high = band(values, logarithmic=run.columns[name].logarithmic)
        metrics[name] = {"mean": _rounded(mean)}
        if len(values) > 1 and (not sparse or run.columns[name].split == "test"):
            metrics[name] |= {"low": _rounded(low), "high": _rounded(high), "seeds": [_rounded(row) for row in values]}
    return {"examples": examples, "seeds": list(run.at_end("test_loss")) if run.metrics else [], "metrics": metrics}


def _best(runs: Sequence[Run], metric: str) -> list[int]:
    """Returns the conditions shown at first: all, or of many those with the best last mean."""
    if len(runs) <= SHOW_ALL:
        return list(range(len(runs)))

    def cost(i: int) -> float:
        run = runs[i]
        mean = summarise([*run.at_end(metric).values()] if metric in run.metrics else []).mean
        sign = -1 if metric in run.columns and run.columns[metric].better == "higher" else 1
        return sign * mean if math.isfinite(mean) else math.inf

    return sorted(sorted(range(len(runs)), key=cost)[:SHOWN])


def _is_sparse(conditions: Sequence[Condition]) -> bool:
    return sum(len(c) for condition in conditions for c in condition.run.metrics.values()) > MANY_NUMBERS


def _options(conditions: Sequence[Condition], names: Sequence[str]) -> tuple[list[tuple[str, str]], Table]:
    """Returns the options that all conditions share, and a table of the others."""
    flat = [
        {k: str(v) for k, v in condition.run.choices.items() if v is not None} | options(condition.run.config)
        for condition in conditions
    ]
    keys = [key for key in dict.fromkeys(k for described in flat for k in described) if not key.endswith(HIDDEN)]
    differing = [key for key in keys if len({described.get(key) for described in flat}) > 1]
    shared = [(key, flat[0][key]) for key in keys if key not in differing]
    rows = [
        [name, *(described.get(key, "-") for key in differing)] for name, described in zip(names, flat, strict=True)
    ]
    return shared, Table(["run", *differing], rows, "")


def _cost(conditions: Sequence[Condition], names: Sequence[str]) -> Table:
    headings = ["run", "params", "more in training", "feedback weights", "steps/s", "compiled in", "trained in"]
    headings += ["evaluated in", "memory"]
    rows = []
    for condition, name in zip(conditions, names, strict=True):
        cost = (condition.run.summary or {}).get("cost")
        if cost is None:
            rows.append([name, *["-"] * (len(headings) - 1)])
            continue
        sizes = [f"{cost[key]:,}" if key in cost else "-" for key in SIZES]
        seconds = [f"{cost[f'{part}_seconds']:.1f} s" for part in ("compile", "train", "evaluation")]
        memory = f"{cost['memory_bytes'] / 2**20:,.1f} MiB"
        rows.append([name, *sizes, f"{cost['seed_steps_per_second']:,.0f}", *seconds, memory])
    caption = "params: used to predict; steps/s: summed over seeds; memory: XLA's estimate for the training program"
    return Table(headings, rows, caption)


def _failures(conditions: Sequence[Condition], names: Sequence[str]) -> Table:
    rows = []
    for condition, name in zip(conditions, names, strict=True):
        if diverged := condition.run.diverged:
            seeds = f"seeds {', '.join(map(str, diverged))} of {len(condition.run.seeds)}"
            rows.append([name, "diverged", seeds, ""])
        for run in (*condition.used, *condition.left_out):
            if not run.is_finished:
                rows.append([name, run.status["status"], run.status["reason"] or "", str(run.folder)])
    caption = DIVERGED if any(condition.run.diverged for condition in conditions) else ""
    return Table(["run", "status", "reason", "folder"], rows, caption)


def _runs(conditions: Sequence[Condition], names: Sequence[str], path: Path) -> list[dict[str, Any]]:
    return [
        {
            "folder": str(run.folder),
            "link": f"./{_quoted(Path(os.path.relpath(run.folder, path.parent)).as_posix())}/",
            "condition": name,
            "status": run.status["status"],
            "seeds": _ranges(run.seeds),
            "time": run.environment.get("time", "")[:19],
            "commit": (run.environment.get("commit") or "")[:8],
            "command": " ".join(["fa-jax", *run.environment.get("command", [])[1:]]),
        }
        for condition, name in zip(conditions, names, strict=True)
        for run in (*condition.used, *condition.left_out)
    ]


def _quoted(path: str) -> str:
    """Returns a path as it stands in a link; `#` and `?` would end it."""
    return urllib.parse.quote(path, errors="surrogateescape")


def _environment(runs: Sequence[Run]) -> Table:
    """Returns the environments of the runs; where values differ, with the number of runs of each."""
    rows = []
    described = [
        {
            **{key: env.get(key) for key in ("commit", "python", "platform", "processor", "cores")},
            "devices": "; ".join(env.get("devices", [])),
            **env.get("packages", {}),
        }
        for env in (run.environment for run in runs)
    ]
    for key in dict.fromkeys(key for env in described for key in env):
        values = [str(env.get(key)) for env in described]
        distinct = dict.fromkeys(values)
        counts = "; ".join(f"{value} ({values.count(value)})" for value in distinct)
        rows.append([key, values[0] if len(distinct) == 1 else counts])
    return Table(["", "value"], rows, "")


def _started(runs: Sequence[Run]) -> str:
    times = sorted(run.environment.get("time", "")[:16].replace("T", " ") for run in runs)
    return times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]} UTC"


def _ranges(seeds: Sequence[int]) -> str:
    """Returns seeds as text with ranges, such as 0-4, 7."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], seed]
        else:
            parts.append([seed])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _rounded(values: np.ndarray) -> list[float | None]:
    """Returns numbers rounded to five digits; those that are not finite are None."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]
