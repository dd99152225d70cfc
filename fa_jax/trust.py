"""Which functions a config may call that was not written by whoever runs it: one in a run's folder, or elsewhere.

A `_target_` can name any function there is, so opening somebody's config could do anything. What fa_jax itself needs is
allowed, and what the user adds with `trust=`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hydra.utils

from fa_jax.options import BadOption

FACTORIES = ("rules", "networks", "tasks", "metrics", "losses", "optimizers", "trackers")
"""The modules of fa_jax whose functions a config calls; others start programs or write files."""
TRUSTED = (*(f"fa_jax.{module}" for module in FACTORIES), "optax")
OF_HYDRA = ("hydra._internal.core_plugins", "hydra_plugins", "fa_jax.sweeps", "logging")
"""What the `hydra` node of a config may call besides: launchers, sweepers, the comparison, the handlers of a log."""


def check_trusted(what: str, config: Mapping[str, Any], *, added: Sequence[str] = (), hydra: bool = False) -> None:
    """Refuses a config that calls what is not trusted.

    Args:
      what: what it is to be called in the message, such as `its config.yaml`.
      config: as plain containers.
      added: packages or modules that are trusted too.
      hydra: whether this is the `hydra` node.

    Raises:
      BadOption: naming the first function that is not of a trusted module.
    """
    trusted = (*TRUSTED, *added, *(OF_HYDRA if hydra else ()))
    for target in _targets(config):
        if not _is_trusted(target, trusted):
            raise BadOption(
                f"{what} calls {target}, which is not of fa_jax's {', '.join(FACTORIES)} or optax; "
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


def _targets(config: Any) -> Iterator[Any]:
    """Every function that a config calls: by `_target_`, or as a handler of a log."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key in ("_target_", "()") or (key == "class" and isinstance(value, str)):
                yield value
            else:
                yield from _targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from _targets(value)
