"""Tuning: options of a run sought by Optuna, for the least of a metric on held-out examples.

    <output>/study.db       the study, in SQLite: what was tried and what came of it
    <output>/<n>_<rule>/    the run of each trial

A trial one of whose seeds diverges is stopped and counts as pruned. The same words go on with a study, also several
processes at once.
"""

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from rich.console import Console

from fa_jax.checks import BadOption, integer
from fa_jax.cli import help as catalogue
from fa_jax.cli.build import build
from fa_jax.cli.compose import compose, tell_apart
from fa_jax.cli.errors import check_folder
from fa_jax.records.statistics import has_diverged
from fa_jax.reports.tables import Sheet, terminal, wide_console
from fa_jax.training.run import Stopped, Watch, run

OWN = {"trials": "20", "metric": "validation_error", "output": None, "sampler_seed": "0"}


def tune(words: Sequence[str]) -> None:
    """Tunes what the words ask for: overrides, of which some have ranges, and options of the study.

    Ranges are Hydra's: `interval(0.1,1)`, `tag(log,interval(1e-3,1))`, `range(1,5)`, or values between commas. The
    options are `trials`, how many there are to be in all; `metric`, what is minimised, the mean over seeds at the
    end; `output`, the folder; and `sampler_seed`.

    Raises:
      BadOption: if anything in them is wrong.
    """
    try:
        import optuna
    except ImportError:
        raise BadOption("tune needs optuna, which is not installed: pip install 'fa-jax[tune]'") from None
    own = {**OWN, **dict(word.split("=", 1) for word in words if word.partition("=")[0] in OWN)}
    fixed, ranges = _ranges([word for word in words if word.partition("=")[0] not in OWN])
    trials = integer("trials", _number(own["trials"]), least=1)
    seed = integer("sampler_seed", _number(own["sampler_seed"]), least=0)
    metric = str(own["metric"])
    first = _composed([*fixed, *(f"{key}={_some(one)}" for key, one in ranges.items())])
    _check_metric(metric, first.config)
    place = Path(own["output"] or f"outputs/tune/{first.choices['task']}_{first.choices['rule']}")
    check_folder("output", place)
    place.mkdir(parents=True, exist_ok=True)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with FileLock(place / ".lock"):  # of several processes, one makes the tables
        study = optuna.create_study(
            storage=f"sqlite:///{place}/study.db",
            study_name=json.dumps([fixed, {key: str(one.value()) for key, one in ranges.items()}, metric]),
            load_if_exists=True,
        )
    # Else the trials after an interruption would be those before it once more.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials) + _others(study))
    over = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    console = wide_console()
    if (done := sum(trial.state in over for trial in study.trials)) >= trials:
        console.print(f"all {trials} trials have been made; trials={2 * done} would make {done} more")
    while (done := sum(trial.state in over for trial in study.trials)) < trials:
        trial = study.ask()
        chosen = {key: _suggested(trial, key, one) for key, one in ranges.items()}
        said = " ".join(f"{key}={value}" for key, value in chosen.items())
        try:
            one = _composed([*fixed, *(f"{key}={value}" for key, value in chosen.items())])
            folder = _claimed(place, trial.number, one.choices["rule"])
            summary = run(build(one.config), one.recorded, folder, command=["fa-jax", "tune", *words], watch=_watch())
            value = summary["final"][metric]["mean"]
            study.tell(trial, value)
            outcome = f"{metric} {value:.4g}"
        except Stopped as reason:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            outcome = str(reason)
        except BaseException:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        console.print(
            f"trial {trial.number}, {done + 1} of {trials}: {said}: {outcome}", highlight=False, soft_wrap=True
        )
    _report(study, metric, fixed, place, console)


def _ranges(words: Sequence[str]) -> tuple[list[str], dict[str, Override]]:
    """The overrides that are as they are, and by option those that are sought."""
    typed = tell_apart(words)
    if typed.flags or typed.own:
        got = " ".join([*typed.flags, *typed.own])
        raise BadOption(f"tune takes overrides and {', '.join(OWN)}; got {got}")
    fixed, ranges = [], {}
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        for word in typed.overrides:
            parsed = parser.parse_override(word)
            if parsed.is_sweep_override():
                if not isinstance(parsed.value(), ChoiceSweep | RangeSweep | IntervalSweep):
                    raise BadOption(f"tune: {word} must be interval(a,b), tag(log,interval(a,b)), range(a,b) or a,b,c")
                ranges[parsed.get_key_element()] = parsed
            else:
                fixed.append(word)
    if not ranges:
        raise BadOption(
            "tune needs an option with a range, such as optimizer.learning_rate='tag(log,interval(1e-3,1))'"
        )
    return fixed, ranges


