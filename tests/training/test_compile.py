"""The cost of a compiled program."""

from types import SimpleNamespace

import jax
import pytest

from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.bp import bp
from fa_jax.training.compile import Cost, is_vmapped
from fa_jax.training.memory import bytes_of
from tests.conftest import CNN, MLP
from tests.training.conftest import LOSS


def test_time_is_added_up_and_shared_by_runs_and_memory_is_the_largest():
    cost = Cost(8.0, 4.0, 2.0, 100) + Cost(16.0, 32.0, 64.0, 90)
    assert cost == Cost(compiling=24, training=36, evaluating=66, memory=100)
    assert cost.divided(3) == Cost(compiling=8, training=12, evaluating=22, memory=100)


@pytest.mark.parametrize(
    ("network", "mebibytes", "is_at_once"),
    [
        (mlp((12,), 4, hidden=[700, 700], dropout=0.0, **MLP), 1.9, True),
        (mlp((12,), 4, hidden=[740, 740], dropout=0.0, **MLP), 2.1, False),
        (cnn((8, 8, 2), 4, **CNN), 0.001, False),
    ],
    ids=["small", "large", "convolutional"],
)
def test_seeds_are_trained_at_once_except_on_a_cpu_those_of_large_or_convolutional_networks(
    network, mebibytes, is_at_once
):
    rule = bp(network, LOSS.value)
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    assert round(bytes_of(params) / 2**20, 1 if mebibytes > 1 else 3) == mebibytes
    for platform in ("cpu", "gpu"):
        assert is_vmapped(rule, network, SimpleNamespace(platform=platform)) == (is_at_once or platform == "gpu")
