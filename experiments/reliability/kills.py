"""Kills of sweeps, studies, comparisons and reports at random moments: nothing is lost, and every file is whole."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.reliability.commands import QUICK, delays, difference, in_words, killed, left_over, not_whole, run
from fa_jax.records.reader import find_runs

SWEEP = ["--multirun", *QUICK, "rule=bp,fa,dfa", "epochs=600", "evaluations=20", "checkpoint_every=0"]
STUDY = ["tune", *QUICK, "task.validation=200", "rule=fa", "epochs=40", "evaluations=4", "at_once=2", "output=study"]
STUDY += ["optimizer.learning_rate=tag(log,interval(1e-2,1))"]

Result = tuple[str, int, int | None, str]


def measure(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for each command."""
    yield sweeps(folder / "sweeps", times)
    yield studies(folder / "studies", times)
    for verb in ("compare", "report"):
        yield readers(folder / verb, verb, times)


def sweeps(folder: Path, times: int) -> Result:
    """Kills sweeps of three rules, each of which is resumed until it ends like an uninterrupted one."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    code, printed = run([*SWEEP, "hydra.sweep.dir=whole"], folder)
    if code:
        return "kills of a sweep", 0, 1, f"failed: exit code {code}: {printed[-200:]}"
    longest, failures, kills, sweep = time.monotonic() - began, [], 0, 0
    for delay in delays("sweep", 10 * times, longest):
        cut = folder / f"cut{sweep}"
        exists = (cut / "sweep.json").exists()
        words = [f"resume={cut.name}"] if exists else [*SWEEP, f"hydra.sweep.dir={cut.name}"]
        ended = killed(words, folder, delay)
        failures += list(not_whole(cut)) if cut.exists() else []
        kills += not ended
        if ended or kills == times:
            if not ended:
                words = [f"resume={cut.name}"] if (cut / "sweep.json").exists() else words
                code, printed = run(words, folder)
                failures += [] if code == 0 else [f"resume ended with {code}: {printed[-300:]}"]
            failures += _differences(folder / "whole", cut)
            failures += [f"{name} is left" for name in left_over(cut)]
            sweep += 1
        if kills == times:
            break
    kept = f"{sweep} sweeps of 3 runs end bit for bit like an uninterrupted one, and nothing is left over"
    return "kills of a sweep", kills, len(failures), in_words(failures, kept)


def _differences(whole: Path, cut: Path) -> list[str]:
    names = [path.parent.name for path in sorted(whole.glob("*/status.json"))]
    missing = [name for name in names if not (cut / name / "status.json").exists()]
    differing = [difference(whole / name, cut / name) for name in names if name not in missing]
    return [*(f"{name} is missing" for name in missing), *filter(None, differing)]


def studies(folder: Path, times: int) -> Result:
    """Kills one study again and again; what it was told stays, and at the end it has all its trials."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    code, printed = run([*STUDY, "trials=2"], folder)
    if code:
        return "kills of tune", 0, 1, f"failed: exit code {code}: {printed[-200:]}"
    longest, failures, kills, told = 1.3 * (time.monotonic() - began), [], 0, _told(folder / "study")
    for delay in delays("tune", times, longest):
        kills += not killed([*STUDY, "trials=100000"], folder, delay)
        failures += list(not_whole(folder / "study"))
        known = _told(folder / "study")
        failures += [f"trial {number} was {value} and is {known.get(number)}" for number, value in told.items()
                     if known.get(number) != value]  # fmt: skip
        told = known
    trials = len(told) + 2
    code, printed = run([*STUDY, f"trials={trials}"], folder)
    failures += [] if code == 0 and len(_told(folder / "study")) == trials else [f"exit code {code}: {printed[-300:]}"]
    failures += [f"{name} is left" for name in left_over(folder / "study") if "/" not in name and "lock" not in name]
    kept = f"all {len(told)} trials that ended before a kill keep their values, and the study goes on"
    return "kills of tune", kills, len(failures), in_words(failures, kept)


def _told(study: Path) -> dict[int, float]:
    """Returns the value of each completed trial of the study in a folder."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{study / 'study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return {trial.number: trial.value for trial in trials if trial.value is not None}


def readers(folder: Path, verb: str, times: int) -> Result:
    """Kills `compare` or `report` of a finished sweep; the runs stay as they are, and each file is old or new."""
    folder.mkdir(parents=True)
    code, printed = run([*SWEEP, "hydra.sweep.dir=sweep", "epochs=2", "evaluations=5"], folder)
    before, began = _contents(folder / "sweep"), time.monotonic()
    code_of_verb, more = run([verb, "sweep"], folder)
    longest, failures, kills = time.monotonic() - began, [], 0
    if code or code_of_verb:
        return f"kills of {verb}", 0, 1, f"failed: {(printed + more)[-300:]}"
    written = {path.name for path in (folder / "sweep").iterdir() if path.is_file()} - {"sweep.json"}
    for number, delay in enumerate(delays(verb, times, longest)):
        if number % 5 == 0:  # sometimes there is nothing yet
            for name in written:
                (folder / "sweep" / name).unlink(missing_ok=True)
        kills += not killed([verb, "sweep"], folder, delay)
        failures += list(not_whole(folder / "sweep"))
    failures += [name for name, content in before.items() if _contents(folder / "sweep").get(name) != content]
    code, printed = run([verb, "sweep"], folder)
    failures += [] if code == 0 else [f"exit code {code}: {printed[-300:]}"]
    failures += [f"{name} is left" for name in left_over(folder / "sweep")]
    if len(find_runs(folder / "sweep")) != 3:
        failures.append("runs are lost")
    shutil.rmtree(folder)
    kept = "the runs are untouched, and nothing is left over"
    return f"kills of {verb}", kills, len(failures), in_words(failures, kept)


def _contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of each file of the runs of a sweep."""
    files = (path for path in folder.glob("*/**/*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
