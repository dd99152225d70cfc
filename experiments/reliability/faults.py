"""Full disks, two processes in one folder, signals, a clock that goes back, and few open files."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.reliability.commands import QUICK, difference, in_words, left_over, not_whole, run, start, wait_until

Result = tuple[str, int, int | None, str]
LONG = [*QUICK, "rule=fa", "epochs=600", "evaluations=20", "checkpoint_every=0"]
MANY_ROWS = ["seeds=100", "evaluations=200", "epochs=10"]
"""Overrides of a run with a `metrics.csv` of more than 2 MB."""
LAUNCH = [sys.executable, "-m", "fa_jax"]


def outcome(code: int, printed: str, codes: Sequence[int], *texts: str) -> list[str]:
    """Returns what is wrong with an exit code and the text that a command printed."""
    failures = [] if code in codes else [f"exit code {code}: {printed[-300:]}"]
    failures += [f"a traceback: {printed[-300:]}"] if "Traceback" in printed else []
    return failures + [f"no {text!r} in {printed[-300:]}" for text in texts if text not in printed]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """Yields the folder of a file system in memory, of a size that a file `ballast` fills up to so many megabytes."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(folder)], check=True)
    try:
        fill(folder, megabytes)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, megabytes: float) -> None:
    """Leaves so many megabytes free on a disk."""
    status = os.statvfs(folder)
    size = status.f_bavail * status.f_frsize - int(megabytes * 2**20)
    with (folder / "ballast").open("ab") as file:
        os.posix_fallocate(file.fileno(), file.tell(), max(1, size))


def full_disks(folder: Path, times: int) -> Iterator[Result]:
    """Yields rows for a disk that becomes full while a run trains."""
    del times
    metrics = [*QUICK, "rule=fa", *MANY_ROWS, "checkpoint=false", "checkpoint_every=null"]
    yield _resumed_after_full("metrics.csv", folder / "metrics", metrics, 1.3, (2,))
    large = ["architecture.hidden=[1500,1500]", "seeds=1", "epochs=3", "checkpoint_every=0", "probe=0"]
    yield _full_checkpoint(folder / "checkpoint", [*QUICK, "rule=fa", *large])


