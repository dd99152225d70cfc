"""Where BioTorch is installed: its gradients are ours, on its own networks, with weights and feedback copied over.

pip install torch && pip install --no-deps biotorch==0.0.16
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.losses import cross_entropy
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.frsf import frsf
from fa_jax.rules.usf import sign_symmetric, usf
from tests.conftest import random_batch
from tests.rules.test_contract import MLP
from tests.rules.test_images_against_reference import CNN

torch = pytest.importorskip("torch")
biomodule = pytest.importorskip("biotorch.module.biomodule")
# Of BioTorch's own calls, which newer versions of Torch frown upon.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("float64", "torch_float64")]

LOSS = cross_entropy().value
FEEDBACK = {"distribution": "uniform", "scale": 1.0, "kept": 1.0}


@pytest.fixture
def torch_float64():
    """Double precision on their side too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def dense():
    """Theirs, ours, the batch, and the places of the linear layers in both."""
    nn = torch.nn
    theirs = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 4))
    ours = mlp((12,), 4, hidden=[9, 8], dropout=0.0, **MLP)
    return theirs, ours, random_batch(dtype=np.float64), dict(zip(ours.kernels, (0, 2, 4), strict=True))


def convolutional():
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(80, 4)
    )
    ours = cnn((6, 6, 2), 4, **{**CNN, "topology": "conv4x3-conv5x3v"})
    return theirs, ours, random_batch((6, 6, 2), dtype=np.float64), dict(zip(ours.kernels, (0, 2, 5), strict=True))


def as_kernel(weight):
    """A weight of theirs with the axes of ours; the readout of the convolutional network sees channels first."""
    w = np.array(weight.detach())
    if w.ndim == 4:
        return jnp.asarray(w.transpose(2, 3, 1, 0))
    if w.shape == (4, 80):
        return jnp.asarray(w.reshape(4, 5, 4, 4).transpose(2, 3, 1, 0).reshape(80, 4))
    return jnp.asarray(w.T)


def copied(module, places):
    """Their weights as our params."""
    params = {}
    for name, i in places.items():
        node = params
        for part in name.split("/"):
            node = node.setdefault(part, {})
        node.update(kernel=as_kernel(module[i].weight), bias=jnp.asarray(np.array(module[i].bias.detach())))
    return params


def their_updates(mode, theirs, batch):
    """Converts a network of theirs, and makes one backward pass."""
    torch.manual_seed(0)
    bio = biomodule.BioModule(theirs, mode=mode, output_dim=4)
    x = np.array(batch.inputs)
    x = torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)
    classes = torch.tensor(np.array(batch.targets).argmax(1))
    further = (classes, torch.nn.functional.cross_entropy) if mode == "dfa" else ()
    torch.nn.functional.cross_entropy(bio(x, *further), classes).backward()
    return bio.module


def check(module, places, got):
    for name, i in places.items():
        node = got
        for part in name.split("/"):
            node = node[part]
        np.testing.assert_allclose(
            node["kernel"], as_kernel(module[i].weight.grad), rtol=1e-10, atol=1e-13, err_msg=name
        )
        np.testing.assert_allclose(node["bias"], np.array(module[i].bias.grad), rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("network", [dense, convolutional])
@pytest.mark.parametrize("mode", ["fa", "frsf", "usf", "brsf"])
def test_layer_after_layer(mode, network):
    theirs, ours, batch, places = network()
    module = their_updates(mode, theirs, batch)
    params, crossed = copied(module, places), list(places.items())[1:]
    backward = {name: as_kernel(module[i].weight_backward) for name, i in crossed}
    if mode == "fa":
        got = fa(ours, LOSS, **FEEDBACK).updates(params, backward, batch)
    elif mode == "frsf":
        got = frsf(ours, LOSS, **FEEDBACK).updates(params, backward, batch)
    elif mode == "usf":
        # Their magnitude is the standard deviation of Glorot's uniform distribution.
        scales = [math.sqrt(3) * module[i].scaling_factor for _, i in crossed]
        got = usf(ours, LOSS, distribution="uniform", scale=scales).updates(params, (), batch)
    else:
        # What they drew for this batch, signs and all, is what the signal crossed.
        assert all(np.all(np.sign(b) == np.sign(ours.weights(params)[name])) for name, b in backward.items())
        sizes = jax.tree.map(jnp.abs, backward)
        got = sign_symmetric(ours, LOSS, lambda key, params: (), lambda *of: sizes).updates(params, (), batch)
    check(module, places, got)


def test_dfa_on_dense_layers():
    """On convolutions theirs is another rule: the error, the same at all places, is sent through one kernel a layer."""
    theirs, ours, batch, places = dense()
    module = their_updates("dfa", theirs, batch)
    params = copied(module, places)
    feedback = {
        hidden: jnp.asarray(np.array(module[i].weight_backward.detach()))
        for hidden, i in zip(ours.hiddens, (2, 4), strict=True)
    }
    check(module, places, dfa(ours, LOSS, **FEEDBACK).updates(params, feedback, batch))
    assert jax.tree.map(jnp.shape, feedback) == jax.tree.map(
        jnp.shape, dict(dfa(ours, LOSS, **FEEDBACK).init(jax.random.key(0))[1])
    )
