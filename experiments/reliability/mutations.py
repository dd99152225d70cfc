"""Mutates random places of the code, one at a time, and records whether the nearest tests notice.

    pip install cosmic-ray
    python -m experiments.reliability.mutations --sample 150
    python -m experiments.reliability.mutations --sample 20 --packages metrics records/statistics.py
    python -m experiments.reliability.mutations --table

The places are drawn with a fixed seed from `PACKAGES`, or from those that are named, each with one of the changes that
cosmic-ray makes there, such as another operator or a number plus one. The tests of `TESTS` run on a copy of the
checkout. Results are added to `mutations.csv` one by one, so an interrupted run is continued by the same command. A
change is `caught` if a test fails, whose name is recorded, or if the tests do not end in time (`time`). The column
`judged` says of each survivor, after a look at it, whether it is `equivalent`, that is, no result can differ, or a
`gap` in the tests, with the reason.
"""

import argparse
import ast
import csv
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.common import add_output_options, read_rows, results_folder
from fa_jax.records.environment import commit, cpuinfo, now

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
FIELDS = ("module", "line", "operator", "occurrence", "source", "before", "after", "result", "seconds", "noticed_by")
FIELDS += ("judged", "time", "commit", "machine")
PACKAGES = ("rules", "training", "metrics", "records/statistics.py")
"""Where places are drawn, below `fa_jax`."""
UNTESTED = ("training/distributed.py", "training/cache.py", "training/progress.py")
"""Modules that are left out: what they do is seen by several processes, on disk or on a terminal."""
BACKWARD = ("rules/test_against_reference.py", "rules/test_identities.py")
FORWARD_FORWARD = ("rules/test_forward_forward.py", "rules/test_negatives.py")
TESTS: dict[str, tuple[str, ...]] = {
    "rules/backward.py": BACKWARD,
    "rules/stagewise.py": ("rules/test_associated_learning.py", "rules/test_local_loss.py", *FORWARD_FORWARD),
    "rules/forward_forward/goodness.py": (*FORWARD_FORWARD, "rules/test_recurrent_forward_forward.py"),
    "rules/forward_forward/recurrent": ("rules/test_recurrent_forward_forward.py", "rules/test_negatives.py"),
    "rules/forward_forward/scff.py": ("rules/test_scff.py",),
    "rules/forward_forward": FORWARD_FORWARD,
    "rules/ifa.py": (*BACKWARD, "rules/test_feedback.py"),
    "rules/drtp.py": (*BACKWARD, "rules/test_images_against_reference.py"),
    "rules/weight_mirror.py": ("rules/test_weight_mirror.py", *BACKWARD),
    "training/adversarial.py": ("training/test_adversarial.py",),
    "training/compile.py": ("training/test_compile.py", "training/test_loop.py", "cli/test_together.py"),
    "training/evaluation.py": ("training/test_loop.py", "metrics/test_scores.py", "metrics/test_alignment.py"),
    "training/announce.py": ("training/test_announce.py",),
    "training/interrupts.py": ("training/test_interrupts.py", "cli/test_resume.py"),
    "training/job.py": ("training/test_loop.py", "cli/test_together.py"),
    "training/memory.py": ("cli/test_terminal.py", "cli/test_together.py"),
    "training/record.py": ("cli/test_resume.py", "records/test_folder.py", "cli/test_together.py"),
    "training/run.py": ("cli/test_resume.py", "cli/test_together.py", "training/test_loop.py"),
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
LIMIT = 600.0
"""The most seconds that tests may take; they take less than a third of it."""


class Mutant(NamedTuple):
    """One change of one place."""

    module: str
    """Below `fa_jax`."""
    line: int
    operator: str
    occurrence: int
    """The number of the operator in the module."""
    source: str
    """A digest of the module before the change."""

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies it in the table."""
        return self.module, self.operator, str(self.occurrence), self.source


def mutants(module: str) -> Iterator[tuple[tuple[int, int], Mutant]]:
    """Yields the changes of a module that cosmic-ray knows, each with its place."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    text = (CHECKOUT / "fa_jax" / module).read_text()
    source, tree = hashlib.sha256(text.encode()).hexdigest()[:8], get_ast(text)
    for name in cosmic_ray.plugins.operator_names():
        operator = cosmic_ray.plugins.get_operator(name)
        if operator.arguments():  # has to be told what to do
            continue
        places = (place for node in ast_nodes(tree) for place in operator().mutation_positions(node))
        for occurrence, (start, _) in enumerate(places):
            yield start, Mutant(module, start[0], name, occurrence, source)


def mutated(text: str, mutant: Mutant) -> str:
    """Returns the text of a module with one change."""
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    changed = mutate_code(text, cosmic_ray.plugins.get_operator(mutant.operator)(), mutant.occurrence)
    assert changed is not None
    return changed


def sample(n: int, seed: int, packages: Sequence[str] = PACKAGES) -> list[Mutant]:
    """Returns changes of places drawn at random from packages, one of each place; annotations are no place."""
    paths = [CHECKOUT / "fa_jax" / package for package in packages]
    files = sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])})
    modules = [file.relative_to(CHECKOUT / "fa_jax").as_posix() for file in files]
    by_place: dict[tuple, list[Mutant]] = {}
    for module in modules:
        if module not in UNTESTED:
            for place, mutant in mutants(module):
                by_place.setdefault((module, *place), []).append(mutant)
    draw, chosen = random.Random(seed), []
    for place in draw.sample(sorted(by_place), len(by_place)):
        mutant = draw.choice(by_place[place])
        text = (CHECKOUT / "fa_jax" / mutant.module).read_text()
        if _meaning(mutated(text, mutant)) not in (None, _meaning(text)):
            chosen.append(mutant)
        if len(chosen) == n:
            break
    return chosen


