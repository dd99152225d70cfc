"""Tables of recorded runs as files: CSV and Markdown. Recorded text is escaped for each of them."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fa_jax.records.conditions import Condition
from fa_jax.records.files import write_text
from fa_jax.records.statistics import summarise_logarithm, summarise_rows
from fa_jax.reports.contrasts import Contrast
from fa_jax.reports.controls import Margin
from fa_jax.reports.flags import seeds_flagged
from fa_jax.reports.tables import Score, Table, state
from fa_jax.user.text import printable

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
SUPERSCRIPT = str.maketrans("0123456789-", SUPERSCRIPTS)
FORMULA = ("=", "+", "-", "@")
"""The first characters of a cell that a spreadsheet would evaluate."""


def markdown(table: Table) -> str:
    """Returns a Markdown table with its caption below."""
    from tabulate import tabulate

    caption = "\n".join(map(_markdown_text, table.caption.split("\n")))
    rows = [list(map(_markdown_text, row)) for row in table.rows]
    for i, j in table.bold:
        rows[i][j] = f"**{rows[i][j]}**"
    headings, alignment = list(map(_markdown_text, table.headings)), ("left", *["right"] * (len(table.headings) - 1))
    style = {"disable_numparse": True, "colalign": alignment, "preserve_whitespace": False}
    return f"{tabulate(rows, headings, 'github', **style)}\n\n{caption}\n"


def score_rows(
    conditions: Sequence[Condition], names: Sequence[str], scored: Sequence[Score], metric: str | None = None
) -> list[dict[str, Any]]:
    """Returns one row per condition: choices, status, scores, all metrics, cost, the options that differ.

    Args:
      conditions, names, metric: as for `score_table`.
      scored: the score of each condition.
    """
    rows = []
    flat = [condition.run.options for condition in conditions]
    keys = dict.fromkeys(key for condition_options in flat for key in condition_options)
    differing = [key for key in keys if len({condition_options.get(key) for condition_options in flat}) > 1]
    for condition, name, values, condition_options in zip(conditions, names, scored, flat, strict=True):
        run = condition.run
        row = {"run": name, "folder": " ".join(str(used.folder) for used in condition.used), **run.choices}
        row |= {"status": state(condition), "reason": run.status["reason"] or "", "diverged": len(run.diverged)}
        low, high = values.bootstrap
        row |= {"metric": metric or run.main_metric, "bootstrap_low": low, "bootstrap_high": high}
        row["interquartile_mean"] = values.interquartile_mean
        ends = run.ends(list(run.columns))
        for (column_name, column), at_end, summary in zip(run.columns.items(), ends, summarise_rows(ends), strict=True):
            row |= {f"{column_name}_{part}": value for part, value in summary._asdict().items()}
            if column.logarithmic:
                parts = summarise_logarithm(at_end.tolist())._asdict()
                row |= {f"{column_name}_geometric_{part}": value for part, value in parts.items()}
            if column.flag is not None:
                row[f"{column_name}_marked"] = seeds_flagged(run, column_name)
        row |= (run.summary or {}).get("cost", {})
        rows.append({**row, **{f"config.{key}": condition_options.get(key) for key in differing}})
    return rows


def write_contrasts(contrasts: Sequence[Contrast], names: Sequence[str], path: Path) -> None:
    """Writes a CSV with one row per contrast; an empty one if there are none."""
    rows = [
        {**contrast._asdict(), "condition": names[contrast.condition], "against": names[contrast.against]}
        for contrast in contrasts
    ]
    write_csv(path, rows, Contrast._fields)


def write_margins(margins: Sequence[Margin], names: Sequence[str], path: Path) -> None:
    """Writes a CSV with one row per margin above a control."""
    rows = [
        {
            **margin._asdict(),
            "condition": names[margin.condition],
            "control": names[margin.control],
            "unequal": "; ".join(margin.unequal),
        }
        for margin in margins
    ]
    write_csv(path, rows, Margin._fields)


def write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes rows as CSV; text is no formula of a spreadsheet.

    Args:
      path: of the file.
      rows: each with the value of a column by its name.
      columns: their order; None: all, in the order of their first rows.
    """
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


def typeset(text: str) -> str:
    """Returns text whose negative numbers have a minus sign, and numbers such as `1.2e-05` a power of ten."""
    powers = re.sub(
        r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]?)0*(\d+)(?!\w)",
        lambda match: f"{match[1]}×10{(match[2].strip('+') + match[3]).translate(SUPERSCRIPT)}",
        text,
    )
    return re.sub(r"(?<![\w.)\]-])-(?=\d)", "−", powers)


def _markdown_text(text: str) -> str:
    """Returns text in which nothing is a cell's end, code, emphasis, a link or HTML in Markdown."""
    return re.sub(r"[\\|`\[\]*~]|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])", r"\\\g<0>", typeset(printable(text)))
