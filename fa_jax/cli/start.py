"""Starts the training of one run or a sweep that was composed, new or resumed."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from omegaconf import OmegaConf
from rich.console import Console

from fa_jax.cli import plan, resume, single, sweep
from fa_jax.cli.arguments import PROCESSES, Arguments
from fa_jax.cli.compose import Composition
from fa_jax.cli.errors import check_folders_of_jobs, check_names, check_vacant, check_writable, one_line_errors
from fa_jax.cli.processes import joined
from fa_jax.cli.terminal import cores
from fa_jax.cli.trust import LOGGER
from fa_jax.records.sources import code_key, versions
from fa_jax.training import cache, distributed
from fa_jax.training.announce import announced
from fa_jax.user.text import say


def start(arguments: Arguments, composition: Composition | None, words: Sequence[str]) -> int:
    """Trains what was composed; returns the exit code: 0, or 1 if a run of a sweep is not finished.

    Args:
      arguments: as parsed.
      composition: of the arguments; None: they name the folder of a run or a sweep to be resumed.
      words: the arguments as typed.

    Raises:
      BadOption: if a value is wrong, or there is nothing to resume.
    """
    prepare_process()
    given = {name: value for name, value in arguments.options.items() if name in PROCESSES}
    with joined(given) if given else contextlib.nullcontext():
        distributed.check_same("code", {name: code_key(described) for name, described in versions().items()})
        with one_line_errors():
            if composition is None:
                config_dirs = [] if arguments.config_dir is None else [arguments.config_dir]
                return _resume(arguments, arguments.options["resume"], config_dirs)
            return _start(arguments, composition, words)


def _resume(arguments: Arguments, folder: str, further: Sequence[str]) -> int:
    """Resumes what is in a folder, which trusted packages may be part of, and further ones."""
    return resume.resume(Path(folder), force="force" in arguments.options, trusted=[*arguments.trusted, *further])


def _start(arguments: Arguments, composition: Composition, words: Sequence[str]) -> int:
    text = "loading the data and building the networks"
    with contextlib.nullcontext() if arguments.show_config else announced(text):
        composition.build()
    if arguments.show_config:
        for run in composition.runs:
            print(OmegaConf.to_yaml({key: value for key, value in run.config.items() if key != "choices"}), end="")
        return 0
    if composition.is_sweep:
        check_names("hydra.sweep.dir", composition.folder)
        check_folders_of_jobs("hydra.sweep.subdir", [composition.folder / run.folder for run in composition.runs])
    distributed.check_same("options", [run.config for run in composition.runs])
    option = "hydra.sweep.dir" if composition.is_sweep else "hydra.run.dir"
    if arguments.options.get("resume") == "auto":
        below = Path(arguments.value_of(option) or "outputs")
        unfinished = distributed.broadcast(lambda: str(resume.find_unfinished(composition, below) or ""))
        if unfinished:  # what was just typed is trusted
            config_dirs = [] if arguments.config_dir is None else [arguments.config_dir]
            if arguments.dry_run:
                say(Console(), f"would resume {unfinished}; nothing was trained")
                return 0
            return _resume(arguments, unfinished, [LOGGER, *config_dirs])
    if arguments.dry_run:
        plan.show(composition, composition.folder)
        return 0
    is_typed = arguments.value_of(option) is not None
    with new_folder(option, composition.folder, is_typed=is_typed) as folder:
        if composition.is_sweep:
            record = sweep.Record(arguments.overrides, arguments.config_dir, len(composition.runs))
            return sweep.run(folder, composition, record, ["fa-jax", *words])
        single.train(composition.runs[0], folder, ["fa-jax", *words])
    return 0


@contextlib.contextmanager
def new_folder(option: str, path: Path, *, is_typed: bool) -> Iterator[Path]:
    """Yields the folder of a new run or sweep; an empty one is removed if nothing came of it.

    Args:
      option: for messages.
      path: of the folder.
      is_typed: whether the user chose it. Otherwise a number is appended if it exists.
    """

    def claim() -> str:
        if is_typed:
            check_writable(option, path)
            check_vacant(option, path)
            return str(path)
        check_writable(option, path.parent)
        numbered = (path.with_name(f"{path.name}_{number}") for number in itertools.count(2))
        for folder in itertools.chain([path], numbered):  # several may start within a second
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return str(folder)
        raise AssertionError

    folder = Path(distributed.broadcast(claim))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def prepare_process() -> None:
    """Turns on the compilation cache and makes each CPU core a JAX device.

    The environment may say how many devices there are.
    """
    cache.enable()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):  # raised if JAX is in use already, as in a test
            jax.config.update("jax_num_cpu_devices", cores())
