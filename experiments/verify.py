"""Trains a row again, elsewhere, and compares the result with what is recorded.

    python -m experiments.verify nokland2016/10epochs/1x800_dfa             the whole row
    python -m experiments.verify hinton2022/full --until 2 --seeds 1        its first two epochs, with one seed
    python -m experiments.verify lillicrap2014/task1

The run goes to outputs/verify, or to the folder that `--out` names; the same command resumes it after an interrupt. A
number holds if it differs from the recorded one by less than chance explains: by Student's t for two means of these
numbers of seeds, at 95 % for all numbers of the row together. Where the deviation over seeds is known from few seeds,
it is taken to be at least the one that a test set of this size causes. The exit code is 0 if all numbers hold, 1 if one
does not, 2 if there was nothing to compare.
"""

import argparse
import dataclasses
import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scipy import stats
from tabulate import tabulate

from experiments import page, queue
from experiments.reproduced import Claim, Measured
from experiments.training import CUT_OFF, DONE, NOT_STARTED, Row, Training, start, state, stop
from fa_jax.checks import BadOption
from fa_jax.records.reader import Run, read_run

OUTPUTS = Path("outputs/verify")
CONFIDENCE = 0.95
LEAST_FREEDOM = 5
"""The degrees of freedom below which a deviation over seeds counts as measured with few."""
POLL = 1.0
"""The seconds between two looks at how far a run has come."""


UNKNOWN = "no deviation is known"
"""Stands for whether a number holds of which there is one seed, recorded and now."""


def tolerance(recorded: Measured, new: Measured, spread: float | None, numbers: int) -> float | None:
    """Returns by how much two means may differ by chance; None if no deviation is known.

    Args:
      recorded, new: the means.
      spread: the least standard deviation over seeds that is assumed if it was measured with few; None: none.
      numbers: how many are compared, so that all hold together with `CONFIDENCE`.
    """
    known = [measured for measured in (recorded, new) if measured.sd is not None and measured.seeds > 1]
    freedom = sum(measured.seeds - 1 for measured in known)
    squares = sum((measured.seeds - 1) * (measured.sd or 0.0) ** 2 for measured in known)
    sd = (squares / freedom) ** 0.5 if known else None
    if spread is not None and freedom < LEAST_FREEDOM:
        sd, freedom = max(sd or 0.0, spread), math.inf
    if sd is None:
        return None
    quantile = stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / numbers, freedom)
    return float(quantile * sd * (1 / recorded.seeds + 1 / new.seeds) ** 0.5 + recorded.resolution)


def compare(claims: Sequence[Claim], runs: Sequence[Run]) -> tuple[str, bool]:
    """Returns a table of what is recorded and what is measured now, and whether all numbers that can be judged hold.

    Raises:
      BadOption: if none of the numbers was measured, or none can be judged.
    """
    pairs = [(claim, new) for claim in claims if (new := claim.new(runs)) is not None]
    if not pairs:
        raise BadOption("the run has not come to an epoch of which a number is recorded")
    lines, holds = [], True
    for claim, new in pairs:
        most = tolerance(claim.recorded, new, claim.spread, len(pairs))
        difference = abs(new.value - claim.recorded.value)
        verdict = UNKNOWN if most is None else "yes" if difference <= most else "NO"
        holds = holds and verdict != "NO"
        numbers = [f"{value:.4g}" for value in (claim.recorded.value, new.value, difference)]
        lines.append([claim.what, *numbers, "" if most is None else f"{most:.2g}", verdict])
    if all(line[-1] == UNKNOWN for line in lines):
        raise BadOption(
            f"none of {len(lines)} numbers can be judged: of one seed each, {UNKNOWN}; --seeds 2 or more measures one"
        )
    heads = ["number", "recorded", "now", "difference", "by chance at most", "holds"]
    return tabulate(lines, heads, "simple", disable_numparse=True), holds


def elsewhere(row: Row, out: Path) -> Training:
    """Returns the first training of a row, in a folder of its own."""
    training = next(iter(row.trainings()))
    return dataclasses.replace(training, folder=out / row.name)


def train(training: Training, until: float | None) -> None:
    """Trains or resumes a run, up to an epoch, after which it is interrupted; None: to its end.

    Raises:
      SystemExit: with one line, if it fails.
    """
    now = state(training)
    if now.kind == DONE or (until is not None and now.kind == CUT_OFF and reached(training) >= until):
        return
    if now.kind not in (NOT_STARTED, CUT_OFF):
        raise SystemExit(now.why or f"another process trains {training.folder}")
    process = start(training, now)
    try:
        while process.poll() is None and (until is None or reached(training) < until):
            time.sleep(POLL)
    finally:
        if process.poll() is None:
            stop([process])
    if until is None and state(training).kind != DONE:
        raise SystemExit(f"{training.folder} ended with exit code {process.returncode}; the same command resumes it")


def reached(training: Training) -> float:
    """Returns the last epoch at which all seeds of a run were evaluated."""
    try:
        run = read_run(training.folder)
    except (OSError, ValueError):  # it is being written
        return 0.0
    seeds = run.config["seeds"]
    expected = len(seeds) if isinstance(seeds, list) else seeds
    if len(run.rows) < expected:
        return 0.0
    return min(float(run.metrics["epoch"][rows[-1]]) for rows in run.rows.values()) * 1.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", help="of `experiments.queue`")
    parser.add_argument("--until", type=float, help="the epoch after which training is stopped; default: the end")
    parser.add_argument("--seeds", type=int, help="default: as many as are recorded")
    parser.add_argument("--out", type=Path, default=OUTPUTS, help="folder of the run; default: outputs/verify")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(verify(options))
    except BadOption as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes it", file=sys.stderr)
        sys.exit(130)


def verify(options: argparse.Namespace) -> int:
    """Trains a row and prints the comparison; returns the exit code."""
    experiments = queue.experiments()
    every = [row for module in experiments.values() for row in module.rows()]
    (first, *others) = queue.select(every, [options.row])
    if others:
        raise BadOption(f"name one row; {options.row} names {1 + len(others)}, such as {first.name}")
    experiment = first.name.partition("/")[0]
    module = page.modules().get(experiment)
    claims = [] if module is None else module.claims(first.name)
    if not claims:
        raise BadOption(f"nothing is recorded of {first.name}, so that there is nothing to compare")
    seeds = options.seeds or (None if first.is_sweep else max(claim.recorded.seeds for claim in claims))
    (row,) = queue.select(experiments[experiment].rows(seeds), [first.name])
    if options.until is not None and row.is_sweep:
        raise BadOption(f"--until needs a row of one run; {row.name} is a sweep")
    if problem := queue.refusal(row):
        raise BadOption(problem)
    training = elsewhere(row, options.out)
    train(training, options.until)
    table, holds = compare(claims, training.runs())
    judged = "all numbers that can be judged hold" if UNKNOWN in table else "all numbers hold"
    print(f"\n{table}\n\n{row.name}: {judged if holds else 'a number does NOT hold'}")
    return 0 if holds else 1


if __name__ == "__main__":
    main()
