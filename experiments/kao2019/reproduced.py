"""The accuracies of associated learning that are published, beside what was measured of them."""

from experiments.common import read_rows
from experiments.kao2019.rows import HERE
from experiments.reproduced import (
    NOT_MEASURED,
    SHORTENED,
    YES,
    Claim,
    Measured,
    Result,
    cost,
    in_words,
    interval_of,
    judge,
    percent_claim,
    yes,
)

TITLE = "Kao, Chen, 2019"
SHORTER = {"exact_20": "exact", "exact_200": "exact", "cnn_200": "cnn", "cifar10": "cifar10_few"}
"""Shorter rows of the same networks and data, which are shown where the full one was not run."""
EPOCHS = (1, 2, 4, 5, 20, 200)
RULES = {"al": "associated learning", "bp": "BP"}


def result(line: dict[str, str], measured: dict[tuple[str, str], dict[str, str]]) -> Result:
    """Returns the result of a line of `published/accuracies.csv`, given those of `measured.csv` by row and run."""
    what = f"{line['result']}, {RULES[line['rule']]}, accuracy, epoch {line['epoch']}"
    tolerance = f"± {line['tolerance']}" if line["tolerance"] else ""
    row_name = f"kao2019/{line['row']}/{line['run']}"
    new = Result(what, line["accuracy"], line["provenance"], tolerance, NOT_MEASURED, row_name)
    shorter = SHORTER.get(line["row"], line["row"])
    row = measured.get((line["row"], line["run"]), measured.get((shorter, line["run"])))
    if row is None:
        return new
    epoch, seeds, full = line["epoch"], int(row["seeds"]), row["row"] == line["row"]
    if not full:
        epoch = str(max(n for n in EPOCHS if row.get(f"accuracy, epoch {n}")))
    value = float(row[f"accuracy, epoch {epoch}"])
    interval = interval_of(value, row[f"sd, epoch {epoch}"], seeds)
    new = new._replace(seeds=str(seeds), interval=in_words(interval), cost=cost(row["seconds"], row["measured"]))
    new = new._replace(run=f"kao2019/{row['row']}/{row['run']}")
    if not full:
        return new._replace(measured=f"{value:.2f}, epoch {epoch}", verdict=SHORTENED)
    paper, points = float(line["accuracy"]), float(line["tolerance"]) + 0.005  # of numbers with two decimals
    verdict = judge(value, (paper - points, paper + points), interval, seeds)
    if verdict == YES:
        verdict = yes(line["provenance"], published_within=True)
    return new._replace(measured=f"{value:.2f} ({value - paper:+.2f})", verdict=verdict)


def results() -> list[Result]:
    """Returns every published accuracy."""
    measured = {(row["row"], row["run"]): row for row in read_rows(HERE / "measured.csv")}
    return [result(line, measured) for line in read_rows(HERE / "published" / "accuracies.csv")]


def claims(row: str) -> list[Claim]:
    """Returns the recorded accuracies of a row, such as `kao2019/separation/al`."""
    lines = [line for line in read_rows(HERE / "measured.csv") if f"kao2019/{line['row']}/{line['run']}" == row]
    return [
        percent_claim(f"accuracy, epoch {epoch}", "test_error", float(epoch), recorded, accuracy=True)
        for line in lines
        for epoch in EPOCHS
        if (accuracy := line.get(f"accuracy, epoch {epoch}"))
        for sd in [line[f"sd, epoch {epoch}"]]
        for recorded in [Measured(float(accuracy), float(sd) if sd else None, int(line["seeds"]), 0.005)]
    ]
