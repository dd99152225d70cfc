"""The losses of YAGI's repository, beside what was measured of them."""

import functools
from collections.abc import Sequence

import numpy as np

from experiments.common import read_rows
from experiments.reproduced import COVERED, NO, NOT_MEASURED, Claim, Measured, Result, from_interval
from experiments.yagi2022.figures import CURVES, HERE, MARKERS, PLANS, curve
from fa_jax.records.reader import Run

TITLE = "YAGI0423/feedback_alignment (repository), 2022"
KNOWN_BY = {"code": "its code, run", "readme": "digitised from the plot in its README"}


def results() -> list[Result]:
    """Returns every published test loss at the end of training, beside those measured with each teacher.

    The repository's teacher is another one, so that the question is whether its value lies between the lowest and the
    highest end of the intervals of all teachers here.
    """
    measured = [row for row in read_rows(HERE / "measured.csv") if row["measure"] == "test_loss"]
    compared = []
    for line in read_rows(HERE / "published.csv"):
        task, plan = line["task"], PLANS.get(line["task"])
        if plan is None or line["measure"] != "test_loss" or line["epoch"] != str(plan.epochs[-1]):
            continue
        if line["curve"] not in CURVES:
            continue
        rows = [row for row in measured if all(row[key] == line[key] for key in ("task", "curve", "epoch"))]
        where = f" ({line['draw']})" if line["source"] == "code" else ""
        what = f"{plan.title}, {CURVES[line['curve']][0]}, test loss{where}"
        new = Result(what, line["value"], KNOWN_BY[line["source"]], "", NOT_MEASURED, f"yagi2022/{task}")
        if rows:
            ends = [float(row[end] or row["mean"]) for row in rows for end in ("low", "high")]
            means = [float(row["mean"]) for row in rows]
            # A loss of one seed has no interval: 1 % is accepted.
            margin = 0.01 * means[0] if not rows[0]["low"] else 0.0
            low, high = min(ends) - margin, max(ends) + margin
            each = f"{min(means):.4g} to {max(means):.4g}" if len(means) > 1 else f"{means[0]:.4g}"
            seeds = f"{rows[0]['seeds']} x {len(rows)}" if len(rows) > 1 else rows[0]["seeds"]
            new = new._replace(
                accepted=f"our range: {low:.3g} to {high:.3g}",
                measured=each,
                seeds=seeds,
                verdict=COVERED if low <= float(line["value"]) <= high else NO,
            )
        compared.append(new)
    assert set(MARKERS) == set(KNOWN_BY)
    return compared


def claims(row: str) -> list[Claim]:
    """Returns the recorded losses of a row, such as `yagi2022/task3`, that have an interval over seeds."""
    task = row.partition("/")[2]
    return [
        Claim(what, recorded, functools.partial(_loss, line))
        for line in read_rows(HERE / "measured.csv")
        if line["task"] == task and line["low"]
        for what in [f"{line['curve']}, teacher {line['teacher']}, epoch {line['epoch']}, {line['measure']}"]
        for numbers in [(float(line["mean"]), float(line["low"]), float(line["high"]))]
        for recorded in [from_interval(*numbers, int(line["seeds"]), resolution=1e-3 * abs(numbers[0]))]
    ]


def _loss(line: dict[str, str], runs: Sequence[Run]) -> Measured | None:
    """Returns the loss that a line of `measured.csv` is of."""
    plan = PLANS[line["task"]]
    for run in runs:
        name = run.choices["experiment"].removeprefix(f"yagi2022/{line['task']}_")
        if (name, str(run.config["task"].get("seed", ""))) == (line["curve"], line["teacher"]):
            epochs, points = curve(run, line["measure"], plan.window)
            point = points[int(np.argmin(np.abs(epochs - float(line["epoch"]))))]
            return Measured(point.mean, point.sd, point.n)
    return None
