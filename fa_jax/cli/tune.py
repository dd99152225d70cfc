"""Tuning: Optuna finds the values of options with the best metric on held-out examples.

    <output>/study.db       the study, in SQLite: all trials and their results
    <output>/<n>_<rule>/    the run of each trial

A trial is stopped, and counts as pruned, when the test loss of one of its seeds is not finite; it counts as pruned too
if a seed has diverged at the end. The same arguments continue a study, also from several processes at once.
"""

import contextlib
import functools
import itertools
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.console import Console

from fa_jax.checks import BadOption, integer
from fa_jax.cli import plan
from fa_jax.cli.arguments import OPTIONS
from fa_jax.cli.build import OPTIONAL, REQUIRED
from fa_jax.cli.compose import Composed, compose
from fa_jax.cli.errors import check_own_options, check_writable, one_line_errors
from fa_jax.cli.groups import LISTED
from fa_jax.cli.ranges import Ranges, is_in, parse_ranges, suggest
from fa_jax.cli.single import run_together_logged
from fa_jax.cli.start import prepare_process
from fa_jax.cli.study import opened, storage, storage_errors
from fa_jax.cli.terminal import sigterm_interrupts
from fa_jax.cli.together import FINDING_OUT, alike
from fa_jax.cli.trust import check_folder
from fa_jax.core import Metric, Task
from fa_jax.records.files import remove_temporary
from fa_jax.records.reader import STUDY
from fa_jax.reports.tables import Table, terminal, wide_console
from fa_jax.training.announce import announced
from fa_jax.training.evaluation import score_metrics
from fa_jax.training.record import Request, Stopped
from fa_jax.user.text import say

DEFAULTS = {"trials": "20", "at_once": "5", "metric": None, "output": None, "sampler_seed": "0"}
"""The options of a study, with their default values."""


def tune(words: Sequence[str]) -> None:
    """Runs a study: overrides, of which some have ranges, and options of the study.

    Ranges are Hydra's: `interval(0.1,1)`, `tag(log,interval(1e-3,1))`, `range(1,5)`, or values with commas. The options
    are `trials`, their total number; `at_once`, how many are chosen before the first of them is judged, and trained by
    one program where they differ in numbers alone; `metric`, by default the validation score of the task, averaged over
    seeds at the end, whose direction decides what is best; `output`, the folder; and `sampler_seed`.

    Raises:
      BadOption: if anything in them is wrong.
    """
    sigterm_interrupts()
    prepare_process()
    with one_line_errors():
        _tune(words)


