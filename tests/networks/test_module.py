"""Any Flax module is a network, or one line says before anything is compiled what does not fit."""

import re

import flax.linen as nn
import jax.numpy as jnp
import pytest

from fa_jax.checks import BadOption
from fa_jax.networks.module import module, network_of


class Pixels(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.features)(x.reshape(len(x), -1))


class Told(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(3)(x)


class TwoInputs(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        return nn.Dense(3)(x)


class Cached(nn.Module):
    @nn.compact
    def __call__(self, x):
        count = self.variable("cache", "count", lambda: jnp.zeros(()))
        return nn.Dense(3)(x) + count.value


class Fails(nn.Module):
    @nn.compact
    def __call__(self, x):
        raise RuntimeError("on\npurpose")


class FailsInTraining(nn.Module):
    @nn.compact
    def __call__(self, x):
        if self.has_rng("dropout"):
            raise RuntimeError("on purpose")
        return nn.Dense(3)(x)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.BatchNorm(use_running_average=not self.has_rng("dropout"))(nn.Dense(4)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(h))


class Tuple(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x), x


class HalfPrecision(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, dtype=jnp.bfloat16)(x)


def test_a_module_that_fits_is_the_network():
    network = network_of(Normed(), (5,), 3, name="Normed")
    assert list(network.kernel_shapes) == ["Dense_0", "Dense_1"]
    assert len(network.statistics_paths) == 2
    named = module((5,), 3, module="tests.networks.test_module.Normed", arguments=None)
    assert named.module == Normed()
    assert module((5,), 3, module="flax.linen.Dense", arguments={"features": 3}).module == nn.Dense(3)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Told(), "M is told by its argument train whether it trains, which nobody gives it: write nn.Dropout"),
        (TwoInputs(), "M must be called with the inputs alone; it needs x, mask"),
        (Cached(), "M keeps state in the collection cache, and training carries params and batch_stats alone"),
        (Fails(), f"M fails on inputs [1, 5]: RuntimeError: on purpose ({__file__}, line "),
        (FailsInTraining(), f"M fails in training: RuntimeError: on purpose ({__file__}, line "),
        (nn.Dense(4), "M must return logits [3, 3] for 3 examples of this task; got [3, 4]"),
        (Tuple(), "M must return logits [3, 3] for 3 examples of this task; got tuple"),
        (HalfPrecision(), "M must return logits of float32; got bfloat16"),
        (nn.Dropout(0.5, deterministic=True), "M is told by its argument deterministic"),
        (nn.relu, "M must be a module of flax.linen; got"),
    ],
)
def test_a_module_that_does_not_fit_is_refused(made, message):
    with pytest.raises(BadOption, match=f"^{re.escape(message)}") as caught:
        network_of(made, (5,), 3, name="M")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"module": "nowhere.Net"}, "module nowhere.Net cannot be imported: ModuleNotFoundError: No module named"),
        ({"module": "flax.linen.Dens"}, "module flax.linen.Dens cannot be imported: ImportError: flax.linen ("),
        ({"module": "Net"}, "module Net cannot be imported: ImportError: 'Net' is not the name of something in a mod"),
        ({"module": 3}, "module must be the name of a Flax module, such as mylab.nets.ViT; got 3"),
        ({"arguments": [1]}, "arguments must be a mapping of names to values, such as {width: 64}; got [1]"),
        ({"arguments": {"a": 1}}, "arguments of flax.linen.Dense: TypeError: Dense.__init__() got an unexpected"),
    ],
)
def test_a_name_that_leads_to_no_module_is_refused(options, message):
    with pytest.raises(BadOption, match=f"^{re.escape(message)}"):
        module((5,), 3, **{"module": "flax.linen.Dense", "arguments": {"features": 3}, **options})


def test_an_error_in_the_file_of_a_module_is_named_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "broken_nets.py").write_text("import flax\nraise RuntimeError('on purpose')\n")
    (tmp_path / "unfinished_nets.py").write_text("class Net(\n")
    (tmp_path / "needing_nets.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, message in (
        ("broken_nets", f"RuntimeError: on purpose ({tmp_path}/broken_nets.py, line 2)"),
        ("unfinished_nets", "SyntaxError: '(' was never closed (unfinished_nets.py, line 1)"),
        ("needing_nets", "ModuleNotFoundError: No module named 'no_such_package' ("),
    ):
        with pytest.raises(BadOption, match=re.escape(f"module {name}.Net cannot be imported: {message}")):
            module((5,), 3, module=f"{name}.Net", arguments=None)
