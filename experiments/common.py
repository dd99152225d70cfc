"""Runs by the folder: what an experiment's script trains, once, and where its numbers come from."""

import csv
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fa_jax.core import PyTree
from fa_jax.records.conditions import ENDED
from fa_jax.records.reader import Run, read_run


def trained(folder: Path, *words: str) -> Run:
    """Returns the run in a folder, trained to its end first where it has not been.

    Args:
      folder: of the run; one that was cut off there goes on from its checkpoint.
      *words: what `fa-jax` is told, but for the folder.

    Raises:
      subprocess.CalledProcessError: if `fa-jax` ends in an error.
      ValueError: if the folder holds a run that was told something else.
    """
    there = (folder / "status.json").exists()
    if there:
        told = {word for word in read_run(folder).environment["command"][1:] if not word.startswith("hydra.run.dir=")}
        if told != set(words):
            other = " ".join(sorted(told ^ set(words)))
            raise ValueError(f"{folder} holds a run of other options ({other}); move it away to train this one")
    if not is_trained(folder):
        command = ["-m", "fa_jax", f"resume={folder}"] if there else ["-m", "fa_jax", *words, f"hydra.run.dir={folder}"]
        print(" ".join(["fa-jax", *command[2:]]), flush=True)
        subprocess.run([sys.executable, *command], check=True)
    return read_run(folder)


def is_trained(folder: Path) -> bool:
    """Whether a folder holds a run that came to its end."""
    return (folder / "status.json").exists() and read_run(folder).status["status"] in ENDED


def checkpoint_of(run: Run) -> dict[str, PyTree]:
    """Returns the `params` and the `feedback` that a run ended with, the seeds in front."""
    import orbax.checkpoint  # a second's import

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((run.folder / "checkpoint").absolute())


def params_of(run: Run) -> PyTree:
    """Returns the params that a run ended with, the seeds in front."""
    return checkpoint_of(run)["params"]


def seconds(run: Run) -> int:
    """Returns how long a run took, compilation and evaluations included."""
    cost = (run.summary or {})["cost"]
    return round(sum(cost[f"{part}_seconds"] for part in ("compile", "train", "evaluation")))


def provenance(runs: Sequence[Run]) -> str:
    """Returns when the last of these runs was made, and the machines, versions of JAX and commits of them all."""
    made = [run.environment for run in runs]

    def all_of(values: Iterable[str]) -> str:
        return " and ".join(dict.fromkeys(values))

    return ", ".join(
        (
            max(one["time"] for one in made),
            all_of(f"{one['processor']}, {one['cores']} cores" for one in made),
            all_of(f"jax {one['packages']['jax']}" for one in made),
            all_of(f"commit {(one['commit'] or 'unknown')[:8]}" for one in made),
        )
    )


def write_table(path: Path, rows: Sequence[tuple[Mapping[str, object], Sequence[Run]]], *key: str) -> None:
    """Writes rows as CSV, each with the provenance of the runs that it is from as `measured`, and prints them.

    Args:
      path: of the CSV. Rows that it has already stay before the new ones, if they differ from all of these in the key:
        their runs may be on another machine.
      rows: each with its runs.
      *key: the columns that tell rows apart; none: those that are there are replaced.
    """
    made = [{**row, "measured": provenance(runs)} for row, runs in rows]
    new = {tuple(str(row[column]) for column in key) for row in made}
    there: list[Mapping[str, object]] = []
    if key and path.exists():
        with path.open(newline="") as file:
            there = [row for row in csv.DictReader(file) if tuple(row[column] for column in key) not in new]
    columns = list(dict.fromkeys(column for row in (*there, *made) for column in row if column != "measured"))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, "measured"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*there, *made])
    for row in made:
        print(row)
