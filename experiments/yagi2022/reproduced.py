"""The losses of YAGI's repository, beside what was measured of them."""

from experiments.common import read_rows
from experiments.reproduced import NO, NOT_MEASURED, YES, Result
from experiments.yagi2022.figures import CURVES, HERE, MARKERS, PLANS

TITLE = "YAGI0423/feedback_alignment (repository), 2022"
KNOWN_BY = {"code": "its code, run", "readme": "digitised from the plot in its README"}


def results() -> list[Result]:
    """Returns every published test loss at the end of training, beside those measured with each teacher.

    The repository's teacher is another one, so that a value is accepted between the lowest and the highest end of the
    intervals of all teachers.
    """
    measured = [row for row in read_rows(HERE / "measured.csv") if row["measure"] == "test_loss"]
    found = []
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
                accepted=f"{low:.3g} to {high:.3g}",
                measured=each,
                seeds=seeds,
                verdict=YES if low <= float(line["value"]) <= high else NO,
            )
        found.append(new)
    assert set(MARKERS) == set(KNOWN_BY)
    return found
