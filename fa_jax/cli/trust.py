"""Restricts the functions that a config written by others may call.

A `_target_` can name any function, so a config from elsewhere could do anything. The factories of fa_jax and
Optax are allowed, and the modules given by `trust=`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra.utils
from omegaconf import DictConfig, OmegaConf

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import Arguments

FACTORIES = ("rules", "networks", "tasks", "metrics", "feedback", "losses", "optimizers", "loggers")
"""The modules of fa_jax whose functions a config calls; others start programs or write files."""
TRUSTED = (*(f"fa_jax.{module}" for module in FACTORIES), "optax")
PER_RUN = ("runtime", "overrides", "mode", "job.name", "job.override_dirname", "job.id", "job.num", "job.config_name")
"""The parts of Hydra's node that differ from run to run."""
LAUNCHER_OPTIONS = ("n_jobs", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
SWEEP_OPTIONS = ("hydra/launcher", "hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir")
SWEEP_OPTIONS += tuple(f"hydra.launcher.{name}" for name in LAUNCHER_OPTIONS)
"""The options of Hydra that the record of a sweep may set."""


def check_trusted(origin: str, config: Mapping[str, Any], *, added: Sequence[str] = ()) -> None:
    """Checks that a config calls only trusted functions.

    Args:
      origin: of the config, for the message, such as `its config.yaml`.
      config: as plain containers.
      added: packages or modules that are trusted too.

    Raises:
      BadOption: naming the first function that is not trusted, or text that would be resolved later.
    """
    trusted = (*TRUSTED, *added)
    for key, value in _leaves(config):
        if "${" in f"{key}{value}":  # would be resolved only when objects are made
            raise BadOption(f"{origin} contains {value!r}, and interpolations from elsewhere are not resolved")
        if key == "_target_" and not _is_trusted(value, trusted):
            raise BadOption(
                f"{origin} calls {value}, which is not part of fa_jax's {', '.join(FACTORIES)} or of optax; "
                "trust=PACKAGE allows it"
            )


def check_hydra_node(arguments: Arguments, node: DictConfig, pristine: DictConfig) -> None:
    """Checks that configs from `--config-dir` leave Hydra's own node alone, which could run any command.

    Raises:
      BadOption: naming the first value that differs.
    """
    origin = f"--config-dir={arguments.config_dir}"
    if (Path(arguments.config_dir or "") / "hydra").exists():
        raise BadOption(f"{origin}: it has configs of Hydra; only the command line may choose those")
    typed = [
        override.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".") for override in arguments.overrides
    ]
    allowed = (*PER_RUN, *(name.removeprefix("hydra.") for name in typed if name.startswith("hydra.")))
    # Much of the node is unknown before a run starts, so it is not resolved.
    usual, actual = (_flat(OmegaConf.to_container(one, resolve=False)) for one in (pristine, node))
    for name in usual.keys() | actual.keys():
        is_allowed = any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed)
        if not is_allowed and usual.get(name) != actual.get(name):
            raise BadOption(f"{origin}: it sets hydra.{name}, which only the command line may")


def check_recorded_overrides(origin: str, overrides: Sequence[str]) -> None:
    """Checks that the recorded overrides of a sweep set nothing with which functions could be called.

    Raises:
      BadOption: naming the first such override.
    """
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        of_hydra = re.split(r"[./@]", name)[0] == "hydra"
        calls = override.startswith("-") or "_target_" in override or "${" in override
        if calls or (of_hydra and name not in SWEEP_OPTIONS):
            raise BadOption(f"{origin} has {override}, which only the command line may say")


def _is_trusted(target: Any, trusted: Sequence[str]) -> bool:
    """Returns whether a target is a function that a trusted module defines, and not merely imports."""
    if not isinstance(target, str) or not _is_below(target, trusted):
        return False
    try:
        return _is_below(f"{hydra.utils.get_object(target).__module__}.", trusted)
    except Exception:  # whatever a wrong name raises
        return False


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _leaves(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf value with its key; the key of a list is that of its values."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _leaves(value, name)
    elif isinstance(config, list):
        for value in config:
            yield from _leaves(value, key)
    else:
        yield key, config


def _flat(content: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(content, dict) or not content:
        return {prefix.removesuffix("."): repr(content)}
    return {k: v for key, value in content.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
