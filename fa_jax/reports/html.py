"""The report of runs and sweeps: one HTML page that needs no network; Plotly draws its figures in the browser."""

import json
import os
import shlex
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fa_jax.checks import BadOption
from fa_jax.records.conditions import Condition
from fa_jax.records.files import write_text
from fa_jax.records.reader import Run
from fa_jax.records.statistics import DIVERGED
from fa_jax.reports.comparison import Comparison
from fa_jax.reports.contrast_table import contrast_table
from fa_jax.reports.contrasts import columns_of
from fa_jax.reports.controls import margin_table
from fa_jax.reports.labels import rule_label
from fa_jax.reports.layers import layer_table
from fa_jax.reports.options import FigureOptions
from fa_jax.reports.page_data import SHOW_ALL, SHOWN, is_sparse, judged_by, page_data
from fa_jax.reports.rates import rates_notes, rates_tables
from fa_jax.reports.tables import Table, score_table

PAGE = Path(__file__).parent / "page"
DEFAULT = FigureOptions()
SIZES = ("effective_params", "affiliated_params", "feedback_weights")
HIDDEN = ("_target_", "_partial_")


def write_report(comparison: Comparison, path: Path, options: FigureOptions = DEFAULT) -> None:
    """Writes the report of a comparison.

    Args:
      comparison: to be shown.
      path: of the page, in a folder that exists.
      options: the title, the axis and the layer that the page shows at first; the others are not used.

    Raises:
      BadOption: if no angles of the chosen layer are recorded.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.jinja")
    compared, names = comparison.conditions, comparison.names
    runs = [run for condition in compared for run in (*condition.used, *condition.left_out)]
    tasks = ", ".join(dict.fromkeys(run.choices["task"] for run in runs))
    rules = ", ".join(dict.fromkeys(map(rule_label, runs)))
    data = page_data(comparison, options)
    layers = next(iter(data["angles"].values()), [])
    if options.layers and options.layers[0] not in layers:
        valid = ", ".join(map(str, layers)) or "none; probe=100 measures angles"
        raise BadOption(f"must be of those whose angles are recorded, {valid}; got {options.layers[0]}", "layers")
    shared, differences = _options(compared, names)
    columns, decimals = columns_of(compared), comparison.decimals()
    contrasts = None
    if comparison.contrasts:
        contrasts = contrast_table(comparison.contrasts, names, columns, decimals=decimals)
    text = page.render(
        title=options.title or (f"{tasks}: {rules}" if len(rules) < 60 else f"{tasks}: {len(compared)} conditions"),
        subtitle=f"{len(runs)} runs, {len(compared)} conditions, started {_started(runs)}",
        css=(PAGE / "report.css").read_text(encoding="utf-8"),
        js=(PAGE / "report.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        # The only text of a run that Jinja does not escape.
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        angles=data["angles"],
        sparse=is_sparse(compared),
        most=SHOWN if len(compared) > SHOW_ALL else 0,
        judged=judged_by(compared, data["main"]),
        shared=shared,
        differences=differences,
        layers=layer_table(compared, names),
        scores=score_table(compared, names, comparison.metric, comparison.scores, decimals),
        rates=[table for rates in comparison.rates for table in rates_tables(compared, rates, decimals=decimals)],
        contrasts=contrasts,
        controls=margin_table(comparison.margins, names, columns, decimals) if comparison.margins else None,
        notes=[*comparison.notes, *comparison.control_notes, *rates_notes(comparison.rates, names)],
        cost=_cost(compared, names),
        failures=_failures(compared, names),
        runs=_runs(compared, names, path),
        environment=_environment(runs),
    )
    write_text(path, text)


def _options(conditions: Sequence[Condition], names: Sequence[str]) -> tuple[list[tuple[str, str]], Table]:
    """Returns the options that all conditions share, and a table of the others."""
    flat = [
        {k: str(v) for k, v in condition.run.choices.items() if v is not None} | condition.run.options
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
                rows.append([name, run.state, run.status["reason"] or "", str(run.folder)])
    caption = DIVERGED if any(condition.run.diverged for condition in conditions) else ""
    return Table(["run", "status", "reason", "folder"], rows, caption)


def _runs(conditions: Sequence[Condition], names: Sequence[str], path: Path) -> list[dict[str, Any]]:
    return [
        {
            "folder": str(run.folder),
            "link": f"./{_quoted(Path(os.path.relpath(run.folder, path.parent)).as_posix())}/",
            "condition": name,
            "status": run.state,
            "seeds": _ranges(run.seeds),
            "time": run.environment.get("time", "")[:19],
            "commit": (run.environment.get("commit") or "")[:8],
            "command": _command(run.environment.get("command", [])),
        }
        for condition, name in zip(conditions, names, strict=True)
        for run in (*condition.used, *condition.left_out)
    ]


def _command(words: Sequence[str]) -> str:
    """Returns the text that started a run: a command to be pasted, or the arguments of a call from Python."""
    if words[:1] == ["fa_jax.train"]:
        return " ".join(words)
    return shlex.join(["fa-jax", *words[1:]])


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
