"""Many seeds, many runs, a large `metrics.csv`, and records of random types."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.reliability.commands import in_words, run
from fa_jax.core import Metric
from fa_jax.records import writer
from fa_jax.records.columns import Declared
from fa_jax.records.reader import read_run

Result = tuple[str, int, int | None, str]
CHECKOUT = Path(__file__).parents[2]
CHOICES = {"task": "mnist", "architecture": "mlp", "loss": "cross_entropy", "optimizer": "sgd", "experiment": None}
COST: dict[str, float] = dict.fromkeys(("compile_seconds", "train_seconds", "evaluation_seconds", "memory_bytes"), 1.0)
COST |= {"seed_steps_per_second": 1234.0, "effective_params": 1234, "affiliated_params": 0, "feedback_weights": 56}
MEASURED = tuple(Metric(f"{kind}_angle", f"angle of the {kind}", "degrees") for kind in ("signal", "update", "weight"))
DECLARED = Declared((Metric("error", "error", "%", bounds=(0, 100)), Metric("loss", "loss")), MEASURED)
RULES = ("bp", "fa", "dfa", "ifa", "usf")


def record(folder: Path, rule: str, rate: float, seeds: int, evaluations: int, random: np.random.Generator) -> None:
    """Records a made-up run."""
    config = {"choices": {"rule": rule, **CHOICES}, "optimizer": {"learning_rate": rate}}
    made = writer.Writer(folder, {**config, "spacing": "linear", "seeds": seeds, "epochs": 1}, DECLARED)
    for step in range(evaluations):
        metrics = {"test_loss": 1 + random.random(seeds), "test_error": 90 * random.random(seeds)}
        metrics |= {f"{metric.name}_{i}": 90 * random.random(seeds) for metric in MEASURED for i in range(3)}
        made.evaluation(range(seeds), step, 100 * step, step / max(1, evaluations - 1), metrics)
    made.summary(COST)
    made.status("finished")
    made.close()


def timed(words: list[str], folder: Path) -> tuple[list[str], str]:
    """Runs a command; returns what is wrong, and its seconds and memory in words."""
    began = time.monotonic()
    code, printed = run(words, folder)
    seconds, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    failures = [] if code == 0 else [f"{words[0]}: exit code {code}: {printed[-300:]}"]
    return failures, f"{words[0].partition('=')[0]} {seconds:.0f} s, at most {peak:.0f} MiB"


def many_seeds(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for 3 000 seeds of one run, trained at once and in groups."""
    del times
    for groups in (["seeds_per_batch=null"], ["seeds_per_batch=256"]):
        place = folder / groups[0]
        place.mkdir()
        words = ["task=linear", "task.train_examples=40", "evaluations=3", "seeds=3000", *groups, "hydra.run.dir=run"]
        failures, described = timed(words, place)
        if not failures:
            recorded = read_run(place / "run")
            failures += [] if len(recorded.seeds) == 3000 and recorded.is_finished else [f"{len(recorded.seeds)} seeds"]
        texts = [described]
        for verb in ("compare", "report"):
            problems, text = timed([verb, "run"], place)
            failures, texts = failures + problems, [*texts, text]
        yield f"3 000 seeds, {groups[0]}", 3000, len(failures), in_words(failures, "; ".join(texts))


def many_runs(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for each verb that reads 1 000 runs of five seeds, in 200 learning rates of five rules."""
    del times
    random, environment = np.random.default_rng(0), writer.environment()
    writer.environment = lambda *_: environment  # asks git each time otherwise
    for i in range(1000):
        record(folder / "runs" / f"{i}_{RULES[i % 5]}", RULES[i % 5], 0.01 * (1 + i // 5), 5, 21, random)
    for verb in ("status", "compare", "report"):
        failures, text = timed([verb, "runs"], folder)
        yield f"1 000 runs in {verb}", 1000, len(failures), in_words(failures, text)


def large_metrics(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for a run whose `metrics.csv` has 100 MB."""
    del times
    random = np.random.default_rng(0)
    record(folder / "run", "fa", 0.1, 100, 7500, random)
    size, failures, texts = (folder / "run" / "metrics.csv").stat().st_size / 1e6, [], []
    for verb in ("status", "compare", "report"):
        problems, text = timed([verb, "run"], folder)
        failures, texts = failures + problems, [*texts, text]
    yield f"metrics.csv of {size:.0f} MB", 1, len(failures), in_words(failures, "; ".join(texts))


def random_records(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for 10 000 records with values of random types, by the slow test of them."""
    del folder, times
    test = "tests/reliability/test_records.py::test_ten_thousand_random_records_are_read_or_skipped_with_one_line"
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "slow", "--show-capture=no", test]
    process = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    lines = [line.removeprefix("E ") for line in process.stdout.splitlines() if line.startswith("E ")]
    failures = [] if process.returncode == 0 else [" ".join(lines) or process.stdout[-500:]]
    success = "each is read, or skipped with one line that names the file; status, compare, report and resume go on"
    yield "records of random types", 10_000, len(failures), in_words(failures, success)
