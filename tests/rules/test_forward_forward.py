"""Forward-Forward: a step in numpy, the scales and the schedule of Hinton's code, its negatives, its mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import cross_entropy
from fa_jax.networks.cnn import cnn
from fa_jax.networks.mlp import mlp
from fa_jax.optimizers import halfway
from fa_jax.rules.forward_forward.feedforward import forward_forward
from fa_jax.rules.forward_forward.goodness import by_size, with_label
from fa_jax.tasks.augmentation import hybrids
from tests.conftest import assert_trees_close, random_batch
from tests.rules.test_contract import MLP

OPTIONS = {
    "goodness": "maximised",
    "convention": "hinton",
    "threshold": None,
    "temperature": 1.0,
    "negatives": "hard",
    "blurs": 1,
    "peer_strength": 0.03,
    "peer_rate": 0.1,
    "head_rate": 10.0,
    "weight_decay": 0.0,
    "head_decay": 0.0,
    "sleep": 0,
    "read_from": 1,
    "inference": "softmax",
}


def make(hidden=(9, 8, 5), *, inputs=12, options=None, **network):
    shape = inputs if isinstance(inputs, tuple) else (inputs,)
    network = mlp(shape, 4, hidden=list(hidden), **{**MLP, "activation": "relu", "dropout": 0.0, **network})
    return forward_forward(network, cross_entropy().value, **{**OPTIONS, **(options or {})})


def doubled(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def trained_somewhat(rule):
    """Params of which the readouts are not zero any more."""
    params, feedback = rule.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 9))
    shapes = {name: p["kernel"].shape for name, p in params.items() if name.startswith("heads_")}
    heads = {name: {"kernel": jax.random.normal(next(keys), shape)} for name, shape in shapes.items()}
    return {**params, **heads}, feedback


def passed(rule, params, inputs, label):
    return rule.network.call("passed", params, with_label(inputs, label))


def logistic(a):
    return 1 / (1 + np.exp(-a))


def by_hand(params, feedback, x, positive, negative, sign=1, strength=0.03):
    """One step of the published code: the directions of ascent over the batch size, and the running means."""

    def rows(a):
        return a / (1e-8 + np.sqrt((a**2).mean(-1, keepdims=True)))

    def both(label):
        n, layers = rows(np.concatenate([label, x[:, 4:]], 1)), []
        for i in range(3):
            layer = params[f"stages_{i}"]["linear"]
            y = np.maximum(n @ layer["kernel"] + layer["bias"], 0)
            layers.append((n, y, logistic(sign * ((y**2).sum(-1) - y.shape[-1]))[:, None]))
            n = rows(y)
        return layers, n

    neutral, _ = both(np.full_like(positive, 0.25))
    logits = sum(rows(neutral[i][1]) @ params[f"heads_{i - 1}"]["kernel"] for i in (1, 2))
    q = np.exp(logits - logits.max(-1, keepdims=True))
    missing = positive - q / q.sum(-1, keepdims=True)
    steps, means = {}, {}
    for i, ((n, y, p), (n_, y_, p_)) in enumerate(zip(both(positive)[0], both(negative)[0], strict=True)):
        m = means[f"stages_{i}"] = 0.9 * feedback[f"stages_{i}"] + 0.1 * y.mean(0)
        up, down = sign * (1 - p) * y + strength * (m.mean() - m), -sign * p_ * y_
        steps[f"stages_{i}"] = {
            "linear": {"kernel": (n.T @ up + n_.T @ down) / len(x), "bias": (up + down).sum(0) / len(x)}
        }
        if i:
            steps[f"heads_{i - 1}"] = {"kernel": rows(neutral[i][1]).T @ missing / len(x)}
    return steps, means


def negatives(rule, params, batch):
    """The wrong labels that a step draws from the readouts."""
    logits = rule.network.apply(params, batch.inputs)
    drawn = jax.random.categorical(batch.key, jnp.where(batch.targets > 0, -jnp.inf, logits))
    return np.asarray(jax.nn.one_hot(drawn, 4))


@pytest.mark.parametrize(("goodness", "sign"), [("maximised", 1), ("minimised", -1)])
def test_a_step_is_that_of_the_published_code(float64, goodness, sign):
    rule = make(options={"goodness": goodness})
    params, feedback = trained_somewhat(rule)
    params, feedback = doubled(params), doubled(feedback)
    batch = random_batch(dtype=np.float64)
    wrong = negatives(rule, params, batch)
    steps, means = by_hand(params, feedback, np.asarray(batch.inputs), np.asarray(batch.targets), wrong, sign)
    updates = rule.updates(params, feedback, batch)
    assert_trees_close(jax.tree.map(jnp.negative, updates), steps, rtol=1e-9, atol=1e-13)
    learned = jax.tree.map(jnp.subtract, feedback, rule.learn(params, feedback, batch, updates))
    assert_trees_close(learned, means, rtol=1e-12, atol=0)


def half_gradients(params, true, false):
    """Half the gradients of the local losses of three layers on flattened data, by autodiff."""

    def local(params):
        total = 0.0
        for data, sign in ((true, 1), (false, -1)):
            n = by_size(data)
            for i in range(3):
                layer = params[f"stages_{i}"]["linear"]
                y = jax.nn.relu(jax.lax.stop_gradient(n) @ layer["kernel"] + layer["bias"])
                total += jnp.mean(jax.nn.softplus(-sign * (jnp.sum(y**2, -1) - y.shape[-1])))
                n = by_size(y)
        return total

    return jax.tree.map(lambda g: g / 2, jax.grad(local)(params))


def test_without_peers_it_is_half_the_gradient_of_the_local_losses(float64):
    rule = make(options={"peer_strength": 0.0})
    params, feedback = trained_somewhat(rule)
    params, batch = doubled(params), random_batch(dtype=np.float64)
    wrong = negatives(rule, params, batch)

    expected = half_gradients(params, with_label(batch.inputs, batch.targets), with_label(batch.inputs, wrong))
    updates = rule.updates(params, feedback, batch)
    for name in ("stages_0", "stages_1", "stages_2"):
        assert_trees_close(updates[name], expected[name], rtol=1e-9, atol=1e-13)


def test_rows_are_normalised_to_a_mean_square_of_one_and_no_mean_is_taken_out():
    rows = np.random.default_rng(0).normal(2, 1, (5, 30)).astype(np.float32)
    rows[3] = 0
    got = np.asarray(by_size(rows))
    np.testing.assert_allclose(np.mean(got**2, -1), [1, 1, 1, 0, 1], rtol=1e-5)
    np.testing.assert_allclose(got[0] / rows[0], (got[0] / rows[0])[0], rtol=1e-5)


def test_at_the_start_half_of_each_unit_s_power_is_there():
    rule = make((500, 400, 300), inputs=784, init="fan_normal")
    params, _ = rule.init(jax.random.key(0))
    x = np.abs(random_batch((784,), size=50).inputs)
    for y in passed(rule, params, x, jnp.eye(4)[jnp.zeros(50, int)]):
        assert 0.4 < np.mean(np.asarray(y) ** 2) < 0.6


def test_learning_one_example_leaves_what_a_layer_sends_up_as_it_was():
    rule = make(options={"peer_strength": 0.0})
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(size=1)

    def sent(params):
        return [by_size(y) for y in passed(rule, params, batch.inputs, batch.targets)]

    # The rule's step less its negative part: the active units of the first layer grow by one factor.
    updates = rule.updates(params, feedback, batch)["stages_0"]["linear"]
    wrong = jnp.asarray(negatives(rule, params, batch))
    y, below = passed(rule, params, batch.inputs, wrong)[0], by_size(with_label(batch.inputs, wrong))
    down = -jax.nn.sigmoid(jnp.sum(y**2, -1) - 9)[:, None] * y
    up = {"kernel": updates["kernel"] + below.T @ down, "bias": updates["bias"] + down.sum(0)}
    moved = jax.tree.map(lambda p, u: p - 0.1 * u, params["stages_0"]["linear"], up)
    assert np.abs(moved["kernel"] - params["stages_0"]["linear"]["kernel"]).max() > 0.01
    np.testing.assert_allclose(
        sent({**params, "stages_0": {"linear": moved}})[0], sent(params)[0], rtol=1e-4, atol=1e-5
    )


def test_running_means_stay_with_their_layers_in_a_deep_network():
    rule = make((20,) * 10 + (31, 30))
    params, feedback = jax.jit(rule.init)(jax.random.key(0))
    batch = random_batch()
    updates = jax.jit(rule.updates)(params, feedback, batch)
    learned = jax.tree.map(jnp.subtract, feedback, jax.jit(rule.learn)(params, feedback, batch, updates))
    for i, y in enumerate(passed(rule, params, batch.inputs, batch.targets)):
        expected = 0.9 * 0.5 + 0.1 * np.asarray(y).mean(0)
        np.testing.assert_allclose(learned[f"stages_{i}"], expected, rtol=1e-5)


def test_a_silent_layer_has_a_gradient():
    gradient = jax.grad(lambda y: jnp.sum(by_size(y) * jnp.arange(6.0).reshape(2, 3)))
    assert np.all(np.isfinite(gradient(jnp.asarray([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))))


def test_a_silent_unit_is_pulled_up_by_its_peers():
    rule = make((9, 8))
    params, feedback = rule.init(jax.random.key(0))
    silent = params["stages_0"]["linear"]
    silent = {"kernel": silent["kernel"].at[:, 2].set(0.0), "bias": silent["bias"].at[2].set(-1.0)}
    batch = random_batch()
    params = {**params, "stages_0": {"linear": silent}}
    update = rule.updates(params, feedback, batch)["stages_0"]["linear"]["bias"][2]
    mean = feedback["stages_0"] - rule.learn(params, feedback, batch, None)["stages_0"]
    np.testing.assert_allclose(-update, 0.03 * (mean.mean() - mean[2]), rtol=1e-5)
    assert -update > 0


def test_without_labels_it_is_half_the_gradient_of_the_local_losses_on_images_and_hybrids(float64):
    rule = make(inputs=(6, 5, 1), options={"negatives": "hybrid", "peer_strength": 0.0})
    params, feedback = trained_somewhat(rule)
    params, batch = doubled(params), random_batch(inputs=(6, 5, 1), dtype=np.float64)
    made = hybrids(batch.key, batch.inputs, 1)

    expected = half_gradients(params, *(images.reshape(len(images), -1) for images in (batch.inputs, made)))
    updates = rule.updates(params, feedback, batch)
    for i in range(3):
        assert_trees_close(updates[f"stages_{i}"], expected[f"stages_{i}"], rtol=1e-9, atol=1e-13)
    votes, n = 0.0, by_size(batch.inputs.reshape(len(batch.inputs), -1))
    for i in range(3):
        layer = params[f"stages_{i}"]["linear"]
        n = by_size(jax.nn.relu(n @ layer["kernel"] + layer["bias"]))
        votes += n @ params[f"heads_{i - 1}"]["kernel"] if i else 0.0
    np.testing.assert_allclose(rule.predict(params, batch.inputs), votes, rtol=1e-9)


@pytest.mark.parametrize("kind", ["hard", "uniform"])
def test_negatives_are_never_true_and_follow_the_readouts(kind):
    rule = make(options={"negatives": kind, "peer_strength": 0.0}, init_scale=2.5)
    params, feedback = trained_somewhat(rule)
    one = random_batch(size=1)
    many = one._replace(inputs=jnp.repeat(one.inputs, 20_000, 0), targets=jnp.repeat(one.targets, 20_000, 0))
    updates = rule.updates(params, feedback, many)
    logits = np.asarray(rule.network.apply(params, one.inputs))[0] if kind == "hard" else np.zeros(4)
    chances = np.where(np.asarray(one.targets)[0] > 0, 0, np.exp(logits))
    chances /= chances.sum()

    def product(label, sign):
        y, below = passed(rule, params, one.inputs, label[None])[0], by_size(with_label(one.inputs, label[None]))
        return below.T @ (jax.nn.sigmoid(sign * (jnp.sum(y**2, -1) - 9))[:, None] * y)

    up = product(one.targets[0], -1)
    down = sum(chance * product(label, 1) for chance, label in zip(chances, jnp.eye(4), strict=True))
    np.testing.assert_allclose(updates["stages_0"]["linear"]["kernel"], down - up, atol=0.02 * np.abs(down).max())


def test_the_rate_is_constant_for_half_of_the_epochs_then_falls_in_stairs():
    schedule = halfway(0.5, 100 * 7, stairs=100)
    gains = {epoch: float(schedule((epoch - 1) * 7 + 3)) / 0.5 for epoch in (1, 50, 51, 75, 100)}
    for epoch, gain in {1: 1.0, 50: 1.0, 51: 0.99, 75: 0.51, 100: 0.01}.items():
        assert gains[epoch] == pytest.approx(gain)
    long = halfway(1.0, 3_750_000, stairs=2000)
    np.testing.assert_allclose(float(long(3_749_000)), 1 / 2000, rtol=1e-5)
    short = halfway(1.0, 50, stairs=5)
    np.testing.assert_allclose([float(short(step)) for step in (0, 10, 20, 30, 49)], [1, 1, 1, 0.6, 0.2], rtol=1e-6)


def test_both_inferences_learn_a_task_and_the_first_layer_has_no_vote():
    rules = {name: make((40, 30), inputs=30, options={"inference": name}) for name in ("softmax", "goodness")}
    rule = rules["softmax"]
    params, feedback = rule.init(jax.random.key(0))
    random = np.random.default_rng(0)
    classes = np.arange(200) % 4
    x = np.abs(random.normal(size=(4, 30))[classes] + 0.2 * random.normal(size=(200, 30))).astype(np.float32)
    batch = random_batch()._replace(inputs=jnp.asarray(x), targets=jnp.eye(4)[classes])
    optimizer = optax.ema(0.9, debias=False)

    @jax.jit
    def step(state, i):
        params, feedback, slots = state
        now = batch._replace(key=jax.random.key(i))
        updates = rule.updates(params, feedback, now)
        learned = rule.learn(params, feedback, now, updates)
        updates, slots = optimizer.update(updates, slots)
        params = jax.tree.map(lambda p, u, r: p - 0.03 * r * u, params, updates, rule.rates(params))
        return (params, jax.tree.map(jnp.subtract, feedback, learned), slots), None

    (params, feedback, _), _ = jax.lax.scan(step, (params, feedback, optimizer.init(params)), jnp.arange(600))
    for one in rules.values():
        assert np.mean(one.predict(params, batch.inputs).argmax(-1) == classes) > 0.9
    report = rule.report(params, feedback, batch)
    assert report["positive_goodness_1"] > report["negative_goodness_1"]
    assert report["pairwise_error_1"] < 10
    layers = [passed(rule, params, batch.inputs, jnp.tile(label, (200, 1))) for label in jnp.eye(4)]
    expected = np.stack([np.sum(np.asarray(of[1]) ** 2, -1) - 30 for of in layers], -1)
    np.testing.assert_allclose(rules["goodness"].predict(params, batch.inputs), expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": (9,)}, "rule.read_from must be below the number of hidden layers, 1, .*; got 1"),
        ({"biases": False}, "rule=forward_forward needs architecture.biases=true"),
        ({"dropout": 0.5}, "rule=forward_forward has no definition for dropout"),
        ({"input_dropout": 0.5}, "rule=forward_forward has no definition for dropout"),
        ({"activation": "tanh"}, "rule=forward_forward needs architecture.activation=relu"),
        ({"inputs": 3}, "rule=forward_forward writes 4 classes into inputs of 3 numbers: too few"),
        ({"options": {"goodness": "high"}}, "rule.goodness must be one of maximised, minimised; got 'high'"),
        (
            {"options": {"negatives": "hybrid"}},
            "hybrid needs images, .*; the inputs of this task are 12",
        ),
        (
            {"inputs": (6, 5, 1), "options": {"negatives": "hybrid", "inference": "goodness"}},
            "must be softmax",
        ),
        ({"options": {"blurs": -1}}, "rule.blurs must be an integer of at least 0; got -1"),
        ({"options": {"negatives": "soft"}}, "rule.negatives must be one of hard, uniform, hybrid; got 'soft'"),
        ({"options": {"inference": "both"}}, "rule.inference must be one of softmax, goodness; got 'both'"),
        ({"options": {"peer_rate": 2}}, "rule.peer_rate must be a finite number"),
        ({"options": {"head_rate": 0}}, "rule.head_rate must be a finite number above 0; got 0"),
    ],
)
def test_bad_options_are_named(wrong, message):
    with pytest.raises(BadOption, match=message):
        make(**wrong)


LOCAL = {
    "topology": "conv5x3v-conv6x2v",
    "shared_weights": False,
    "activation": "relu",
    "norm": "none",
    "pooling": "max",
    "pool_stride": 2,
    "norm_dense": False,
    "hidden_ends": "after_pooling",
    "dropout": 0.0,
    "input_dropout": 0.0,
}


def make_local(options=None, **network):
    network = cnn((6, 5, 1), 4, **{**MLP, **LOCAL, **network})
    return forward_forward(network, cross_entropy().value, **{**OPTIONS, **(options or {})})


def patches(images, window):
    """Windows of `[batch, height, width, channels]`, `[batch, rows, columns, height, width, channels]`."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (window, window), (1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3)


