"""Starts the training of one run or a sweep, new or resumed."""

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
import jax
from omegaconf import OmegaConf

from fa_jax.checks import BadOption
from fa_jax.cli import resume, single, sweep
from fa_jax.cli.arguments import Arguments, parse
from fa_jax.cli.compose import compose
from fa_jax.cli.errors import check_folders_of_jobs, check_names, check_vacant, check_writable, one_line_errors
from fa_jax.cli.groups import CONF
from fa_jax.cli.trust import LOGGER
from fa_jax.records.environment import environment
from fa_jax.training import cache, distributed


def train(words: Sequence[str]) -> int:
    """Trains what the arguments ask for; returns the exit code: 0, or 1 if a run of a sweep is not finished."""
    arguments = parse(words)
    prepare_process()
    processes = {name: value for name, value in arguments.options.items() if name in distributed.OPTIONS}
    with distributed.joined(processes) if processes else contextlib.nullcontext():
        current = environment()
        distributed.check_same("code", [current["commit"], current["packages"]])
        with one_line_errors(arguments.overrides):
            return _train(arguments, words)


def _train(arguments: Arguments, words: Sequence[str]) -> int:
    if arguments.for_hydra:
        return _hydra_itself()
    target, force = arguments.options.get("resume"), "force" in arguments.options
    if target not in (None, "auto"):
        if arguments._replace(options={}, config_dir=None) != Arguments([], {}):
            raise BadOption(f"takes all options from the folder; got also {' '.join(words)}", f"resume={target}")
        own = [] if arguments.config_dir is None else [arguments.config_dir]
        return resume.resume(Path(target), force=force, trusted=[*arguments.trusted, *own])
    composition = compose(arguments)
    if arguments.show_config:
        for run in composition.runs:
            print(OmegaConf.to_yaml({key: value for key, value in run.config.items() if key != "choices"}), end="")
        return 0
    if composition.is_sweep:
        check_names("hydra.sweep.dir", composition.folder)
        check_folders_of_jobs("hydra.sweep.subdir", [composition.folder / run.folder for run in composition.runs])
    distributed.check_same("options", [run.config for run in composition.runs])
    option = "hydra.sweep.dir" if composition.is_sweep else "hydra.run.dir"
    if target == "auto":
        below = Path(arguments.value_of(option) or "outputs")
        unfinished = distributed.broadcast(lambda: str(resume.find_unfinished(composition, below) or ""))
        if unfinished:  # what was just typed is trusted
            trusted = [LOGGER, *arguments.trusted, *([] if arguments.config_dir is None else [arguments.config_dir])]
            return resume.resume(Path(unfinished), force=force, trusted=trusted)
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


def _hydra_itself() -> int:
    """Lets Hydra handle the command line, for flags such as `--shell-completion`."""
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda config: None)()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def prepare_process() -> None:
    """Makes SIGTERM an interrupt, turns on the compilation cache, and makes each CPU core a JAX device.

    The environment may say how many devices there are.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    cache.enable()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):  # raised if JAX is in use already, as in a test
            jax.config.update("jax_num_cpu_devices", sweep.cores())
