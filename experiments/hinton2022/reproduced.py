"""The errors of Forward-Forward that are published, beside what was measured of them."""

import re

from experiments.common import read_rows
from experiments.hinton2022.rows import EPOCHS, HERE, ROWS
from experiments.reproduced import (
    NO,
    NOT_MEASURED,
    PARTLY,
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

TITLE = "Hinton, 2022"
SHORTER = {"cifar10_minimised_2": "cifar10_minimised_2_few", "cifar10_bp_2": "cifar10_bp_2_few"}
"""Rows of fewer images and smaller fields, which are shown where the full one was not run."""
NEARLY = {"jitter": "jitter_450"}
"""Rows of nine tenths of the length, which count where the full one was not run."""
WORSE = "hybrid_all_layers"
"""The row that is compared with `hybrid`, not with a number."""


def errors(row: dict[str, str], by: str) -> dict[str, float]:
    """Returns the test errors in % at the end of a line of `measured.csv`, for each kind of inference."""
    last = row["test error, last epoch"] or row["test error, epoch 100"]
    softmax = row["test error by softmax, last epoch"] or last
    both = {"softmax": softmax, "goodness": row["test error by goodness, last epoch"]}
    return {kind: float(both[kind]) for kind in by.split() if both[kind]}


def result(line: dict[str, str], measured: dict[str, dict[str, str]]) -> Result:
    """Returns the result of a line of `published/errors.csv`, given those of `measured.csv`."""
    accepted = f"{line['low']} to {line['high']}" if line["low"] else ""
    name = line["row"]
    new = Result(line["experiment"], line["error"], line["provenance"], accepted, NOT_MEASURED, "")
    if name:
        assert name in ROWS
        new = new._replace(row=f"hinton2022/{name}")
    shown = next((other for other in (name, NEARLY.get(name), SHORTER.get(name)) if other in measured), None)
    if shown is None:
        return new
    row, note, shorter = measured[shown], "", shown == SHORTER.get(name)
    by_inference = errors(row, line["by"])
    seeds, (first, *_) = int(row["seeds"]), by_inference.values()
    interval = interval_of(first, row.get("sd, last epoch", ""), seeds)
    verdicts = set()
    if line["low"]:
        bound = float(line["low"]), float(line["high"])
        verdicts = {judge(value, bound, interval, seeds, int(line["least"])) for value in by_inference.values()}
    if name == WORSE:
        verdicts = {YES if first > errors(measured["hybrid"], line["by"])["softmax"] else NO}
    if shown != name:
        note = f", {shown.removeprefix('jitter_')} of 500 epochs" if name in NEARLY else f", `{shown}`"
    printed = [float(number) for number in re.findall(r"[\d.]+", line["error"])]
    paper = printed if verdicts and not shorter else []
    texts = []
    for kind, value in by_inference.items():
        # Where two are published, the first is by goodness.
        difference = f" ({value - paper[0 if kind == 'goodness' else -1]:+.2f})" if paper else ""
        texts.append(f"{value:.2f} by {kind}{difference}")
    verdict = SHORTENED if shorter else PARTLY if len(verdicts) > 1 or shown != name else verdicts.pop()
    if verdict == YES and line["low"]:
        within = all(float(line["low"]) <= number <= float(line["high"]) for number in printed)
        verdict = yes(line["provenance"], published_within=within)
    return new._replace(
        measured=", ".join(texts) + note,
        seeds=str(seeds),
        interval=in_words(interval),
        cost=cost(row["seconds"], row["measured"]),
        verdict=verdict,
        run=f"hinton2022/{shown}",
    )


def results() -> list[Result]:
    """Returns every published error."""
    measured = {row["row"]: row for row in read_rows(HERE / "measured.csv")}
    return [result(line, measured) for line in read_rows(HERE / "published" / "errors.csv")]


def claims(row: str) -> list[Claim]:
    """Returns the recorded test errors of a row, such as `hinton2022/full`."""
    lines = [line for line in read_rows(HERE / "measured.csv") if f"hinton2022/{line['row']}" == row]
    return [
        percent_claim(f"test error, epoch {epoch}", "test_error", float(epoch), recorded)
        for line in lines
        for epoch in EPOCHS
        if (error := line.get(f"test error, epoch {epoch}"))
        for recorded in [Measured(float(error), None, int(line["seeds"]), 0.005)]
    ]
