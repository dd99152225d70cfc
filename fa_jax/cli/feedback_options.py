"""Feedback options of several rules, of which some have no feedback: the runs of those are made without them."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from fa_jax.checks import BadOption

OPTION = re.compile(r"[+~]*(feedback(?:\.[\w.]+)?)(?:=|$)")
"""An override of the choice of feedback, or of an option of it."""


class _Composed(Protocol):
    @property
    def choices(self) -> dict[str, str]: ...
    @property
    def left_out(self) -> tuple[str, ...]: ...


def without_unused(
    job: Sequence[str], has_feedback: Callable[[Sequence[str]], bool]
) -> tuple[list[str], tuple[str, ...]]:
    """Returns the overrides of a run that its rule can use, and the feedback options that are left out.

    Args:
      job: the overrides of one run.
      has_feedback: whether the rule of overrides draws feedback.
    """
    others = [override for override in job if not OPTION.match(override)]
    if len(others) == len(job) or has_feedback(others):
        return list(job), ()
    found = (OPTION.match(override) for override in job)
    return others, tuple(dict.fromkeys(match[1] for match in found if match))


def once_each(jobs: Sequence[tuple[list[str], tuple[str, ...]]]) -> list[tuple[list[str], tuple[str, ...]]]:
    """Returns jobs, once each of those that differed only in options that are left out."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for overrides, left_out in jobs:
        if left_out and tuple(overrides) in seen:
            continue
        seen |= {tuple(overrides)} if left_out else set()
        kept.append((overrides, left_out))
    return kept


def check_used(runs: Sequence[_Composed]) -> None:
    """Raises `BadOption` if feedback options were left out of all runs."""
    if runs and all(run.left_out for run in runs):
        rules = ", ".join(dict.fromkeys(run.choices["rule"] for run in runs))
        raise BadOption(f"has no effect, since none of the rules has feedback to initialise: {rules}", _named(runs[0]))


def notes(runs: Sequence[_Composed]) -> list[str]:
    """Returns which feedback options are left out of the runs of which rules."""
    rules: dict[str, dict[str, None]] = {}
    for run in runs:
        if run.left_out:
            rules.setdefault(_named(run), {})[run.choices["rule"]] = None
    return [f"without {options}, since these have no feedback: rule={','.join(of)}" for options, of in rules.items()]


def _named(run: _Composed) -> str:
    return ", ".join(run.left_out)
