"""Runs that differ in their seeds alone are one condition, and what it came to is that of all its seeds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fa_jax.records.reader import Run

ENDED = ("finished", "diverged")
"""The statuses of a run that came to its end."""

IRRELEVANT = (
    "seed",
    "seeds",
    "seeds_per_batch",
    "devices",
    "batch_devices",
    "checkpoint",
    "checkpoint_every",
    "logger",
)
"""Options that say which seeds a run has and how it is carried out, and nothing of what is learned."""


class Condition(NamedTuple):
    """All runs of one config, seeds apart."""

    run: Run
    """One that has the seeds of all that are used, in the folder of the first of them."""
    used: tuple[Run, ...]
    """Those that came to their end; where none did, all there are."""
    left_out: tuple[Run, ...]
    """The others, and those whose every seed a newer run has too."""


def conditions(runs: Sequence[Run]) -> list[Condition]:
    """Returns the conditions of runs, in the order in which each first appears.

    Where two runs have the same seed, the newer one's counts.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run.config), []).append(run)
    return [_condition(group) for group in groups.values()]


def options(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns the options of a config by dotted name, without those that say nothing of what is learned."""
    flat = {}
    for key, value in config.items():
        if prefix == "" and key in ("choices", *IRRELEVANT):
            continue
        if isinstance(value, dict) and value:
            flat |= options(value, f"{prefix}{key}.")
        elif value != {}:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _identity(config: Mapping[str, Any]) -> str:
    chosen = {group: config["choices"].get(group) for group in ("task", "rule", "architecture")}
    return json.dumps([chosen, sorted(options(config).items())])


def _condition(runs: list[Run]) -> Condition:
    ended = [run for run in runs if run.status["status"] in ENDED] or runs
    taken: dict[int, Run] = {}
    for run in sorted(ended, key=lambda run: run.status["time"]):
        taken |= dict.fromkeys(run.seeds, run)
    used = tuple(run for run in ended if not run.seeds or any(taken[seed] is run for seed in run.seeds))
    left_out = tuple(run for run in runs if not any(run is other for other in used))
    return Condition(used[0] if len(used) == 1 else _pooled(used, taken), used, left_out)


def _pooled(runs: Sequence[Run], taken: Mapping[int, Run]) -> Run:
    """One run with the rows of the seeds that are taken from each."""
    first = runs[0]
    with_rows = [run for run in runs if run.metrics]
    metrics = {}
    if with_rows:
        columns = [name for name in with_rows[0].metrics if all(name in run.metrics for run in with_rows)]
        keep = [np.array([taken[int(seed)] is run for seed in run.metrics["seed"]]) for run in with_rows]
        metrics = {
            name: np.concatenate([run.metrics[name][kept] for run, kept in zip(with_rows, keep, strict=True)])
            for name in columns
        }
    statuses = [run.status["status"] for run in runs]
    unfinished = [run.status for run in runs if run.status["status"] not in ENDED]
    status = unfinished[0] if unfinished else runs[statuses.index("finished") if "finished" in statuses else 0].status
    costs = [run.summary["cost"] for run in runs if run.summary]
    summary = {**(first.summary or {}), "cost": _added(costs), "seeds": sorted(taken)} if costs else None
    return first._replace(
        config={**first.config, "seeds": sorted(taken)}, status=status, metrics=metrics, summary=summary
    )


def _added(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The cost of several runs: seconds add up, speed is over all of them, sizes are those of each."""
    cost = dict(costs[0])
    steps = sum(one["seed_steps_per_second"] * one["train_seconds"] for one in costs)
    for name in ("compile_seconds", "train_seconds", "evaluation_seconds"):
        cost[name] = sum(one[name] for one in costs)
    cost["seed_steps_per_second"] = steps / cost["train_seconds"] if cost["train_seconds"] else 0.0
    cost["memory_bytes"] = max(one["memory_bytes"] for one in costs)
    return cost
