"""Runs by the folder: what an experiment's script trains, once, and where its numbers come from."""

import subprocess
import sys
from pathlib import Path

from fa_jax.records.reader import Run, read_run


def trained(folder: Path, *words: str) -> Run:
    """Returns the run in a folder, trained to its end first where it has not been.

    Args:
      folder: of the run; one that was cut off there goes on from its checkpoint.
      *words: what `fa-jax` is told, but for the folder.

    Raises:
      subprocess.CalledProcessError: if `fa-jax` ends in an error.
      ValueError: if the folder holds a run that was told something else.
    """
    there = (folder / "status.json").exists()
    if there:
        told = {word for word in read_run(folder).environment["command"][1:] if not word.startswith("hydra.run.dir=")}
        if told != set(words):
            other = " ".join(sorted(told ^ set(words)))
            raise ValueError(f"{folder} holds a run of other options ({other}); move it away to train this one")
    if not is_trained(folder):
        command = ["-m", "fa_jax", f"resume={folder}"] if there else ["-m", "fa_jax", *words, f"hydra.run.dir={folder}"]
        print(" ".join(["fa-jax", *command[2:]]), flush=True)
        subprocess.run([sys.executable, *command], check=True)
    return read_run(folder)


def is_trained(folder: Path) -> bool:
    """Whether a folder holds a run that came to its end."""
    return (folder / "status.json").exists() and read_run(folder).status["status"] in ("finished", "diverged")


def provenance(run: Run) -> str:
    """Returns when, on what machine, with which JAX and from which commit a run was made, in one line."""
    made = run.environment
    machine = f"{made['processor']}, {made['cores']} cores"
    return f"{made['time']}, {machine}, jax {made['packages']['jax']}, commit {(made['commit'] or 'unknown')[:8]}"
