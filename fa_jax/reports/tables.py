"""Tables of recorded runs: for the terminal, and as CSV, Markdown and LaTeX."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fa_jax.records.conditions import Condition, options
from fa_jax.records.reader import KEYS, Run
from fa_jax.records.statistics import (
    SMALLEST,
    Summary,
    bootstrap_interval,
    interquartile_mean,
    is_logarithmic,
    summarise,
    summarise_logarithm,
)
from fa_jax.reports.contrasts import MOST_SEEDS, Contrast


class Sheet(NamedTuple):
    """A table as text: the first column to the left, the others to the right."""

    headings: list[str]
    rows: list[list[str]]
    caption: str


class Score(NamedTuple):
    """What a condition came to on a metric at the last evaluation, over its seeds."""

    mean: Summary
    """Geometric for a metric that ranges over decades."""
    bootstrap: tuple[float, float]
    """The 95 % interval of that mean."""
    interquartile_mean: float


def score(run: Run, metric: str) -> Score:
    """Returns the `Score` of a run; for a metric that ranges over decades, of its logarithm, taken back."""
    values = list(run.at_end(metric).values()) if metric in run.metrics else []
    if not is_logarithmic(metric):
        return Score(summarise(values), bootstrap_interval(values), interquartile_mean(values))
    logarithms = [math.log(max(v, SMALLEST)) for v in values if math.isfinite(v)]
    low, high = bootstrap_interval(logarithms)
    return Score(summarise_logarithm(values), (math.exp(low), math.exp(high)), math.exp(interquartile_mean(logarithms)))


def run_table(summary: dict[str, Any]) -> Table:
    """Returns the table at the end of a run: every score and angle over seeds at the last evaluation."""
    rows = []
    for name, numbers in summary["final"].items():
        if name.startswith(("test_", "validation_", "train_", "signal_angle", "weight_angle")) and numbers["n"]:
            chosen = numbers["geometric"] if is_logarithmic(name) else numbers
            label = f"{name} (geometric)" if is_logarithmic(name) else name
            interval = _interval(chosen["low"], chosen["high"])
            rows.append([label, _number(chosen["mean"]), interval, _number(numbers["median"]), str(numbers["n"])])
    headings = ["last evaluation", "mean", "95 % interval", "median", "n"]
    return terminal(Sheet(headings, rows or [["every seed diverged", "-", "-", "-", "0"]], caption(summary)), WIDE)


def score_sheet(conditions: Sequence[Condition], names: Sequence[str], metric: str | None = None) -> Sheet:
    """Returns a row a condition: its mean, intervals, median and interquartile mean, its first angle and its speed.

    Args:
      conditions: what is compared.
      names: what they are called.
      metric: the one they are judged by; None: the main one of each.
    """
    metrics = [metric or one.run.main_metric for one in conditions]
    judged = list(dict.fromkeys(m for m, one in zip(metrics, conditions, strict=True) if one.run.metrics))
    several = len(judged) > 1
    states = [_state(one) for one in conditions]
    troubled = any(state != "finished" for state in states)
    headings = ["run", *(["metric"] if several else []), "mean" if several else "".join(judged), "95 % (t)"]
    headings += ["95 % (bootstrap)", "median", "IQM", "n", "angle", "steps/s", *(["status"] if troubled else [])]
    rows = []
    for one, name, m, state in zip(conditions, names, metrics, states, strict=True):
        run, found = one.run, score(one.run, m)
        angles = run.at_end("signal_angle_0") if "signal_angle_0" in run.metrics else {}
        angle = summarise(list(angles.values())).mean
        speed = (run.summary or {}).get("cost", {}).get("seed_steps_per_second")
        rows.append(
            [
                name,
                *([m if run.metrics else "-"] if several else []),
                _number(found.mean.mean),
                _interval(found.mean.low, found.mean.high),
                _interval(*found.bootstrap),
                _number(found.mean.median),
                _number(found.interquartile_mean),
                str(found.mean.n),
                "-" if math.isnan(angle) else f"{angle:.0f}°",
                "-" if not speed else f"{speed:,.0f}",
                *([state] if troubled else []),
            ]
        )
    means = ", ".join(f"{m}: {'geometric mean' if is_logarithmic(m) else 'mean'}" for m in judged)
    text = (
        f"{means} over n seeds at the last evaluation, diverged seeds left out; 95 % intervals by Student's t "
        "and by the BCa bootstrap, which is too narrow for few seeds\n"
        "IQM: mean of the middle half; angle: of the first hidden layer's signal to BP's; steps/s: summed over seeds"
    )
    return Sheet(headings, rows, text)


def contrast_sheet(found: Sequence[Contrast], names: Sequence[str]) -> Sheet:
    """Returns a row a contrast."""
    kinds = dict.fromkeys("ratio" if is_logarithmic(one.metric) else "difference" for one in found)
    what = " or ".join(kinds)
    headings = ["contrast", what, "95 % (t)", "d", "p (t)", "Holm", "p (W)", "Holm", "n"]
    headings += ["needed"]
    rows = [
        [
            f"{names[one.condition]} {'/' if is_logarithmic(one.metric) else '-'} {names[one.against]}",
            _signed(one.difference, is_logarithmic(one.metric)),
            _interval(one.low, one.high),
            "-" if math.isnan(one.effect) else f"{one.effect:.2f}",
            *map(_p, (one.p_t, one.holm_t, one.p_wilcoxon, one.holm_wilcoxon)),
            str(one.n),
            "-"
            if math.isnan(one.effect)
            else f"> {MOST_SEEDS:,}"
            if one.seeds_needed is None
            else str(one.seeds_needed),
        ]
        for one in found
    ]
    fewest = min((one.n for one in found if not math.isnan(one.p_wilcoxon)), default=6)
    metrics = ", ".join(dict.fromkeys(one.metric for one in found))
    text = (
        f"{metrics}, mean {what} in pairs over the n seeds that both have; d: Cohen's of "
        f"the pairs; two-sided p by paired t and Wilcoxon (W), Holm's for {len(found)} "
        f"contrast{'s' if len(found) != 1 else ''}\n"
        "needed: seeds, for a power of 80 % at the 5 % level, were d as large as here; -: all pairs differ alike"
    )
    if fewest < 6:
        text += f"\nwith {fewest} pairs, Wilcoxon's p cannot fall below {2.0 ** (1 - fewest):.2g}"
    return Sheet(headings, rows, text)


WIDE = 160
SPARED = ("95 % (bootstrap)", "IQM", "p (W)", "Holm", "steps/s")
"""Columns that are left out of a table, from the right, where a terminal is too narrow for all."""


def wide_console() -> Console:
    """Returns a console, which where it is no terminal has room for every column."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def terminal(sheet: Sheet, width: int) -> Table:
    """Returns a sheet as a table for a terminal of so many columns."""
    kept = list(range(len(sheet.headings)))
    widths = [max(len(row[i]) for row in (sheet.headings, *sheet.rows)) + 2 for i in kept]
    for i in reversed(range(len(sheet.headings))):
        if sum(widths[j] for j in kept) > width and sheet.headings[i] in SPARED:
            kept.remove(i)
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption=sheet.caption, caption_justify="left")
    for i in kept:
        table.add_column(sheet.headings[i], justify="right" if i else "left", overflow="fold", no_wrap=i > 0)
    for row in sheet.rows:
        table.add_row(*(escape(row[i]) for i in kept))
    return table