@pytest.mark.parametrize("shared", [False, True])
def test_local_fields_learn_by_the_same_directions(float64, shared):
    """One step by hand: a layer is normalised and has its goodness as a whole, weights are each place's own or one."""
    rule = make_local(shared_weights=shared)
    params, feedback = doubled(trained_somewhat(rule))
    batch = random_batch((6, 5, 1), dtype=np.float64)
    wrong = negatives(rule, params, batch)
    x, steps = np.asarray(batch.inputs), {}

    def rows(a):
        return a / (1e-8 + np.sqrt((a**2).mean((1, 2, 3), keepdims=True)))

    sent = []
    for label in (np.asarray(batch.targets), wrong):
        sent.append(rows(np.concatenate([label, x.reshape(7, -1)[:, 4:]], 1).reshape(x.shape)))
    for i, window in enumerate((3, 2)):
        layer, m = params[f"stages_{i}"]["linear"], feedback[f"stages_{i}"]
        below = [patches(n, window) for n in sent]
        if not shared:  # Flax keeps a place's window with the channels in front
            below = [p.transpose(0, 1, 2, 5, 3, 4).reshape(*p.shape[:3], -1) for p in below]
        product = "nijhwc,hwcf->nijf" if shared else "nijk,ijkf->nijf"
        ys = [np.maximum(np.einsum(product, p, layer["kernel"]) + layer["bias"], 0) for p in below]
        m = 0.9 * m + 0.1 * ys[0].mean(0)
        ps = [logistic((y**2).sum((1, 2, 3)) - y[0].size)[:, None, None, None] for y in ys]
        told = [(1 - ps[0]) * ys[0] + 0.03 * (m.mean() - m), -ps[1] * ys[1]]
        back = "nijhwc,nijf->hwcf" if shared else "nijk,nijf->ijkf"
        kernel = sum(np.einsum(back, p, d) for p, d in zip(below, told, strict=True)) / 7
        bias = sum(d.sum((0, 1, 2) if shared else 0) for d in told) / 7
        steps[f"stages_{i}"] = {"linear": {"kernel": kernel, "bias": bias}}
        sent = [rows(y) for y in ys]
    updates = jax.tree.map(jnp.negative, rule.updates(params, feedback, batch))
    updates.pop("heads_0")
    assert_trees_close(updates, steps, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("convention", "normalise", "good", "theta"),
    [
        ("fan_in", by_size, lambda y: jnp.sum(y**2, -1), lambda n, k: 1.5 * k),
        ("mean_square", by_size, lambda y: jnp.mean(y**2, -1), lambda n, k: 1.5),
        (
            "unit_length",
            lambda y: y / (1e-4 + jnp.linalg.norm(y, axis=-1, keepdims=True)),
            lambda y: jnp.mean(y**2, -1),
            lambda n, k: 1.5,
        ),
    ],
)
def test_other_conventions_are_half_the_gradient_of_their_losses(float64, convention, normalise, good, theta):
    options = {"convention": convention, "threshold": 1.5, "temperature": 0.7, "peer_strength": 0.0}
    rule = make(options=options, init_scale=3.0)
    params, feedback = doubled(trained_somewhat(rule))
    batch = random_batch(dtype=np.float64)
    wrong = negatives(rule, params, batch)

    def local(params):
        total = 0.0
        for label, sign in ((batch.targets, 1), (wrong, -1)):
            n = normalise(with_label(batch.inputs, label))
            for i in range(3):
                layer = params[f"stages_{i}"]["linear"]
                y = jax.nn.relu(jax.lax.stop_gradient(n) @ layer["kernel"] + layer["bias"])
                excess = (good(y) - theta(y.shape[-1], n.shape[-1])) / 0.7
                total += jnp.mean(jax.nn.softplus(-sign * excess))
                n = normalise(y)
        return total

    expected = jax.tree.map(lambda g: g / 2, jax.grad(local)(params))
    updates = rule.updates(params, feedback, batch)
    for name in ("stages_0", "stages_1", "stages_2"):
        assert np.abs(expected[name]["linear"]["kernel"]).max() > 1e-4
        assert_trees_close(updates[name], expected[name], rtol=1e-8, atol=1e-13)


