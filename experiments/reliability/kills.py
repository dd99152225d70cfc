"""Kills of sweeps, studies, comparisons and reports at random moments: nothing is lost, and every file is whole."""

import functools
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.reliability.commands import QUICK, delays, difference, in_words, killed, left_over, not_whole, run
from fa_jax.records.reader import find_runs

SWEEP = ["--multirun", *QUICK, "rule=bp,fa,dfa", "epochs=600", "evaluations=20", "checkpoint_every=0"]
STUDY = ["tune", *QUICK, "task.validation=200", "rule=fa", "epochs=40", "evaluations=4", "at_once=2", "output=study"]
STUDY += ["optimizer.learning_rate=tag(log,interval(1e-2,1))"]

Result = tuple[str, int, int | None, str]


class _Kills:
    """Kills of commands in a folder, and what was found to be wrong."""

    def __init__(self, folder: Path):
        """Makes the folder."""
        folder.mkdir(parents=True)
        killed(["--version"], folder, None)  # imports what the commands need
        self._folder = folder
        self.n = 0
        self.failures: list[str] = []

    def seconds(self, words: Sequence[str]) -> float:
        """Returns how long a command takes to its end, which it has to reach."""
        began = time.monotonic()
        self._end(words, killed(words, self._folder, None))
        return time.monotonic() - began

    def kill(self, words: Sequence[str], delay: float, place: str) -> bool:
        """Kills a command after a delay; returns whether it had ended. What is in `place` then must be whole."""
        code = killed(words, self._folder, delay)
        self.n += code is None
        self._end(words, code or 0)
        self.failures += not_whole(self._folder / place)
        return code is not None

    def finish(self, words: Sequence[str]) -> None:
        """Runs a command to its end, which it has to reach."""
        self._end(words, *run(words, self._folder))

    def _end(self, words: Sequence[str], code: int | None, printed: str = "") -> None:
        self.failures += [] if code == 0 else [f"{shlex.join(words)}: exit code {code}: {printed[-300:]}"]

    def result(self, command: str, otherwise: str) -> Result:
        """Returns the row of the kills of a command, with what is true if nothing is wrong."""
        return f"kills of {command}", self.n, len(self.failures), in_words(self.failures, otherwise)


def sweeps(folder: Path, times: int) -> Iterator[Result]:
    """Kills sweeps of three rules, each of which is resumed until it ends like an uninterrupted one."""
    kills = _Kills(folder / "sweeps")
    folder, longest, number = folder / "sweeps", kills.seconds([*SWEEP, "hydra.sweep.dir=whole"]), 0
    for delay in delays("sweep", 10 * times, longest / 2):  # so most are killed more than once
        cut = f"cut{number}"
        words = [f"resume={cut}"] if (folder / cut / "sweep.json").exists() else [*SWEEP, f"hydra.sweep.dir={cut}"]
        ended = kills.kill(words, delay, cut)
        if not ended and kills.n == times:
            resumes = (folder / cut / "sweep.json").exists()
            kills.finish([f"resume={cut}"] if resumes else words)
        if ended or kills.n == times:
            kills.failures += _differences(folder / "whole", folder / cut)
            kills.failures += [f"{name} is left" for name in left_over(folder / cut)]
            number += 1
        if kills.n == times:
            break
    kept = f"{number} sweeps of 3 runs end bit for bit like an uninterrupted one, and nothing is left over"
    yield kills.result("a sweep", kept)


def _differences(whole: Path, cut: Path) -> list[str]:
    names = [path.parent.name for path in sorted(whole.glob("*/status.json"))]
    missing = [name for name in names if not (cut / name / "status.json").exists()]
    differing = [difference(whole / name, cut / name) for name in names if name not in missing]
    return [*(f"{name} is missing" for name in missing), *filter(None, differing)]


def studies(folder: Path, times: int) -> Iterator[Result]:
    """Kills one study again and again; what it was told stays, and at the end it has all its trials."""
    kills = _Kills(folder / "studies")
    # Most kills come after the first trials have ended.
    study, longest = folder / "studies" / "study", 3 * kills.seconds([*STUDY, "trials=2"])
    told = _told(study)
    for delay in delays("tune", times, longest):
        kills.kill([*STUDY, "trials=100000"], delay, "study")
        known = _told(study)
        kills.failures += [f"trial {number} was {value} and is {known.get(number)}" for number, value in told.items()
                           if known.get(number) != value]  # fmt: skip
        told = known
    trials = len(told) + 2
    kills.finish([*STUDY, f"trials={trials}"])
    kills.failures += [] if len(_told(study)) == trials else [f"{len(_told(study))} trials instead of {trials}"]
    kills.failures += [f"{name} is left" for name in left_over(study) if "/" not in name and "lock" not in name]
    kept = f"all {len(told)} trials that ended before a kill keep their values, and the study goes on"
    yield kills.result("tune", kept)


def _told(study: Path) -> dict[int, float]:
    """Returns the value of each completed trial of the study in a folder."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{study / 'study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return {trial.number: trial.value for trial in trials if trial.value is not None}


def _of_reader(verb: str, folder: Path, times: int) -> Iterator[Result]:
    """Kills `compare` or `report` of a finished sweep; the runs stay as they are, and each file is old or new."""
    kills = _Kills(folder / verb)
    kills.finish([*SWEEP, "hydra.sweep.dir=sweep", "epochs=2", "evaluations=5"])
    sweep = folder / verb / "sweep"
    before, longest = _contents(sweep), kills.seconds([verb, "sweep"])
    written = {path.name for path in sweep.iterdir() if path.is_file()} - {"sweep.json"}
    for number, delay in enumerate(delays(verb, 10 * times, longest)):
        if number % 5 == 0:  # sometimes there is nothing yet
            for name in written:
                (sweep / name).unlink(missing_ok=True)
        kills.kill([verb, "sweep"], delay, "sweep")
        if kills.n == times:
            break
    kills.failures += [name for name, content in before.items() if _contents(sweep).get(name) != content]
    kills.finish([verb, "sweep"])
    kills.failures += [f"{name} is left" for name in left_over(sweep)]
    kills.failures += [] if len(find_runs(sweep)) == 3 else ["runs are lost"]
    yield kills.result(verb, "the runs are untouched, and nothing is left over")


comparisons = functools.partial(_of_reader, "compare")
reports = functools.partial(_of_reader, "report")


def _contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of each file of the runs of a sweep."""
    files = (path for path in folder.glob("*/**/*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
