"""Forward-Forward: a step in numpy, the conventions and the phases of Hinton's code, inference, bad options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.losses import cross_entropy
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.rules.forward_forward.feedforward import STEP_COUNT, forward_forward
from fa_jax.rules.forward_forward.goodness import CONVENTIONS, Goodness, divide_by_rms
from fa_jax.rules.forward_forward.negatives import hybrids, with_label
from fa_jax.training.record import declared_metrics
from tests.conftest import assert_trees_close, compiled, random_batch
from tests.rules import forward_forward_reference as reference
from tests.rules.forward_forward_reference import LOCAL, RELU_MLP, hard_negative_labels, random_readouts, to_numpy
from tests.rules.reference import sigmoid

OPTIONS = {
    "goodness": "maximised",
    "convention": "hinton",
    "threshold": None,
    "temperature": 1.0,
    "contrast": "threshold",
    "alpha": None,
    "negatives": "hard",
    "blur_steps": None,
    "peer_strength": 0.03,
    "peer_rate": 0.1,
    "readout_rate": 10.0,
    "weight_decay": 0.0,
    "readout_decay": 0.0,
    "phase_length": 0,
    "first_readout_layer": 1,
    "inference": "softmax",
}


GOODNESS = Goodness(CONVENTIONS["hinton"], 1.0, 1.0, (3.0,), (1.0,), 0)
"""Of one layer of three units."""


@functools.cache
def make_once(hidden, inputs, options, network_options):
    network = mlp(inputs, 4, hidden=list(hidden), **{**RELU_MLP, **dict(network_options)})
    return compiled(forward_forward(network, cross_entropy().value, **{**OPTIONS, **dict(options)}))


def make(hidden=(9, 8, 5), *, inputs=(12,), options=None, **network_options):
    return make_once(hidden, inputs, tuple((options or {}).items()), tuple(network_options.items()))


def make_local(options=None, **network_options):
    network = cnn((6, 5, 1), 4, **{**LOCAL, **network_options})
    return compiled(forward_forward(network, cross_entropy().value, **{**OPTIONS, **(options or {})}))


def activities(rule, params, inputs, label):
    return jax.jit(rule.extras.network.call, static_argnums=0)("activities", params, with_label(inputs, label))


def reference_step(params, feedback, x, true_label, wrong_label, sign=1, strength=0.03):
    """One step of the published code: the directions of ascent over the batch size, and the running means."""

    def forward(label):
        n, layers = reference.divide_by_rms(np.concatenate([label, x[:, 4:]], 1)), []
        for i in range(3):
            layer = params[f"stages_{i}"]["linear"]
            y = np.maximum(n @ layer["kernel"] + layer["bias"], 0)
            layers.append((n, y, sigmoid(sign * ((y**2).sum(-1) - y.shape[-1]))[:, None]))
            n = reference.divide_by_rms(y)
        return layers

    readout_inputs = [reference.divide_by_rms(y) for _, y, _ in forward(np.full_like(true_label, 0.25))]
    logits = sum(readout_inputs[i] @ params[f"readouts_{i - 1}"]["kernel"] for i in (1, 2))
    q = np.exp(logits - logits.max(-1, keepdims=True))
    missing = true_label - q / q.sum(-1, keepdims=True)
    steps, means = {}, {}
    for i, ((n_pos, y_pos, p_pos), (n_neg, y_neg, p_neg)) in enumerate(
        zip(forward(true_label), forward(wrong_label), strict=True)
    ):
        m = means[f"stages_{i}"] = 0.9 * feedback[f"stages_{i}"] + 0.1 * y_pos.mean(0)
        up, down = sign * (1 - p_pos) * y_pos + strength * (m.mean() - m), -sign * p_neg * y_neg
        kernel, bias = (n_pos.T @ up + n_neg.T @ down) / len(x), (up + down).sum(0) / len(x)
        steps[f"stages_{i}"] = {"linear": {"kernel": kernel, "bias": bias}}
        if i:
            steps[f"readouts_{i - 1}"] = {"kernel": readout_inputs[i].T @ missing / len(x)}
    return steps, means


@pytest.mark.parametrize(("goodness", "sign"), [("maximised", 1), ("minimised", -1)])
def test_step_is_that_of_the_published_code(float64, goodness, sign):
    rule = make(options={"goodness": goodness})
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    wrong = hard_negative_labels(rule, params, batch)
    x, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    steps, means = reference_step(params, feedback, x, targets, wrong, sign)
    updates = rule.updates(params, feedback, batch)
    assert_trees_close(jax.tree.map(jnp.negative, updates), steps, rtol=1e-9, atol=1e-13)
    learned = jax.tree.map(jnp.subtract, feedback, rule.learn(params, feedback, batch, updates))
    assert_trees_close(learned, means, rtol=1e-12, atol=0)


def half_gradients(params, positive, negative, normalise=divide_by_rms, excess=None):
    """Half the gradients of the local losses of three layers on flat data, by autodiff.

    Args:
      params, positive, negative: the params, and the data.
      normalise: activities to the inputs of the layer above.
      excess: `(activities, number of inputs) -> goodness above the threshold`; None: that of Hinton's code.
    """
    excess = excess or (lambda y, inputs: jnp.sum(y**2, -1) - y.shape[-1])

    def total_loss(params):
        total = 0.0
        for data, sign in ((positive, 1), (negative, -1)):
            n = normalise(data)
            for i in range(3):
                layer = params[f"stages_{i}"]["linear"]
                y = jax.nn.relu(jax.lax.stop_gradient(n) @ layer["kernel"] + layer["bias"])
                total += jnp.mean(jax.nn.softplus(-sign * excess(y, n.shape[-1])))
                n = normalise(y)
        return total

    return jax.tree.map(lambda g: g / 2, jax.jit(jax.grad(total_loss))(params))


def test_without_peer_normalisation_updates_are_half_the_gradient_of_the_local_losses(float64):
    rule = make(options={"peer_strength": 0.0})
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    wrong = hard_negative_labels(rule, params, batch)

    expected = half_gradients(params, with_label(batch.inputs, batch.targets), with_label(batch.inputs, wrong))
    updates = rule.updates(params, feedback, batch)
    for name in ("stages_0", "stages_1", "stages_2"):
        assert_trees_close(updates[name], expected[name], rtol=1e-9, atol=1e-13)


def test_examples_are_normalised_to_a_mean_square_of_one_and_keep_their_mean():
    examples = np.random.default_rng(0).normal(2, 1, (5, 30)).astype(np.float32)
    examples[3] = 0
    normalised = np.asarray(divide_by_rms(examples))
    np.testing.assert_allclose(np.mean(normalised**2, -1), [1, 1, 1, 0, 1], rtol=1e-5)
    ratios = normalised[0] / examples[0]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def test_initial_activities_have_half_the_mean_square_of_the_threshold():
    rule = make((500, 400, 300), inputs=(784,), init="fan_normal")
    params, _ = rule.init(jax.random.key(0))
    x = np.abs(random_batch((784,), size=50).inputs)
    for y in activities(rule, params, x, jnp.eye(4)[jnp.zeros(50, int)]):
        assert 0.4 < np.mean(np.asarray(y) ** 2) < 0.6


def test_learning_one_positive_example_leaves_the_normalised_activity_of_the_layer_unchanged():
    rule = make(options={"peer_strength": 0.0})
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(size=1)

    def first_output(params):
        return divide_by_rms(activities(rule, params, batch.inputs, batch.targets)[0])

    # The rule's step without the part of negative data: the active units of the first layer grow by one factor.
    updates = rule.updates(params, feedback, batch)["stages_0"]["linear"]
    wrong = jnp.asarray(hard_negative_labels(rule, params, batch))
    y, inputs = activities(rule, params, batch.inputs, wrong)[0], divide_by_rms(with_label(batch.inputs, wrong))
    down = -jax.nn.sigmoid(jnp.sum(y**2, -1) - 9)[:, None] * y
    positive_part = {"kernel": updates["kernel"] + inputs.T @ down, "bias": updates["bias"] + down.sum(0)}
    layer = params["stages_0"]["linear"]
    updated = jax.tree.map(lambda p, u: p - 0.1 * u, layer, positive_part)
    assert np.abs(updated["kernel"] - layer["kernel"]).max() > 0.01
    updated_output = first_output({**params, "stages_0": {"linear": updated}})
    np.testing.assert_allclose(updated_output, first_output(params), rtol=1e-4, atol=1e-5)


def test_running_means_belong_to_their_layers_in_a_deep_network():
    rule = make((20,) * 10 + (31, 30))
    params, feedback = jax.jit(rule.init)(jax.random.key(0))
    batch = random_batch()
    updates = jax.jit(rule.updates)(params, feedback, batch)
    learned = jax.tree.map(jnp.subtract, feedback, jax.jit(rule.learn)(params, feedback, batch, updates))
    for i, y in enumerate(activities(rule, params, batch.inputs, batch.targets)):
        expected = 0.9 * 0.5 + 0.1 * np.asarray(y).mean(0)
        np.testing.assert_allclose(learned[f"stages_{i}"], expected, rtol=1e-5)


def test_gradient_of_the_normalisation_is_finite_for_a_silent_layer():
    gradient = jax.grad(lambda y: jnp.sum(divide_by_rms(y) * jnp.arange(6.0).reshape(2, 3)))
    assert np.all(np.isfinite(gradient(jnp.asarray([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))))


def test_peer_normalisation_pulls_up_a_silent_unit():
    rule = make((9, 8))
    params, feedback = rule.init(jax.random.key(0))
    layer = params["stages_0"]["linear"]
    silent = {"kernel": layer["kernel"].at[:, 2].set(0.0), "bias": layer["bias"].at[2].set(-1.0)}
    batch = random_batch()
    params = {**params, "stages_0": {"linear": silent}}
    update = rule.updates(params, feedback, batch)["stages_0"]["linear"]["bias"][2]
    mean = feedback["stages_0"] - rule.learn(params, feedback, batch, None)["stages_0"]
    np.testing.assert_allclose(-update, 0.03 * (mean.mean() - mean[2]), rtol=1e-5)
    assert -update > 0


def test_without_labels_updates_are_half_the_gradient_on_images_and_hybrids(float64):
    rule = make(inputs=(6, 5, 1), options={"negatives": "hybrid", "blur_steps": 1, "peer_strength": 0.0})
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(inputs=(6, 5, 1), dtype=np.float64)
    data = batch.inputs, hybrids(batch.key, batch.inputs, 1)

    expected = half_gradients(params, *(images.reshape(len(images), -1) for images in data))
    updates = rule.updates(params, feedback, batch)
    for i in range(3):
        assert_trees_close(updates[f"stages_{i}"], expected[f"stages_{i}"], rtol=1e-9, atol=1e-13)
    logits, n = 0.0, divide_by_rms(batch.inputs.reshape(len(batch.inputs), -1))
    for i in range(3):
        layer = params[f"stages_{i}"]["linear"]
        n = divide_by_rms(jax.nn.relu(n @ layer["kernel"] + layer["bias"]))
        logits += n @ params[f"readouts_{i - 1}"]["kernel"] if i else 0.0
    np.testing.assert_allclose(rule.predict(params, batch.inputs), logits, rtol=1e-9)


@pytest.mark.parametrize("negatives", ["hard", "uniform"])
def test_negative_labels_are_drawn_by_the_readouts_or_uniformly(negatives):
    rule = make(options={"negatives": negatives, "peer_strength": 0.0}, init_scale=2.5)
    params, feedback = random_readouts(rule)
    example = random_batch(size=1)
    inputs, targets = (jnp.repeat(a, 20_000, 0) for a in (example.inputs, example.targets))
    updates = rule.updates(params, feedback, example._replace(inputs=inputs, targets=targets))
    logits = np.asarray(rule.extras.network.apply(params, example.inputs))[0] if negatives == "hard" else np.zeros(4)
    probabilities = np.where(np.asarray(example.targets)[0] > 0, 0, np.exp(logits))
    probabilities /= probabilities.sum()

    def product(label, sign):
        y = activities(rule, params, example.inputs, label[None])[0]
        n = divide_by_rms(with_label(example.inputs, label[None]))
        return n.T @ (jax.nn.sigmoid(sign * (jnp.sum(y**2, -1) - 9))[:, None] * y)

    up = product(example.targets[0], -1)
    down = sum(p * product(label, 1) for p, label in zip(probabilities, jnp.eye(4), strict=True))
    np.testing.assert_allclose(updates["stages_0"]["linear"]["kernel"], down - up, atol=0.02 * np.abs(down).max())


def test_both_inferences_learn_a_task_and_the_first_layer_has_no_vote():
    rules = {name: make((40, 30), inputs=(30,), options={"inference": name}) for name in ("softmax", "goodness")}
    rule = rules["softmax"]
    params, feedback = rule.init(jax.random.key(0))
    random = np.random.default_rng(0)
    classes = np.arange(200) % 4
    x = np.abs(random.normal(size=(4, 30))[classes] + 0.2 * random.normal(size=(200, 30))).astype(np.float32)
    batch = random_batch()._replace(inputs=jnp.asarray(x), targets=jnp.eye(4)[classes])
    optimizer = optax.ema(0.9, debias=False)

    @jax.jit
    def step(state, i):
        params, feedback, optimizer_state = state
        step_batch = batch._replace(key=jax.random.key(i))
        updates = rule.updates(params, feedback, step_batch)
        learned = rule.learn(params, feedback, step_batch, updates)
        updates, optimizer_state = optimizer.update(updates, optimizer_state)
        multipliers = rule.extras.learning_rate_multipliers(params)
        params = jax.tree.map(lambda p, u, m: p - 0.03 * m * u, params, updates, multipliers)
        return (params, jax.tree.map(jnp.subtract, feedback, learned), optimizer_state), None

    (params, feedback, _), _ = jax.lax.scan(step, (params, feedback, optimizer.init(params)), jnp.arange(600))
    for trained in rules.values():
        assert np.mean(trained.predict(params, batch.inputs).argmax(-1) == classes) > 0.9
    metrics = rule.extras.measure.compute(params, feedback, batch)
    assert metrics["positive_goodness_1"] > metrics["negative_goodness_1"]
    assert metrics["pairwise_error_1"] < 10
    by_label = [activities(rule, params, batch.inputs, jnp.tile(label, (200, 1))) for label in jnp.eye(4)]
    expected = np.stack([np.sum(np.asarray(layers[1]) ** 2, -1) - 30 for layers in by_label], -1)
    np.testing.assert_allclose(rules["goodness"].predict(params, batch.inputs), expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("inference", "other"), [("softmax", "goodness"), ("goodness", "softmax")])
def test_measure_computes_the_error_of_the_other_inference_and_declares_its_metrics(inference, other):
    rule, other_rule = (make(options={"inference": name}) for name in (inference, other))
    params, feedback = random_readouts(rule)
    batch = random_batch(size=50)
    metrics = rule.extras.measure.compute(params, feedback, batch)
    error = 100 * np.mean(other_rule.predict(params, batch.inputs).argmax(-1) != batch.targets.argmax(-1))
    np.testing.assert_allclose(metrics[f"probe_error_by_{other}"], error)
    kinds = ("positive_goodness", "negative_goodness", "pairwise_error")
    assert set(metrics) == {f"probe_error_by_{other}", *(f"{kind}_{i}" for kind in kinds for i in range(3))}
    assert {metric.name for metric in rule.extras.measure.metrics} == {
        *kinds,
        "probe_error_by_goodness",
        "probe_error_by_softmax",
    }


@pytest.mark.parametrize("shared", [False, True])
def test_step_with_local_fields_is_that_of_the_equations(float64, shared):
    """A layer has its normalisation and its goodness as a whole; weights belong to a position or are shared."""
    rule = make_local(shared_weights=shared)
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch((6, 5, 1), dtype=np.float64)
    wrong = hard_negative_labels(rule, params, batch)
    x, steps = np.asarray(batch.inputs), {}

    normalised = []
    for label in (np.asarray(batch.targets), wrong):
        labelled = np.concatenate([label, x.reshape(7, -1)[:, 4:]], 1).reshape(x.shape)
        normalised.append(reference.divide_by_rms(labelled))
    windows = reference.patches if shared else reference.local_patches
    forward = "nijhwc,hwcf->nijf" if shared else "nijk,ijkf->nijf"
    outer = "nijhwc,nijf->hwcf" if shared else "nijk,nijf->ijkf"
    for i, window in enumerate((3, 2)):
        layer, m = params[f"stages_{i}"]["linear"], feedback[f"stages_{i}"]
        inputs = [windows(n, window) for n in normalised]
        y_pos, y_neg = (np.maximum(np.einsum(forward, p, layer["kernel"]) + layer["bias"], 0) for p in inputs)
        m = 0.9 * m + 0.1 * y_pos.mean(0)
        p_pos, p_neg = (sigmoid((y**2).sum((1, 2, 3)) - y[0].size)[:, None, None, None] for y in (y_pos, y_neg))
        deltas = [(1 - p_pos) * y_pos + 0.03 * (m.mean() - m), -p_neg * y_neg]
        kernel = sum(np.einsum(outer, p, d) for p, d in zip(inputs, deltas, strict=True)) / 7
        bias = sum(d.sum((0, 1, 2) if shared else 0) for d in deltas) / 7
        steps[f"stages_{i}"] = {"linear": {"kernel": kernel, "bias": bias}}
        normalised = [reference.divide_by_rms(y) for y in (y_pos, y_neg)]
    updates = jax.tree.map(jnp.negative, rule.updates(params, feedback, batch))
    updates.pop("readouts_0")
    assert_trees_close(updates, steps, rtol=1e-9, atol=1e-13)


def divide_by_length(y):
    return y / (1e-4 + jnp.linalg.norm(y, axis=-1, keepdims=True))


@pytest.mark.parametrize(
    ("convention", "normalise", "goodness", "threshold_factor"),
    [
        ("fan_in", divide_by_rms, jnp.sum, lambda inputs: inputs),
        ("mean_square", divide_by_rms, jnp.mean, lambda inputs: 1),
        ("unit_length", divide_by_length, jnp.mean, lambda inputs: 1),
    ],
)
def test_other_conventions_are_half_the_gradient_of_their_losses(
    float64, convention, normalise, goodness, threshold_factor
):
    options = {"convention": convention, "threshold": 1.5, "temperature": 0.7, "peer_strength": 0.0}
    rule = make(options=options, init_scale=3.0)
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    data = [with_label(batch.inputs, label) for label in (batch.targets, hard_negative_labels(rule, params, batch))]

    def excess(y, inputs):
        return (goodness(y**2, -1) - 1.5 * threshold_factor(inputs)) / 0.7

    expected = half_gradients(params, *data, normalise, excess)
    updates = rule.updates(params, feedback, batch)
    for name in ("stages_0", "stages_1", "stages_2"):
        assert np.abs(expected[name]["linear"]["kernel"]).max() > 1e-4
        assert_trees_close(updates[name], expected[name], rtol=1e-8, atol=1e-13)


PAIRS = {"contrast": "pairs", "alpha": 4.0, "convention": "mean_square", "peer_strength": 0.0}


def reference_pairs(params, x, true_label, wrong_label, alpha):
    """SymBa's steps of descent: half the gradient, with one number per pair; goodness is a mean of squares."""
    inputs = [reference.divide_by_rms(np.concatenate([label, x[:, 4:]], 1)) for label in (true_label, wrong_label)]
    steps = []
    for i in range(3):
        layer = params[f"stages_{i}"]["linear"]
        y_pos, y_neg = (np.maximum(n @ layer["kernel"] + layer["bias"], 0) for n in inputs)
        difference = (y_pos**2).mean(-1) - (y_neg**2).mean(-1)
        push = (alpha * sigmoid(-alpha * difference) / len(x) / y_pos.shape[-1])[:, None]
        kernel = inputs[1].T @ (push * y_neg) - inputs[0].T @ (push * y_pos)
        steps.append({"linear": {"kernel": kernel, "bias": (push * (y_neg - y_pos)).sum(0)}})
        inputs = [reference.divide_by_rms(y) for y in (y_pos, y_neg)]
    return steps


