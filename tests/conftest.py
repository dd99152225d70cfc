"""What all tests share: several host devices, float64 where asked for, and a config as the command line composes it."""

import os
import sys
from pathlib import Path

import absl.logging
import hydra
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.cli import help as catalogue
from fa_jax.core import Batch

jax.config.update("jax_num_cpu_devices", 4)

# Nearly all the time of a test goes into compilation, half of it into optimizing code that runs for milliseconds.
# `XLA_FLAGS= pytest` tests the optimized code that users run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# What one test has compiled, no other need; those that start processes of their own hand it on to these.
CACHE = {
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / ".pytest_cache" / "jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
for name, value in CACHE.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

jax.devices()  # now: a test that calls the command line first would have it make other devices

# Absl, which Orbax logs through, keeps the stderr of its import, here one of pytest's, and closes it when logging is
# configured anew.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture
def float64():
    """Turns on double precision for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def compose():
    """Composes a config from overrides."""

    def of(*overrides):
        with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
            return hydra.compose("config", list(overrides))

    return of


def random_batch(inputs=(12,), outputs=4, size=7, seed=0, dtype=np.float32):
    """A batch of noise with one-hot targets."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(size, *inputs)).astype(dtype)
    y = np.eye(outputs, dtype=dtype)[random.integers(0, outputs, size)]
    return Batch(jnp.asarray(x), jnp.asarray(y), jax.random.key(seed))


def assert_trees_equal(a, b):
    """The same trees, bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a, b, **tolerance):
    """The same trees to a tolerance."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)
