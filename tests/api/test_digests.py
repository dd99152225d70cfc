"""Objects of the user are recognised by their code and values, whatever the module is called that holds them."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import jax
import optax
import pytest

import fa_jax
from fa_jax.cli.digests import digest_of

SOURCE = """
import flax.linen as nn
import jax
import numpy as np

from fa_jax.core import Rule
from fa_jax.primitives import Hidden


class Block(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Dense(self.width)(x))


class Net(Block):
    act: object = nn.relu
    last: nn.Module = Block(2)

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(Hidden()(self.act(super().__call__(x))))


def made(factor):
    def my_rule(network, loss):
        def updates(params, feedback, batch):
            return jax.grad(lambda p: factor * loss(network.apply(p, batch.inputs), batch.targets))(params)

        return Rule(init=lambda key: (network.init(key), ()), updates=updates, predict=network.apply)

    return my_rule


x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
"""


def module(name, source=SOURCE):
    """Returns a module of a source in the working folder, such as a script that is `__main__` or imported."""
    Path(f"{name}.py").write_text(source, encoding="utf-8")
    spec: Any = importlib.util.spec_from_file_location(name, f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(autouse=True)
def _modules(folder):
    """Makes `folder` the working folder of every test, and forgets the modules in it."""
    before = set(sys.modules)
    yield
    for name in {"script", "library", "changed"} & (set(sys.modules) - before):
        del sys.modules[name]


def test_code_and_values_make_the_digest_and_names_of_modules_do_not():
    script, library = module("script"), module("library", f"# A comment.\n{SOURCE}")
    same = [lambda m: m.Net(), lambda m: m.Net, lambda m: m.made(2), lambda m: jax.jit(m.made), lambda m: m.Net().clone]
    for thing in same:
        assert digest_of(thing(script)) == digest_of(thing(library))
    assert len({digest_of(thing(script)) for thing in same}) == len(same)
    assert digest_of(script.made(2)) != digest_of(script.made(3))
    assert digest_of(script.Net(4)) != digest_of(script.Net(5))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("self.act(", "nn.tanh("),
        ("nn.tanh(nn.Dense", "nn.relu(nn.Dense"),  # of the class that it is derived from
        ("= nn.relu", "= nn.tanh"),
        ("Block(2)", "Block(3)"),
        ("width: int = 4", "width: int = 5"),
    ],
)
def test_a_changed_class_has_another_digest(before, after):
    changed = SOURCE.replace(before, after)
    assert changed != SOURCE
    assert digest_of(module("script").Net()) != digest_of(module("library", changed).Net())


def test_a_run_of_a_script_opens_with_the_objects_that_are_imported_from_its_file_and_not_with_changed_ones():
    script = module("script")
    del sys.modules["script"]  # as the names of a script lead nowhere in other processes
    objects = {
        "network": script.Net(),
        "rule": script.made(2),
        "optimizer": optax.adam(0.1),
        "task": (script.x, script.y),
    }
    fa_jax.train(**objects, seeds=1, epochs=1, batch_size=10, evaluations=1, probe=0, folder="run", progress=False)
    library = module("library")
    again = fa_jax.load("run", **{**objects, "network": library.Net(), "rule": library.made(2)})
    assert again.predict(script.x[:5]).shape == (1, 5, 3)
    changed = module("changed", SOURCE.replace("self.act(", "nn.tanh("))
    with pytest.raises(
        fa_jax.BadOption, match=r"network is another object than the Net\(width=4\) of the run: its code"
    ):
        fa_jax.load("run", **{**objects, "network": changed.Net()})