def test_pairs_learn_by_the_loss_of_symba(float64):
    rule = make(options=PAIRS, init_scale=2.0)
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    x, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    steps = reference_pairs(params, x, targets, hard_negative_labels(rule, params, batch), 4.0)
    updates = rule.updates(params, feedback, batch)
    for i, step in enumerate(steps):
        assert_trees_close(updates[f"stages_{i}"], step, rtol=1e-9, atol=1e-13)


def test_alpha_of_a_sum_of_squares_is_that_of_a_mean_over_the_number_of_units(float64):
    chosen = ({"convention": "hinton", "alpha": 0.5}, {"alpha": 3.0})
    by_sum, by_mean = (make((6, 6), options={**PAIRS, **options}) for options in chosen)
    params, feedback = to_numpy(random_readouts(by_mean))
    batch = random_batch(dtype=np.float64)
    updates, expected = (rule.updates(params, feedback, batch) for rule in (by_sum, by_mean))
    assert_trees_close(updates, expected, rtol=1e-10, atol=1e-14)


def test_identities_of_pairs(float64):
    """A common constant changes nothing; swapped data shift the loss; a threshold half way is alpha 1/2, twice."""
    good = GOODNESS._replace(alpha=0.5)
    random = np.random.default_rng(0)
    high, low = (jnp.asarray(random.normal(size=(5, 3))) for _ in range(2))
    loss, swapped = good.joint_loss(0, high, low), good.joint_loss(0, low, high)
    difference = good.goodness(high) - good.goodness(low)
    np.testing.assert_allclose(2 * (swapped - loss), 0.5 * difference.mean(), rtol=1e-12)
    constant = jnp.full((5, 1), 2.0)
    shifted = good.joint_loss(0, *(jnp.concatenate([y, constant], 1) for y in (high, low)))
    np.testing.assert_allclose(shifted, loss, rtol=1e-12)
    up, down = jax.grad(good.joint_loss, (1, 2))(0, high, high)
    np.testing.assert_array_equal(up, -down)
    half_way = (good.goodness(high) + good.goodness(low)) / 2

    def by_threshold(high, low):
        up, down = (good.goodness(y) - half_way for y in (high, low))
        return (jax.nn.softplus(-up).mean() + jax.nn.softplus(down).mean()) / 2

    np.testing.assert_allclose(by_threshold(high, low), 2 * loss, rtol=1e-12)
    gradients, expected = jax.grad(by_threshold, (0, 1))(high, low), jax.grad(good.joint_loss, (1, 2))(0, high, low)
    assert_trees_close(gradients, jax.tree.map(lambda g: 2 * g, expected), rtol=1e-11, atol=1e-14)


