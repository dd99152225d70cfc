"""The record of the measurements: a CSV, and the Markdown table made of it."""

import contextlib
import csv
import datetime
import importlib.metadata
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

FIELDS = (
    "section",
    "quantity",
    "median",
    "unit",
    "low",
    "high",
    "required",
    "met",
    "repeats",
    "date",
    "hardware",
    "versions",
)


class Row(NamedTuple):
    """One measured quantity: its values in every round, and what is required of their median, as in `>= 2`."""

    quantity: str
    values: Sequence[float]
    unit: str
    required: str = ""

    def record(self) -> dict[str, object]:
        """Returns its fields of the CSV."""
        median = statistics.median(self.values)
        met = ""
        if self.required:
            sign, bound = self.required.split()
            holds = {">=": median >= float(bound), "<=": median <= float(bound), "<": median < float(bound)}
            met = "yes" if holds[sign] else "no"
        low, high = min(self.values), max(self.values)
        numbers = {"median": f"{median:.4g}", "low": f"{low:.4g}", "high": f"{high:.4g}"}
        count = {"repeats": len(self.values), "required": self.required, "met": met}
        return {"quantity": self.quantity, "unit": self.unit, **numbers, **count}


def record(section: str, rows: Sequence[Row], out: Path) -> None:
    """Replaces a section's rows in the CSV."""
    place = {"date": datetime.date.today().isoformat(), "hardware": _hardware(), "versions": _versions()}
    others = [row for row in read(out) if row["section"] != section]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *({"section": section, **row.record(), **place} for row in rows)])


def read(path: Path) -> list[dict[str, str]]:
    """Returns the rows of the CSV; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the rows as Markdown, a table a section."""
    parts = []
    for section in dict.fromkeys(row["section"] for row in rows):
        own = [row for row in rows if row["section"] == section]
        parts += [f"**{section}**: {own[0]['date']}, {own[0]['hardware']}, {own[0]['versions']}", ""]
        parts += ["| what | median | lowest to highest | required | met |", "|---|---:|---:|---|---|"]
        for row in own:
            median = f"{_figure(row['median'])} {row['unit']}".rstrip()
            numbers = f"{median} | {_figure(row['low'])} to {_figure(row['high'])}"
            parts.append(f"| {row['quantity']} | {numbers} | {row['required']} | {row['met']} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def _figure(number: str) -> str:
    """A number without an exponent, thousands apart."""
    value = float(number)
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:g}"


def _hardware() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{len(os.sched_getaffinity(0))} cores of {names[0]}"
    return f"{len(os.sched_getaffinity(0))} cores"


def _versions() -> str:
    found = []
    for name in ("jax", "torch", "biotorch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join([f"Python {sys.version.split()[0]}", *found])
