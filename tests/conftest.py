"""What all tests share: several host devices, float64 on request, networks, rules, and a folder to run in."""

import contextlib
import functools
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import absl.logging
import flax
import hydra
import hydra.utils
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from experiments.residual_mlp import local_losses
from fa_jax import feedback
from fa_jax.cli.groups import CONF, LISTED, choices
from fa_jax.core import Batch
from fa_jax.initializers import QUICKLY_COMPILED
from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.training import announce

jax.config.update("jax_num_cpu_devices", 4)
announce.PATIENCE = 3600.0  # what is printed does not depend on how busy the machine is

# Most of a test's time is compilation, and two thirds of that optimize code that runs for milliseconds.
# `XLA_FLAGS= pytest` tests the optimized code that users run.
FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ.setdefault("XLA_FLAGS", FLAGS)
QUICKLY_COMPILED.clear()  # processes that tests start optimize how states and data are drawn: other last bits

# Tests share compiled programs, also with the processes that they start.
SETTINGS = {
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / ".pytest_cache" / "jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    # Names of modules and lines of source in programs, which nothing here reads, take a tenth of tracing and lowering.
    "jax_traceback_in_locations_limit": 0,
}
for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
flax.config.update("flax_profile", False)
os.environ["FLAX_PROFILE"] = "false"

jax.devices()  # now: a test that calls the command line first would make other devices

# The objects of imports stay, and tracing makes many that do: looking for garbage among them takes a tenth of the time.
gc.freeze()
gc.set_threshold(50_000, 20, 50)

# Absl, which Orbax logs through, keeps the stderr of its import, here one of pytest's, and closes it when logging is
# configured anew.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

WEIGHTS = {"init": "fan_uniform", "init_scale": 1.0, "density": 1.0, "bias_init": "constant", "bias_scale": None}
MLP = {"activation": "tanh", "biases": True, "norm": "none", "input_dropout": 0.0, **WEIGHTS}
"""Options of a plain `mlp`, without `hidden` and `dropout`."""
WITHOUT_BIASES = {"biases": False, "bias_init": "constant", "bias_scale": None}
RANDOM_WEIGHTS = {"init": "fan_normal", "init_scale": 1.2, "density": 1.0, "bias_init": "uniform", "bias_scale": 0.3}
CNN = {
    "topology": "conv4x3p3-conv5x3v-6",
    "shared_weights": True,
    "activation": "tanh",
    "biases": True,
    "norm": "none",
    "pooling": None,
    "pool_stride": None,
    "norm_dense": False,
    "average_positions": False,
    "hidden_position": "after_pooling",
    "dropout": 0.0,
    "input_dropout": 0.0,
    **RANDOM_WEIGHTS,
}
"""Options of a small `cnn` on 8x8 images."""
RESNET = {
    "depth": 8,
    "width": 2,
    "activation": "tanh",
    "norm": "none",
    "normed_shortcuts": None,
    "stage": "block",
    "dense": [],
    **RANDOM_WEIGHTS,
    **WITHOUT_BIASES,
}
"""Options of a small `resnet`."""
TRANSFORMER = {
    "patch": 2,
    "width": 4,
    "blocks": 2,
    "heads": 2,
    "mlp_width": 5,
    "activation": "gelu",
    "biases": True,
    **RANDOM_WEIGHTS,
}
"""Options of a small `transformer`."""
RESIDUAL_MLP = {
    "width": 4,
    "blocks": 2,
    "block_width": 5,
    "terminal_norm": True,
    "activation": "gelu",
    "biases": True,
    **RANDOM_WEIGHTS,
}
"""Options of a small `residual_mlp`."""
RECURRENT = {
    "cell": "gru",
    "hidden": [4, 3],
    "activation": "tanh",
    "pooling": "last",
    "recurrent_scale": 1.0,
    **RANDOM_WEIGHTS,
}
"""Options of a small `recurrent` network."""
DRAWN = {"distribution": "normal", "scale": 0.7, "density": 0.8}
"""Options of feedback that is drawn, sparse."""

SECOND_PASS = ("pepita", "mirrored_pepita")
"""Rules whose updates are those of a second pass on modulated inputs; their hidden layers learn slowly at first."""
SETTLING = ("predictive_coding",)
"""Rules whose layers learn from activities that have moved away from those of the forward pass."""


def layerwise(**options):
    """An `init_feedback` for rules that send the signal back layer by layer."""
    return functools.partial(feedback.layerwise, **{**DRAWN, "rank": None, "fan": None, **options})


