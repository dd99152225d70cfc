"""Mutates random places of the code, one at a time, and records whether the nearest tests notice.

    pip install cosmic-ray
    python -m experiments.reliability.mutations --sample 150
    python -m experiments.reliability.mutations --sample 20 --packages metrics records/statistics.py
    python -m experiments.reliability.mutations --again --update   # the present tests on gaps
    python -m experiments.reliability.mutations --table

The places are drawn with a fixed seed from `PACKAGES`, or from those that are named, each with one of the changes that
cosmic-ray makes there, such as another operator or a number plus one. The tests of `TESTS` run on a copy of the
checkout. Results are added to `mutations.csv` one by one, so an interrupted run is continued by the same command. A
change is `caught` if a test fails that passes without it, whose name is recorded, or if the tests do not end in time
(`time`). The column `judged` says of each survivor, after a look at it, whether it is `equivalent`, that is, no result
can differ, or a `gap` in the tests, with the reason. With `--again`, gaps are tried on the present tests, and
`noticed_since` names the one that fails now.
"""

import argparse
import contextlib
import csv
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.common import add_output_options, read_rows, results_folder
from experiments.reliability.changes import CHECKOUT, PACKAGES, Mutant, changed_line, found_again, mutated, sample
from fa_jax.records.environment import cpuinfo, now
from fa_jax.records.sources import commit

HERE = Path(__file__).parent
FIELDS: tuple[str, ...] = ("module", "line", "operator", "occurrence", "source", "before", "after", "result", "seconds")
FIELDS += ("noticed_by", "judged", "noticed_since", "time", "commit", "machine")
BACKWARD = ("rules/test_against_reference.py", "rules/test_identities.py")
FORWARD_FORWARD = ("rules/test_forward_forward.py", "rules/test_negatives.py")
RUNS = ("cli/test_together.py", "cli/test_resume.py")
TESTS: dict[str, tuple[str, ...]] = {
    "rules/backward.py": BACKWARD,
    "rules/stagewise.py": ("rules/test_associated_learning.py", "rules/test_local_loss.py", *FORWARD_FORWARD),
    "rules/forward_forward/goodness.py": (*FORWARD_FORWARD, "rules/test_recurrent_forward_forward.py"),
    "rules/forward_forward/recurrent": ("rules/test_recurrent_forward_forward.py", "rules/test_negatives.py"),
    "rules/forward_forward/scff.py": ("rules/test_scff.py",),
    "rules/forward_forward": FORWARD_FORWARD,
    "rules/ifa.py": (*BACKWARD, "rules/test_feedback.py"),
    "rules/projection.py": ("rules/test_feedback.py", *BACKWARD),
    "rules/drtp.py": (*BACKWARD, "rules/test_images_against_reference.py"),
    "rules/weight_mirror.py": ("rules/test_weight_mirror.py", *BACKWARD),
    "training/adversarial.py": ("training/test_adversarial.py",),
    "training/compile.py": ("training/test_compile.py", *RUNS, "cli/test_terminal.py"),
    "training/evaluation.py": ("training/test_loop.py", "metrics/test_scores.py", "metrics/test_alignment.py"),
    "training/announce.py": ("training/test_announce.py",),
    "training/interrupts.py": ("training/test_interrupts.py", "cli/test_resume.py"),
    "training/job.py": ("cli/test_together.py",),
    "training/memory.py": ("cli/test_terminal.py", "cli/test_together.py"),
    "training/record.py": (*RUNS, "cli/test_cli.py", "loggers/test_loggers.py"),
    "training/run.py": (*RUNS, "cli/test_cli.py", "cli/test_terminal.py"),
    "training": ("training/test_loop.py",),
    "metrics/alignment.py": ("metrics/test_alignment.py", "metrics/test_signals.py"),
    "metrics/pseudobackprop.py": ("metrics/test_alignment.py", "metrics/test_signals.py", "cli/test_metrics.py"),
    "metrics/scores.py": ("metrics/test_scores.py", "metrics/test_signals.py"),
    "metrics/separation.py": ("metrics/test_separation.py", "metrics/test_signals.py"),
    "metrics": ("metrics/test_signals.py",),
    "records/statistics.py": ("records/test_statistics.py", "records/test_folder.py"),
}
"""The tests of modules, or of those whose path begins so, nearest first; else those of the same name, or `BACKWARD`."""
OF_ALL_RULES = ("rules/test_contract.py", "cli/test_mistakes.py")
"""Tests of every rule, of which those that name the mutated one run last."""
LIMIT = 400.0
"""The most seconds that tests may take; they take less than half of it."""


def tests_of(module: str) -> list[list[str]]:
    """Returns the arguments of pytest for a module, one list for each of its calls."""
    parts = Path(module).with_suffix("").parts
    subject = parts[1] if parts[0] in ("rules", "metrics") else parts[-1]
    known = next((tests for path, tests in TESTS.items() if module.startswith(path)), None)
    mirrored = f"{parts[0]}/test_{subject}.py"
    tests = known or ((mirrored,) if (CHECKOUT / "tests" / mirrored).exists() else BACKWARD)
    calls = [[f"tests/{test}"] for test in tests]
    if parts[0] == "rules":
        calls.append([*(f"tests/{test}" for test in OF_ALL_RULES), "-k", subject])
    return calls


def result_of(checkout: Path, mutant: Mutant) -> dict[str, object]:
    """Runs the tests of a mutated module in a copy of the checkout; returns the result with its seconds."""
    began = time.monotonic()
    for arguments in tests_of(mutant.module):
        try:
            code, printed = pytest(checkout, arguments, LIMIT - (time.monotonic() - began))
        except subprocess.TimeoutExpired:
            return {"result": "time", "seconds": round(time.monotonic() - began)}
        if code not in (0, 5):  # 5: none of them is of this rule
            name = failed(printed)
            return {"result": "caught", "seconds": round(time.monotonic() - began), "noticed_by": name}
    return {"result": "survived", "seconds": round(time.monotonic() - began)}