def _meaning(text: str) -> str | None:
    """Returns what a module does, its annotations aside; None: it is no Python."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


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
    began, environment = time.monotonic(), {**os.environ, "PYTHONPATH": str(checkout)}
    for arguments in tests_of(mutant.module):
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments]
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=LIMIT - (time.monotonic() - began))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return {"result": "time", "seconds": round(time.monotonic() - began)}
        if process.returncode not in (0, 5):  # 5: none of them is of this rule
            failed = re.search(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
            name = failed[1] if failed else printed.strip().rpartition("\n")[2]
            return {"result": "caught", "seconds": round(time.monotonic() - began), "noticed_by": name}
    return {"result": "survived", "seconds": round(time.monotonic() - began)}


def changed_line(before: str, after: str) -> tuple[str, str]:
    """Returns the first line that differs between two texts, in both."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(((old.strip(), new.strip()) for old, new in pairs if old != new), ("", ""))


def run(chosen: Sequence[Mutant], out: Path) -> None:
    """Adds the results of changes to a table that are not in it yet."""
    done = {tuple(row[name] for name in ("module", "operator", "occurrence", "source")) for row in read_rows(out)}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        ignored = shutil.ignore_patterns(".git", "__pycache__", "outputs", ".venv")
        shutil.copytree(CHECKOUT, copy, ignore=ignored)
        for i, mutant in enumerate(chosen):
            if mutant.key in done:
                continue
            path = copy / "fa_jax" / mutant.module
            text = path.read_text()
            after = mutated(text, mutant)
            path.write_text(after)
            try:
                result = result_of(copy, mutant)
            finally:
                path.write_text(text)
            lines = dict(zip(("before", "after"), changed_line(text, after), strict=True))
            where = {"time": now(), "commit": (commit() or "")[:8], "machine": cpuinfo("model name")}
            add({**mutant._asdict(), **lines, **result, **where}, out)
            print(f"{i + 1} of {len(chosen)}: {mutant.module}, line {mutant.line}: {result['result']}", flush=True)


def add(row: dict[str, object], out: Path) -> None:
    """Adds a row to a table."""
    is_new = not out.exists()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def table(path: Path) -> str:
    """Returns the numbers of results in a table by package, in Markdown."""
    names = ("caught", "time", "equivalent", "gap", "survived")
    lines = [f"| package | mutants | {' | '.join(names)} |", "| --- |" + " ---: |" * (1 + len(names))]
    counts: dict[str, Counter[str]] = {}
    for row in read_rows(path):
        package = row["module"].partition("/")[0]
        counts.setdefault(package, Counter())[row["judged"].partition(":")[0] or row["result"]] += 1
    counts["all"] = sum(counts.values(), Counter())
    for package, of_package in counts.items():
        numbers = " | ".join(str(of_package[name]) for name in names)
        lines.append(f"| {package} | {of_package.total()} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=150, help="the number of places")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--packages", nargs="*", default=PACKAGES, help="or modules, to draw from")
    add_output_options(parser)
    parser.add_argument("--table", action="store_true", help="print the counts, and run nothing")
    arguments = parser.parse_args()
    out = (arguments.out or HERE if arguments.table else results_folder(arguments, HERE)) / "mutations.csv"
    if not arguments.table:
        run(sample(arguments.sample, arguments.seed, arguments.packages), out)
    print(table(out))


if __name__ == "__main__":
    main()
