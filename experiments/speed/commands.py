"""Measures whole commands, from typing to the end: wall and CPU time, with an empty and with a filled cache.

    python -m experiments.speed.commands [--against CHECKOUT] [--repeats 3] [--out FOLDER]

`--against` measures the same commands with the code of another checkout, such as a git worktree of an older commit, in
alternation. The machine must be idle.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.common import add_output_options, read_rows, results_folder, without_cache
from experiments.speed.benchmark import HERE
from experiments.speed.record import Row, record, table
from fa_jax.training import cache

HERE_CHECKOUT = Path(__file__).parents[2]
SWEEP = [f"{0.003 * 1.25**i:.4g}" for i in range(30)]
COMMANDS = {
    "fa-jax rule=fa": ["rule=fa"],
    "fa-jax --multirun rule=shallow,bp,fa,dfa": ["--multirun", "rule=shallow,bp,fa,dfa"],
    "30 learning rates, 5 seeds, digits": [
        "--multirun",
        "task=digits",
        "rule=fa",
        "seeds=5",
        "probe=0",
        f"optimizer.learning_rate={','.join(SWEEP)}",
    ],
    "tune, 30 trials, 2 seeds, digits": [
        "tune",
        *("task=digits", "task.validation=200", "rule=fa", "seeds=2", "epochs=5", "probe=0", "trials=30"),
        "optimizer.learning_rate=tag(log,interval(1e-2,1))",
    ],
    "a mistake": ["rule=faa"],
    "fa-jax --help": ["--help"],
    "fa-jax list": ["list"],
}
LONG = ("30 learning rates, 5 seeds, digits", "tune, 30 trials, 2 seeds, digits")
"""Commands that are measured once."""
UNCACHED = ("a mistake", "fa-jax --help", "fa-jax list")
"""Commands that compile nothing."""


def measured(checkout: Path, words: Sequence[str], programs: Path) -> tuple[float, float]:
    """Returns the wall and the CPU time of a command, in seconds, with the code of a checkout.

    Raises:
      SystemExit: if it does not end as it should, since a command that fails early is fast.
    """
    environment = {**without_cache(), "PYTHONPATH": str(checkout), cache.VARIABLE: str(programs)}
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "fa_jax", *words]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode != (2 if words == COMMANDS["a mistake"] else 0):
        raise SystemExit(f"fa-jax {' '.join(words)} of {checkout} ended with {ended.returncode}: {ended.stderr[-500:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows(against: Path | None, repeats: int) -> Iterator[Row]:
    """Measures every command and yields ratios to the other checkout, and seconds."""
    for name, words in COMMANDS.items():
        cold, cached, other = [], [], []
        for _ in range(1 if name in LONG else repeats):
            with tempfile.TemporaryDirectory() as folder:
                cold.append(measured(HERE_CHECKOUT, words, Path(folder, "programs")))
                if name not in UNCACHED:
                    cached.append(measured(HERE_CHECKOUT, words, Path(folder, "programs")))
            if against is not None:
                other.append(measured(against, words, Path("unused")))
        kinds = {"": cold} if name in UNCACHED else {", empty cache": cold, ", filled cache": cached}
        for kind, times in kinds.items():
            if other:
                walls = [ours / theirs for (ours, _), (theirs, _) in zip(times, other, strict=True)]
                yield Row(f"{name}{kind}: wall time against the other commit", walls, "ratio")
            yield Row(f"{name}{kind}: wall time", [wall for wall, _ in times], "s")
            yield Row(f"{name}{kind}: CPU time", [cpu for _, cpu in times], "s")
        if other:
            yield Row(f"{name}: wall time of the other commit", [wall for wall, _ in other], "s")
            yield Row(f"{name}: CPU time of the other commit", [cpu for _, cpu in other], "s")
        print(name, statistics.median(wall for wall, _ in cold), file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median is taken over them")
    add_output_options(parser)
    chosen = parser.parse_args()
    if chosen.against is not None and not (chosen.against / "fa_jax").is_dir():
        parser.error(f"--against must be a checkout of fa_jax; got {chosen.against}")
    taken, out = [], results_folder(chosen, HERE) / "commands.csv"
    for row in rows(chosen.against and chosen.against.resolve(), chosen.repeats):
        taken.append(row)
        record("commands", taken, out)
    print(table(read_rows(out)))


if __name__ == "__main__":
    main()