def _composed(overrides: Sequence[str]) -> Any:
    sweeping, composed = compose(tell_apart(overrides))
    if sweeping:
        raise BadOption("tune runs one config at a time; these overrides are a sweep")
    return composed[0]


def _check_metric(metric: str, config: Mapping[str, Any]) -> None:
    """Refuses to tune on test examples, and on held-out ones that there are not."""
    if metric.startswith("test_"):
        raise BadOption(
            f"metric must be one of held-out or training examples, not {metric}: tuning on it would spoil it"
        )
    task = build(dict(config)).task
    valid = [f"validation_{name}" for name in ("loss", *task.metrics)] if task.validation is not None else []
    valid += [f"train_{name}" for name in ("loss", *task.running)]
    if metric not in valid:
        if task.validation is None and metric == OWN["metric"]:
            raise BadOption("tune needs examples that are held out, such as task.validation=200, or metric=train_loss")
        hint = "" if task.validation is not None else "; task.validation=200 holds examples out, where the task can"
        raise BadOption(f"metric must be one of {', '.join(valid)}; got {metric!r}{hint}")


def _some(override: Override) -> Any:
    """Any value of a range, to check the other options with."""
    return override.value().start if override.is_interval_sweep() else next(override.sweep_string_iterator())  # type: ignore


def _suggested(trial: Any, key: str, override: Override) -> Any:
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        return trial.suggest_float(key, value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and all(isinstance(v, int) for v in (value.start, value.stop, value.step)):
        return trial.suggest_int(key, value.start, cast(int, value.stop) - 1, step=cast(int, value.step))
    return trial.suggest_categorical(key, list(override.sweep_string_iterator()))


def _watch() -> Watch:
    """Returns what stops a run when a seed diverges."""
    curves: list[list[float]] = []

    def watch(step: int, metrics: Mapping[str, np.ndarray]) -> None:
        losses = metrics["test_loss"].tolist()
        if step == 0:
            curves[:] = [[] for _ in losses]  # of the next group of seeds
        for curve, loss in zip(curves, losses, strict=True):
            curve.append(loss)
        if any(map(has_diverged, curves)):
            raise Stopped(f"pruned: a seed diverged by step {step}")

    return watch


def _others(study: Any) -> int:
    """0, or a number of this process's own where other processes are at work on the study."""
    return os.getpid() if any(not trial.state.is_finished() for trial in study.trials) else 0


def _claimed(place: Path, number: int, rule: str) -> Path:
    for again in itertools.count(1):
        folder = place / (f"{number}_{rule}" if again == 1 else f"{number}_{rule}_{again}")
        if not (folder / "status.json").exists():
            return folder
    raise AssertionError


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(text: Any) -> Any:
    return int(text) if str(text).lstrip("-").isdigit() else text


def _report(study: Any, metric: str, fixed: Sequence[str], place: Path, console: Console) -> None:
    """Prints the best trials, and the words with which the best is run again."""
    complete = sorted(
        (t for t in study.trials if t.value is not None and math.isfinite(t.value)), key=lambda t: t.value
    )
    if not complete:
        console.print("every trial diverged")
        return
    names = list(complete[0].params)
    rows = [[str(t.number), f"{t.value:.4g}", *(_short(t.params[name]) for name in names)] for t in complete[:10]]
    pruned = len(study.trials) - len(complete)
    text = f"the best of {len(study.trials)} trials, {pruned} of them pruned or failed; {place}/study.db has all"
    console.print(terminal(Sheet(["trial", metric, *names], rows, text), console.width))
    best = " ".join([*fixed, *(f"{key}={value}" for key, value in complete[0].params.items())])
    console.print(f"fa-jax {best}", highlight=False, soft_wrap=True)
