"""Conditions: runs that differ in their seeds alone are pooled."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fa_jax.records.reader import Run
from fa_jax.records.sources import code_key


class Condition(NamedTuple):
    """All runs of one config, whatever their seeds."""

    run: Run
    """The used runs as one run with all their seeds, in the folder of the first."""
    used: tuple[Run, ...]
    """The finished runs; all runs if none is finished."""
    left_out: tuple[Run, ...]
    """The other runs, and those whose seeds all occur in newer runs too."""


def conditions(runs: Sequence[Run]) -> list[Condition]:
    """Returns the conditions of runs, in the order of their first runs.

    If several runs have the same seed, the newest one counts.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    return [_condition(group) for group in groups.values()]


def differences(environments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns how environments differ in what numbers may depend on, such as `jax 0.9.0 and 0.10.2`."""
    seen: dict[str, dict[str | None, str]] = {}
    for environment in environments:
        described = {
            "device": " ".join(sorted({str(device).partition(":")[0] for device in environment.get("devices", [])})),
            **environment.get("packages", {}),
            **environment.get("settings", {}),
        }
        for name, value in described.items():
            seen.setdefault(name, {}).setdefault(code_key(str(value)), str(value))
    return [f"{name} {' and '.join(values.values())}" for name, values in seen.items() if len(values) > 1]


def _identity(run: Run) -> str:
    chosen = {group: run.choices.get(group) for group in ("task", "rule", "architecture")}
    return json.dumps([chosen, sorted(run.options.items())])


def _condition(runs: list[Run]) -> Condition:
    finished = [run for run in runs if run.is_finished] or runs
    newest: dict[int, Run] = {}
    for run in sorted(finished, key=lambda run: run.status["time"]):
        newest |= dict.fromkeys(run.seeds, run)
    used = tuple(run for run in finished if not run.seeds or any(newest[seed] is run for seed in run.seeds))
    left_out = tuple(run for run in runs if not any(run is other for other in used))
    return Condition(used[0] if len(used) == 1 else _pooled(used, newest), used, left_out)


def _pooled(runs: Sequence[Run], run_of: Mapping[int, Run]) -> Run:
    """Returns one run with the rows of each seed from the run that it is taken from."""
    first = runs[0]
    with_rows = [run for run in runs if run.metrics]
    metrics = {}
    if with_rows:
        columns = [name for name in with_rows[0].metrics if all(name in run.metrics for run in with_rows)]
        keep = [np.array([run_of[int(seed)] is run for seed in run.metrics["seed"]]) for run in with_rows]
        metrics = {
            name: np.concatenate([run.metrics[name][mask] for run, mask in zip(with_rows, keep, strict=True)])
            for name in columns
        }
    statuses = [run.status["status"] for run in runs]
    unfinished = [run.status for run in runs if not run.is_finished]
    status = unfinished[0] if unfinished else runs[statuses.index("finished") if "finished" in statuses else 0].status
    costs = [run.summary["cost"] for run in runs if run.summary]
    summary = {**(first.summary or {}), "cost": _added(costs), "seeds": sorted(run_of)} if costs else None
    described = with_rows[0] if with_rows else first
    return dataclasses.replace(
        first,
        config={**first.config, "seeds": sorted(run_of)},
        status=status,
        metrics=metrics,
        summary=summary,
        columns={name: column for name, column in described.columns.items() if name in metrics},
        main_metric=described.main_metric,
    )


def _added(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the cost of several runs: total seconds, overall speed, the sizes of one."""
    cost = dict(costs[0])
    steps = sum(run_cost["seed_steps_per_second"] * run_cost["train_seconds"] for run_cost in costs)
    for name in ("compile_seconds", "train_seconds", "evaluation_seconds"):
        cost[name] = sum(run_cost[name] for run_cost in costs)
    cost["seed_steps_per_second"] = steps / cost["train_seconds"] if cost["train_seconds"] else 0.0
    cost["memory_bytes"] = max(run_cost["memory_bytes"] for run_cost in costs)
    return cost