def _tune(words: Sequence[str]) -> None:
    try:
        import optuna
    except ImportError:
        raise BadOption("needs optuna, which is not installed: pip install 'fa-jax[tune]'", "tune") from None
    options = {**DEFAULTS, **dict(word.split("=", 1) for word in words if word.partition("=")[0] in DEFAULTS)}
    typed = [word.partition("=")[0] for word in words if "=" in word]
    check_own_options(typed, DEFAULTS, (*LISTED, *REQUIRED, *OPTIONAL, *OPTIONS))
    ranges = parse_ranges([word for word in words if word.partition("=")[0] not in DEFAULTS], DEFAULTS)
    trials = integer("trials", _number(options["trials"]), least=1)
    at_once = integer("at_once", _number(options["at_once"]), least=1)
    sampler_seed = integer("sampler_seed", _number(options["sampler_seed"]), least=0)
    example = _compose_one(ranges.any_values(), ranges)
    column, metric = _metric(options["metric"], example.job.task)
    folder = Path(options["output"] or f"outputs/tune/{example.choices['task']}_{example.choices['rule']}")
    check_writable("output", folder)
    check_folder(f"output={folder}", folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = json.dumps([ranges.fixed, {key: str(override.value()) for key, override in ranges.searched.items()}, column])
    if ranges.arguments.dry_run:
        with storage_errors(folder):
            _show_plan(name, ranges, trials, at_once, sampler_seed, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with storage_errors(folder):
        _run_study(name, ranges, trials, at_once, sampler_seed, column, metric, folder, words)


def _run_study(
    name: str,
    ranges: Ranges,
    trials: int,
    at_once: int,
    sampler_seed: int,
    column: str,
    metric: Metric,
    folder: Path,
    words: Sequence[str],
) -> None:
    """Continues the study in a folder, or begins one, until it has so many trials; prints the best."""
    import optuna

    remove_temporary(folder)
    with FileLock(folder / ".lock"):  # one of several processes creates the tables
        create = functools.partial(
            optuna.create_study,
            storage=storage(folder / STUDY),
            study_name=name,
            direction="maximize" if metric.better == "higher" else "minimize",
            load_if_exists=True,
        )
        study = opened(create, folder / STUDY)
    # Another seed after each interruption, or the same trials would be made again.
    study.sampler = optuna.samplers.TPESampler(seed=sampler_seed + len(study.trials) + _process_offset(study))
    console = wide_console()
    done = _done(study)
    if done >= trials:
        say(console, f"all {trials} trials have been made; trials={2 * done} would make {done} more")
    while (done := _done(study)) < trials:
        asked = [study.ask() for _ in range(min(at_once, trials - done))]
        try:
            values = [_chosen(trial, ranges) for trial in asked]
            outcomes = _run_trials(study, asked, column, ranges, values, folder, words)
        finally:
            for trial in asked:
                if not study.trials[trial.number].state.is_finished():
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
        for i, (trial, outcome) in enumerate(zip(asked, outcomes, strict=True)):
            text = shlex.join(f"{key}={value}" for key, value in values[i].items())
            say(console, f"trial {trial.number}, {done + i + 1} of {trials}: {text}: {outcome}")
    _report(study, column, metric, ranges, folder, console)


def _chosen(trial: Any, ranges: Ranges) -> dict[str, Any]:
    """Returns the values that a trial of Optuna chooses."""
    return {key: suggest(trial, key, override) for key, override in ranges.searched.items()}


def _compose_trials(ranges: Ranges, values: Sequence[Mapping[str, Any]]) -> list[Composed]:
    overrides = [[*ranges.fixed, *(f"{key}={value}" for key, value in of_trial.items())] for of_trial in values]
    return [_compose_one(of_trial, ranges) for of_trial in overrides]


def _show_plan(name: str, ranges: Ranges, trials: int, at_once: int, sampler_seed: int, folder: Path) -> None:
    """Prints what a study would train, and how long earlier runs took; writes nothing."""
    import optuna

    console, done = wide_console(), 0
    if (folder / STUDY).exists():
        with contextlib.suppress(KeyError):  # the file has other studies
            load = functools.partial(optuna.load_study, study_name=name, storage=storage(folder / STUDY))
            done = _done(opened(load, folder / STUDY))
    if done >= trials:
        say(console, f"all {trials} trials have been made in {folder}")
        return
    at_once = min(at_once, trials - done)
    say(console, f"would make {trials - done} trials in {folder}, {at_once} at once; {done} have been made")
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=sampler_seed))
    runs = _compose_trials(ranges, [_chosen(study.ask(), ranges) for _ in range(at_once)])
    with announced(FINDING_OUT):
        programs = list(alike(runs))
    plan.show_programs(runs, programs, console, named=False, times=(trials - done) / at_once)


def _run_trials(
    study: Any,
    trials: Sequence[Any],
    column: str,
    ranges: Ranges,
    values: Sequence[Mapping[str, Any]],
    parent: Path,
    words: Sequence[str],
) -> list[str]:
    """Runs trials, tells the study their values, and returns their outcomes as text.

    Raises:
      Exception: the first that ended a trial, other than its divergence.
    """
    runs = _compose_trials(ranges, values)
    command, outcomes, problems = ["fa-jax", "tune", *words], {}, []
    for indices, numbers in alike(runs):
        requests = []
        for i, of_run in zip(indices, numbers, strict=True):
            folder = _new_folder(parent, trials[i].number, runs[i].choices["rule"])
            folder.mkdir(parents=True, exist_ok=True)
            options = {"command": command, "watch": _stop_if_not_finite, "numbers": of_run}
            requests.append(Request(runs[i].job, runs[i].config, folder, **options))
        for i, outcome in zip(indices, run_together_logged(requests), strict=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, Stopped):
                problems.append(outcome)
            else:
                outcomes[i] = _tell(study, trials[i], column, outcome)
    if problems:
        raise problems[0]
    return [outcomes[i] for i in range(len(trials))]


