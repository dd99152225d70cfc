"""What was measured of the published tables, and the tables of the README."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from experiments.common import hours_text, read_rows, seconds
from experiments.tables.row import CONTROL, HERE, LAST, METRICS, PARTIAL, RULE, Published, Row, Table, published
from experiments.tables.search import Trials
from experiments.tables.tables import TABLES
from fa_jax.records.reader import Run
from fa_jax.records.statistics import summarise

MEASURED, README, ELSEWHERE = "measured.csv", "README.md", "tables.md"
"""Files: the results, and the tables of them, in the folder of the committed results and elsewhere."""
START, END = (
    "<!-- Written by python -m experiments.tables.rows '*' --collect --update, from here -->",
    "<!-- to here. -->",
)
BEST_VALIDATION = "validation_error"
Lines = Mapping[tuple[str, str], dict[str, str]]
"""The lines of `measured.csv`, by table and row."""
OfTable = Mapping[Row, dict[str, str] | None]
"""The line of each row of a table; None: it was not trained."""
NONE = "–"
COLUMNS = {
    "network": "left",
    "row": "left",
    "published (%)": "right",
    "from": "left",
    "measured (%)": "right",
    "95 % interval": "left",
    "difference": "right",
    "last epoch": "right",
    "best validation epoch": "right",
    "seeds": "right",
    "epochs": "right",
    "seconds": "right",
    "reached by": "left",
}
"""The columns of a table of the README. `measured` is at the epoch that the published table chooses."""


def errors_at_best(run: Run, metric: str) -> np.ndarray | None:
    """Returns the test error in % of each seed at the epoch at which a metric is lowest; None if it is not recorded."""
    if metric not in run.metrics:
        return None
    _, values = run.curves(metric)
    _, errors = run.curves("test_error")
    best = np.nanargmin(values[:, 1:], axis=1) + 1 if len(values) else []
    return np.array([error[i] for error, i in zip(errors, best, strict=True)])


def measured(table: Table, row: Row, run: Run, search: Trials | None) -> dict[str, object]:
    """Returns the line of a run in `measured.csv`, given the trials of its search if there was one."""
    line: dict[str, object] = {"table": table.name, "row": row.name, "seeds": len(run.seeds)}
    line["diverged"], line["epochs"] = len(run.diverged), f"{run.config['epochs']:g}"
    last = np.array(list(run.at_end("test_error").values()))
    chosen_errors = last if table.choice == LAST else errors_at_best(run, METRICS[table.choice])
    for name, errors in (
        ("last epoch", last),
        ("best validation epoch", errors_at_best(run, BEST_VALIDATION)),
        ("the table's epoch", chosen_errors),
    ):
        summary = summarise([] if errors is None else errors.tolist())
        for part, value in (("", summary.mean), (", sd", summary.sd), (", low", summary.low), (", high", summary.high)):
            line[f"{name}{part}"] = "" if math.isnan(value) else f"{value:.3f}"
    line["seconds"] = round(seconds(run))
    line["chosen"] = " ".join(search.chosen) if search else ""
    line["tried"] = " ".join(search.tried) if search else ""
    line["at the edge"] = " ".join(search.beyond) if search else ""
    return line


def recorded(folder: Path) -> Lines:
    """Returns the lines of `measured.csv` in a folder by table and row."""
    return {(line["table"], line["row"]): line for line in read_rows(folder / MEASURED)}


def _of_table(table: Table, lines: Lines) -> OfTable:
    """Returns the lines of the rows of a table; None of those that were not trained."""
    return {row: lines.get((table.name, row.name)) for row in table.rows}


def markdown(table: Table, lines: Lines) -> str:
    """Returns the section of a table in the README, given the lines of `measured.csv`."""
    numbers, of_table = published(table.name), _of_table(table, lines)
    body = f"{len(table.rows)} rows, none measured: they take about {_hours(table.rows)} on two cores of a CPU. "
    body += f"The published numbers: [published/{table.name}.csv](published/{table.name}.csv)."
    if any(of_table.values()):
        rows = [_cells(row, of_table, numbers) for row in table.rows]
        body = tabulate(rows, list(COLUMNS), "pipe", colalign=list(COLUMNS.values()), disable_numparse=True)
    notes: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        of_row = row.note, _found(row, of_table[row]) if row.search else ""
        notes.setdefault(tuple(filter(None, of_row)), []).append(row)
    notes.pop((), None)
    provenances = Counter(line["measured"].partition(", ")[2] for line in of_table.values() if line)
    parts = [
        f"## {table.title}",
        f"`python -m experiments.tables.rows {table.name}`. The epoch of the published table: {table.choice}.",
        body,
        *_bullets("What differs from the recipe, or is not known of it:", table.deviations),
        *_bullets(
            "Of single rows:", [f"{_names(rows, table)}: {_sentence(of_rows)}" for of_rows, rows in notes.items()]
        ),
        *_bullets("Not configured:", table.left_out),
        *_bullets("Measured:", [f"{n} row{'s' * (n > 1)}: {where}" for where, n in provenances.items()]),
    ]
    return "\n\n".join(parts)


def _sentence(notes: Sequence[str]) -> str:
    """Returns notes as one sentence."""
    return "; ".join(note.removesuffix(".") for note in notes) + "."


def _names(rows: Sequence[Row], table: Table) -> str:
    """Returns the labels of some rows, and in brackets the settings if a label has rows in other settings, too."""
    settings = {row.label: [other.setting for other in rows if other.label == row.label] for row in rows}
    every = {label: sum(row.label == label for row in table.rows) for label in settings}
    names = [
        label if len(tasks) == every[label] else f"{label} ({', '.join(tasks)})" for label, tasks in settings.items()
    ]
    return "; ".join(names)


def _cells(row: Row, of_table: OfTable, numbers: Mapping[tuple[str, str], Published]) -> list[str]:
    """Returns the cells of a row."""
    line, printed = of_table[row], numbers.get((row.setting, row.published))
    first = [row.setting, row.label, str(printed or NONE), printed.provenance if printed else NONE]
    last = _reached(row, of_table, printed)
    if line is None:
        return [*first, f"not measured: {_hours([row])}", *[NONE] * 7, last]
    error = line["the table's epoch"]
    low, high = line["the table's epoch, low"], line["the table's epoch, high"]
    seeds = line["seeds"] if line["diverged"] == "0" else f"{line['seeds']}, {line['diverged']} diverged"
    return [
        *first,
        _rounded(error),
        f"[{float(low):.2f}, {float(high):.2f}]" if low else NONE,
        f"{float(error) - printed.error:+.2f}" if printed and error else NONE,
        _rounded(line["last epoch"]),
        _rounded(line["best validation epoch"]),
        seeds,
        line["epochs"],
        line["seconds"],
        last,
    ]


def _controls(row: Row, of_table: OfTable) -> dict[Row, float]:
    """Returns the errors of the controls of the same group on the same data and network that were trained."""
    beside = [other for other in of_table if (other.setting, other.group) == (row.setting, row.group)]
    controls = [other for other in beside if other.kind in (CONTROL, PARTIAL)]
    lines = [(other, line) for other in controls if (line := of_table[other])]
    return {other: float(line["the table's epoch"]) for other, line in lines if line["the table's epoch"]}


def _reached(row: Row, of_table: OfTable, printed: Published | None) -> str:
    """Returns which controls of a row have at most the published error."""
    if row.kind in (CONTROL, PARTIAL):
        return "is a control"
    if printed is None:
        return NONE
    errors = _controls(row, of_table)
    if not errors:
        return "no control measured yet"
    reached = {other: error for other, error in errors.items() if error <= printed.error}
    if not reached:
        return f"none: {min(errors.values()):.2f}"
    texts = {
        other: f"{other.label}: {error:.2f}{_within(of_table[other], printed)}" for other, error in reached.items()
    }
    return ", ".join(f"**{text}**" if other.kind == CONTROL else text for other, text in texts.items())


def _within(line: Mapping[str, str] | None, printed: Published) -> str:
    """Returns a remark if the interval of a line contains the published error."""
    low, high = (line[f"the table's epoch, {end}"] if line else "" for end in ("low", "high"))
    contains = low and float(low) <= printed.error <= float(high)
    return f" ({float(low):.2f} to {float(high):.2f}, which contains it)" if contains else ""


def summary(lines: Lines) -> str:
    """Returns how many rows are measured, and which published numbers are reached without learning hidden layers."""
    every = [(table, row) for table in TABLES.values() for row in table.rows]
    trained = sum((table.name, row.name) in lines for table, row in every)
    reached, judged = [], 0
    for table in TABLES.values():
        numbers, of_table = published(table.name), _of_table(table, lines)
        for row in table.rows:
            printed = numbers.get((row.setting, row.published))
            errors = {e: other for other, e in _controls(row, of_table).items() if other.kind == CONTROL}
            if row.kind == RULE and printed is not None and errors:
                judged += 1
                if (error := min(errors)) <= printed.error:
                    has = f"{error:.2f}{_within(of_table[errors[error]], printed)}"
                    reached.append(f"{row.label} of {table.name}, {row.setting}: {printed.error:.2f} %, control {has}")
    left = [row for table, row in every if (table.name, row.name) not in lines]
    text = f"{trained} of {len(every)} rows are measured."
    text += f" The others take about {_hours(left)} on two cores of a CPU." if left else ""
    if not judged:
        return text
    text += f" A network in which no hidden layer learns reaches {len(reached)} of the {judged} published numbers that "
    text += "have such a control measured"
    return f"{text}: {'; '.join(reached)}." if reached else f"{text}."


def _found(row: Row, line: Mapping[str, str] | None) -> str:
    """Returns what the search of a row chose, and of which values."""
    if line is None:
        return f"to be searched in `{' '.join(row.search)}`."
    fixed = [argument for argument in row.search if "," not in argument]
    edge = f"; {line['at the edge']} is at the edge" if line["at the edge"] else ""
    return f"`{line['chosen']}`, of `{' '.join([*fixed, line['tried']])}`{edge}."


def _hours(rows: Sequence[Row]) -> str:
    """Returns about how long some rows take on two cores, of which those that share a run take it once."""
    return hours_text(sum({row.folder: row.hours_on_two_cores for row in rows}.values()))


def _rounded(number: str) -> str:
    return f"{float(number):.2f}" if number else NONE


def _bullets(heading: str, items) -> list[str]:
    return [f"{heading}\n\n" + "\n".join(f"* {item}" for item in items)] if items else []


def write(into: Path) -> None:
    """Writes the tables of a folder's results: in the README, between its markers, or to a file of their own."""
    if into != HERE:
        (into / ELSEWHERE).write_text(f"{generated(into)}\n")
        return
    text = (into / README).read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    (into / README).write_text(f"{before}{START}\n\n{generated(into)}\n\n{END}{after}")


def generated(folder: Path) -> str:
    """Returns the sections of all tables, with the results of a folder."""
    lines = recorded(folder)
    return "\n\n".join([summary(lines), *(markdown(table, lines) for table in TABLES.values())])
