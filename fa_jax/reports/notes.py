"""What a comparison did with each run: notes on those that were pooled, left out, or are in no contrast."""

from collections.abc import Sequence

import numpy as np

from fa_jax.records.conditions import Condition, differences
from fa_jax.reports.contrasts import differing_options, references

ROUNDING = 1e-4
"""The relative difference of scores and losses that rounding may explain."""
NAMED = 6
"""The number of items that a note lists."""


def run_notes(compared: Sequence[Condition], names: Sequence[str], metric: str | None) -> list[str]:
    """Returns notes on the runs: which are pooled or left out, and the metric that judges them."""
    notes = []
    pooled = [f"{name} of {len(c.used)} runs" for c, name in zip(compared, names, strict=True) if len(c.used) > 1]
    if pooled:
        notes.append(f"pooled, since their settings are equal but for seeds: {first(pooled, ', ')}")
    finished = [
        f"{name}: {run.folder}" for c, name in _left_out(compared, names) for run in c.left_out if run.is_finished
    ]
    if finished:
        notes.append(f"left out, since newer runs of the same settings have their seeds: {first(finished, ', ')}")
    others = [
        f"{name}: {run.folder}" for c, name in _left_out(compared, names) for run in c.left_out if not run.is_finished
    ]
    if others:
        notes.append(
            f"left out, since they are not finished and others of the same settings are: {first(others, ', ')}"
        )
    empty = [name for c, name in zip(compared, names, strict=True) if not c.run.metrics]
    if empty:
        notes.append(f"not evaluated yet, and in no figure: {first(empty, ', ')}")
    if metric is not None:
        missing = [n for c, n in zip(compared, names, strict=True) if c.run.metrics and metric not in c.run.metrics]
        if missing:
            notes.append(f"without {metric}, and in no figure: {first(missing, ', ')}")
        return notes
    judged = {(c.run.choices["task"], c.run.main_metric): None for c in compared if c.run.metrics}
    if len({main for _, main in judged}) > 1:
        text = ", ".join(f"{main} on {task}" for task, main in judged)
        notes.append(f"judged by several metrics, each with panels and contrasts of its own: {text}")
    elif len(judged) > 1:
        notes.append(
            f"several tasks, each with panels and contrasts of its own: {', '.join(task for task, _ in judged)}"
        )
    return notes


def reference_notes(
    compared: Sequence[Condition], names: Sequence[str], pairs: Sequence[tuple[int, int]], against: str
) -> list[str]:
    """Returns notes on the reference of each contrast, and on conditions without a contrast."""
    chosen = references(compared, names, against)
    unpaired = [i for i in range(len(compared)) if i not in (*chosen, *(i for i, _ in pairs))]
    notes = []
    if pairs and len(chosen) > 1:
        text = f"{len(chosen)} conditions are of {against}; each other one is contrasted with the closest of them"
        unused = [names[i] for i in chosen if i not in [j for _, j in pairs]]
        notes.append(text + (f", which is never {first(unused, ', ')}" if unused else ""))
    if unpaired:
        reasons = []
        for i in unpaired:
            differing = min((differing_options(compared[i], compared[j]) for j in chosen), key=len)
            also, several = f"differs also in {first(differing, ', ')}", f"matches several conditions of {against}"
            reasons.append(f"{names[i]} {also if differing else several}")
        example = f"contrasts='{names[unpaired[-1]]}:{names[chosen[0]]}'"
        notes.append(f"without a contrast: {first(reasons, '; ')}. {example} asks for it all the same")
    return notes


def test_notes(
    compared: Sequence[Condition],
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    tested: Sequence[tuple[int, int]],
) -> list[str]:
    """Returns notes on pairs without a test."""
    done = set(tested)
    missing = [pair for pair in pairs if pair not in done]
    unfinished = [pair for pair in missing if not all(compared[k].run.is_finished for k in pair)]
    notes = []
    for untested, reason in (
        (unfinished, "since a run is not finished"),
        ([pair for pair in missing if pair not in unfinished], "since not both have the metric"),
    ):
        if untested:
            notes.append(f"without a test, {reason}: {first([f'{names[i]} - {names[j]}' for i, j in untested], ', ')}")
    return notes


def unasked_notes(names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Returns a note on conditions that are in none of the requested contrasts."""
    outside = [name for i, name in enumerate(names) if i not in {k for pair in pairs for k in pair}]
    return [f"in none of the contrasts: {first(outside, ', ')}"] if outside else []


def equal_notes(compared: Sequence[Condition], names: Sequence[str]) -> list[str]:
    """Returns notes on conditions that end equal in every seed up to rounding, such as FA and DFA at one layer."""
    alike: dict[tuple, list[tuple[str, list[float]]]] = {}
    for condition, name in zip(compared, names, strict=True):
        run = condition.run
        if run.is_finished and "test_loss" in run.metrics and not run.diverged:
            scores, losses = run.at_end(run.main_metric), run.at_end("test_loss")
            key = (run.choices["task"], run.main_metric, *scores)
            alike.setdefault(key, []).append((name, [*scores.values(), *losses.values()]))
    notes = []
    for described in alike.values():
        ends = np.array([values for _, values in described])
        for i, end in enumerate(ends):
            (equal,) = np.nonzero(np.isclose(ends, end, rtol=ROUNDING, atol=0).all(1))
            if len(equal) > 1 and equal[0] == i:
                listed = first([described[j][0] for j in equal], ", ")
                notes.append(f"equal in every seed: {listed}; one algorithm here, or they differ in what has no effect")
    return notes


def code_notes(compared: Sequence[Condition]) -> list[str]:
    """Returns notes on differences in code and settings between the runs."""
    differing = differences([run.environment for condition in compared for run in condition.used])
    return [f"these runs are of different code or settings: {first(differing, ', ')}"] if differing else []


def first(items: Sequence[str], separator: str, most: int = NAMED) -> str:
    """Returns the first items, and the number of the others."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])


def _left_out(compared: Sequence[Condition], names: Sequence[str]) -> list[tuple[Condition, str]]:
    return [(c, name) for c, name in zip(compared, names, strict=True) if c.left_out]
