"""Writing a run's folder while the run goes on, so that a kill at any moment leaves it readable.

config.yaml        the resolved config
environment.json   versions, devices, commit, command
metrics.csv        a row per seed and evaluation
status.json        running, finished, interrupted, diverged or failed, with the reason
summary.json       the last evaluation over seeds, and the cost
checkpoint/        params and feedback, by Orbax
"""

import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import OmegaConf

from fa_jax.checks import BadOption
from fa_jax.records.reader import KEYS
from fa_jax.records.statistics import has_diverged, is_logarithmic, summarise, summarise_logarithm

PACKAGES = ("fa-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "hydra-core", "numpy", "scipy")


class Writer:
    """The folder of a run in progress."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        command: Sequence[str] | None = None,
        reached: Mapping[int, int] | None = None,
    ):
        """Makes the folder, and writes config, environment and status.

        Args:
          folder: where to.
          config: the resolved config, with `choices`.
          command: what was typed; None: what this process was started with.
          reached: given where a run in this folder is continued: seed -> the step from which on it is trained again.
            Its later rows are taken away, and those of seeds that are not named.

        Raises:
          BadOption: if a new run's folder holds one already.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] | None = None
        self._last: dict[int, tuple[int, dict[str, float]]] = {}
        self._losses: dict[int, list[float]] = {}
        if reached is not None:
            self._continue(reached)
            return
        metrics = folder / "metrics.csv"
        # A run that was killed before it had a status has left this file empty.
        if (folder / "status.json").exists() or (metrics.exists() and metrics.stat().st_size):
            raise BadOption(f"hydra.run.dir={folder}: this folder already holds a run; choose another one")
        self._metrics = metrics.open("w", buffering=1)
        OmegaConf.save(OmegaConf.create(dict(config)), folder / "config.yaml")
        write_json(folder / "environment.json", environment(command))
        self.status("running")

    def _continue(self, reached: Mapping[int, int]) -> None:
        """Takes up a run where its checkpoints stand."""
        path = self.folder / "metrics.csv"
        # A kill may have left half a last line.
        header, *lines = (path.read_text() if path.exists() else "").rpartition("\n")[0].split("\n")
        kept = [line for line in lines if int(line.split(",")[1]) <= reached.get(int(line.split(",")[0]), -1)]
        if kept:
            self._columns = header.split(",")[len(KEYS) :]
        for line in kept:
            seed, step, _, _, *numbers = line.split(",")
            # Nine digits tell single-precision numbers apart.
            values = dict(zip(self._columns or [], (float(np.float32(n)) for n in numbers), strict=True))
            self._note(int(seed), int(step), values)
        beside = path.with_suffix(".tmp")
        beside.write_text("".join(f"{line}\n" for line in ([header, *kept] if kept else [])))
        beside.replace(path)
        self._metrics = path.open("a", buffering=1)
        before = json.loads((self.folder / "environment.json").read_text())
        again = [*before.pop("continued", []), environment()]
        write_json(self.folder / "environment.json", {**before, "continued": again})
        self.status("running")

    def _note(self, seed: int, step: int, values: dict[str, float]) -> None:
        self._losses.setdefault(seed, []).append(values["test_loss"])
        self._last[seed] = step, values

    def flush(self) -> None:
        """Makes sure that the rows so far are on the disk."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())

    def status(self, status: str, reason: str | None = None) -> None:
        """Sets the status, with a one-line reason where something went wrong."""
        write_json(
            self.folder / "status.json", {"status": status, "reason": reason, "time": _now(), "pid": os.getpid()}
        )

    def evaluation(
        self, seeds: Sequence[int], step: int, examples: int, epoch: float, metrics: Mapping[str, np.ndarray]
    ) -> None:
        """Appends one row a seed; `metrics` holds one number a seed by name."""
        if self._columns is None:
            self._columns = sorted(metrics, key=_place)
            self._metrics.write(",".join((*KEYS, *self._columns)) + "\n")
        rows = []
        for i, seed in enumerate(seeds):
            values = {name: float(metrics[name][i]) for name in self._columns}
            self._note(seed, step, values)
            rows.append(
                ",".join([str(seed), str(step), str(examples), f"{epoch:g}", *(f"{v:.9g}" for v in values.values())])
            )
        self._metrics.write("\n".join(rows) + "\n")

    @property
    def diverged(self) -> list[int]:
        """Seeds that diverged, by `has_diverged`."""
        return sorted(seed for seed, losses in self._losses.items() if has_diverged(losses))

    def summary(self, cost: Mapping[str, float]) -> dict[str, Any]:
        """Writes and returns the summary of the last evaluation; diverged seeds are named, but not in the means.

        Where a run ends before all groups of seeds have come as far, it is over those that came furthest.
        """
        last = max((step for step, _ in self._last.values()), default=0)
        there = {seed: values for seed, (step, values) in self._last.items() if step == last}
        diverged = [seed for seed in self.diverged if seed in there]
        healthy = [values for seed, values in there.items() if seed not in diverged]
        final = {}
        for name in self._columns or []:
            values = [one[name] for one in healthy]
            final[name] = summarise(values)._asdict()
            if is_logarithmic(name):
                final[name]["geometric"] = summarise_logarithm(values)._asdict()
        summary = {
            "seeds": list(there),
            "diverged_seeds": diverged,
            "step": last,
            "interval": "95 %, Student's t over seeds; geometric: of the logarithm",
            "final": final,
            "cost": dict(cost),
        }
        write_json(self.folder / "summary.json", summary)
        return summary

    def checkpoint(self, tree: Any) -> None:
        """Saves a tree of arrays with the seeds in front."""
        with checkpointer() as orbax:
            # It may be there already, where a run was killed just before its end.
            orbax.save((self.folder / "checkpoint").absolute(), tree, force=True)

    def close(self) -> None:
        """Closes the file of metrics."""
        self._metrics.close()


def checkpointer() -> Any:
    """Returns a checkpointer of Orbax's, which asks nothing of other processes than the first."""
    import orbax.checkpoint  # a second's import, once there is something to save

    alone = orbax.checkpoint.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    return orbax.checkpoint.StandardCheckpointer(multiprocessing_options=alone)


def write_json(path: Path, content: Any) -> None:
    """Writes a file that is whole at every moment; numbers that are not finite become null."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(_finite(content), indent=1) + "\n")
    beside.replace(path)


def environment(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns what a number depends on besides the config: versions, devices, commit, time, and the command.

    Args:
      command: what was typed; None: what this process was started with.
    """
    return {
        "time": _now(),
        "command": list(command or sys.argv),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _place(column: str) -> tuple[int, str, int]:
    """Orders columns: scores of the test examples first, then the other scores, then angles and norms by layer."""
    kind, _, layer = column.rpartition("_")
    scores = ("test", "validation", "train")
    first = column.partition("_")[0]
    rank = scores.index(first) if first in scores else len(scores) + ("angle" not in kind)
    return rank, kind if layer.isdigit() else column, int(layer) if layer.isdigit() else 0


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The commit of the checkout that the code runs from, with a digest of changes since; None outside one."""
    checkout = Path(__file__).parents[2]

    def git(*words):
        done = subprocess.run(
            ["git", "-C", str(checkout), *words], capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        # An installed package may lie in the .venv of somebody else's repository.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None
        changes = git("status", "--porcelain") and git("diff", "HEAD")
        return git("rev-parse", "HEAD") + (f"+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
