"""Where BioTorch is installed: its gradients equal ours on its networks, with weights and feedback copied.

pip install torch && pip install --no-deps biotorch==0.0.16
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.core import Batch
from fa_jax.feedback import deviations
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.brsf import brsf
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.frsf import frsf
from fa_jax.rules.usf import usf
from tests.conftest import CNN, MLP, direct, layerwise, magnitudes, random_batch
from tests.rules.reference import leaf

torch = pytest.importorskip("torch")
biomodule = pytest.importorskip("biotorch.module.biomodule")
# BioTorch calls functions that newer versions of Torch deprecate.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("float64", "torch_float64")]

LOSS = cross_entropy().value
DENSE = {"distribution": "uniform", "scale": 1.0, "density": 1.0}


@pytest.fixture
def torch_float64():
    """Double precision in Torch."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Case(NamedTuple):
    torch_network: Any
    network: Network
    batch: Batch
    positions: dict[str, int]
    """The index of each linear layer in the Torch network, by its name in ours."""


def dense():
    nn = torch.nn
    torch_network = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 4))
    network = mlp((12,), 4, hidden=[9, 8], dropout=0.0, **MLP)
    positions = dict(zip(network.kernel_shapes, (0, 2, 4), strict=True))
    return Case(torch_network, network, random_batch(dtype=np.float64), positions)


def convolutional():
    nn = torch.nn
    torch_network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(80, 4)
    )
    network = cnn((6, 6, 2), 4, **{**CNN, "topology": "conv4x3-conv5x3v"})
    positions = dict(zip(network.kernel_shapes, (0, 2, 5), strict=True))
    return Case(torch_network, network, random_batch((6, 6, 2), dtype=np.float64), positions)


def as_kernel(weight):
    """A weight of Torch with the axes of a Flax kernel; the convolutional network's readout has channels first."""
    w = np.array(weight.detach())
    if w.ndim == 4:
        return jnp.asarray(w.transpose(2, 3, 1, 0))
    if w.shape == (4, 80):
        return jnp.asarray(w.reshape(4, 5, 4, 4).transpose(2, 3, 1, 0).reshape(80, 4))
    return jnp.asarray(w.T)


def as_params(module, positions):
    """The weights of a Torch network as params."""
    params = {}
    for name, i in positions.items():
        node = params
        for part in name.split("/"):
            node = node.setdefault(part, {})
        node.update(kernel=as_kernel(module[i].weight), bias=jnp.asarray(np.array(module[i].bias.detach())))
    return params


def backward_pass(mode, torch_network, batch):
    """Converts a network with BioTorch, and makes one backward pass; returns the converted network."""
    torch.manual_seed(0)
    converted = biomodule.BioModule(torch_network, mode=mode, output_dim=4)
    x = np.array(batch.inputs)
    x = torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)
    classes = torch.tensor(np.array(batch.targets).argmax(1))
    arguments = (classes, torch.nn.functional.cross_entropy) if mode == "dfa" else ()
    torch.nn.functional.cross_entropy(converted(x, *arguments), classes).backward()
    return converted.module


def check(module, positions, updates):
    for name, i in positions.items():
        layer, torch_layer = leaf(updates, name), module[i]
        kernel, bias = as_kernel(torch_layer.weight.grad), np.array(torch_layer.bias.grad)
        np.testing.assert_allclose(layer["kernel"], kernel, rtol=1e-10, atol=1e-13, err_msg=name)
        np.testing.assert_allclose(layer["bias"], bias, rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("case", [dense, convolutional])
@pytest.mark.parametrize("mode", ["fa", "frsf", "usf", "brsf"])
def test_layerwise_feedback(mode, case):
    torch_network, network, batch, positions = case()
    module = backward_pass(mode, torch_network, batch)
    params = as_params(module, positions)
    _, *upper_layers = positions.items()
    backward = {name: as_kernel(module[i].weight_backward) for name, i in upper_layers}
    if mode == "fa":
        rule, feedback = fa(network, LOSS, init_feedback=layerwise(**DENSE)), backward
    elif mode == "frsf":
        rule, feedback = frsf(network, LOSS, init_feedback=magnitudes(**DENSE)), backward
    elif mode == "usf":
        # BioTorch's magnitude is the standard deviation of Glorot's uniform distribution.
        scales = [math.sqrt(3) * module[i].scaling_factor for _, i in upper_layers]
        init_feedback = functools.partial(deviations, distribution="uniform", scale=scales)
        rule = usf(network, LOSS, init_feedback=init_feedback)
        feedback = init_feedback(network, jax.random.key(0), params)
    else:
        # BioTorch keeps the backward weights that it drew for this batch, with their signs.
        weights = network.kernels(params)
        assert all(np.all(np.sign(b) == np.sign(weights[name])) for name, b in backward.items())
        drawn = jax.tree.map(jnp.abs, backward)

        def init_feedback(network, key, params):
            """Those of BioTorch for the key of the batch, so that the rule can see that they depend on it."""
            is_batch = jnp.array_equal(jax.random.key_data(key), jax.random.key_data(batch.key))
            return jax.tree.map(lambda m: jnp.where(is_batch, m, 0), drawn)

        rule, feedback = brsf(network, LOSS, init_feedback=init_feedback), ()
    check(module, positions, rule.updates(params, feedback, batch))


def test_direct_feedback_on_dense_layers():
    """On convolutions BioTorch has another rule: it sends one error through one kernel per layer to all positions."""
    torch_network, network, batch, positions = dense()
    module = backward_pass("dfa", torch_network, batch)
    params = as_params(module, positions)
    feedback = {
        hidden: jnp.asarray(np.array(module[i].weight_backward.detach()))
        for hidden, i in zip(network.hidden_shapes, (2, 4), strict=True)
    }
    rule = dfa(network, LOSS, init_feedback=direct(**DENSE))
    check(module, positions, rule.updates(params, feedback, batch))
    _, drawn = rule.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, feedback) == jax.tree.map(jnp.shape, drawn)
