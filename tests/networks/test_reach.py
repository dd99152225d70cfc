"""The error crosses every backward kernel that is drawn, in stock Flax modules of all kinds, and no other weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.core import Batch
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.recurrent import recurrent
from fa_jax.networks.transformer import transformer
from fa_jax.primitives import Hidden
from fa_jax.rules.fa import fa
from fa_jax.rules.shallow import shallow
from fa_jax.rules.weight_mirror import weight_mirror
from tests.conftest import RECURRENT, TRANSFORMER, filled, layerwise

LOSS = cross_entropy().value
DRAWN = layerwise(density=1.0, scale=0.5)


class Module(nn.Module):
    """A module whose forward pass is a function."""

    function: object

    @nn.compact
    def __call__(self, x):
        return self.function(x)


class Shared(nn.Module):
    def setup(self):
        self.layer, self.readout = nn.Dense(6), nn.Dense(3)

    def __call__(self, x):
        return self.readout(jnp.tanh(self.layer(jnp.tanh(self.layer(x)))))


class Block(nn.Module):
    hidden: bool = False

    @nn.compact
    def __call__(self, h, _=None):
        h = nn.tanh(nn.Dense(6)(h))
        return Hidden()(h) if self.hidden else h, None


class Tied(nn.Module):
    def setup(self):
        self.embed, self.layer, self.last = nn.Embed(3, 6), nn.Dense(6), nn.Dense(6)

    def __call__(self, x):
        return self.embed.attend(self.last(nn.relu(self.layer(x))))


class Own(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(), (6, 6))
        position = self.param("position", nn.initializers.normal(), (1, 6))
        return nn.Dense(3)(nn.relu((nn.Dense(6)(x) + position) @ w.T))


def readout(h):
    return nn.Dense(3)(h)


COLLECTIONS = ("hidden", "signal", "perturbation", "state")
"""The collections of a hidden layer that a stack must carry."""


def scanned(axis=0, stacked=(), **options):
    axes = {"params": axis, **dict.fromkeys(stacked, 0)}
    return nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=3)(**options)


def attention(x):
    h = nn.Dense(4)(x)
    h = h + nn.MultiHeadDotProductAttention(2, deterministic=True)(nn.LayerNorm()(h))
    return readout((h + nn.Dense(4)(nn.gelu(nn.Dense(5)(nn.LayerNorm()(h))))).mean(1))


def vmapped(x):
    ensemble = nn.vmap(
        nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=-1, axis_size=2
    )
    return ensemble(3)(nn.relu(nn.Dense(4)(x))).mean(-1)


ZOO = {
    "gru": (lambda x: readout(nn.RNN(nn.GRUCell(3))(x)[:, -1]), (4, 2), ["GRUCell_0/i"]),
    "elman": (lambda x: readout(nn.RNN(nn.SimpleCell(3))(x)[:, -1]), (4, 2), ["SimpleCell_0/i"]),
    "attention": (attention, (4, 2), ["Dense_0"]),
    "embedding": (lambda x: readout(nn.relu(nn.Dense(4)(nn.Embed(5, 6)(jnp.int32(x) % 5).mean(1)))), (4,), []),
    "shared": (None, (6,), []),
    "transformer": (None, (), ["stages_0/layers_0/linear"]),
    "recurrent": (None, (), ["layers_0/cell/ir", "layers_0/cell/iz", "layers_0/cell/in"]),
    "scan": (lambda x: readout(scanned()(x, None)[0]), (6,), []),
    "remat": (lambda x: readout(nn.remat(Block)()(nn.remat(Block)()(x)[0])[0]), (6,), ["CheckpointBlock_1"]),
    "vmap": (vmapped, (5,), ["Dense_0"]),
    "branches": (lambda x: readout(nn.relu(nn.Dense(4)(x) * nn.Dense(4)(x))), (5,), ["Dense_0", "Dense_1"]),
    "convolutions": (
        lambda x: readout(
            nn.relu(nn.Conv(4, (2, 2), feature_group_count=2)(nn.relu(nn.Conv(4, (1, 1))(x)))).reshape(len(x), -1)
        ),
        (3, 3, 2),
        ["Conv_1"],
    ),
}
"""Forward passes, input shapes, and the beginnings of names of layers whose input depends on no params."""


BUILT_IN = {
    "transformer": transformer((4, 4, 1), 3, **{**TRANSFORMER, "blocks": 1}),
    "recurrent": recurrent((4, 2, 1), 3, **RECURRENT),
}


def network_of(name):
    function, shape, _ = ZOO[name]
    if name in BUILT_IN:
        return BUILT_IN[name]
    return Network(Shared() if function is None else Module(function), shape)


@pytest.mark.parametrize("name", ZOO)
def test_updates_change_with_each_backward_kernel_and_all_others_need_none(name):
    network = network_of(name)
    rule = fa(network, LOSS, init_feedback=DRAWN)
    params, feedback = filled(jax.eval_shape(rule.init, jax.random.key(0)))
    spared = set(network.kernel_shapes) - set(feedback)
    assert all(any(layer.startswith(start) for start in ZOO[name][2]) for layer in spared)
    assert len(spared) >= len(ZOO[name][2])
    x = 2 * jax.random.normal(jax.random.key(1), (4, *network.input_shape))
    batch = Batch(x, jnp.eye(3)[jnp.arange(4) % 3], jax.random.key(2))

    def updates(zeroed):
        chosen = {layer: jnp.where(zeroed == i, 0, kernel) for i, (layer, kernel) in enumerate(feedback.items())}
        return rule.updates(params, chosen, batch)

    changed = jax.jit(jax.vmap(updates))(jnp.arange(-1, len(feedback)))
    flat = np.concatenate([np.asarray(leaf).reshape(len(feedback) + 1, -1) for leaf in jax.tree.leaves(changed)], 1)
    for i, layer in enumerate(feedback, 1):
        assert np.abs(flat[i] - flat[0]).max() > 1e-6, layer


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Tied(),
            "^cannot replace the weights embed/embedding in the backward pass: the error crosses them outside of De",
        ),
        (Own(), "^cannot replace the weights w in the backward pass"),
        (
            Module(lambda x: readout(nn.RNN(nn.OptimizedLSTMCell(2))(x[:, None])[:, -1])),
            "^cannot replace the weights OptimizedLSTMCell_0/hf/kernel in the backward pass",
        ),
        (Module(lambda x: readout(nn.WeightNorm(nn.Dense(4))(nn.Dense(4)(x)))), "^cannot give backward weights to lay"),
        (
            Module(lambda x: readout(scanned(1)(x, None)[0])),
            "^nn.scan stacks the params of ScanBlock_0/Dense_0 along a",
        ),
        (
            Module(lambda x: readout(scanned(hidden=True)(x, None)[0])),
            "does not stack the activations of ScanBlock_0/Hid",
        ),
        *(
            (
                Module(lambda x, n=n: readout(scanned(stacked=COLLECTIONS[:n], hidden=True)(x, None)[0])),
                f"does not stack the {lost} of ScanBlock_0/Hidden_0: nn.scan and nn.vmap need .*'{lost}': 0",
            )
            for n, lost in enumerate(COLLECTIONS[1:], 1)
        ),
    ],
)
def test_what_the_rule_does_not_reach_is_refused_by_name(module, message):
    network = Network(module, (6,))
    with pytest.raises(BadOption, match=message):
        jax.eval_shape(fa(network, LOSS, init_feedback=DRAWN).init, jax.random.key(0))


def test_shallow_learning_leaves_a_stack_that_carries_all_collections_as_it_is():
    network = Network(Module(lambda x: readout(scanned(stacked=COLLECTIONS, hidden=True)(x, None)[0])), (6,))
    rule = shallow(network, LOSS)
    params, _ = rule.init(jax.random.key(0))
    batch = Batch(jnp.ones((2, 6)), jnp.eye(3)[:2], jax.random.key(0))
    updates = network.kernels(rule.updates(params, (), batch))
    assert {name: bool(np.any(update)) for name, update in updates.items()} == {
        "ScanBlock_0/Dense_0": False,
        "Dense_0": True,
    }


def test_weight_mirrors_name_the_layer_that_noise_does_not_reach():
    network = network_of("scan")
    rule = weight_mirror(network, LOSS, init_feedback=DRAWN)
    params, feedback = jax.eval_shape(rule.init, jax.random.key(0))
    batch = Batch(jnp.zeros((2, 6)), jnp.zeros((2, 3)), jax.random.key(0))
    with pytest.raises(BadOption, match=r"^cannot send noise through ScanBlock_0/Dense_0: nn.scan, nn.vmap and nn.RNN"):
        jax.eval_shape(lambda p, b: rule.learn(p, b, batch, p), params, feedback)


FANS = {
    "dense": (nn.Dense(5), (3,), (3, 5), (3, 5)),
    "query": (nn.DenseGeneral((4, 16)), (7, 64), (64, 64), (64, 64)),
    "out": (nn.DenseGeneral(64, axis=(-2, -1)), (7, 4, 16), (64, 64), (64, 64)),
    "batched": (nn.DenseGeneral(6, batch_dims=(0,), axis=-1), (3, 5), (5, 6), (10, 6)),
    "einsum": (nn.Einsum((7, 3, 5), "nti,tio->nto"), (7, 3), (3, 5), (21, 5)),
    "depthwise": (nn.Conv(32, (3, 3), feature_group_count=32), (8, 8, 32), (9, 9), (9, 32)),
    "grouped": (nn.Conv(8, (3, 3), feature_group_count=2), (8, 8, 4), (18, 36), (18, 8)),
    "convolution": (nn.Conv(8, (3, 3)), (8, 8, 4), (36, 72), (36, 8)),
    "transposed": (nn.ConvTranspose(8, (3, 3)), (8, 8, 4), (36, 72), (36, 8)),
    "transposed kernel": (nn.ConvTranspose(8, (3, 3), transpose_kernel=True), (8, 8, 4), (36, 72), (72, 4)),
    "local": (nn.ConvLocal(8, (3, 3), padding="VALID"), (6, 6, 2), (18, 72), (72, 8)),
}
"""Layers with the shape of an input, `(fan_in, fan_out)`, and the shape of the kernel as a matrix."""


@pytest.mark.parametrize("name", FANS)
def test_fans_are_the_terms_that_an_output_sums_and_the_outputs_that_an_input_reaches(name):
    layer, shape, fans, _ = FANS[name]
    kernel = Network(layer, shape).kernel_shapes[""]
    assert (kernel.fan_in, kernel.fan_out) == fans
    if name not in ("batched", "einsum"):  # of which the batch axis of inputs is one
        x = jnp.ones((1, *shape))
        unbound = layer.clone(use_bias=False, kernel_init=nn.initializers.ones)
        outputs = unbound.apply(unbound.init(jax.random.key(0), x), x)
        gradient = jax.grad(lambda x: unbound.apply(unbound.init(jax.random.key(0), x), x).sum())(x)
        assert (outputs.max(), gradient.max()) == fans


@pytest.mark.parametrize("name", sorted(FANS.keys() - {"batched", "einsum", "local"}))
def test_feedback_of_a_rank_has_it_as_a_matrix_of_inputs_and_outputs(name):
    layer, shape, _, matrix = FANS[name]
    network = Network(Module(lambda x: layer.copy()(nn.Dense(int(np.prod(shape)))(x).reshape(-1, *shape))), (2,))
    params = jax.eval_shape(network.init, jax.random.key(0))
    drawn = layerwise(density=1.0, rank=2)(network, jax.random.key(0), params)
    (kernel,) = drawn.values()
    assert np.linalg.matrix_rank(np.asarray(kernel).reshape(matrix)) == 2
