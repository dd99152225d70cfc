"""Which functions a config may call that was not written by whoever runs it: one in a run's folder, or elsewhere.

A `_target_` can name any function there is, so opening somebody's config could do anything. What fa_jax itself needs is
allowed, and what the user adds with `trust=`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hydra.utils

from fa_jax.checks import BadOption

FACTORIES = ("rules", "networks", "tasks", "metrics", "losses", "optimizers", "loggers")
"""The modules of fa_jax whose functions a config calls; others start programs or write files."""
TRUSTED = (*(f"fa_jax.{module}" for module in FACTORIES), "optax")


def check_trusted(what: str, config: Mapping[str, Any], *, added: Sequence[str] = ()) -> None:
    """Refuses a config that calls what is not trusted.

    Args:
      what: what it is to be called in the message, such as `its config.yaml`.
      config: as plain containers.
      added: packages or modules that are trusted too.

    Raises:
      BadOption: naming the first function that is not of a trusted module, or text that would be resolved later.
    """
    trusted = (*TRUSTED, *added)
    for key, value in _leaves(config):
        # It would be resolved only where things are made, to whatever it likes.
        if "${" in f"{key}{value}":
            raise BadOption(f"{what} holds {value!r}, which is not to be resolved where it comes from elsewhere")
        if key == "_target_" and not _is_trusted(value, trusted):
            raise BadOption(
                f"{what} calls {value}, which is not of fa_jax's {', '.join(FACTORIES)} or optax; "
                "trust=PACKAGE allows what you trust"
            )


def _is_trusted(target: Any, trusted: Sequence[str]) -> bool:
    """Whether a target is a function that a trusted module defines, not merely one that it imports."""
    if not isinstance(target, str) or not _is_below(target, trusted):
        return False
    try:
        return _is_below(f"{hydra.utils.get_object(target).__module__}.", trusted)
    except Exception:  # whatever a name that leads nowhere raises
        return False


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _leaves(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a config that is no container, with the key that it, or the list it is in, stands under."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _leaves(value, name)
    elif isinstance(config, list):
        for value in config:
            yield from _leaves(value, key)
    else:
        yield key, config
