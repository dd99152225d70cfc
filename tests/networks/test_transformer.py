"""BP, FA and DFA equal their equations through attention, norms and residuals, in float64, without autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import squared_error
from fa_jax.networks.transformer import patches, transformer
from fa_jax.rules.bp import bp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from tests.conftest import TRANSFORMER, direct, filled, layerwise, random_batch, to_float64
from tests.networks.reference import Linear, Norm, gelu, relu
from tests.rules.reference import leaf

LOSS = squared_error(output="linear", derivative="exact").value
SHAPE, OUTPUTS = (4, 6, 2), 3
"""Images of six patches."""


@functools.cache
def make(**options):
    """A network, and params all of which are random, those of norms and the positions included."""
    network = transformer(SHAPE, OUTPUTS, **{**TRANSFORMER, **options})
    return network, to_float64(filled(jax.eval_shape(network.init, jax.random.key(0))))


class Attention:
    """Self-attention: `softmax(Q K^T / sqrt(size of a head)) V`, and a linear layer of all heads."""

    def __init__(self, params, x):
        self.q, self.k, self.v = (Linear(params[name], x) for name in ("query", "key", "value"))
        self.root = np.sqrt(self.q.y.shape[-1])
        scores = np.exp(np.einsum("bqhd,bkhd->bhqk", self.q.y, self.k.y) / self.root)
        self.p = scores / scores.sum(-1, keepdims=True)
        self.out = Linear(params["out"], np.einsum("bhqk,bkhd->bqhd", self.p, self.v.y), axes=2)
        self.y = self.out.y

    def backward(self, d, kernel):
        out, d = self.out.backward(d, kernel("out"))
        d_p = np.einsum("bqhd,bkhd->bhqk", d, self.v.y)
        d_scores = self.p * (d_p - (d_p * self.p).sum(-1, keepdims=True)) / self.root
        query, from_query = self.q.backward(np.einsum("bhqk,bkhd->bqhd", d_scores, self.k.y), kernel("query"))
        key, from_key = self.k.backward(np.einsum("bhqk,bqhd->bkhd", d_scores, self.q.y), kernel("key"))
        value, from_value = self.v.backward(np.einsum("bhqk,bqhd->bkhd", self.p, d), kernel("value"))
        return {"query": query, "key": key, "value": value, "out": out}, from_query + from_key + from_value


class Block:
    """A pre-norm block."""

    def __init__(self, params, z, function):
        self.attention_norm = Norm(params["attention_norm"], z)
        self.attention = Attention(params["attention"], self.attention_norm.y)
        u = z + self.attention.y
        self.mlp_norm = Norm(params["mlp_norm"], u)
        self.first = Linear(params["first"], self.mlp_norm.y)
        h, self.derivative = function(self.first.y)
        self.second = Linear(params["second"], h)
        self.z = u + self.second.y

    def backward(self, d, kernel):
        """Returns the updates, and the error at the input, given the error at the output."""
        second, d_h = self.second.backward(d, kernel("second"))
        first, d_normed = self.first.backward(d_h * self.derivative, kernel("first"))
        mlp_norm, through_mlp = self.mlp_norm.backward(d_normed)
        d = d + through_mlp
        attention, d_normed = self.attention.backward(d, lambda name: kernel(f"attention/{name}"))
        attention_norm, through_attention = self.attention_norm.backward(d_normed)
        updates = {"attention": attention, "attention_norm": attention_norm, "mlp_norm": mlp_norm}
        return {**updates, "first": first, "second": second}, d + through_attention


BLOCKS = ("stages_0/layers_1", "stages_1")


def reference(params, batch, kernel, signals=None, function=gelu):
    """Returns the updates of all params.

    Args:
      params, batch: of the forward pass.
      kernel: the backward kernel of a layer by its name.
      signals: `(error) -> signals` of the blocks, in order; None: the error is sent back from the readout.
      function: of the hidden layers of blocks, with its derivative.
    """
    x, size = np.asarray(batch.inputs), TRANSFORMER["patch"]
    tiles = [
        x[:, i : i + size, j : j + size].reshape(len(x), -1)
        for i in range(0, SHAPE[0], size)
        for j in range(0, SHAPE[1], size)
    ]
    embedding = params["stages_0"]["layers_0"]
    linear = Linear(embedding["linear"], np.stack(tiles, 1))
    z, blocks = linear.y + np.asarray(embedding["positions"]), []
    for name in BLOCKS:
        blocks.append(Block(leaf(params, name), z, function))
        z = blocks[-1].z
    norm = Norm(params["readout"]["norm"], z)
    mean, readout = norm.y.mean(1), params["readout"]["linear"]
    error = (mean @ readout["kernel"] + readout["bias"] - np.asarray(batch.targets)) / len(x)
    d = np.broadcast_to((error @ kernel("readout/linear").T)[:, None] / z.shape[1], z.shape)
    norm_updates, d = norm.backward(d)
    block_updates = []
    for i, block in reversed(list(enumerate(blocks))):
        d = d if signals is None else signals(error)[i]
        updates, d = block.backward(d, lambda name, i=i: kernel(f"{BLOCKS[i]}/{name}"))
        block_updates.insert(0, updates)
    linear_updates, _ = linear.backward(d, np.zeros(linear.shape))
    return {
        "stages_0": {"layers_0": {"linear": linear_updates, "positions": d.sum(0)}, "layers_1": block_updates[0]},
        "stages_1": block_updates[1],
        "readout": {"norm": norm_updates, "linear": {"kernel": mean.T @ error, "bias": error.sum(0)}},
    }


RULES = {
    "bp": bp,
    "fa": functools.partial(fa, init_feedback=layerwise()),
    "dfa": functools.partial(dfa, init_feedback=direct()),
}


@pytest.mark.parametrize(
    ("name", "function"),
    [
        pytest.param("bp", gelu, marks=pytest.mark.slow),
        ("fa", gelu),
        ("dfa", gelu),
        pytest.param("fa", relu, marks=pytest.mark.slow),
    ],
)
def test_rules_equal_their_equations(float64, name, function):
    network, params = make(activation=function.__name__)
    batch = random_batch(SHAPE, OUTPUTS, size=3, dtype=np.float64)
    rule = RULES[name](network, LOSS)
    feedback = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(2))[1], seed=1))

    def forward_kernel(layer):
        return np.asarray(leaf(params, layer)["kernel"])

    def signals(error):
        return [np.tensordot(error, np.asarray(feedback[layer]), 1) for layer in network.hidden_shapes]

    expected = {
        "bp": lambda: reference(params, batch, forward_kernel, function=function),
        "fa": lambda: reference(params, batch, lambda layer: np.asarray(feedback[layer]), function=function),
        "dfa": lambda: reference(params, batch, forward_kernel, signals, function),
    }[name]()
    updates = jax.jit(rule.updates)(params, feedback, batch)
    assert jax.tree.structure(updates) == jax.tree.structure(expected)
    for (path, got), wanted in zip(jax.tree.leaves_with_path(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-13, err_msg=jax.tree_util.keystr(path))


def test_feedback_is_drawn_by_the_fans_of_all_heads_together():
    network = transformer(SHAPE, OUTPUTS, **{**TRANSFORMER, "width": 12, "heads": 4})
    kernels = {name.rpartition("/")[2]: kernel for name, kernel in network.kernel_shapes.items()}
    assert kernels["query"].shape == (12, 4, 3)
    assert kernels["out"].shape == (4, 3, 12)
    for name in ("query", "key", "value", "out"):
        assert (kernels[name].fan_in, kernels[name].fan_out) == (12, 12), name
    assert set(network.crossed_kernels) == set(network.kernel_shapes) - {"stages_0/layers_0/linear"}
    network = transformer((2, 2, 1), 2, **{**TRANSFORMER, "width": 32, "blocks": 1, "init_scale": 1.0})
    kernels = network.kernels(jax.jit(network.init)(jax.random.key(0)))
    for name in ("query", "out"):
        assert np.std(kernels[f"stages_0/layers_1/attention/{name}"]) == pytest.approx(32**-0.5, rel=0.1)


def test_every_block_learns_from_its_own_direct_feedback_alone():
    """A signal that went along the residuals would reach the blocks below."""
    network = transformer(SHAPE, OUTPUTS, **TRANSFORMER)
    rule = RULES["dfa"](network, LOSS)
    params, feedback = filled(jax.eval_shape(rule.init, jax.random.key(0)))
    assert {name: b.shape for name, b in feedback.items()} == {f"{name}/hidden": (3, 6, 4) for name in BLOCKS}
    batch, updates = random_batch(SHAPE, OUTPUTS), jax.jit(rule.updates)
    plain = updates(params, feedback, batch)
    for name in BLOCKS:
        zeroed = updates(params, {**feedback, f"{name}/hidden": jnp.zeros((3, 6, 4))}, batch)
        changed = {part for part in params if any(map(np.any, jax.tree.leaves(_difference(plain, zeroed)[part])))}
        assert changed == {name.partition("/")[0]}


def _difference(a, b):
    return jax.tree.map(lambda x, y: np.asarray(x) != np.asarray(y), a, b)


def test_many_blocks_are_scanned_and_patches_are_in_reading_order():
    network = transformer((8, 8, 1), 10, **{**TRANSFORMER, "blocks": 9})
    assert network.module.repeats == (1, 8)
    assert [h.stack for h in network.hidden_shapes.values()] == [(), (8,)]
    x = jnp.arange(24.0).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(patches(x, 2)[0, :2], [[0, 1, 6, 7], [2, 3, 8, 9]])


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (SHAPE, {"patch": 3}, "patch must divide the height and the width of the images, 4 and 6; got 3"),
        (SHAPE, {"patch": 4}, "patch must divide the height and the width of the images, 4 and 6; got 4"),
        (SHAPE, {"patch": 0}, "patch must be an integer of at least 1; got 0"),
        (SHAPE, {"heads": 3}, "heads must divide the width, 4; got 3"),
        (SHAPE, {"blocks": 0}, "blocks must be an integer of at least 1; got 0"),
        (SHAPE, {"activation": "gelo"}, "activation must be one of .*; did you mean 'gelu'?"),
        ((12,), {}, "needs images; the inputs of the task have shape (12,)"),
    ],
)
def test_bad_options_are_named(shape, options, message):
    escaped = message.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")
    with pytest.raises(BadOption, match=f"^{escaped}"):
        transformer(shape, OUTPUTS, **{**TRANSFORMER, **options})


def test_direct_feedback_is_one_small_matrix_for_all_tokens_by_default(compose):
    for rule, shared in (("dfa", True), ("drtp", True), ("sdfa", True), ("direct_target_propagation", False)):
        feedback = compose("task=digits", "architecture=transformer", f"rule={rule}").feedback
        assert (feedback.shared_positions, feedback.scale) == (shared, 0.1 if shared else 1.0)
