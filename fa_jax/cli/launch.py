"""What `fa-jax` trains: the arguments are composed, and what is wrong with them is said, before JAX is imported."""

import contextlib
from collections.abc import Sequence

import hydra

from fa_jax.checks import BadOption
from fa_jax.cli import results
from fa_jax.cli.arguments import PROCESSES, Arguments, parse
from fa_jax.cli.compose import compose
from fa_jax.cli.errors import one_line_errors
from fa_jax.cli.groups import CONF
from fa_jax.cli.terminal import sigterm_interrupts
from fa_jax.training.announce import announced


def train(words: Sequence[str]) -> int:
    """Trains what the arguments ask for; returns the exit code: 0, or 1 if a run of a sweep is not finished."""
    arguments = parse(words)
    sigterm_interrupts()
    if arguments.for_hydra:
        return _hydra_itself()
    target, composition = arguments.options.get("resume"), None
    if target in (None, "auto"):
        waiting = contextlib.nullcontext() if arguments.show_config else announced("composing the configs")
        with waiting, one_line_errors():
            composition = compose(arguments)
    elif arguments._replace(options={}, config_dir=None) != Arguments([], {}):
        further = " ".join(word for word in words if word.partition("=")[0] not in arguments.options)
        raise BadOption(f"takes all options from the folder; got also {further}", f"resume={target}")
    is_sweep = composition is not None and composition.is_sweep
    trains = not (arguments.show_config or arguments.dry_run or target or set(arguments.options) & set(PROCESSES))
    with results.ahead("sweep" if is_sweep else "run") if trains else contextlib.nullcontext():
        from fa_jax.cli.start import start  # imports JAX, which takes a second

        return start(arguments, composition, words)


def _hydra_itself() -> int:
    """Lets Hydra handle the command line, for flags such as `--shell-completion`."""
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda config: None)()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