def test_who_sleeps_learns_from_true_data_for_some_steps_and_then_from_false_data():
    rules = {name: make(options={"sleep": steps}) for name, steps in (("both", 0), ("sleeping", 2))}
    params, feedback = trained_somewhat(rules["sleeping"])
    means = {name: m for name, m in feedback.items() if name != "clock"}
    batch = random_batch()
    both = rules["both"].updates(params, means, batch)
    phases = []
    for _ in range(5):
        updates = rules["sleeping"].updates(params, feedback, batch)
        phases.append(updates["stages_0"])
        assert_trees_close(updates["heads_0"], both["heads_0"], rtol=1e-6, atol=1e-7)
        learned = rules["sleeping"].learn(params, feedback, batch, updates)
        feedback = {**feedback, "clock": feedback["clock"] - learned["clock"]}
    for one, other in ((0, 1), (2, 3), (0, 4)):
        assert_trees_close(phases[one], phases[other], rtol=0, atol=0)
    assert_trees_close(jax.tree.map(jnp.add, phases[1], phases[2]), both["stages_0"], rtol=1e-5, atol=1e-7)
    below = by_size(with_label(batch.inputs, jnp.asarray(negatives(rules["both"], params, batch))))
    y = passed(rules["both"], params, batch.inputs, jnp.asarray(negatives(rules["both"], params, batch)))[0]
    down = jax.nn.sigmoid(jnp.sum(y**2, -1) - 9)[:, None] * y
    np.testing.assert_allclose(phases[2]["linear"]["kernel"], below.T @ down / len(y), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"options": {"convention": "sum"}}, "rule.convention must be one of hinton, .*; got 'sum'"),
        ({"options": {"threshold": 0}}, "rule.threshold must be a finite number above 0; got 0"),
        ({"options": {"temperature": -1}}, "rule.temperature must be a finite number above 0; got -1"),
        ({"options": {"sleep": 0.5}}, "rule.sleep must be an integer of at least 0; got 0.5"),
        ({"norm": "layer"}, "rule=forward_forward normalises by itself; architecture.norm must be none"),
        ({"hidden_ends": "before_pooling"}, "rule=forward_forward needs architecture.hidden_ends=after_pooling"),
        ({"topology": "conv5x3v+conv6x2v-9"}, "rule=forward_forward needs stages of one dense or local layer each"),
    ],
)
def test_bad_options_of_local_fields_and_scales_are_named(wrong, message):
    with pytest.raises(BadOption, match=message):
        make_local(**wrong)


