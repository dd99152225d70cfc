"""Tables of recorded runs as files: CSV, Markdown and LaTeX. Recorded text is escaped for each of them."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fa_jax.records.conditions import Condition, options
from fa_jax.records.files import write_text
from fa_jax.records.statistics import summarise, summarise_logarithm
from fa_jax.reports.contrasts import Contrast
from fa_jax.reports.tables import Table, score, state
from fa_jax.text import printable

FORMULA = ("=", "+", "-", "@")
"""The first characters of a cell that a spreadsheet would evaluate."""


def markdown(table: Table) -> str:
    """Returns a Markdown table with its caption below."""
    caption = "\n".join(map(_markdown_text, table.caption.split("\n")))
    return f"{_tabulated(table, 'github', _markdown_text)}\n\n{caption}\n"


def latex(table: Table) -> str:
    """Returns a LaTeX `tabular` with booktabs rules, its caption as comments above."""
    comments = "".join(f"% {printable(line)}\n" for line in table.caption.split("\n"))
    tabular = _tabulated(table, "latex_booktabs", printable)  # which escapes what is special in LaTeX
    return comments + tabular.replace("°", r"$^\circ$").replace("–", "--") + "\n"


def write_scores(conditions: Sequence[Condition], names: Sequence[str], path: Path, metric: str | None = None) -> None:
    """Writes a CSV with one row per condition: choices, status, scores, all metrics, cost, the options that differ.

    Arguments as for `score_table`.
    """
    rows = []
    flat = [options(condition.run.config) for condition in conditions]
    keys = dict.fromkeys(key for condition_options in flat for key in condition_options)
    differing = [key for key in keys if len({condition_options.get(key) for condition_options in flat}) > 1]
    for condition, name, condition_options in zip(conditions, names, flat, strict=True):
        run = condition.run
        row = {"run": name, "folder": " ".join(str(used.folder) for used in condition.used), **run.choices}
        row |= {"status": state(condition), "reason": run.status["reason"] or "", "diverged": len(run.diverged)}
        judged = metric or run.main_metric
        values = score(run, judged)
        low, high = values.bootstrap
        row |= {"metric": judged, "bootstrap_low": low, "bootstrap_high": high}
        row["interquartile_mean"] = values.interquartile_mean
        for column_name, column in run.columns.items():
            at_end = list(run.at_end(column_name).values())
            row |= {f"{column_name}_{part}": value for part, value in summarise(at_end)._asdict().items()}
            if column.logarithmic:
                parts = summarise_logarithm(at_end)._asdict()
                row |= {f"{column_name}_geometric_{part}": value for part, value in parts.items()}
        row |= (run.summary or {}).get("cost", {})
        rows.append({**row, **{f"config.{key}": condition_options.get(key) for key in differing}})
    _write_csv(path, rows)


def write_contrasts(contrasts: Sequence[Contrast], names: Sequence[str], path: Path) -> None:
    """Writes a CSV with one row per contrast; an empty one if there are none."""
    rows = [
        {**contrast._asdict(), "condition": names[contrast.condition], "against": names[contrast.against]}
        for contrast in contrasts
    ]
    _write_csv(path, rows, Contrast._fields)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> None:
    columns = columns or list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(column, "")) for column in columns] for row in rows)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    """Returns a value of a CSV; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _markdown_text(text: str) -> str:
    """Returns text in which nothing is a cell's end, code, emphasis, a link or HTML in Markdown."""
    return re.sub(r"[\\|`\[\]*~]|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])", r"\\\g<0>", printable(text))


def _tabulated(table: Table, form: str, escape: Any) -> str:
    from tabulate import tabulate

    alignment = ("left", *["right"] * (len(table.headings) - 1))
    rows, headings = [list(map(escape, row)) for row in table.rows], list(map(escape, table.headings))
    return tabulate(rows, headings, tablefmt=form, disable_numparse=True, colalign=alignment, preserve_whitespace=False)