def pytest(checkout: Path, arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """Runs tests in a checkout up to the first that fails; returns the exit code and what is printed.

    Raises:
      subprocess.TimeoutExpired: if they do not end in so many seconds.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(checkout), os.environ.get("PYTHONPATH", "")))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, printed


def failed(printed: str) -> str:
    """Returns the test that failed or the file that could not be imported, by what pytest prints, or what ended it."""
    name = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", printed, re.MULTILINE)
    ended = "KeyboardInterrupt" if "! KeyboardInterrupt !" in printed else printed.strip().rpartition("\n")[2]
    return name[1] if name else ended


@functools.cache
def require_passing(checkout: Path, name: str) -> None:
    """Checks that a test that noticed a change passes without it; of a file, that it can be imported."""
    code, printed = pytest(checkout, [name] if "::" in name else [name, "--collect-only"], LIMIT)
    if code:
        raise SystemExit(f"{name} fails without a change too:\n{printed[-2000:]}")


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """Yields a copy of the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "outputs", ".venv"))
        yield copy


def tried(copy: Path, mutant: Mutant) -> dict[str, object]:
    """Changes a module of a copy, runs its tests, and takes the change back; returns a row of the table."""
    path = copy / "fa_jax" / mutant.module
    text = path.read_text()
    after = mutated(text, mutant)
    path.write_text(after)
    try:
        result = result_of(copy, mutant)
    finally:
        path.write_text(text)
    noticed_by = str(result.get("noticed_by", ""))
    if noticed_by.startswith("tests/"):  # else the change ended pytest itself, as by an interrupt
        require_passing(copy, noticed_by)
    lines = dict(zip(("before", "after"), changed_line(text, after), strict=True))
    where = {"time": now(), "commit": (commit() or "")[:8], "machine": cpuinfo("model name")}
    return {**mutant._asdict(), **lines, **result, **where}


def run(chosen: Sequence[Mutant], out: Path) -> None:
    """Adds the results of changes to a table that are not in it yet."""
    done = {tuple(row[name] for name in ("module", "operator", "occurrence", "source")) for row in read_rows(out)}
    with copied() as copy:
        for i, mutant in enumerate(chosen):
            if mutant.key not in done:
                row = tried(copy, mutant)
                add(row, out)
                where = f"{mutant.module}, line {mutant.line}"
                print(f"{i + 1} of {len(chosen)}: {where}: {row['result']} in {row['seconds']} s", flush=True)


def again(out: Path) -> None:
    """Runs the present tests on the gaps of a table, and records the test that notices each now."""
    with copied() as copy:
        for row in read_rows(out):
            if not row["judged"].startswith("gap") or row["noticed_since"]:
                continue
            mutant = found_again(row)
            noticed_by = "" if mutant is None else tried(copy, mutant).get("noticed_by", "")
            rows = read_rows(out)  # some may have been added
            for same in rows:
                if all(same[name] == row[name] for name in ("module", "operator", "occurrence", "source")):
                    same["noticed_since"] = str(noticed_by)
            new = out.with_name(f"{out.name}.tmp")
            new.unlink(missing_ok=True)
            for of_table in rows:
                add(of_table, new)
            new.replace(out)  # at once: a kill loses nothing
            print(f"{row['module']}, line {row['line']}: {noticed_by or 'not noticed'}", flush=True)


def add(row: Mapping[str, object], out: Path) -> None:
    """Adds a row to a table."""
    is_new = not out.exists()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def table(path: Path) -> str:
    """Returns the numbers of results in a table by package, in Markdown.

    Shares are of the mutants that are not equivalent: of those caught by the tests of their time, and of those caught
    by the present tests.
    """
    names = ("caught", "time", "equivalent", "gap", "survived")
    shares = ("closed", "caught at once", "caught now")
    lines = [f"| package | mutants | {' | '.join((*names, *shares))} |", "| --- |" + " ---: |" * 9]
    counts: dict[str, Counter[str]] = {}
    for row in read_rows(path):
        of_package = counts.setdefault(row["module"].partition("/")[0], Counter())
        of_package[row["judged"].partition(":")[0] or row["result"]] += 1
        of_package["closed"] += bool(row["noticed_since"])
    counts["all"] = sum(counts.values(), Counter())
    for package, of_package in counts.items():
        total = sum(of_package[name] for name in names)
        changing, caught = total - of_package["equivalent"], of_package["caught"] + of_package["time"]
        at_once, present = (100 * number / changing for number in (caught, caught + of_package["closed"]))
        numbers = " | ".join(str(of_package[name]) for name in (*names, "closed"))
        lines.append(f"| {package} | {total} | {numbers} | {at_once:.0f} % | {present:.0f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=150, help="the number of places")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--packages", nargs="*", default=PACKAGES, help="or modules, to draw from")
    add_output_options(parser)
    parser.add_argument("--again", action="store_true", help="try gaps on the present tests, and draw nothing")
    parser.add_argument("--table", action="store_true", help="print the counts, and run nothing")
    arguments = parser.parse_args()
    out = (arguments.out or HERE if arguments.table else results_folder(arguments, HERE)) / "mutations.csv"
    if arguments.again:
        again(out)
    elif not arguments.table:
        run(sample(arguments.sample, arguments.seed, arguments.packages), out)
    print(table(out))


if __name__ == "__main__":
    main()