def magnitudes(**options):
    """An `init_feedback` for sign symmetry with random magnitudes."""
    return functools.partial(feedback.magnitudes, **{**DRAWN, "rank": None, "fan": None, **options})


def direct(**options):
    """An `init_feedback` for rules that send the signal directly to every hidden layer."""
    return functools.partial(
        feedback.direct, **{**DRAWN, "rank": None, "shared": False, "shared_positions": False, **options}
    )


def first_layer(**options):
    """An `init_feedback` for indirect feedback alignment."""
    return functools.partial(feedback.first_layer, **{**DRAWN, "rank": None, **options})


def between_states(**options):
    """An `init_feedback` for FA by the recipe of 2026, from one hidden state to the one below."""
    given = {"distribution": "fan_normal", "scale": 1.0, "density": 1.0, "rank": None, "fan": None, **options}
    return functools.partial(local_losses.between_states, **given)


@functools.cache
def rule_factory(name):
    """The factory of a rule with the options of its YAML, its `init_feedback` included."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", ["task=digits", f"rule={name}"])
    factory = hydra.utils.instantiate(config.rule, _convert_="all")
    if config.get("feedback") is None:
        return factory
    return functools.partial(factory, init_feedback=hydra.utils.instantiate(config.feedback, _convert_="all"))


WITHOUT_DROPOUT = ("forward_forward", "recurrent_forward_forward", "target_propagation", "counter_current")
WITHOUT_DROPOUT += ("fixed_weight_target_propagation", "scff", "equilibrium_propagation")
"""Rules that are not defined with dropout."""


def make_rule(name, *, hidden=(9, 8), dropout=0.0, loss=None, **options):
    """A small `mlp` and a rule on it with the options of its YAML."""
    dropout = 0.0 if name in WITHOUT_DROPOUT else dropout
    if name.endswith("forward_forward") or name == "scff":  # is defined for ReLU units alone
        options = {"activation": "relu", **options}
    network = mlp((12,), 4, hidden=list(hidden), dropout=dropout, **{**MLP, **options})
    return network, rule_factory(name)(network, (loss or cross_entropy()).value)


def compiled(rule):
    """A rule whose functions are compiled, each as a whole: sooner done than its operations one by one.

    Its `init` is not: drawing random numbers compiles slowly, and all rules share the draws of one shape.
    """

    def jit(function):
        return function and jax.jit(function)

    measure = rule.extras.measure and rule.extras.measure._replace(compute=jit(rule.extras.measure.compute))
    extras = rule.extras._replace(signals=jit(rule.extras.signals), measure=measure)
    updates, learn = jit(rule.updates), jit(rule.learn)
    return rule._replace(updates=updates, learn=learn, predict=jit(rule.predict), extras=extras)


@functools.cache
def compiled_rule(name, dropout=0.0, hidden=(9, 8)):
    """That of `make_rule`, of which each function is compiled once for all tests that call it."""
    if dropout and name in WITHOUT_DROPOUT:
        return compiled_rule(name, hidden=hidden)
    network, rule = make_rule(name, hidden=hidden, dropout=dropout)
    return network, compiled(rule)


@functools.cache
def initial_state(name, dropout=0.0, hidden=(9, 8)):
    """The initial params and feedback of `compiled_rule`, in single precision."""
    with jax.enable_x64(False):
        return compiled_rule(name, dropout, hidden)[1].init(jax.random.key(0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Lets one process run all tests of a file, which share fixtures, rules and compiled functions."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture
def float64():
    """Turns on double precision for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def compose():
    """Composes a config from overrides."""

    def compose_config(*overrides):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("config", list(overrides))

    return compose_config


@functools.cache
def option_names():
    """The names of all options that need no data: those in the YAML of each choice of each group."""
    from fa_jax.records.options import IRRELEVANT, OFF, options

    groups = {group: choices(group) for group in LISTED if group not in ("task", "experiment", "logger")}
    groups["task"] = ("linear", "nonlinear", "digits")
    paths = [CONF / group / f"{choice}.yaml" for group, valid in groups.items() for choice in valid]
    names = {*IRRELEVANT, *OFF}
    for path in (CONF / "config.yaml", *paths):
        text = path.read_text()
        config = {name: node for name, node in yaml.safe_load(text).items() if name not in ("defaults", "hydra")}
        is_global = text.startswith("# @package _global_") or path.parent == CONF
        for part in () if is_global else reversed(path.parent.relative_to(CONF).parts):
            config = {part: config}
        names |= {name for name in options(config) if not name.endswith("_")}
    names |= {f"feedback_{name}" for name in names if name.startswith("optimizer.")}
    return tuple(sorted(names))