def test_kernels_alone_decay_by_the_scale_of_the_convention():
    decays = {"weight_decay": 0.1, "head_decay": 0.2}
    for convention, scale in (("hinton", lambda n: 1), ("mean_square", lambda n: 1 / n)):
        with_decay, without = (make(options={**d, "convention": convention}) for d in (decays, {}))
        params, feedback = trained_somewhat(without)
        plain, decayed = (rule.updates(params, feedback, random_batch()) for rule in (without, with_decay))
        for i, units in enumerate((9, 8, 5)):
            layer, other = decayed[f"stages_{i}"]["linear"], plain[f"stages_{i}"]["linear"]
            expected = other["kernel"] + 0.1 * scale(units) * params[f"stages_{i}"]["linear"]["kernel"]
            np.testing.assert_allclose(layer["kernel"], expected, rtol=1e-5)
            np.testing.assert_array_equal(layer["bias"], other["bias"])
        expected = plain["heads_0"]["kernel"] + 0.2 * params["heads_0"]["kernel"]
        np.testing.assert_allclose(decayed["heads_0"]["kernel"], expected, rtol=1e-5)


def test_peers_pull_by_the_scale_of_the_convention():
    pulls = {}
    for convention in ("hinton", "mean_square"):
        pulled, alone = (make(options={"convention": convention, "peer_strength": s}) for s in (0.3, 0.0))
        params, feedback = trained_somewhat(alone)
        biases = [r.updates(params, feedback, random_batch())["stages_1"]["linear"]["bias"] for r in (pulled, alone)]
        pulls[convention] = np.subtract(*biases)
    np.testing.assert_allclose(pulls["mean_square"], pulls["hinton"] / 8, rtol=1e-3, atol=1e-7)