def markdown(sheet: Sheet) -> str:
    """Returns a sheet as a table of Markdown, its caption below."""
    return f"{_tabulated(sheet, 'github')}\n\n{sheet.caption}\n"


def latex(sheet: Sheet) -> str:
    """Returns a sheet as a `tabular` with the rules of booktabs, its caption as comments above."""
    comments = "".join(f"% {line}\n" for line in sheet.caption.split("\n"))
    return comments + _tabulated(sheet, "latex_booktabs").replace("°", r"$^\circ$").replace("–", "--") + "\n"


def _tabulated(sheet: Sheet, form: str) -> str:
    from tabulate import tabulate

    columns = ("left", *["right"] * (len(sheet.headings) - 1))
    return tabulate(sheet.rows, sheet.headings, tablefmt=form, disable_numparse=True, colalign=columns)


def write_scores(conditions: Sequence[Condition], names: Sequence[str], path: Path, metric: str | None = None) -> None:
    """Writes a CSV with a row a condition: its choices, status, scores, all metrics, the cost, the options that differ.

    Arguments as for `score_sheet`.
    """
    rows = []
    flat = [options(one.run.config) for one in conditions]
    differing = [
        key for key in dict.fromkeys(k for own in flat for k in own) if len({other.get(key) for other in flat}) > 1
    ]
    for one, name, own in zip(conditions, names, flat, strict=True):
        run = one.run
        row = {"run": name, "folder": " ".join(str(used.folder) for used in one.used), **run.choices}
        row |= {"status": _state(one), "reason": run.status["reason"] or "", "diverged": len(run.diverged)}
        judged = metric or run.main_metric
        found = score(run, judged)
        low, high = found.bootstrap
        row |= {"metric": judged, "bootstrap_low": low, "bootstrap_high": high}
        row["interquartile_mean"] = found.interquartile_mean
        for column in run.metrics:
            if column in KEYS:
                continue
            values = list(run.at_end(column).values())
            row |= {f"{column}_{part}": value for part, value in summarise(values)._asdict().items()}
            if is_logarithmic(column):
                parts = summarise_logarithm(values)._asdict()
                row |= {f"{column}_geometric_{part}": value for part, value in parts.items()}
        row |= (run.summary or {}).get("cost", {})
        rows.append({**row, **{f"config.{key}": own.get(key) for key in differing}})
    _write_csv(path, rows)


def write_contrasts(found: Sequence[Contrast], names: Sequence[str], path: Path) -> None:
    """Writes a CSV with a row a contrast; an empty one where there are none."""
    rows = [{**one._asdict(), "condition": names[one.condition], "against": names[one.against]} for one in found]
    _write_csv(path, rows, Contrast._fields)


def caption(summary: dict[str, Any]) -> str:
    """Says what a run's table holds and what it cost."""
    cost = summary["cost"]
    lost = summary["diverged_seeds"]
    parts = [f"{len(summary['seeds'])} seed{'s' if len(summary['seeds']) != 1 else ''}"]
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


def _state(condition: Condition) -> str:
    """The status of a condition, with what is not in its numbers."""
    lost = len(condition.run.diverged)
    parts = [condition.run.status["status"]]
    parts += [f"{lost} seeds diverged"] if lost else []
    kinds = [run.status["status"] for run in condition.left_out]
    parts += [f"{kinds.count(kind)} {kind} left out" for kind in dict.fromkeys(kinds)]
    return ", ".join(parts)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns or list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None or math.isnan(low):
        return "-"
    return f"{_number(low)} – {_number(high)}"


def _signed(value: float, ratio: bool) -> str:
    if ratio:
        return f"× {_number(value)}"
    return f"+{_number(value)}" if value > 0 else _number(value)


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.2e}" if value and abs(value) < 1e-2 else f"{value:.4g}"