def test_signals_of_pairs_are_those_of_positive_data(float64):
    rule = make(options=PAIRS, init_scale=2.0)
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    wrong = hard_negative_labels(rule, params, batch)
    pairs = zip(*(activities(rule, params, batch.inputs, label) for label in (batch.targets, wrong)), strict=True)
    signals = rule.extras.signals(params, feedback, batch)
    for i, (y_pos, y_neg) in enumerate(pairs):
        difference = np.mean(np.asarray(y_pos) ** 2, -1) - np.mean(np.asarray(y_neg) ** 2, -1)
        push = 4 * sigmoid(-4 * difference) / len(y_pos) / y_pos.shape[-1]
        np.testing.assert_allclose(signals[f"stages_{i}/hidden"], -push[:, None] * y_pos, rtol=1e-9, atol=1e-14)


def test_phases_alternate_between_positive_and_negative_data():
    together, alternating = (make(options={"phase_length": length}) for length in (0, 2))
    params, feedback = random_readouts(alternating)
    means = {name: mean for name, mean in feedback.items() if name != STEP_COUNT}
    batch = random_batch()
    joint_updates = together.updates(params, means, batch)
    phases = []
    for _ in range(5):
        updates = alternating.updates(params, feedback, batch)
        phases.append(updates["stages_0"])
        assert_trees_close(updates["readouts_0"], joint_updates["readouts_0"], rtol=1e-6, atol=1e-7)
        learned = alternating.learn(params, feedback, batch, updates)
        feedback = {**feedback, STEP_COUNT: feedback[STEP_COUNT] - learned[STEP_COUNT]}
    for i, j in ((0, 1), (2, 3), (0, 4)):
        assert_trees_close(phases[i], phases[j], rtol=0, atol=0)
    assert_trees_close(jax.tree.map(jnp.add, phases[1], phases[2]), joint_updates["stages_0"], rtol=1e-5, atol=1e-7)
    wrong = jnp.asarray(hard_negative_labels(together, params, batch))
    n, y = divide_by_rms(with_label(batch.inputs, wrong)), activities(together, params, batch.inputs, wrong)[0]
    down = jax.nn.sigmoid(jnp.sum(y**2, -1) - 9)[:, None] * y
    np.testing.assert_allclose(phases[2]["linear"]["kernel"], n.T @ down / len(y), rtol=1e-4, atol=1e-7)


