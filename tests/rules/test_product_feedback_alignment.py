"""Product feedback alignment: its equations in numpy without autodiff, and how its feedback comes to the weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.initializers import orthogonal
from fa_jax.losses import squared_error
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.networks.transformer import transformer
from fa_jax.optimizers import constant, descend, with_fixed
from fa_jax.rules.bp import bp
from fa_jax.rules.fa import fa
from fa_jax.rules.kolen_pollack import kolen_pollack
from fa_jax.rules.product_feedback_alignment import FIXED, LEARNED, product_feedback_alignment, products
from tests.conftest import (
    CNN,
    MLP,
    RANDOM_WEIGHTS,
    TRANSFORMER,
    assert_trees_close,
    compiled,
    layerwise,
    random_batch,
    to_float64,
)
from tests.rules import reference
from tests.rules.images import convolve, kernel_update

pytestmark = pytest.mark.usefixtures("float64")

LOSS = squared_error(output="linear", derivative="exact").value
OPTIONS = {"mixing": "uniform", "expansion": 2, "density": 1.0}


@functools.cache
def make(hidden=(4, 3), **options):
    network = mlp((5,), 3, hidden=list(hidden), dropout=0.0, **{**MLP, **RANDOM_WEIGHTS})
    rule = compiled(product_feedback_alignment(network, LOSS, **{**OPTIONS, **options}))
    return network, rule, *to_float64(rule.init(jax.random.key(1)))


def make_batch(seed=0):
    return random_batch((5,), 3, size=4, seed=seed, dtype=np.float64)


@pytest.mark.parametrize("hidden", [(4, 3), (4,) * 9], ids=["unrolled", "scanned"])
def test_the_signal_passes_both_factors_and_the_second_learns_from_what_is_between_them(hidden):
    network, rule, params, feedback = make(hidden)
    batch = make_batch()
    weights, biases = reference.weights_and_biases(network, params)
    preactivations, inputs = reference.forward(weights, biases, np.asarray(batch.inputs), "tanh")
    fixed, learned = (reference.unstack(network.kernel_shapes, feedback[part]) for part in (FIXED, LEARNED))
    deltas, learned_updates = [(preactivations[-1] - np.asarray(batch.targets)) / 4], []
    for b, r, a, h in zip(fixed[::-1], learned[::-1], preactivations[-2::-1], inputs[:0:-1], strict=True):
        middle = deltas[0] @ b.T
        learned_updates.insert(0, h.T @ middle)
        deltas.insert(0, middle @ r.T * (1 - np.tanh(a) ** 2))
    updates = rule.updates(params, feedback, batch)
    computed = reference.weights_and_biases(network, updates)
    for arrays, expected in zip(computed, reference.updates(deltas, inputs), strict=True):
        for array, expected_array in zip(arrays, expected, strict=True):
            np.testing.assert_allclose(array, expected_array, rtol=1e-10, atol=1e-13)
    changes = rule.learn(params, feedback, batch, updates)
    for array, expected in zip(
        reference.unstack(network.kernel_shapes, changes[LEARNED]), learned_updates, strict=True
    ):
        np.testing.assert_allclose(array, expected, rtol=1e-10, atol=1e-13)
    assert not any(np.any(change) for change in changes[FIXED].values())


def test_it_is_feedback_alignment_with_the_product_as_feedback():
    network, rule, params, feedback = make()
    batch = make_batch()
    fa_updates = compiled(fa(network, LOSS, init_feedback=layerwise())).updates(params, products(feedback), batch)
    updates, gradient = rule.updates(params, feedback, batch), compiled(bp(network, LOSS)).updates(params, (), batch)
    assert_trees_close(updates, fa_updates, rtol=1e-12, atol=1e-15)
    assert_trees_close(updates["readout"], gradient["readout"], rtol=1e-12, atol=1e-15)


def test_feedback_at_the_point_of_alignment_with_orthonormal_rows_is_backprop():
    network, rule, params, feedback = make()
    aligned = {FIXED: {}, LEARNED: {}}
    for name, b in feedback[FIXED].items():
        orthonormal = jnp.linalg.qr(b)[0]  # [m, out]: B has orthonormal rows
        aligned[FIXED][name] = orthonormal
        aligned[LEARNED][name] = network.kernels(params)[name] @ orthonormal.T
    batch = make_batch()
    gradient = compiled(bp(network, LOSS)).updates(params, (), batch)
    assert_trees_close(rule.updates(params, aligned, batch), gradient, rtol=1e-10, atol=1e-14)


def train(rule, params, feedback, scaling, decay, steps):
    """Yields the states of training, the fixed feedback being kept from decay as the command line does."""
    optimizer = descend(scaling, learning_rate=0.1, schedule=constant, weight_decay=decay, clip=None)
    for_params, for_feedback = optimizer(steps), with_fixed(optimizer(steps), rule.extras.fixed_feedback)
    state, feedback_state = for_params.init(params), for_feedback.init(feedback)
    for i in range(steps):
        updates = rule.updates(params, feedback, make_batch(i))
        changes = rule.learn(params, feedback, make_batch(i), updates)
        changes, feedback_state = for_feedback.update(changes, feedback_state, feedback)
        updates, state = for_params.update(updates, state, params)
        params, feedback = optax.apply_updates(params, updates), optax.apply_updates(feedback, changes)
        yield params, feedback


def gaps(network, params, feedback):
    """`R - B^T W`, transposed, by kernel."""
    kernels = network.kernels(params)
    return {name: r - kernels[name] @ feedback[FIXED][name].T for name, r in feedback[LEARNED].items()}


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_gap_shrinks_by_the_weight_decay_alone(decay):
    network, rule, params, feedback = make()
    before = gaps(network, params, feedback)
    *_, (last_params, last_feedback) = train(rule, params, feedback, optax.identity(), decay, 10)
    expected = jax.tree.map(lambda gap: (1 - 0.1 * decay) ** 10 * gap, before)
    assert_trees_close(gaps(network, last_params, last_feedback), expected, rtol=1e-9, atol=1e-14)
    assert_trees_close(last_feedback[FIXED], feedback[FIXED], rtol=0, atol=0)
    assert np.any(last_feedback[LEARNED]["readout"] != feedback[LEARNED]["readout"])


def test_with_momentum_the_gap_moves_like_one_number_under_decay_alone():
    network, rule, params, feedback = make()
    before = gaps(network, params, feedback)
    *_, last = train(rule, params, feedback, optax.trace(0.9), 0.3, 6)
    gap, velocity = 1.0, 0.0
    for _ in range(6):
        velocity = 0.9 * velocity + 0.3 * gap
        gap -= 0.1 * velocity
    expected = jax.tree.map(lambda g: gap * g, before)
    assert_trees_close(gaps(network, *last), expected, rtol=1e-9, atol=1e-14)


def test_square_orthogonal_mixing_is_kolen_pollack_in_rotated_coordinates():
    network, rule, params, feedback = make(mixing="orthogonal", expansion=1)
    for b in feedback[FIXED].values():
        np.testing.assert_allclose(b @ b.T, np.eye(len(b)), atol=1e-6)
    # QR in float64: the draw is orthogonal to float32 alone.
    feedback = {**feedback, FIXED: {name: jnp.linalg.qr(b)[0] for name, b in feedback[FIXED].items()}}
    rival = kolen_pollack(network, LOSS, init_feedback=layerwise())
    ours = train(rule, params, feedback, optax.trace(0.9), 0.3, 3)
    theirs = train(rival, params, products(feedback), optax.trace(0.9), 0.3, 3)
    for (our_params, our_feedback), (their_params, their_feedback) in zip(ours, theirs, strict=True):
        assert_trees_close(our_params, their_params, rtol=1e-9, atol=1e-13)
        assert_trees_close(products(our_feedback), their_feedback, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("expansion", "density"), [(1, 1.0), (10, 1.0), (10, 0.3)])
def test_the_fixed_weights_keep_the_scale_of_a_signal_on_average(expansion, density):
    network = mlp((8,), 60, hidden=[60], dropout=0.0, **MLP)
    rule = product_feedback_alignment(network, LOSS, mixing="uniform", expansion=expansion, density=density)
    (b,) = rule.init(jax.random.key(0))[1][FIXED].values()
    assert b.shape == (60 * expansion, 60)
    product = np.asarray(b.T @ b)
    np.testing.assert_allclose(np.mean(np.diag(product)), 1, atol=6 * np.sqrt((9 / 5 / density - 1) / b.size))
    off_diagonal = product[~np.eye(60, dtype=bool)]
    assert abs(off_diagonal.mean()) < 6 * off_diagonal.std() / np.sqrt(off_diagonal.size / 2)
    assert abs(np.mean(b != 0) - density) < 0.02


@pytest.mark.parametrize("expansion", [1, 10])
def test_aligned_feedback_is_at_the_angle_of_the_expansion(expansion):
    network = mlp((8,), 300, hidden=[300], dropout=0.0, **MLP)
    rule = product_feedback_alignment(network, LOSS, mixing="uniform", expansion=expansion, density=1.0)
    params, feedback = rule.init(jax.random.key(0))
    (b,), w = feedback[FIXED].values(), network.kernels(params)["readout"]
    aligned = w @ b.T @ b
    cosine = jnp.sum(aligned * w) / jnp.linalg.norm(aligned) / jnp.linalg.norm(w)
    assert abs(np.degrees(np.arccos(cosine)) - np.degrees(np.arctan(expansion**-0.5))) < 1


def test_removed_entries_of_both_factors_stay_zero():
    _, rule, params, feedback = make(density=0.5)
    *_, (_, last) = train(rule, params, feedback, optax.identity(), 0.1, 2)
    for part in (FIXED, LEARNED):
        for name, before in feedback[part].items():
            assert 0 < np.mean(before == 0) < 1
            np.testing.assert_array_equal(last[part][name] == 0, before == 0)


def test_a_convolution_has_a_convolution_and_mixed_channels():
    network = cnn((5, 5, 2), 3, **{**CNN, "topology": "conv4x3-conv5x3v"})
    rule = compiled(product_feedback_alignment(network, LOSS, **OPTIONS))
    params, feedback = to_float64(rule.init(jax.random.key(0)))
    batch = random_batch((5, 5, 2), 3, size=2, dtype=np.float64)
    name = "stages_1/linear"
    b, r = (np.asarray(feedback[part][name]) for part in (FIXED, LEARNED))
    assert (b.shape, r.shape) == ((10, 5), (3, 3, 4, 10))
    np.testing.assert_allclose(products(feedback)[name], np.einsum("hwim,mo->hwio", r, b), rtol=1e-12)
    layers = [params[f"stages_{i}"]["linear"] for i in range(2)]
    kernels, biases = ([np.asarray(layer[leaf]) for layer in layers] for leaf in ("kernel", "bias"))
    below = np.tanh(convolve(np.asarray(batch.inputs), kernels[0], biases[0], "SAME"))
    h = np.tanh(convolve(below, kernels[1], biases[1], "VALID"))
    readout = params["readout"]["linear"]
    error = (h.reshape(2, -1) @ readout["kernel"] + readout["bias"] - np.asarray(batch.targets)) / 2
    path = np.asarray(products(feedback)["readout/linear"])
    delta = (error @ path.T).reshape(h.shape) * (1 - h**2)
    changes = rule.learn(params, feedback, batch, rule.updates(params, feedback, batch))
    expected = kernel_update(below, delta @ b.T, r, "VALID")
    np.testing.assert_allclose(changes[LEARNED][name], expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixing": "normal"}, "mixing must be one of uniform, orthogonal; got 'normal'"),
        ({"expansion": 0}, "expansion must be an integer of at least 1; got 0"),
        ({"density": 0.0}, "density must be a finite number above 0 and at most 1; got 0.0"),
        ({"mixing": "orthogonal"}, "expansion must be 1 with mixing=orthogonal; got 2"),
        ({"mixing": "orthogonal", "expansion": 1, "density": 0.5}, "density must be 1 with mixing=orthogonal; got 0.5"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(BadOption, match=f"^{message}"):
        make(**options)


def test_a_layer_with_several_axes_is_one_matrix_from_all_inputs_to_all_outputs():
    network = transformer((4, 4, 1), 3, **{**TRANSFORMER, "blocks": 1})
    rule = compiled(product_feedback_alignment(network, LOSS, **OPTIONS))
    params, feedback = rule.init(jax.random.key(0))
    params, feedback = to_float64((params, feedback))
    batch = random_batch((4, 4, 1), 3, size=2, dtype=np.float64)
    updates = rule.updates(params, feedback, batch)
    learned = rule.learn(params, feedback, batch, updates)[LEARNED]
    for layer, inputs, kernel_shape in (("query", (4,), (4, 2, 2)), ("out", (2, 2), (2, 2, 4))):
        name = f"stages_0/layers_1/attention/{layer}"
        b, r, kernel = feedback[FIXED][name], feedback[LEARNED][name], network.kernels(updates)[name]
        assert (b.shape, r.shape, kernel.shape) == ((8, 4), (*inputs, 8), kernel_shape)
        assert 0.9 < np.max(np.abs(r)) / np.sqrt(6 / (4 + 8)) < 1
        matrix = np.asarray(kernel).reshape(4, 4)
        np.testing.assert_allclose(learned[name].reshape(4, 8), matrix @ b.T, rtol=1e-9, atol=1e-12)
        backward_kernel, _ = rule.extras.weight_pairs(params, feedback)[name]
        np.testing.assert_allclose(backward_kernel.reshape(4, 4), r.reshape(4, 8) @ b, rtol=1e-5, atol=1e-6)


def test_orthogonal_matrices_are_uniform_and_drawn_without_qr():
    draw = functools.partial(orthogonal, size=30, stack=(40,))
    q = np.asarray(draw(jax.random.key(0)))
    np.testing.assert_allclose(q @ q.swapaxes(1, 2), np.broadcast_to(np.eye(30), q.shape), atol=1e-12)
    # Of a uniform one, tr Q has mean 0 and variance 1, and the entries have mean 0 and variance 1 / 30.
    traces = np.trace(q, axis1=1, axis2=2)
    assert abs(traces.mean()) < 4 / np.sqrt(40)
    assert 0.5 < traces.var() < 2
    np.testing.assert_allclose(q.mean(0), 0, atol=5 / np.sqrt(30 * 40))
    # QR can block forever, on several devices at once.
    by_qr, by_hand = (
        " qr[" in str(jax.make_jaxpr(function)(jax.random.key(0)))
        for function in (functools.partial(jax.random.orthogonal, n=30), draw)
    )
    assert by_qr
    assert not by_hand


def test_locally_connected_layers_are_refused():
    network = cnn((5, 5, 2), 3, **{**CNN, "topology": "conv4x3-conv5x3v", "shared_weights": False})
    with pytest.raises(BadOption, match="convolutions without groups; stages_1/linear is a ConvLocal"):
        product_feedback_alignment(network, LOSS, **OPTIONS)
