"""`--dry-run`: what would be trained, in which programs and folders, and how long earlier runs of the kind took."""

import datetime
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from fa_jax.cli.compose import Composed, Composition
from fa_jax.cli.rule_options import notes
from fa_jax.cli.together import FINDING_OUT, Alike, alike
from fa_jax.records import schema
from fa_jax.records.options import options
from fa_jax.training.announce import announced
from fa_jax.user.text import say

LENGTH = ("epochs", "evaluations", "spacing", "tuned")
"""Options that change how long a run takes in a way that is accounted for, or not at all."""
NUMERIC = ("optimizer.", "feedback_optimizer.", "feedback.", "loss.")
"""Parts of a config whose numbers do not change how long a step takes."""
READ = 100
"""The most earlier runs that are read, the newest first."""


class Took(NamedTuple):
    """How long an earlier run took, in seconds."""

    compiling: float
    seed_step: float
    """One training step of one seed."""
    seed_evaluation: float
    """One evaluation of one seed."""

    def seconds(self, composed: Composed) -> float:
        """Returns how long the training and the evaluations of a run of this kind take."""
        job = composed.job
        seeds = sum(map(len, job.groups))
        return seeds * (job.evaluations[-1] * self.seed_step + len(job.evaluations) * self.seed_evaluation)


def show(composition: Composition, folder: Path) -> None:
    """Prints what a command would train in a folder.

    Args:
      composition: of the command.
      folder: of the run or the sweep.
    """
    runs, console = composition.runs, Console()
    launcher = composition.master.hydra.runtime.choices["hydra/launcher"]
    apart = [Alike([i], [{}]) for i in range(len(runs))]
    with announced(FINDING_OUT):
        programs = list(alike(runs)) if launcher == "basic" else apart
    how = "one after another" if launcher == "basic" else f"by hydra/launcher={launcher}"
    say(console, f"would train {_count(len(runs), 'run')} in {folder}, in {_count(len(programs), 'program')}, {how}")
    for note in notes(runs):
        say(console, note)
    show_programs(runs, programs, console, named=composition.is_sweep)


def show_programs(
    runs: Sequence[Composed], programs: Sequence[Alike], console: Console, *, named: bool = True, times: float = 1
) -> None:
    """Prints the runs of each program, and how long earlier runs of the kind took.

    Args:
      runs: what would be trained.
      programs: which of them are trained together.
      console: to print on.
      named: whether the folder of each run is printed.
      times: how often as much would be trained in all.
    """
    took, estimates = earlier(runs, Path("outputs")), []
    for number, (indices, numbers) in enumerate(programs, 1):
        estimates.append(_seconds([runs[i] for i in indices], took))
        job = runs[indices[0]].job
        at_once = max(map(len, job.groups))
        seeds = _count(sum(map(len, job.groups)), "seed") + (f", {at_once} at a time" if len(job.groups) > 1 else "")
        parts = [f"program {number}", f"{_count(len(indices), 'run')} of {seeds}", f"{job.evaluations[-1]} steps"]
        parts += [f"together, since they differ in {' and '.join(numbers[0])} alone"] if numbers[0] else []
        say(console, f"{', '.join(parts)}: {_duration(estimates[-1])}", style="bold")
        for i in indices if named else ():
            say(console, f"  {runs[i].folder}  {shlex.join(runs[i].overrides)}")
    known = [seconds for seconds in estimates if seconds is not None]
    if len(known) == len(programs) and (len(programs) > 1 or times != 1):
        say(console, f"in all {_duration(times * sum(known))}")
    say(console, "nothing was trained")


def earlier(runs: Sequence[Composed], below: Path) -> dict[str, Took]:
    """Returns how long finished runs below a folder took, by their kind: the newest of each kind that is asked for."""
    missing, known = {_kind(composed.config) for composed in runs}, {}
    summaries = [path for path in below.rglob("summary.json") if path.is_file()]
    for path in sorted(summaries, key=lambda path: path.stat().st_mtime, reverse=True)[:READ]:
        if not missing:
            break
        try:
            config = schema.read_config(path.with_name("config.yaml"))
            summary = schema.read_json(path, schema.Summary)
            kind, took = _kind(config), _took(config, summary)
        except (OSError, ValueError, KeyError, TypeError):  # it is damaged, or of an older version
            continue
        if kind in missing and took is not None:
            known[kind] = took
            missing.remove(kind)
    return known


def _took(config: Mapping[str, Any], summary: schema.Summary) -> Took | None:
    """Returns the seconds that a run took; None: it did not come far enough to tell."""
    cost, seeds = summary["cost"], len(summary["seeds"])
    if not cost["seed_steps_per_second"] or not seeds:
        return None
    evaluations = seeds * (config["evaluations"] + 1)
    return Took(cost["compile_seconds"], 1 / cost["seed_steps_per_second"], cost["evaluation_seconds"] / evaluations)


def _kind(config: Mapping[str, Any]) -> str:
    """Returns the options that determine the cost of a step: all but numbers that change no shape."""
    kept = {
        name: value
        for name, value in options(config).items()
        if name not in LENGTH and not (_is_fraction(value) or (name.startswith(NUMERIC) and value.isdecimal()))
    }
    return repr(sorted(kept.items()))


def _is_fraction(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return not value.isdecimal()


def _seconds(runs: Sequence[Composed], took: Mapping[str, Took]) -> float | None:
    """Returns the seconds that one program of runs may take; None: one of them has no earlier run of its kind."""
    of_runs = [took.get(_kind(composed.config)) for composed in runs]
    known = [earlier_run for earlier_run in of_runs if earlier_run is not None]
    if len(known) < len(runs):
        return None
    training = sum(earlier_run.seconds(composed) for earlier_run, composed in zip(known, runs, strict=True))
    return max(earlier_run.compiling for earlier_run in known) + training


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "no earlier run of this kind says how long"
    rounded = datetime.timedelta(seconds=max(1, round(seconds)))
    return f"about {rounded} (h:mm:ss), as earlier runs of this kind took"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