def test_all_layers_may_be_read(float64):
    rule = make(options={"read_from": 0})
    params, _ = rule.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3)
    sizes = zip(keys, (9, 8, 5), strict=True)
    heads = {f"heads_{i}": {"kernel": jax.random.normal(key, (n, 4))} for i, (key, n) in enumerate(sizes)}
    params, x = {**params, **heads}, random_batch(dtype=np.float64).inputs
    activities = passed(rule, params, x, jnp.full((len(x), 4), 0.25))
    votes = sum(by_size(y) @ params[f"heads_{i}"]["kernel"] for i, y in enumerate(activities))
    np.testing.assert_allclose(rule.predict(params, x), votes, rtol=1e-9)


def test_the_signal_of_a_nudge_is_that_of_true_data():
    rule = make(options={"peer_strength": 0.3})
    params, feedback = trained_somewhat(rule)
    batch = random_batch()
    nudges = {name: jnp.zeros((7, *hidden.shape)) for name, hidden in rule.network.hiddens.items()}
    signals = rule.network.nudges(rule.updates(rule.network.nudge(params, nudges), feedback, batch))
    for i, y in enumerate(passed(rule, params, batch.inputs, batch.targets)):
        p = jax.nn.sigmoid(jnp.sum(y**2, -1) - y.shape[-1])[:, None]
        np.testing.assert_allclose(signals[f"stages_{i}/hidden"], -(1 - p) * y / 7, rtol=1e-5, atol=1e-7)


def test_averages_of_units_are_refused():
    with pytest.raises(BadOption, match="has no definition for averages; architecture"):
        make_local(topology="conv5x3p2-conv6x2", pooling="average")
