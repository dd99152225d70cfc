"""Plug-ins: installed packages that add a folder of configs to fa_jax's own, by an entry point.

    [project.entry-points."fa_jax.configs"]
    mylab = "mylab.conf"                      the folder `conf` of the package `mylab`

Nothing of a plug-in is imported until a config calls it.
"""

import functools
import importlib.util
import sys
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import NamedTuple

from fa_jax.checks import BadOption

GROUP = "fa_jax.configs"
"""The group of the entry points."""


class Plugin(NamedTuple):
    """An installed package with a folder of configs."""

    name: str
    """The distribution with its version, for messages."""
    package: str
    """The package of the top level whose functions the configs may call."""
    folder: Path


def plugins(conf: Path) -> tuple[Plugin, ...]:
    """Returns the plug-ins that are installed.

    The working folder is not searched, although Python may have it on its path: it may come from anyone.

    Args:
      conf: the folder of fa_jax's own configs.

    Raises:
      BadOption: naming the plug-in, if its folder does not exist, has configs of Hydra itself, or has a config of the
        same name as fa_jax or another plug-in, which would never be read.
    """
    here = Path.cwd().resolve()
    return _installed(conf, tuple(path for path in sys.path if Path(path).resolve() != here))


@functools.lru_cache(maxsize=1)
def _installed(conf: Path, search_path: tuple[str, ...]) -> tuple[Plugin, ...]:
    plugins: dict[str, Plugin] = {}
    for distribution in distributions(path=list(search_path)):
        for entry in distribution.entry_points.select(group=GROUP):
            plugin = _plugin(distribution, entry)
            plugins.setdefault(f"{plugin.name} {entry.name}", plugin)  # the first on the path is the one that counts
    owners = {path.relative_to(conf): "fa_jax" for path in conf.rglob("*.yaml")}
    for plugin in plugins.values():
        for path in sorted(plugin.folder.rglob("*.yaml")):
            config = path.relative_to(plugin.folder)
            if config.parts[0] == "hydra":
                raise BadOption(f"{plugin.name}: it has configs of Hydra; only the command line may choose them")
            if (owner := owners.setdefault(config, plugin.name)) != plugin.name:
                raise BadOption(f"{plugin.name}: {owner} has a {config} too; give this one another name")
    return tuple(plugins.values())


def _plugin(distribution: Distribution, entry: EntryPoint) -> Plugin:
    """Returns the plug-in of an entry point, without importing it.

    Raises:
      BadOption: if there is no such folder.
    """
    name = f"the plug-in {distribution.name} {distribution.version}"
    package, *parts = entry.value.split(".")
    if not all(part.isidentifier() for part in (package, *parts)):
        raise BadOption(f"{name}: its entry point must name a folder of configs, such as mylab.conf; got {entry.value}")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    locations = [] if spec is None else list(spec.submodule_search_locations or ())
    folders = [folder for location in locations if (folder := Path(location, *parts)).is_dir()]
    if not folders:
        where = f"in {locations[0]}" if locations else f"since there is no package {package}"
        raise BadOption(f"{name}: there is no folder {entry.value} with its configs, {where}")
    return Plugin(name, package, folders[0])
