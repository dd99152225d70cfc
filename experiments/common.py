"""What the scripts share: where results go, and tables of results with their provenance."""

import argparse
import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from fa_jax.core import PyTree
from fa_jax.records.reader import Run
from fa_jax.training import cache


class Measured(Protocol):
    """A run, or what else says where it was measured."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """The value as a run records it."""
        ...


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where results go: `results_folder` reads them."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, help="folder of the results; default: outputs/<experiment>/results")
    where.add_argument("--update", action="store_true", help="replace the committed results")


def results_folder(options: argparse.Namespace, here: Path) -> Path:
    """Returns the folder that tables and figures go to, which exists; only `--update` replaces the committed ones.

    Args:
      options: those of `add_output_options`.
      here: the folder of the experiment, with its committed results.
    """
    folder = here if options.update else options.out or Path("outputs") / here.name / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def without_cache() -> dict[str, str]:
    """Returns the environment without compilation caches: the time that a run takes to compile is a result."""
    others = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**others, cache.VARIABLE: "off"}


def of_seed(tree: PyTree, index: int) -> PyTree:
    """Returns the params or feedback of one seed, given a tree with a leading axis of seeds."""
    return jax.tree.map(lambda array: array[index], tree)


def layer_columns(run: Run, metric: str) -> list[str]:
    """Returns the columns of a metric that has one value per layer, from the first layer up."""
    columns = ((column.layer, name) for name, column in run.columns.items() if column.metric == metric)
    return [name for _, name in sorted((layer, name) for layer, name in columns if layer is not None)]


def hours_text(hours: float | None) -> str:
    """Returns hours as text, such as `0.19 h`."""
    return "unknown" if hours is None else f"{hours:.2g} h" if hours < 100 else f"{hours:.0f} h"


def summary_of(run: Run) -> Mapping[str, Any]:
    """Returns the summary of a run that is finished."""
    assert run.summary is not None
    return run.summary


def seconds(run: Run) -> float:
    """Returns how long a run took, compilation and evaluations included."""
    cost = summary_of(run)["cost"]
    return sum(cost[f"{part}_seconds"] for part in ("compile", "train", "evaluation"))


def provenance(runs: Sequence[Measured]) -> str:
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


def write_table(path: Path, results: Sequence[tuple[Mapping[str, object], Sequence[Measured]]], *key: str) -> None:
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
