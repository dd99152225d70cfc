"""BP, FA, DFA and frozen blocks equal their equations through norms and residuals, in float64, without autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.residual_mlp import local_losses
from fa_jax.checks import BadOption
from fa_jax.losses import squared_error
from fa_jax.networks.residual_mlp import residual_mlp
from fa_jax.rules.bp import bp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.frozen_blocks import frozen_blocks
from tests.conftest import RESIDUAL_MLP, between_states, direct, layerwise, random_batch, to_float64
from tests.networks.reference import Linear, Norm, gelu
from tests.rules.reference import leaf

LOSS = squared_error(output="linear", derivative="exact").value
OUTPUTS = 3
RULES = {
    "bp": bp,
    "fa": functools.partial(fa, init_feedback=layerwise()),
    "dfa": functools.partial(dfa, init_feedback=direct()),
    "fa of 2026": functools.partial(local_losses.fa, init_feedback=between_states()),
    "dfa of 2026": functools.partial(local_losses.dfa, init_feedback=direct()),
    "dfa of 2026, by batch": functools.partial(local_losses.dfa_by_batch, init_feedback=direct()),
    "frozen_blocks": functools.partial(frozen_blocks, train_norms=False),
    "frozen_blocks, norms trained": functools.partial(frozen_blocks, train_norms=True),
}


def randomised(params):
    """Params all of which are random, those of norms included."""
    leaves, tree = jax.tree.flatten(to_float64(params))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [p + 0.3 * jax.random.normal(key, p.shape, p.dtype) for p, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


class Block:
    """A block on rows `[batch, 1, width]`."""

    def __init__(self, params, h):
        self.norm = Norm(params["norm"], h)
        self.first = Linear(params["first"], self.norm.y)
        inner, self.derivative = gelu(self.first.y)
        self.second = Linear(params["second"], inner)
        self.h = h + self.second.y

    def backward(self, d, kernel):
        """Returns the updates, and the error at the input, given the error at the output."""
        second, d_inner = self.second.backward(d, kernel("second"))
        first, d_normed = self.first.backward(d_inner * self.derivative, kernel("first"))
        norm, through = self.norm.backward(d_normed)
        return {"norm": norm, "first": first, "second": second}, d + through


def reference(params, batch, kernel, signals=None):
    """Returns the updates of all params; arguments as for that of the transformer."""
    x = np.asarray(batch.inputs)[:, None]
    embedding = Linear(params["stages_0"]["linear"], x)
    h, blocks = embedding.y, []
    for i in range(1, len(params) - 1):
        blocks.append(Block(params[f"stages_{i}"], h))
        h = blocks[-1].h
    norm = Norm(params["readout"]["norm"], h) if "norm" in params["readout"] else None
    readout = Linear(params["readout"]["linear"], h if norm is None else norm.y)
    error = (readout.y - np.asarray(batch.targets)[:, None]) / len(x)
    readout_updates, d = readout.backward(error, kernel("readout/linear"))
    updates = {"readout": {"linear": readout_updates}}
    if norm is not None:
        updates["readout"]["norm"], d = norm.backward(d)
    sent = None if signals is None else signals(error, d)
    for i in range(len(blocks), 0, -1):
        d = d if sent is None else sent[i]
        updates[f"stages_{i}"], d = blocks[i - 1].backward(d, lambda name, i=i: kernel(f"stages_{i}/{name}"))
    d = d if sent is None else sent[0]
    return updates | {"stages_0": {"linear": embedding.backward(d, np.zeros(embedding.shape))[0]}}


@pytest.mark.parametrize(
    ("name", "terminal_norm"),
    [
        pytest.param("bp", True, marks=pytest.mark.slow),
        ("fa", True),
        ("dfa", False),
        ("fa of 2026", True),
        ("dfa of 2026", False),
        pytest.param("dfa of 2026, by batch", True, marks=pytest.mark.slow),
        pytest.param("dfa", True, marks=pytest.mark.slow),
        pytest.param("frozen_blocks", True, marks=pytest.mark.slow),
        ("frozen_blocks, norms trained", True),
    ],
)
def test_rules_equal_their_equations(float64, name, terminal_norm):
    network = residual_mlp((12,), OUTPUTS, **{**RESIDUAL_MLP, "terminal_norm": terminal_norm})
    rule = RULES[name](network, LOSS)
    params, feedback = jax.jit(rule.init)(jax.random.key(2))
    params, feedback = randomised(params), to_float64(feedback)
    batch = random_batch((12,), OUTPUTS, size=3, dtype=np.float64)

    def forward_kernel(layer):
        return np.asarray(leaf(params, layer)["kernel"])

    def direct_signals(error, d):
        return [np.tensordot(error, np.asarray(feedback[layer]), 1) for layer in network.hidden_shapes]

    def of_size_one(signal, axes=-1):
        return signal / np.sqrt((signal**2).mean(axes, keepdims=True)) / len(signal)

    def signals_down(error, d):
        lower = d @ np.asarray(feedback["stages_2/hidden"])
        return [of_size_one(a) for a in (lower @ np.asarray(feedback["stages_1/hidden"]), lower, d)]

    expected = {
        "fa": lambda: reference(params, batch, lambda layer: np.asarray(feedback[layer])),
        "dfa": lambda: reference(params, batch, forward_kernel, direct_signals),
        "fa of 2026": lambda: reference(params, batch, forward_kernel, signals_down),
        "dfa of 2026": lambda: reference(
            params, batch, forward_kernel, lambda *error: [of_size_one(a) for a in direct_signals(*error)]
        ),
        "dfa of 2026, by batch": lambda: reference(
            params, batch, forward_kernel, lambda *error: [of_size_one(a, None) for a in direct_signals(*error)]
        ),
    }.get(name, lambda: reference(params, batch, forward_kernel))()
    if name.startswith("frozen"):
        for block in ("stages_1", "stages_2"):
            frozen = ("first", "second") if name.endswith("trained") else ("first", "second", "norm")
            expected[block] |= {layer: jax.tree.map(np.zeros_like, expected[block][layer]) for layer in frozen}
    updates = jax.jit(rule.updates)(params, feedback, batch)
    assert jax.tree.structure(updates) == jax.tree.structure(expected)
    for (path, got), wanted in zip(jax.tree.leaves_with_path(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-13, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
def test_a_signal_of_direct_feedback_does_not_travel_along_the_residuals():
    network = residual_mlp((12,), OUTPUTS, **RESIDUAL_MLP)
    rule = RULES["dfa"](network, LOSS)
    params, feedback = jax.jit(rule.init)(jax.random.key(0))
    assert {name: b.shape for name, b in feedback.items()} == {f"stages_{i}/hidden": (3, 4) for i in range(3)}
    batch, updates = random_batch((12,), OUTPUTS), jax.jit(rule.updates)
    plain = updates(params, feedback, batch)
    for i in range(3):
        zeroed = updates(params, {**feedback, f"stages_{i}/hidden": jnp.zeros((3, 4))}, batch)
        changed = jax.tree.map(lambda a, b: np.any(np.asarray(a) != b), plain, zeroed)
        assert {part for part in params if any(jax.tree.leaves(changed[part]))} == {f"stages_{i}"}


@pytest.mark.slow
def test_behind_the_last_norm_the_gradient_falls_as_the_stream_grows(float64):
    """`dL/dh` is orthogonal to h and proportional to 1/|h|: at a thousandfold stream it is a thousandth."""
    network = residual_mlp((12,), OUTPUTS, **RESIDUAL_MLP)
    readout = randomised(jax.jit(network.init)(jax.random.key(0)))["readout"]
    h = 1e6 * jax.random.normal(jax.random.key(3), (3, 4), jnp.float64)  # far above the epsilon of the norm
    batch = random_batch((12,), OUTPUTS, size=3, dtype=np.float64)
    layer = network.module.readout
    gradient = jax.jit(jax.grad(lambda h: LOSS(layer.apply({"params": readout}, h), batch.targets)))
    near, far = gradient(h), gradient(1000 * h)
    np.testing.assert_allclose(1000 * far, near, rtol=1e-9)
    np.testing.assert_allclose(jnp.sum(near * h, 1) / jnp.linalg.norm(near) / jnp.linalg.norm(h), 0, atol=1e-9)


def test_many_blocks_are_scanned_and_the_first_layer_is_not_crossed():
    network = residual_mlp((4, 3), OUTPUTS, **{**RESIDUAL_MLP, "blocks": 9})
    assert network.module.repeats == (1, 9)
    assert [h.stack for h in network.hidden_shapes.values()] == [(), (9,)]
    assert network.crossed_kernels == ("stages_1/first", "stages_1/second", "readout/linear")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an integer of at least 1; got 0"),
        ({"blocks": 0}, "blocks must be an integer of at least 1; got 0"),
        ({"block_width": 2.5}, r"block_width must be an integer of at least 1; got 2\.5"),
        ({"terminal_norm": "no"}, "terminal_norm must be true or false; got 'no'"),
        ({"activation": "gelo"}, r"activation must be one of .*; did you mean 'gelu'\?"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadOption, match=f"^{message}"):
        residual_mlp((12,), OUTPUTS, **{**RESIDUAL_MLP, **options})
