"""Options of rules and of their feedback, in a command with several rules: each is for the rules that have it."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from fa_jax.checks import BadOption
from fa_jax.cli.errors import suggestion
from fa_jax.records.options import options

OPTION = re.compile(r"(?:[+~]*(feedback(?:\.[\w.]+)?)|(rule\.[\w.]+))(?:=|$)")
"""An override of the choice of feedback, of an option of it, or of an option of a rule."""
HasOption = Callable[[Sequence[str], str], bool]
"""Returns whether the rule that overrides choose has an option."""


class RunOverrides(NamedTuple):
    """The overrides of one run."""

    kept: list[str]
    left_out: tuple[str, ...] = ()
    """Options that are for other rules."""


class _Composed(Protocol):
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def choices(self) -> dict[str, str]: ...
    @property
    def left_out(self) -> tuple[str, ...]: ...


def without_unused(jobs: Sequence[Sequence[str]], has_option: HasOption, *, further: bool) -> list[RunOverrides]:
    """Returns the overrides that the rule of each run can use; runs that become equal are one.

    Args:
      jobs: the overrides of each run.
      has_option: whether a rule has an option.
      further: whether there are further rules, which may have what no rule of these runs has. Otherwise such an option
        is kept, and refused when it is composed.
    """
    missing = [_missing(job, has_option) for job in jobs]
    nowhere = set.intersection(*missing) if missing and not further else set()
    runs: dict[tuple[str, ...], RunOverrides] = {}
    for number, (job, of_job) in enumerate(zip(jobs, missing, strict=True)):
        left_out = tuple(dict.fromkeys(name for o in job if (name := _option(o)) in of_job - nowhere))
        kept = [override for override in job if _option(override) not in left_out]
        runs.setdefault(tuple(kept) if left_out else (*kept, str(number)), RunOverrides(kept, left_out))
    return list(runs.values())


def check_used(runs: Sequence[_Composed]) -> None:
    """Raises `BadOption` if an option was left out of all runs."""
    for name in runs[0].left_out if runs else ():
        if all(name in run.left_out for run in runs):
            rules = ", ".join(dict.fromkeys(run.choices["rule"] for run in runs))
            valid = dict.fromkeys(option for run in runs for option in options(run.config))
            hint = suggestion(name, list(valid)) if name != "feedback" else ""
            raise BadOption(f"has no effect: none of the rules has it, {rules}{hint}", name, complete=True)


def notes(runs: Sequence[_Composed]) -> list[str]:
    """Returns which options are left out of the runs of which rules."""
    rules: dict[str, dict[str, None]] = {}
    for run in runs:
        if run.left_out:
            rules.setdefault(", ".join(run.left_out), {})[run.choices["rule"]] = None
    return [f"without {options}, which these do not have: rule={','.join(of)}" for options, of in rules.items()]


def _missing(job: Sequence[str], has_option: HasOption) -> set[str]:
    """Returns the options in overrides that their rule does not have."""
    others = [override for override in job if not _option(override)]
    return {name for override in job if (name := _option(override)) and not has_option(others, name)}


def _option(override: str) -> str:
    """Returns the option of a rule or of its feedback that an override sets; of others, an empty text."""
    match = OPTION.match(override)
    return (match[1] or match[2]) if match else ""
