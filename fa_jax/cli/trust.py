"""The gate that configs pass which the user did not type: recorded ones, and those in a folder of configs.

A `_target_` can name any function, so such a config could do anything. It may call the factories that fa_jax's own
configs call and those of installed plug-ins, and the functions of packages that the user trusts. SECURITY.md has the
threat model.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf

from fa_jax.checks import BadOption
from fa_jax.cli.given import TARGET
from fa_jax.cli.groups import CONF, LISTED, config_folders
from fa_jax.cli.plugins import plugins
from fa_jax.user.code import imported, is_found, place_of

OPTAX = "optax"
"""The package of transformations that optimizers are made of; configs of plug-ins may name its functions."""
PLAIN = (str, int, float, bool, type(None))
"""The types of the values in a config; YAML tags can make others."""
VARIABLE = "FA_JAX_TRUST"
"""The environment variable that names packages to trust in every command, separated by commas."""
MODULE = "fa_jax.networks.module.module"
"""The factory that calls what its option `module` names."""
LOGGER = "logger"
"""The word that trusts the options of a recorded logger, which choose where metrics are sent."""
PER_RUN = ("runtime", "overrides", "mode", "searchpath")
PER_RUN += tuple(f"job.{name}" for name in ("name", "override_dirname", "id", "num", "config_name"))
"""The parts of Hydra's node that differ from run to run."""
LAUNCHER_OPTIONS = ("n_jobs", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
SWEEP_OPTIONS = ("hydra/launcher", "hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir")
SWEEP_OPTIONS += tuple(f"hydra.launcher.{name}" for name in LAUNCHER_OPTIONS)
"""The options of Hydra that the record of a sweep may set."""


class Origin(NamedTuple):
    """Where a config comes from that the user did not type."""

    name: str = "the config"
    """The name in messages, such as `its config.yaml`."""
    trusted: tuple[str, ...] = ()
    """Packages whose functions it may call too."""
    typed: tuple[str, ...] = ()
    """Overrides that the user typed; functions named there are their own."""
    from_python: bool = False
    """Whether it is opened from Python, where messages name arguments as they are written there."""

    def allowing(self, package: str) -> str:
        """Returns the argument that trusts a package."""
        return f'trust="{package}"' if self.from_python else f"trust={package}"


def check_config(config: Mapping[str, Any], origin: Origin) -> None:
    """Checks that a config has plain values and calls only trusted functions.

    Args:
      config: resolved, as plain containers.
      origin: of the config.

    Raises:
      BadOption: naming the first value that is not plain or would be resolved later, or the first function that is
        neither a factory of fa_jax's own configs nor trusted.
    """
    for key, value in _leaves(config):
        if not isinstance(key, str) or type(value) not in PLAIN:
            raise BadOption(f"{origin.name} has {key} of type {type(value).__name__}; values must be plain YAML")
        if "${" in f"{key}{value}":  # would be resolved only when objects are made
            raise BadOption(f"{origin.name} contains {value!r}, and interpolations from elsewhere are not resolved")
    targets = [value for key, value in _leaves(config) if key == "_target_"]
    targets += [node.get("module") for node in _nodes(config) if node.get("_target_") == MODULE]
    _check_targets([target for target in targets if not _is_typed(target, origin.typed)], origin)
    _check_logger(config, origin)


def check_hydra(name: str, node: DictConfig, pristine: DictConfig) -> None:
    """Checks that configs leave Hydra's own node alone, which could run any command, and name their choices.

    Args:
      name: of the origin.
      node: Hydra's node as it was composed.
      pristine: that of the typed overrides of Hydra alone, composed from fa_jax's configs alone.

    Raises:
      BadOption: naming the first value that differs, or the first choice that is a path out of its group.
    """
    for group, choice in node.runtime.choices.items():
        _check_choice(name, group, choice)
    # Much of the node is unknown before a run starts, so it is not resolved.
    usual, actual = (_flat(OmegaConf.to_container(tree, resolve=False)) for tree in (pristine, node))
    for option in sorted(usual.keys() | actual.keys()):
        is_allowed = any(option == prefix or option.startswith(f"{prefix}.") for prefix in PER_RUN)
        if not is_allowed and usual.get(option) != actual.get(option):
            raise BadOption(f"{name}: it sets hydra.{option}, which only the command line may set")


def check_config_dir(name: str, config_dir: str) -> None:
    """Raises `BadOption` if a folder has configs of Hydra itself."""
    if (Path(config_dir) / "hydra").exists():
        raise BadOption(f"{name}: it has configs of Hydra; only the command line may choose those")


def check_recorded_overrides(name: str, overrides: Sequence[str]) -> None:
    """Checks that the recorded overrides of a sweep set no more of Hydra than a sweep does.

    Raises:
      BadOption: naming the first such override.
    """
    for override in overrides:
        option = override.partition("=")[0].lstrip("+~")
        of_hydra = re.split(r"[./@]", option)[0] == "hydra"
        if override.startswith("-") or "${" in override or (of_hydra and option not in SWEEP_OPTIONS):
            raise BadOption(f"{name} has {override}, which only the command line may set")
        if (group := option.partition("@")[0]) in LISTED:  # Hydra does not report several choices of one group
            for choice in re.split(r"[\[\],'\"\s]+", override.partition("=")[2]):
                _check_choice(name, group, choice)


def _check_choice(name: str, group: str, choice: Any) -> None:
    """Raises `BadOption` if a choice is a path out of its group."""
    if isinstance(choice, str) and (PurePath(choice).is_absolute() or ".." in PurePath(choice).parts):
        raise BadOption(f"{name} chooses {group}={choice}, and a choice must lie in the folder of its group")


def check_folder(name: str, folder: Path) -> None:
    """Checks a folder to be written to: no symbolic link leads out of it, and there is no pipe to be waited for.

    Raises:
      BadOption: naming the first such entry.
    """
    inside = Path(os.path.realpath(folder))
    for path in sorted(folder.rglob("*")):
        entry = path.relative_to(folder)
        # W&B links to its logs elsewhere, from folders into which it writes only once.
        is_foreign = path.is_symlink() and "wandb" not in entry.parts[:-1]
        if is_foreign and not Path(os.path.realpath(path)).is_relative_to(inside):
            raise BadOption(f"{name}: {entry} is a symbolic link that leads out of the folder; copy it without links")
        if not (path.is_symlink() or path.is_file() or path.is_dir()):
            raise BadOption(f"{name}: {entry} is neither a file nor a folder; copy it without")


def factories() -> frozenset[str]:
    """Returns the names of all functions that fa_jax's own configs call."""
    return _targets(CONF)


def plugin_factories() -> set[str]:
    """Returns the names of all functions of their own, and of Optax, that the configs of installed plug-ins call."""
    return {
        str(target)
        for plugin in plugins(CONF)
        for target in _targets(plugin.folder)
        if _is_below(str(target), (plugin.package, OPTAX))
    }


@functools.cache
def _targets(folder: Path) -> frozenset[Any]:
    """Returns the `_target_`s of all configs in a folder."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
    targets = set()
    for path in folder.rglob("*.yaml"):
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), loader)
        except (OSError, ValueError, yaml.YAMLError) as problem:
            raise BadOption(f"{path} cannot be read: {' '.join(str(problem).split())}") from None
        targets |= {value for key, value in _leaves(content) if key == "_target_"}
    return frozenset(targets)


def _is_typed(target: Any, overrides: Sequence[str]) -> bool:
    """Returns whether an override names this function as its `_target_`, or this module of Flax."""
    named = re.compile(rf"(?:_target_|module)\s*[=:]\s*['\"]?{re.escape(str(target))}(?![\w.])")
    return any(named.search(override) for override in overrides)


def _check_targets(targets: Sequence[Any], origin: Origin) -> None:
    """Raises `BadOption` unless each target is a factory, or a function that a trusted package defines."""
    packages = (*origin.trusted, *trusted_everywhere())
    usual = {*factories(), *plugin_factories(), TARGET}
    unusual = [target for target in dict.fromkeys(map(str, targets)) if target not in usual]
    if refused := [target for target in unusual if not _is_below(target, packages)]:
        roots = {target.partition(".")[0] for target in refused}
        unknown = [
            f"there is no module {root}, installed or in the working folder" for root in roots if not is_found(root)
        ]
        hint = f" (and {'; '.join(sorted(unknown))})" if unknown else ""
        if any(target.startswith("__main__.") for target in refused):
            hint += " (__main__ was the script or notebook that trained; import the function where the run is opened)"
        verb = "which is" if len(refused) == 1 else "which are"
        raise BadOption(
            f"{origin.name} calls {' and '.join(refused)}, {verb} none of fa_jax's factories{hint}; "
            f"{origin.allowing('PACKAGE')} or the environment variable {VARIABLE}=PACKAGE allows the functions of a "
            "package"
        )
    for target in unusual:
        try:
            module = imported(target).__module__
        except Exception as problem:  # whatever the import of a package raises
            raise BadOption(f"{origin.name} calls {target}, which cannot be imported: {place_of(problem)}") from None
        if not _is_below(f"{module}.", packages):
            raise BadOption(
                f"{origin.name} calls {target}, which {module} defines; {origin.allowing(module)} allows it"
            )


def trusted_everywhere() -> tuple[str, ...]:
    """Returns the packages that the environment variable names."""
    return tuple(filter(None, os.environ.get(VARIABLE, "").split(",")))


def named_modules(overrides: Sequence[str], trusted: Sequence[str]) -> set[str]:
    """Returns the modules of the top level that typed overrides call, and those that are trusted."""
    calls = re.compile(r"(?:_target_|module)\s*[=:]\s*['\"]?([A-Za-z_]\w*)\.")
    called = {name for override in overrides for name in calls.findall(override)}
    return called | {package.partition(".")[0] for package in (*trusted, *trusted_everywhere())}


def _check_logger(config: Mapping[str, Any], origin: Origin) -> None:
    """Raises `BadOption` if a config sends metrics elsewhere than its logger does by default."""
    logger = config.get("logger")
    if not isinstance(logger, Mapping) or LOGGER in origin.trusted:
        return
    target = logger.get("_target_")
    paths = [path for folder in (CONF, *config_folders()) for path in (folder / "logger").glob("*.yaml")]
    configs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    usual = next((node for node in configs if isinstance(node, Mapping) and node.get("_target_") == target), None)
    if usual is None:  # of a trusted package
        return
    for option, value in logger.items():
        is_typed = any(override.lstrip("+").startswith(f"logger.{option}=") for override in origin.typed)
        if not is_typed and usual.get(option) != value:
            raise BadOption(f"{origin.name} sets logger.{option}={value}; {origin.allowing(LOGGER)} allows it")


def _nodes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yields every mapping in a config."""
    if isinstance(config, Mapping):
        yield config
    for value in config.values() if isinstance(config, Mapping) else config if isinstance(config, list) else ():
        yield from _nodes(value)


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _leaves(config: Any, key: Any = "") -> Iterator[tuple[Any, Any]]:
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