def test_kernels_alone_decay_by_the_scale_of_the_convention():
    decays = {"weight_decay": 0.1, "readout_decay": 0.2}
    for convention, scale in (("hinton", lambda units: 1), ("mean_square", lambda units: 1 / units)):
        with_decay, without = (make(options={**options, "convention": convention}) for options in (decays, {}))
        params, feedback = random_readouts(without)
        plain, decayed = (rule.updates(params, feedback, random_batch()) for rule in (without, with_decay))
        for i, units in enumerate((9, 8, 5)):
            layer, plain_layer = decayed[f"stages_{i}"]["linear"], plain[f"stages_{i}"]["linear"]
            expected = plain_layer["kernel"] + 0.1 * scale(units) * params[f"stages_{i}"]["linear"]["kernel"]
            np.testing.assert_allclose(layer["kernel"], expected, rtol=1e-5)
            np.testing.assert_array_equal(layer["bias"], plain_layer["bias"])
        expected = plain["readouts_0"]["kernel"] + 0.2 * params["readouts_0"]["kernel"]
        np.testing.assert_allclose(decayed["readouts_0"]["kernel"], expected, rtol=1e-5)


def test_peer_normalisation_has_the_scale_of_the_convention():
    pulls = {}
    for convention in ("hinton", "mean_square"):
        pulled, free = (make(options={"convention": convention, "peer_strength": s}) for s in (0.3, 0.0))
        params, feedback = random_readouts(free)
        biases = [r.updates(params, feedback, random_batch())["stages_1"]["linear"]["bias"] for r in (pulled, free)]
        pulls[convention] = np.subtract(*biases)
    np.testing.assert_allclose(pulls["mean_square"], pulls["hinton"] / 8, rtol=1e-3, atol=1e-7)


