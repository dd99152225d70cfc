"""Hydra's global state, borrowed for the time of a composition."""

import contextlib
from collections.abc import Iterator

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase

from fa_jax.cli.groups import CONF


@contextlib.contextmanager
def initialized() -> Iterator[None]:
    """While entered, Hydra composes configs from fa_jax's folder; afterwards it is as it was.

    A program that is itself an application of Hydra can therefore use fa_jax.
    """
    state, version = GlobalHydra.instance(), VersionBase.instance()
    previous, previous_base = state.hydra, version.version_base
    state.clear()
    try:
        hydra.initialize_config_dir(str(CONF), version_base="1.3")
        yield
    finally:
        state.hydra, version.version_base = previous, previous_base