def full_disk_of_sweep(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for a disk that becomes full while a sweep runs."""
    del times
    sweep = ["--multirun", *QUICK, "rule=bp,fa,dfa,shallow", *MANY_ROWS, "checkpoint_every=1"]
    yield _resumed_after_full("a sweep", folder, sweep, 2.5, (1, 2))


def full_disk_of_study(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for a disk that becomes full while tune runs."""
    del times
    yield _full_study(folder / "disk")


def _resumed_after_full(what: str, folder: Path, words: list[str], megabytes: float, codes: Sequence[int]) -> Result:
    """Runs a command until the disk is full; frees it, resumes, and compares with an undisturbed run."""
    option = "hydra.sweep.dir" if "--multirun" in words else "hydra.run.dir"
    folder.mkdir(parents=True, exist_ok=True)
    code, printed = run([*words, f"{option}=whole"], folder)
    failures = outcome(code, printed, (0,))
    with small_disk(folder / "disk", megabytes) as disk:
        code, printed = run([*words, f"{option}=disk/cut"], folder)
        failures += outcome(code, printed, codes, "No space left on device")
        failures += list(not_whole(disk / "cut"))
        (disk / "ballast").unlink()
        code, printed = run(["resume=disk/cut"], folder)
        failures += outcome(code, printed, (0,))
        runs = [path.parent.relative_to(folder / "whole") for path in sorted((folder / "whole").rglob("status.json"))]
        failures += list(filter(None, (difference(folder / "whole" / name, disk / "cut" / name) for name in runs)))
        failures += [f"{name} is left" for name in left_over(disk / "cut")]
    success = "one line; when there is room again, the run is resumed, and ends bit for bit as without"
    return f"disk full in the middle of {what}", 1, len(failures), in_words(failures, success)


def _full_checkpoint(folder: Path, words: list[str]) -> Result:
    """Trains a network whose checkpoint does not fit on the disk."""
    with small_disk(folder, 24) as disk:
        code, printed = run([*words, "hydra.run.dir=run"], disk)
        failures = outcome(code, printed, (2,), "No space left on device")
        failures += list(not_whole(disk / "run"))
        log = (disk / "run" / "run.log").read_text()
        failures += (
            [] if "no checkpoint was written" in log else ["run.log does not say that no checkpoint was written"]
        )
        (disk / "ballast").unlink()
        failures += outcome(*run(["resume=run"], disk), (0,))
        failures += [f"{name} is left" for name in left_over(disk / "run")]
    success = "training goes on, the final weights end the run with one line, and it can be resumed"
    return "disk full in the middle of a checkpoint", 1, len(failures), in_words(failures, success)


def _full_study(folder: Path) -> Result:
    """Fills the disk while a study runs, at the moment when it has some trials."""
    rate = "optimizer.learning_rate=tag(log,interval(1e-2,1))"
    words = ["tune", *QUICK, "task.validation=200", "rule=fa", "epochs=20", "checkpoint=false", rate, "output=study"]
    with small_disk(folder, 8) as disk:
        process = start([*words, "trials=1000", "at_once=1"], disk)
        wait_until((disk / "study" / "3_fa" / "summary.json").exists, process)
        fill(disk, 0)
        printed, _ = process.communicate(timeout=300)
        failures = outcome(process.returncode, printed, (2,))
        failures += [] if printed.strip().rpartition("\n")[2].startswith("fa-jax: ") else [f"printed {printed[-300:]}"]
        failures += list(not_whole(disk / "study"))
        (disk / "ballast").unlink()
        failures += outcome(*run([*words, "trials=8"], disk), (0,))
        failures += list(not_whole(disk / "study"))
    success = "one line; when there is room again, the same command goes on"
    return "disk full in the middle of tune's database", 1, len(failures), in_words(failures, success)


def two_processes(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for two processes that start, or resume, the same run or sweep at the same moment."""
    del times
    sweep = ["--multirun", *QUICK, "rule=bp,fa", "epochs=200", "evaluations=10", "checkpoint_every=0"]
    for what, words, option in (("a run", LONG, "hydra.run.dir"), ("a sweep", sweep, "hydra.sweep.dir")):
        failures, n = [], 5
        for attempt in range(n):
            place = folder / what.replace(" ", "_") / str(attempt)
            place.mkdir(parents=True)
            for command in ([*words, f"{option}=run"], ["resume=run"]):
                pair = [start(command, place), start(command, place)]
                printed = [process.communicate(timeout=600)[0] for process in pair]
                codes = sorted(process.returncode for process in pair)
                resumed = command == ["resume=run"]
                # The first pair finishes the run, so a sweep is resumed with nothing to do.
                allowed = ([2, 2], [0, 0], [0, 2]) if resumed else ([0, 2],)
                failures += [] if codes in allowed else [f"{' '.join(command)}: exit codes {codes}: {printed}"]
                failures += [f"a traceback: {text[-300:]}" for text in printed if "Traceback" in text]
            failures += list(not_whole(place / "run"))
            failures += [f"{name} is left" for name in left_over(place / "run")]
        success = "one of them trains, the other one ends with one line"
        yield f"two processes start {what}", n, len(failures), in_words(failures, success)


def signals(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for each signal that reaches a run while it trains."""
    del times
    folder.mkdir(exist_ok=True)
    failures = outcome(*run([*LONG, "hydra.run.dir=whole"], folder), (0,))
    for number, codes in ((signal.SIGHUP, (0,)), (signal.SIGTERM, (130,)), (signal.SIGINT, (130,))):
        n = 5
        for attempt in range(n):
            name = f"{number.name}{attempt}"
            process = start([*LONG, f"hydra.run.dir={name}"], folder)
            metrics = folder / name / "metrics.csv"
            wait_until(lambda metrics=metrics: metrics.exists() and metrics.read_text().count("\n") > 3, process)
            process.send_signal(number)
            printed, _ = process.communicate(timeout=300)
            failures += outcome(process.returncode, printed, codes)
            if codes != (0,):
                failures += outcome(*run([f"resume={name}"], folder), (0,))
            failures += list(filter(None, [difference(folder / "whole", folder / name)]))
        success = (
            "does not end it" if codes == (0,) else "ends it with one line; resumed, it ends bit for bit as without"
        )
        yield f"{number.name} while a run trains", n, len(failures), in_words(failures, success)
        failures = []
    process = start([*LONG, "hydra.run.dir=pipe"], folder, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.close()
    code = process.wait(timeout=300)
    failures = [] if code == 0 else [f"exit code {code}"]
    failures += list(filter(None, [difference(folder / "whole", folder / "pipe")]))
    yield "SIGPIPE: the reader of the output leaves", 1, len(failures), in_words(failures, "does not end the run")


def clock_set_back(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for runs that are resumed, compared and reported when the clock shows an earlier time."""
    del times
    failures = outcome(*run([*LONG, "hydra.run.dir=whole"], folder), (0,))
    process = start([*LONG, "hydra.run.dir=cut"], folder)
    wait_until(lambda: (folder / "cut" / "resume").is_dir() and any((folder / "cut/resume").glob("*.json")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # What was written before lies in the future.
    future = time.time() + 10 * 365 * 86400
    for path in (folder / "cut").rglob("*"):
        os.utime(path, (future, future))
    status = json.loads((folder / "cut" / "status.json").read_text())
    (folder / "cut" / "status.json").write_text(json.dumps({**status, "time": "2036-01-01T00:00:00+00:00"}))
    failures += outcome(*run(["resume=cut"], folder), (0,))
    failures += list(filter(None, [difference(folder / "whole", folder / "cut")]))
    for verb in ("status", "compare", "report"):
        failures += outcome(*run([verb, ".", *(["output=out"] if verb != "status" else [])], folder), (0,))
    success = "a run whose files are ten years in the future is resumed, bit for bit, and compared"
    yield "a clock that goes back", 1, len(failures), in_words(failures, success)


def few_open_files(folder: Path, times: int) -> Iterator[Result]:
    """Yields a row for commands that may have 24 files open."""
    del times
    sweep = ["--multirun", *QUICK, "rule=fa", "epochs=4", "hydra.sweep.dir=sweep", "checkpoint_every=0"]
    rates = [f"optimizer.learning_rate={','.join(f'0.{i:02}' for i in range(1, 25))}"]
    commands = {
        "a run": [*QUICK, "rule=fa", "epochs=4", "hydra.run.dir=run", "checkpoint_every=0"],
        "a sweep of 24 runs trained together": [*sweep, *rates],
        "tune": ["tune", *QUICK, "task.validation=200", "rule=fa", "epochs=2", *rates, "trials=4", "output=study"],
        "compare": ["compare", "sweep"],
        "report": ["report", "sweep"],
    }
    for what, words in commands.items():
        process = subprocess.run(
            ["prlimit", "--nofile=24", *LAUNCH, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        failures = outcome(process.returncode, process.stdout + process.stderr, (0,))
        yield f"24 open files: {what}", 1, len(failures), in_words(failures, "finishes")
