"""The report of any runs and sweeps: one HTML page that needs no network; Plotly draws its figures in the browser."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fa_jax.records.conditions import ENDED, Condition, options
from fa_jax.records.reader import KEYS, Run
from fa_jax.records.statistics import band, is_logarithmic, summarise
from fa_jax.reports.comparison import Comparison
from fa_jax.reports.labels import OTHERS, colours
from fa_jax.reports.tables import Sheet, contrast_sheet, score_sheet

PAGE = Path(__file__).parent / "page"
MOST = 8
"""Conditions that are in the figures to begin with, where there are more than `ALL`."""
ALL = 16
SIZES = ("effective_params", "affiliated_params", "feedback_weights")
NUMBERS = 300_000
"""Above so many numbers in all runs, bands and single seeds are kept for the test metrics alone."""


def write_report(comparison: Comparison, path: Path) -> None:
    """Writes the report of a comparison; the folder it goes to is there."""
    import jinja2
    from plotly.offline import get_plotlyjs

    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.jinja")
    found, names = comparison.conditions, comparison.names
    runs = [run for one in found for run in (*one.used, *one.left_out)]
    tasks = ", ".join(dict.fromkeys(run.choices["task"] for run in runs))
    rules = ", ".join(dict.fromkeys(run.choices["rule"] for run in runs))
    data = _data(comparison)
    shared, differences = _options(found, names)
    text = page.render(
        title=f"{tasks}: {rules}" if len(rules) < 60 else f"{tasks}: {len(found)} conditions",
        subtitle=f"{len(runs)} runs, {len(found)} conditions, begun from {_begun(runs)}",
        css=(PAGE / "report.css").read_text(),
        js=(PAGE / "report.js").read_text(),
        plotly=get_plotlyjs(),
        # The only place where text of a run stands outside of what Jinja escapes.
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        angles=data["angles"],
        sparse=_is_sparse(found),
        most=MOST,
        shared=shared,
        differences=differences,
        scores=score_sheet(found, names, comparison.metric),
        contrasts=contrast_sheet(comparison.contrasts, names) if comparison.contrasts else None,
        note=comparison.note,
        cost=_cost(found, names),
        trouble=_trouble(found, names),
        runs=_runs(found, names, path),
        environment=_environment(runs),
    )
    beside = path.with_suffix(".tmp")
    beside.write_text(text)
    beside.replace(path)


def _data(comparison: Comparison) -> dict[str, Any]:
    """What the figures are drawn from."""
    runs = [one.run for one in comparison.conditions]
    sparse = _is_sparse(comparison.conditions)
    columns = [c for c in dict.fromkeys(c for run in runs for c in run.metrics) if c not in KEYS and "_norm" not in c]
    main = comparison.metric or next((run.main_metric for run in runs if run.metrics), "")
    kinds = {column.rpartition("_")[0] for column in columns if "_angle_" in column}
    angles = {
        kind: sorted(int(c.rpartition("_")[2]) for c in columns if c.startswith(f"{kind}_"))
        for kind in ("signal_angle", "weight_angle", "update_angle")
        if kind in kinds
    }
    return {
        "main": main,
        "metrics": [c for c in columns if "_angle_" not in c],
        "logarithmic": [c for c in columns if is_logarithmic(c)],
        "log_x": any(run.config["spacing"] == "log" for run in runs),
        "angles": angles,
        "best": _best(runs, main),
        "conditions": [
            {
                "name": name,
                "colour": colour,
                "dash": "dash" if colour in OTHERS else "solid",
                **_curves(run, columns, sparse=sparse),
            }
            for run, name, colour in zip(runs, comparison.names, colours(runs), strict=True)
        ],
    }


def _curves(run: Run, columns: Sequence[str], *, sparse: bool) -> dict[str, Any]:
    """The curves of a condition by metric: mean, band, and those of its seeds; where `sparse`, not of every metric."""
    metrics = {}
    examples: list[int] = []
    for column in columns:
        if column not in run.metrics:
            continue
        at, values = run.curves(column)
        if not values.size or not np.isfinite(values).any():
            continue
        examples = at.astype(int).tolist()
        mean, low, high = band(values, logarithmic=is_logarithmic(column))
        metrics[column] = {"mean": _short(mean)}
        if len(values) > 1 and (not sparse or column.startswith("test_")):
            metrics[column] |= {"low": _short(low), "high": _short(high), "seeds": [_short(row) for row in values]}
    first = next(iter(run.metrics), None)
    return {"examples": examples, "seeds": list(run.at_end(first)) if first else [], "metrics": metrics}


def _best(runs: Sequence[Run], metric: str) -> list[int]:
    """The conditions shown to begin with: all, or where there are many, those best by their last mean."""
    if len(runs) <= ALL:
        return list(range(len(runs)))
    sign = -1 if metric.endswith("accuracy") else 1
    means = [summarise([*run.at_end(metric).values()] if metric in run.metrics else []).mean for run in runs]
    order = sorted(range(len(runs)), key=lambda i: sign * means[i] if math.isfinite(means[i]) else math.inf)
    return sorted(order[:MOST])


def _is_sparse(conditions: Sequence[Condition]) -> bool:
    return sum(len(c) for one in conditions for c in one.run.metrics.values()) > NUMBERS


def _options(conditions: Sequence[Condition], names: Sequence[str]) -> tuple[list[tuple[str, str]], Sheet]:
    """The options that all conditions share, and a table of those in which they differ."""
    chosen = [{k: str(v) for k, v in one.run.choices.items() if v is not None} for one in conditions]
    flat = [own | options(one.run.config) for own, one in zip(chosen, conditions, strict=True)]
    keys = list(dict.fromkeys(key for own in flat for key in own if not key.endswith(("_target_", "_partial_"))))
    differing = [key for key in keys if len({own.get(key) for own in flat}) > 1]
    shared = [(key, flat[0][key]) for key in keys if key not in differing]
    rows = [[name, *(own.get(key, "-") for key in differing)] for name, own in zip(names, flat, strict=True)]
    return shared, Sheet(["run", *differing], rows, "")


def _cost(conditions: Sequence[Condition], names: Sequence[str]) -> Sheet:
    headings = ["run", "params", "more in training", "feedback weights", "steps/s", "compiled in", "trained in"]
    headings += ["evaluated in", "memory"]
    rows = []
    for one, name in zip(conditions, names, strict=True):
        cost = (one.run.summary or {}).get("cost")
        if cost is None:
            rows.append([name, *["-"] * (len(headings) - 1)])
            continue
        sizes = [f"{cost[key]:,}" if key in cost else "-" for key in SIZES]
        seconds = [f"{cost[f'{part}_seconds']:.1f} s" for part in ("compile", "train", "evaluation")]
        memory = f"{cost['memory_bytes'] / 2**20:,.1f} MiB"
        rows.append([name, *sizes, f"{cost['seed_steps_per_second']:,.0f}", *seconds, memory])
    text = "params: those it predicts with; steps/s: of all seeds together; memory: of the training program, all seeds"
    return Sheet(headings, rows, text)


def _trouble(conditions: Sequence[Condition], names: Sequence[str]) -> Sheet:
    rows = []
    for one, name in zip(conditions, names, strict=True):
        if lost := one.run.diverged:
            rows.append([name, "diverged", f"seeds {', '.join(map(str, lost))} of {len(one.run.seeds)}", ""])
        for run in (*one.used, *one.left_out):
            if run.status["status"] not in ENDED:
                rows.append([name, run.status["status"], run.status["reason"] or "", str(run.folder)])
    return Sheet(["run", "what", "why", "folder"], rows, "")


def _runs(conditions: Sequence[Condition], names: Sequence[str], path: Path) -> list[dict[str, Any]]:
    return [
        {
            "folder": str(run.folder),
            "link": f"./{Path(os.path.relpath(run.folder, path.parent)).as_posix()}/",
            "condition": name,
            "status": run.status["status"],
            "seeds": _ranges(run.seeds),
            "time": run.environment.get("time", "")[:19],
            "commit": (run.environment.get("commit") or "")[:8],
            "command": " ".join(["fa-jax", *run.environment.get("command", [])[1:]]),
        }
        for one, name in zip(conditions, names, strict=True)
        for run in (*one.used, *one.left_out)
    ]


def _environment(runs: Sequence[Run]) -> Sheet:
    """What the runs were made with, each value with the number of runs where they are not all alike."""
    rows = []
    described = [
        {
            **{key: one.get(key) for key in ("commit", "python", "platform", "processor", "cores")},
            "devices": "; ".join(one.get("devices", [])),
            **one.get("packages", {}),
        }
        for one in (run.environment for run in runs)
    ]
    for key in dict.fromkeys(key for own in described for key in own):
        values = [str(own.get(key)) for own in described]
        kinds = dict.fromkeys(values)
        counted = values[0] if len(kinds) == 1 else "; ".join(f"{kind} ({values.count(kind)})" for kind in kinds)
        rows.append([key, counted])
    return Sheet(["", "of the runs"], rows, "")


def _begun(runs: Sequence[Run]) -> str:
    times = sorted(run.environment.get("time", "")[:16].replace("T", " ") for run in runs)
    return times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]} UTC"


def _ranges(seeds: Sequence[int]) -> str:
    """Seeds as text, neighbours joined: 0-4, 7."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], seed]
        else:
            parts.append([seed])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _short(values: np.ndarray) -> list[float | None]:
    """Numbers with five digits; those that are not finite are None."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]
