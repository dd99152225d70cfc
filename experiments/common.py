"""What the scripts share: training runs that are missing, and tables of results with their provenance."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax

from fa_jax.core import PyTree
from fa_jax.records.reader import SWEEP, Run, find_runs, jobs_of, read_run
from fa_jax.training import cache


def trained(folder: Path, *arguments: str) -> Run:
    """Returns the run in a folder, after training or resuming it if it is not finished.

    Args:
      folder: of the run.
      *arguments: of `fa-jax`, without the folder.

    Raises:
      subprocess.CalledProcessError: if `fa-jax` fails.
      ValueError: if the folder holds a run of other arguments.
    """
    recorded = None
    if (folder / "status.json").exists():
        recorded = read_run(folder).environment["command"][1:]
    _train(folder, arguments, recorded, finished=is_trained(folder), option="hydra.run.dir")
    return read_run(folder)


def trained_sweep(folder: Path, *arguments: str) -> list[Run]:
    """Returns the runs of the sweep in a folder, after training those that are not finished.

    Arguments and errors are those of `trained`.
    """
    recorded = None
    if (folder / SWEEP).exists():
        recorded = json.loads((folder / SWEEP).read_text())["overrides"]
    finished = recorded is not None and sum(run.is_finished for run in find_runs(folder)) == jobs_of(folder)
    _train(folder, arguments, recorded, finished=finished, option="hydra.sweep.dir", flags=("--multirun",))
    return find_runs(folder)


def is_trained(folder: Path) -> bool:
    """Returns whether a folder holds a finished run."""
    return (folder / "status.json").exists() and read_run(folder).is_finished


def _train(
    folder: Path,
    arguments: Sequence[str],
    recorded: Sequence[str] | None,
    *,
    finished: bool,
    option: str,
    flags: Sequence[str] = (),
) -> None:
    """Trains or resumes what a folder is for, unless it is finished.

    Args:
      folder: of the run or sweep.
      arguments: that it needs, without the folder.
      recorded: those that it was started with; None: there is nothing yet.
      finished: whether there is nothing left to train.
      option: of `fa-jax`, which names the folder.
      flags: of `fa-jax`, for a new one.
    """
    if recorded is not None:
        before = {argument for argument in recorded if not argument.startswith(f"{option}=")}
        if before != set(arguments):
            different = " ".join(sorted(before ^ set(arguments)))
            raise ValueError(f"{folder} was trained with other options ({different}); move it away to train again")
    if finished:
        return
    command = [*flags, *arguments, f"{option}={folder}"] if recorded is None else [f"resume={folder}"]
    print("fa-jax", *command, flush=True)
    subprocess.run([sys.executable, "-m", "fa_jax", *command], check=True, env=without_cache())


def without_cache() -> dict[str, str]:
    """Returns the environment without compilation caches: the time that a run takes to compile is a result."""
    others = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**others, cache.VARIABLE: "off"}


def of_seed(tree: PyTree, index: int) -> PyTree:
    """Returns the params or feedback of one seed, given a tree with a leading axis of seeds."""
    return jax.tree.map(lambda array: array[index], tree)


def layer_columns(run: Run, metric: str) -> list[str]:
    """Returns the columns of a metric that has one value per layer, from the first layer up."""
    layers = {column.layer: name for name, column in run.columns.items() if column.metric == metric}
    return [layers[layer] for layer in sorted(layers)]


def seconds(run: Run) -> float:
    """Returns how long a run took, compilation and evaluations included."""
    cost = (run.summary or {})["cost"]
    return sum(cost[f"{part}_seconds"] for part in ("compile", "train", "evaluation"))


def provenance(runs: Sequence[Run]) -> str:
    """Returns when the last of these runs started, and the devices, machines, versions of JAX and commits of all."""
    environments = [run.environment for run in runs]

    def joined(values: Iterable[str]) -> str:
        return " and ".join(dict.fromkeys(values))

    return ", ".join(
        (
            max(environment["time"] for environment in environments),
            *dict.fromkeys(
                device.partition(" ")[2]
                for environment in environments
                for device in environment["devices"]
                if not device.startswith("cpu")
            ),
            joined(f"{environment['processor']}, {environment['cores']} cores" for environment in environments),
            joined(f"jax {environment['packages']['jax']}" for environment in environments),
            joined(f"commit {(environment['commit'] or 'unknown')[:8]}" for environment in environments),
        )
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV, without comments, which start with `#`; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write_table(path: Path, results: Sequence[tuple[Mapping[str, object], Sequence[Run]]], *key: str) -> None:
    """Writes rows to a CSV, each with the provenance of its runs in the column `measured`, and prints them.

    Args:
      path: of the CSV.
      results: pairs of a row and the runs that it was computed from.
      *key: columns that identify a row. Rows of the file with another key are kept, before the new ones: their runs may
        be on another machine. Without a key, all rows are replaced.
    """
    new = [{**row, "measured": provenance(runs)} for row, runs in results]
    replaced = {tuple(str(row[column]) for column in key) for row in new}
    kept = [row for row in read_rows(path) if tuple(row[column] for column in key) not in replaced] if key else []
    rows: list[Mapping[str, object]] = [*kept, *new]
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "measured"))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, "measured"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in new:
        print(row)
