"""The record of the measurements: a CSV, and the Markdown tables made from it."""

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

from experiments.common import read_rows

FIELDS: tuple[str, ...] = (
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
    """A measured quantity."""

    quantity: str
    values: Sequence[float]
    """One for each round."""
    unit: str
    required: str = ""
    """The requirement on the median, such as `>= 2`."""

    def record(self) -> dict[str, object]:
        """Returns the fields of the CSV that depend on this quantity."""
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


def record(section: str, rows: Sequence[Row], out: Path, accelerator: str = "") -> None:
    """Replaces the rows of a section in the CSV.

    Args:
      section: of the benchmark.
      rows: that replace those of the section.
      out: the CSV.
      accelerator: on which the rows were measured; empty: on the cores of this machine.
    """
    hardware = f"{accelerator}, {_hardware()}" if accelerator else _hardware()
    provenance = {"date": datetime.date.today().isoformat(), "hardware": hardware, "versions": _versions()}
    others = [row for row in read_rows(out) if row["section"] != section]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *({"section": section, **row.record(), **provenance} for row in rows)])


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the rows as Markdown, with one table for each section."""
    parts = []
    for section in dict.fromkeys(row["section"] for row in rows):
        of_section = [row for row in rows if row["section"] == section]
        first = of_section[0]
        parts += [f"**{section}**: {first['date']}, {first['hardware']}, {first['versions']}", ""]
        parts += ["| what | median | lowest to highest | required | met |", "|---|---:|---:|---|---|"]
        for row in of_section:
            median = f"{_figure(row['median'])} {row['unit']}".rstrip()
            numbers = f"{median} | {_figure(row['low'])} to {_figure(row['high'])}"
            parts.append(f"| {row['quantity']} | {numbers} | {row['required']} | {row['met']} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def _figure(number: str) -> str:
    """Returns a number without an exponent, with groups of three digits."""
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
    packages = []
    for name in ("jax", "torch", "biotorch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join([f"Python {sys.version.split()[0]}", *packages])