def _tell(study: Any, trial: Any, column: str, outcome: Mapping[str, Any] | Stopped) -> str:
    """Tells the study the outcome of a trial, a summary or why it was stopped, and returns it as text."""
    import optuna

    if isinstance(outcome, Stopped):
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return str(outcome)
    if outcome["diverged_seeds"]:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return f"pruned: diverged seeds {outcome['diverged_seeds']}"
    value = outcome["final"][column]["mean"]
    study.tell(trial, value)
    return f"{column} {value:.4g}"


def _compose_one(overrides: list[str], ranges: Ranges) -> Composed:
    composition = compose(ranges.arguments._replace(overrides=overrides), composer=ranges.composer)
    if composition.is_sweep:
        raise BadOption("runs one config at a time; these overrides are a sweep", "tune")
    return composition.runs[0]


def _metric(column: str | None, task: Task) -> tuple[str, Metric]:
    """Returns the column to optimise and its metric: of held-out or training examples."""
    if column is not None and column.startswith("test_"):
        raise BadOption(f"must be one of held-out or training examples; tuning on {column} would bias it", "metric")
    splits = (["validation"] if task.validation is not None else []) + ["train"]
    valid = {f"{split}_{metric.name}": metric for split in splits for metric in score_metrics(task)}
    column = column or f"validation_{task.metrics[0].name}"
    if column not in valid:
        hint = "" if task.validation is not None else "; task.validation=200 holds examples out, if the task can"
        raise BadOption(f"must be one of {', '.join(valid)}; got {column!r}{hint}", "metric")
    return column, valid[column]


def _stop_if_not_finite(step: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Stops a run from which a seed does not recover; a `Watch`."""
    if not np.isfinite(metrics["test_loss"]).all():
        raise Stopped(f"pruned: a seed diverged by step {step}")


def _done(study: Any) -> int:
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def _process_offset(study: Any) -> int:
    """Returns a number of this process if other processes work on the study, else 0."""
    return os.getpid() if any(not trial.state.is_finished() for trial in study.trials) else 0


def _new_folder(parent: Path, number: int, rule: str) -> Path:
    for attempt in itertools.count(1):
        folder = parent / (f"{number}_{rule}" if attempt == 1 else f"{number}_{rule}_{attempt}")
        if not (folder / "status.json").exists():
            return folder
    raise AssertionError


def _number(text: Any) -> Any:
    return int(text) if str(text).lstrip("-").isdigit() else text


def best_first(trials: Sequence[Any], metric: Metric) -> list[Any]:
    """Returns the completed trials with a finite value, the best first."""
    complete = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    return sorted(complete, key=lambda trial: trial.value, reverse=metric.better == "higher")


def _is_of(params: Mapping[str, Any], ranges: Ranges) -> bool:
    """Returns whether params are of these ranges: the study may come from anyone, and the best are to be typed."""
    searched = ranges.searched
    return params.keys() == searched.keys() and all(is_in(params[name], searched[name]) for name in searched)


def _report(study: Any, column: str, metric: Metric, ranges: Ranges, folder: Path, console: Console) -> None:
    """Prints the best trials, and the command that runs the best again."""
    complete = [trial for trial in best_first(study.trials, metric) if _is_of(trial.params, ranges)]
    if not complete:
        say(console, "every trial diverged")
        return
    names = list(ranges.searched)

    def short(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = [[str(t.number), f"{t.value:.4g}", *(short(t.params[name]) for name in names)] for t in complete[:10]]
    pruned = len(study.trials) - len(complete)
    caption = f"the best of {len(study.trials)} trials, {pruned} of them pruned or failed; {folder}/study.db has all"
    heading = f"{column} ({metric.unit})" if metric.unit else column
    console.print(terminal(Table(["trial", heading, *names], rows, caption), console.width))
    best = [*ranges.fixed, *(f"{name}={complete[0].params[name]}" for name in names)]
    say(console, shlex.join(["fa-jax", *ranges.arguments.own_words, *best]))