def test_all_layers_may_have_a_readout(float64):
    rule = make(options={"first_readout_layer": 0})
    params, _ = random_readouts(rule)
    x = random_batch(dtype=np.float64).inputs
    layers = activities(rule, params, x, jnp.full((len(x), 4), 0.25))
    logits = sum(divide_by_rms(y) @ params[f"readouts_{i}"]["kernel"] for i, y in enumerate(layers))
    np.testing.assert_allclose(rule.predict(params, x), logits, rtol=1e-9)


def test_signals_are_those_of_positive_data_without_peer_normalisation(float64):
    rule = make(options={"peer_strength": 0.3})
    params, feedback = to_numpy(random_readouts(rule))
    batch = random_batch(dtype=np.float64)
    signals = rule.extras.signals(params, feedback, batch)
    assert list(signals) == [f"stages_{i}/hidden" for i in range(3)]
    for i, y in enumerate(activities(rule, params, batch.inputs, batch.targets)):
        p = sigmoid(np.sum(np.asarray(y) ** 2, -1) - y.shape[-1])[:, None]
        np.testing.assert_allclose(signals[f"stages_{i}/hidden"], -(1 - p) * y / 7, rtol=1e-10, atol=1e-14)


def test_average_pooling_is_refused():
    with pytest.raises(BadOption, match="is not defined with average pooling; it needs pooling=max"):
        make_local(topology="conv5x3p2-conv6x2", pooling="average")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": (9,)}, "^first_readout_layer must be below 1, the number of hidden layers, .*; got 1"),
        ({"biases": False}, r"^needs biases=true"),
        ({"dropout": 0.5}, "^is not defined with dropout"),
        ({"input_dropout": 0.5}, "^is not defined with dropout"),
        ({"activation": "tanh"}, r"^needs activation=relu"),
        ({"inputs": (3,)}, "^writes the label into the inputs: 4 classes do not fit into 3 components"),
        ({"options": {"goodness": "high"}}, "^goodness must be one of maximised, minimised; got 'high'"),
        (
            {"options": {"negatives": "hybrid"}},
            "^negatives must be hard or uniform unless inputs are images; got inputs of shape 12",
        ),
        (
            {"inputs": (6, 5, 1), "options": {"negatives": "hybrid", "inference": "goodness"}},
            "^inference must be softmax with negatives=hybrid",
        ),
        ({"options": {"blur_steps": 6}}, "^blur_steps must be null without negatives=hybrid; got 6"),
        (
            {"inputs": (6, 5, 1), "options": {"negatives": "hybrid", "blur_steps": -1}},
            "^blur_steps must be an integer of at least 0; got -1",
        ),
        ({"options": {"negatives": "soft"}}, "^negatives must be one of hard, uniform, hybrid; got 'soft'"),
        ({"options": {"inference": "both"}}, "^inference must be one of softmax, goodness; got 'both'"),
        ({"options": {"peer_rate": 2}}, "^peer_rate must be a finite number"),
        ({"options": {"readout_rate": 0}}, "^readout_rate must be a finite number above 0; got 0"),
    ],
)
def test_bad_options_are_named(arguments, message):
    with pytest.raises(BadOption, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"convention": "sum"}}, "^convention must be one of hinton, .*; got 'sum'"),
        ({"options": {"threshold": 0}}, "^threshold must be a finite number above 0; got 0"),
        ({"options": {"temperature": -1}}, "^temperature must be a finite number above 0; got -1"),
        ({"options": {"phase_length": 0.5}}, "^phase_length must be an integer of at least 0; got 0.5"),
        ({"options": {"alpha": 4}}, "^alpha must be null with contrast=threshold; got 4"),
        ({"options": {"contrast": "both"}}, "^contrast must be one of threshold, pairs; got 'both'"),
        ({"options": {**PAIRS, "alpha": None}}, "^alpha must be a finite number above 0; got None"),
        ({"options": {**PAIRS, "threshold": 2.0}}, "^threshold must be null with contrast=pairs, .*; got 2.0"),
        ({"options": {**PAIRS, "temperature": 2}}, "^temperature must be 1 with contrast=pairs, .*; got 2"),
        ({"options": {**PAIRS, "phase_length": 3}}, "^phase_length must be 0 with contrast=pairs, .*; got 3"),
        ({"norm": "layer"}, r"^normalises by itself; it needs norm=none"),
        ({"hidden_position": "before_pooling"}, r"^needs hidden_position=after_pooling"),
        ({"topology": "conv5x3v+conv6x2v-9"}, "^needs stages of one dense or local layer each"),
    ],
)
def test_bad_options_of_local_fields_and_conventions_are_named(arguments, message):
    with pytest.raises(BadOption, match=message):
        make_local(**arguments)


@pytest.mark.parametrize("name", ["forward_forward", "recurrent_forward_forward"])
@pytest.mark.parametrize(
    ("inference", "axis"), [("softmax", "train error (%)"), ("goodness", "train error (softmax, %)")]
)
def test_training_scores_say_that_they_are_by_softmax_where_test_scores_are_by_goodness(name, inference, axis):
    words = ["task=digits", f"rule={name}", f"rule.inference={inference}", "architecture.hidden=[9,8]"]
    columns = declared_metrics(compose(parse(words)).runs[0].job).columns(["train_error", "test_error"])
    assert (columns["train_error"].axis, columns["test_error"].axis) == (axis, "test error (%)")