@pytest.fixture
def stand_in_images(monkeypatch):
    """Replaces the images of TFDS by a few thousand black ones, with the shapes and classes of the data set."""
    from fa_jax.cli import build
    from fa_jax.tasks import tfds

    def read(dataset, data_dir):
        del data_dir
        shape, classes = tfds.DATASETS[dataset]
        return {
            split: (np.zeros((n, *shape), np.uint8), np.arange(n, dtype=np.int32) % classes)
            for split, n in (("train", 12_000), ("test", 2_000))
        }

    monkeypatch.setattr(tfds, "read", read)
    build._task.cache_clear()
    yield
    build._task.cache_clear()


@contextlib.contextmanager
def restored_logging():
    """Restores the root logger at the end."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        handler.close()
    root.setLevel(level)
    root.handlers[:] = handlers


@contextlib.contextmanager
def empty_figures():
    """While entered, figures are saved as empty files: drawing one takes longer than a short training."""

    def save(figure, path, formats=("png", "pdf"), options=None):
        for suffix in formats:
            path.with_name(f"{path.name}.{suffix}").touch()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fa_jax.reports.figures.save", save)
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    """An empty working folder, in which the command line saves empty figures, unless the test is marked `draws`."""
    monkeypatch.chdir(tmp_path)
    draws = request.node.get_closest_marker("draws") is not None
    with restored_logging(), contextlib.nullcontext() if draws else empty_figures():
        yield tmp_path


CUT_MNIST = Path(__file__).parent / "fixtures" / "tensorflow_datasets"
"""A TFDS data directory with the first 160 training and 128 test examples of MNIST."""


def start(words, **options):
    """Starts `fa-jax` in a separate process, without its output, and returns the process."""
    return subprocess.Popen([sys.executable, "-m", "fa_jax", *words], stdout=subprocess.DEVNULL, **options)


def wait_until(condition, seconds=120, process=None):
    """Waits until a condition holds, for at most so many seconds, or until a process ends."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until and (process is None or process.poll() is None):
        time.sleep(0.05)


def kill_at_random(folder, words, delays):
    """Trains to the end a run in `cut`, which is killed after each delay, in seconds of training, and resumed.

    The first command is `words`; if the run exists already, they are `["resume=cut"]`.
    """
    status, metrics = folder / "cut" / "status.json", folder / "cut" / "metrics.csv"
    for delay in delays:
        process, rows = start(words), metrics.read_text() if metrics.exists() else ""

        def is_training(process=process, rows=rows):
            is_started = status.exists() and json.loads(status.read_text())["pid"] == process.pid
            return is_started and metrics.read_text() not in ("", rows)

        wait_until(is_training, process=process)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        words = ["resume=cut"]
        if json.loads(status.read_text())["status"] == "finished":
            return
    assert start(words).wait() == 0


def random_batch(inputs=(12,), outputs=4, size=7, seed=0, dtype=np.float32):
    """A batch of noise with one-hot targets."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(size, *inputs)).astype(dtype)
    y = np.eye(outputs, dtype=dtype)[random.integers(0, outputs, size)]
    return Batch(jnp.asarray(x), jnp.asarray(y), jax.random.key(seed))


def filled(shapes, seed=0, scale=0.5):
    """A tree of normal noise in the shapes of a tree, such as `jax.eval_shape(rule.init, key)`.

    For tests in which it does not matter how params and feedback are drawn: `init` takes seconds to compile.
    """
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(scale * random.normal(size=s.shape), s.dtype), shapes)


def to_float64(tree):
    """A tree of JAX arrays in double precision."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)


def assert_trees_equal(a, b):
    """Asserts that two trees are equal bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a, b, **tolerance):
    """Asserts that two trees are equal to a tolerance."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_same_runs(folder, other):
    """Asserts that two finished runs have the same metrics, final params and summary, bit for bit, the cost aside."""
    from fa_jax.records.reader import read_checkpoint, read_run

    assert (folder / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert_trees_equal(*(read_checkpoint(read_run(path)) for path in (folder, other)))
    summaries = [json.loads((path / "summary.json").read_text()) for path in (folder, other)]
    assert all(summary.pop("cost") for summary in summaries)
    assert summaries[0] == summaries[1]
    assert not (other / "resume").exists()
