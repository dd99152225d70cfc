"""The figures and numbers of Lillicrap et al., 2014, beside what was measured of them."""

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np

from experiments.common import read_rows
from experiments.lillicrap2014 import task1, task2, task3
from experiments.lillicrap2014.common import HERE, Check, published
from experiments.lillicrap2014.task2 import PRINTED
from experiments.reproduced import NO, OWN_BOUND, PARTLY, YES, Claim, Measured, Result, from_interval
from fa_jax.records.reader import Run

TITLE = "Lillicrap et al., 2014"
TASKS = {"task1": "Task 1", "task2": "Task 2", "task2_300epochs": "Task 2", "task3": "Task 3"}
ROWS = {"task1": "task1", "task2": "task2", "task2_300epochs": "task2_300epochs", "task3": "task3"}
CURVES_1D = {"FA": "fa", "BP": "bp", "node perturbation": "node_perturbation", "shallow": "shallow"}
SIMULATED = "not printed: bound from a simulation"
DIFFERENCE = "FA and BP"
"""The check of the difference between the final errors."""
P_VALUES = {"15": "3e-12", "16": "9e-13"}
"""The p-values of the printed tests whether four layers are better than three, by the check of the same comparison."""
SEEDS = {"task2": "3", "task2_300epochs": "3"}
"""The seeds of the tables that were written before they had a column of seeds."""
CHECKS: dict[str, Callable[[Sequence[Run]], list[Check]]] = {
    "task1": lambda runs: task1.checks_1({run.choices["rule"]: run for run in runs}),
    "task3": lambda runs: task3.checks(task3.by_curve(runs)),
    task2.LONG: lambda runs: task2.checks_late(task2.by_curve(runs)),
}
"""The checks of each row that `verify` compares."""
NEAR = 0.02
"""How far, relatively, the nearest point of a digitised curve may lie."""


def digitised(check: str) -> str:
    """Returns the published value of a check of task 1 in fig. 1d; empty: it has none."""
    match = re.match(r"(FA|BP|node perturbation|shallow)\b.* NSE at (\d+)$", check)
    if match is None:
        return ""
    points, examples = published("fig1d"), float(match[2])
    nearest = int(np.argmin(abs(points["examples"] - examples)))
    is_near = abs(points["examples"][nearest] / examples - 1) <= NEAR
    return f"{points[CURVES_1D[match[1]]][nearest]:.2g}" if is_near else ""


def difference(published_value: str, measured: str, *, relative: bool) -> str:
    """Returns how far a measured value is from the published one, in brackets; empty if one is no number."""
    try:
        paper, value = float(published_value), float(measured.removesuffix(" %"))
    except ValueError:
        return ""
    return f" (x {value / paper:.2g})" if relative else f" ({value - paper:+.2f})"


def bound(accepted: str) -> tuple[float, float] | None:
    """Returns the bound that a text such as `paper 4.2 ± 0.8 %` means; None: it is no range."""
    match = re.search(r"([\d.e+-]+) (±|to|within a factor) ([\d.e+-]+)(?: %)?$", accepted)
    if match is None:
        return None
    first, second = float(match[1]), float(match[3])
    return {
        "±": (first - second, first + second),
        "to": (first, second),
        "within a factor": (first / second, first * second),
    }[match[2]]


def verdict(row: dict[str, str], accepted: str, printed: str) -> str:
    """Returns the verdict of a check.

    Args:
      row: of the check. If it does not hold, the verdict is partly where its interval reaches the bound.
      accepted: the bound in words.
      printed: the published value; empty: none.
    """
    limits = bound(accepted)
    if row["holds"] == "True":
        if not printed:
            return OWN_BOUND
        return YES if limits is None or limits[0] <= float(printed) <= limits[1] else OWN_BOUND
    if limits is None or not row.get("low"):
        return NO
    return PARTLY if float(row["low"]) <= limits[1] and limits[0] <= float(row["high"]) else NO


def results() -> list[Result]:
    """Returns every check of the three tasks."""
    collected = []
    for name, task in TASKS.items():
        path = HERE / f"measured_{name}.csv"
        _, machine, *rest = path.read_text().splitlines()[0].split(", ")
        cores, seconds = rest[0], float(rest[-1].partition(" s ")[0])
        for row in read_rows(path):
            target = row["target"]
            printed, known = digitised(row["check"]), "digitised"
            if match := re.match(r"paper ([\d.e+-]+)", target):
                printed, known = match[1], "read" if row["row"] == "20" else "digitised"
            elif p_value := P_VALUES.get(row["row"]):
                printed, known = f"better, p = {p_value}", "read"
            collected.append(
                Result(
                    f"{task}, {row['check']}",
                    printed or "–",
                    known if printed else SIMULATED,
                    target,
                    verdict(row, target, printed),
                    f"lillicrap2014/{ROWS[name]}",
                    row["measured"] + difference(printed, row["measured"], relative=name in ("task1", "task3")),
                    row.get("seeds") or SEEDS.get(name, ""),
                    f"{row['low']} to {row['high']}" if row.get("low") else "",
                    f"{seconds / 3600:.2f} h, {machine}, {cores}",
                )
            )
            if row["check"] == DIFFERENCE:
                below = f"FA is better, by {PRINTED['bp'] - PRINTED['fa']:.1f}"
                better = YES if float(row["measured"]) < 0 else NO
                new = collected[-1]._replace(what=f"{task}, FA ends below BP", published=below, provenance="read")
                collected.append(new._replace(accepted="FA below BP", verdict=better))
    return collected


def claims(row: str) -> list[Claim]:
    """Returns the recorded checks of a row, such as `lillicrap2014/task3`, that have an interval over seeds."""
    name = row.partition("/")[2]
    return [
        Claim(
            line["check"],
            from_interval(float(line["measured"]), float(line["low"]), float(line["high"]), int(line["seeds"])),
            functools.partial(_check, name, line["check"]),
        )
        for line in (read_rows(HERE / f"measured_{name}.csv") if name in CHECKS else [])
        if line.get("low")
    ]


def _check(name: str, check: str, runs: Sequence[Run]) -> Measured | None:
    """Returns what a check measures in runs; None if it is one of other runs."""
    (matching,) = [candidate for candidate in CHECKS[name](runs) if candidate.check == check] or [None]
    if matching is None:
        return None
    return from_interval(float(matching.measured), float(matching.low), float(matching.high), int(matching.seeds))
