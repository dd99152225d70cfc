"""Properties of every rule. Rules are found by their YAML, so that a new one is tested as soon as it has one."""

import functools

import hydra
import hydra.utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose as compose_runs
from fa_jax.cli.groups import CONF, choices
from fa_jax.core import Batch
from fa_jax.losses import cross_entropy, squared_error
from fa_jax.training.compile import make_program_of
from tests.conftest import (
    SECOND_PASS,
    SETTLING,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    compiled_rule,
    initial_state,
    make_rule,
    random_batch,
    rule_factory,
    to_float64,
)

RULES = sorted(choices("rule"))
SQUARED_ERROR = squared_error(output="linear", derivative="exact")


@pytest.fixture(params=RULES, scope="module")  # so that pytest runs all tests of a rule in a row
def name(request):
    return request.param


def skip_local(rule):
    if rule.extras.network is not None:
        pytest.skip("minimises local losses, and has no use for the readout")


def descend(rule, rate, params, feedback, batch, feedback_decay=0.0):
    """A step of gradient descent on the params and on learned feedback, which may decay."""
    updates = rule.updates(params, feedback, batch)
    if rule.learn is not None:
        changes = rule.learn(params, feedback, batch, updates)
        feedback = jax.tree.map(lambda b, u: b - rate * (u + feedback_decay * b), feedback, changes)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), feedback


def random_like(feedback):
    """Random feedback: some rules start from zeros, or from equal numbers that cancel out."""
    return jax.tree.map(lambda a: jax.random.normal(jax.random.key(1), a.shape, a.dtype), feedback)


DETERMINISTIC = ("target_propagation", "counter_current", "fixed_weight_target_propagation", "equilibrium_propagation")
"""Rules whose updates of the params draw nothing at random."""


OVER_SEEDS = ("dfa", "weight_mirror", "node_perturbation", "local_loss", "forward_forward", "predictive_coding")
"""Rules that are tested over seeds without `-m slow`: one of each way to send a signal or to learn without one."""
SLOW = pytest.mark.slow


BATCH_STATISTICS = ("fixed_weight_target_propagation",)
"""Rules whose every output depends on the batch, by deviations over N - 1."""


def shapes_and_dtypes(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


def test_an_angle_is_between_0_and_180_degrees(name):
    _, rule = compiled_rule(name)
    metrics = rule.extras.measure.metrics if rule.extras.measure else ()
    assert {metric.bounds for metric in metrics if metric.unit == "degrees"} <= {(0, 180)}


def test_updates_have_the_tree_and_the_shapes_of_the_params_and_are_finite(name):
    _, rule = compiled_rule(name, 0.5)
    params, feedback = initial_state(name, 0.5)
    updates = rule.updates(params, feedback, random_batch())
    assert shapes_and_dtypes(updates) == shapes_and_dtypes(params)
    assert all(np.all(np.isfinite(update)) for update in jax.tree.leaves(updates))


def test_updates_of_the_feedback_have_its_tree_and_its_shapes_and_are_finite(name):
    _, rule = compiled_rule(name, 0.5)
    if rule.learn is None:
        pytest.skip("its feedback is fixed")
    params, feedback = initial_state(name, 0.5)
    changes = rule.learn(params, feedback, random_batch(), rule.updates(params, feedback, random_batch()))
    assert shapes_and_dtypes(changes) == shapes_and_dtypes(feedback)
    assert all(np.all(np.isfinite(change)) for change in jax.tree.leaves(changes))


@functools.cache
def make_network(architecture, name, *overrides):
    """The network of an architecture with the options that a rule's YAML sets."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", ["task=digits", f"architecture={architecture}", f"rule={name}", *overrides])
    return hydra.utils.instantiate(config.architecture, _convert_="all")((8, 8, 1), 10)


CHAINS = choices("architecture").keys() - {"recurrent"}
ONE_LAYER_PER_STAGE = {
    "associated_learning": ("needs a network of stages", CHAINS),
    "frozen_blocks": ("needs a network of stages", CHAINS),
    "local_forward_gradient": ("needs a network of stages", CHAINS),
    "local_loss": ("needs a network of stages|is defined for vectors and feature maps", CHAINS - {"transformer"}),
    "ifa": ("needs stages of one dense layer each", {"mlp"}),
    "mirrored_pepita": ("needs stages of one dense layer each", {"mlp"}),
    "pepita": ("needs stages of one linear layer each", {"mlp", "cnn", "lenet", "vgg", "locally_connected"}),
    "counter_current": ("needs stages of one dense or convolutional layer each", {"mlp", "cnn", "lenet", "vgg"}),
    "fixed_weight_target_propagation": ("needs stages of one dense layer each", {"mlp"}),
    "target_propagation": ("needs stages of one dense layer each", {"mlp"}),
    "forward_forward": (
        "needs stages of one dense or local layer each",
        {"mlp", "cnn", "lenet", "vgg", "locally_connected"},
    ),
    "product_feedback_alignment": (
        "has product feedback, which is defined for dense layers and for convolutions without groups",
        choices("architecture").keys() - {"locally_connected"},
    ),
    "recurrent_forward_forward": (
        "needs stages of one dense or local layer each|is not defined with pooling",
        {"mlp", "locally_connected"},
    ),
    "scff": ("needs stages of one dense", {"mlp"}),
    "equilibrium_propagation": ("needs stages of one dense", {"mlp"}),
}
"""Rules that are not defined on all architectures: the message, and where they are defined."""


# ResNet-20 and ResNet-56 are ResNet-8 with more of the same blocks; `module` is any network.
@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(choices("architecture").keys() - {"resnet20", "resnet56", "module"}))
def test_every_rule_runs_on_every_architecture_or_states_why_not(name, architecture):
    overrides = ["architecture.hidden=[9,9]"] if architecture == "mlp" else []
    network = make_network(architecture, name, *overrides)
    message, defined = ONE_LAYER_PER_STAGE.get(name, ("", {architecture}))
    if architecture not in defined:
        with pytest.raises(BadOption, match=f"^(?:{message}|needs a network of stages)"):
            rule_factory(name)(network, cross_entropy().value)
        return
    rule = rule_factory(name)(network, cross_entropy().value)

    def step(key, inputs, targets):
        params, feedback = rule.init(key)
        batch = Batch(inputs, targets, key)
        updates = rule.updates(params, feedback, batch)
        learned = rule.learn(params, feedback, batch, updates) if rule.learn else feedback
        return params, updates, feedback, learned, rule.predict(params, inputs)

    # On shapes alone: the references check the values of the updates.
    shapes = jax.ShapeDtypeStruct((3, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((3, 10), jnp.float32)
    params, updates, feedback, learned, logits = jax.eval_shape(step, jax.random.key(0), *shapes)
    assert updates == params
    assert learned == feedback
    assert logits.shape == (3, 10)


NOISE_OF_OTHERS = "is not defined for noise in activities with batch statistics"
NOT_WITH_NORMS = {
    "forward_gradient": NOISE_OF_OTHERS,
    "node_perturbation": NOISE_OF_OTHERS,
    "ifa": "needs stages of one dense layer each",
    "mirrored_pepita": "needs stages of one dense layer each",
    "pepita": "is not defined for normalised layers; it needs norm=none",
    "counter_current": "is not defined for normalised layers; it needs norm=none",
    "fixed_weight_target_propagation": "needs stages of one dense layer each",
    "target_propagation": "needs stages of one dense layer each",
    "forward_forward": "normalises by itself; it needs norm=none",
    "recurrent_forward_forward": "normalises by itself; it needs norm=none",
    "predictive_coding": "is not defined with batch norm",
    "scff": "normalises by itself; it needs norm=none",
    "equilibrium_propagation": "needs stages of one dense layer each",
}
"""Rules that are not defined on a convolutional network with a norm, and the message."""
NORMS_FIRST = (*NOT_WITH_NORMS, *OVER_SEEDS, "associated_learning")
"""Rules that are tested on running statistics without `-m slow`."""


@pytest.mark.parametrize("name", [name if name in NORMS_FIRST else pytest.param(name, marks=SLOW) for name in RULES])
def test_no_rule_updates_the_running_statistics_of_a_norm(name):
    network = make_network("cnn", name, "architecture.topology=conv8x3-6", "architecture.norm=batch")
    if name in NOT_WITH_NORMS:
        with pytest.raises(BadOption, match=NOT_WITH_NORMS[name]):
            rule_factory(name)(network, cross_entropy().value)
        return
    rule = compiled(rule_factory(name)(network, cross_entropy().value))
    params, feedback = rule.init(jax.random.key(0))
    updates = rule.updates(params, feedback, random_batch((8, 8, 1), 10))
    assert network.statistics_paths
    for path in network.statistics_paths:
        assert not np.any(functools.reduce(lambda tree, key: tree[key], path, updates))


# Tests of rounding are in float64: in float32, a rule that divides a change of the loss by a small one magnifies it.
@pytest.mark.parametrize(
    ("name", "uncompiled"),
    [
        (name, uncompiled) if name in OVER_SEEDS and not uncompiled else pytest.param(name, uncompiled, marks=SLOW)
        for uncompiled in (False, True)
        for name in RULES
    ],
)
def test_updates_compiled_over_seeds_are_those_of_each_seed(float64, name, uncompiled):
    """Each way is traced by itself, so that a rule that is not pure differs."""
    _, rule = make_rule(name)
    _, alone = make_rule(name) if uncompiled else compiled_rule(name)
    keys, batch = jax.random.split(jax.random.key(0), 2), random_batch(dtype=np.float64)
    with jax.enable_x64(False):
        states = jax.vmap(rule.init)(keys)
        each_state = [alone.init(key) for key in keys]
    states = to_float64(states)
    over_seeds = jax.jit(jax.vmap(rule.updates, in_axes=(0, 0, None)))(*states, batch)
    for i, state in enumerate(each_state):
        updates = alone.updates(*to_float64(state), batch)
        assert_trees_close(jax.tree.map(lambda a, i=i: a[i], over_seeds), updates, rtol=1e-9, atol=1e-11)


def test_equal_keys_give_equal_bits_and_other_keys_other_updates(name):
    network, rule = compiled_rule(name, 0.5)
    network = rule.extras.network or network
    params, feedback = initial_state(name, 0.5)
    assert_trees_equal((params, feedback), rule.init(jax.random.key(0)))
    batch = random_batch()
    updates = rule.updates(params, feedback, batch)
    assert_trees_equal(updates, rule.updates(params, feedback, batch))
    if name in DETERMINISTIC:
        return
    others = rule.updates(params, feedback, batch._replace(key=jax.random.key(9)))
    kernels, other_kernels = network.kernels(updates), network.kernels(others)
    assert any(np.any(np.asarray(kernels[layer]) != other_kernels[layer]) for layer in kernels)


def test_every_rule_starts_a_seed_from_the_params_of_backprop(name):
    _, rule = compiled_rule(name)
    _, bp = compiled_rule("bp")  # the activation function has no part in the params
    params, bp_params = (r.init(jax.random.key(7))[0] for r in (rule, bp))
    if rule.extras.network is not None:  # has further params, and does not use the readout
        bp_params.pop("readout")
        params = {stage: params[stage] for stage in bp_params}
    assert_trees_equal(params, bp_params)


def test_many_steps_need_one_trace(name):
    _, rule = compiled_rule(name, 0.5)
    (params, feedback), traces = initial_state(name, 0.5), []
    for seed in range(3):
        updates = rule.updates(params, feedback, random_batch(seed=seed))
        params = optax.apply_updates(params, jax.tree.map(lambda u: -0.1 * u, updates))
        traces.append(rule.updates._cache_size())
    assert traces == traces[:1] * 3


def test_readout_gets_its_true_gradient_without_dropout(float64, name):
    _, rule = compiled_rule(name)
    skip_local(rule)
    if name in SETTLING:
        pytest.skip("its readout learns from the settled activities")
    if name in SECOND_PASS:
        pytest.skip("its readout learns in a second pass, on other inputs")
    (params, feedback), batch = to_float64(initial_state(name)), random_batch(dtype=np.float64)
    updates = rule.updates(params, feedback, batch)["readout"]
    gradient = compiled_rule("bp")[1].updates(params, (), batch)["readout"]
    assert_trees_close(updates, gradient, rtol=1e-9, atol=1e-12)


def test_updates_do_not_grow_with_the_batch(float64, name):
    """A batch twice in a row has the same mean loss. Rules with noise of each example are compared in expectation."""
    if name == "scff":
        pytest.skip("joins different images, of which a batch twice in a row has two alike")
    if name in BATCH_STATISTICS:
        pytest.skip("its deviations over N - 1 are not those of the repeated batch")
    _, rule = compiled_rule(name)
    params, feedback = to_float64(initial_state(name))
    feedback = random_like(feedback)
    batch = random_batch(dtype=np.float64)
    repeated = Batch(*(jnp.concatenate([a, a]) for a in batch[:2]), batch.key)

    keys = jax.random.split(jax.random.key(1), 2)
    updates, others = (rule.updates(params, feedback, batch._replace(key=key)) for key in keys)
    if jax.tree.all(jax.tree.map(np.array_equal, updates, others)):
        assert_trees_close(rule.updates(params, feedback, repeated), updates, rtol=1e-9, atol=1e-12)
        return
    keys = jax.random.split(jax.random.key(1), 4000)
    many_updates = jax.jit(jax.vmap(rule.updates, in_axes=(None, None, Batch(None, None, 0))))
    many = (many_updates(params, feedback, b._replace(key=keys)) for b in (batch, repeated))
    for once, twice in zip(*map(jax.tree.leaves, many), strict=True):
        difference = np.asarray(once) - np.asarray(twice)
        noise = 6 * difference.std(0) / np.sqrt(len(keys))
        assert np.all(np.abs(difference.mean(0)) <= noise + 1e-9 * np.abs(once).mean(0) + 1e-12)


def test_training_lowers_the_loss(name):
    _, rule = compiled_rule(name)
    skip_local(rule)
    loss = cross_entropy()
    params, feedback = initial_state(name)
    batch = random_batch(size=16)
    before = loss.value(rule.predict(params, batch.inputs), batch.targets)

    @jax.jit
    def step(state, i):
        return descend(rule, 0.1, *state, batch._replace(key=jax.random.key(i))), None

    (params, _), _ = jax.lax.scan(step, (params, feedback), jnp.arange(200))
    assert loss.value(rule.predict(params, batch.inputs), batch.targets) < 0.9 * before


@functools.cache
def signal_without_error(name):
    """The share of a rule's learning signal that is left where the output error is zero, with random feedback.

    1 if the rule needs classes, so that there is no such case.
    """
    _, rule = make_rule(name, loss=SQUARED_ERROR)
    if rule.extras.needs_classes:
        return 1.0
    params, feedback = rule.init(jax.random.key(0))
    feedback = random_like(feedback)
    batch = random_batch()
    without_error = batch._replace(targets=rule.predict(params, batch.inputs))
    signals = [rule.extras.signals(params, feedback, b) for b in (without_error, batch)]
    rest, whole = (np.sqrt(sum(float(jnp.sum(s**2)) for s in by_layer.values())) for by_layer in signals)
    return rest / whole


def learns(name):
    """Whether each hidden layer learns."""
    network, rule = compiled_rule(name, 0.5)
    params, feedback = initial_state(name, 0.5)
    updates = rule.updates(params, random_like(feedback), random_batch())
    *hidden, _ = (rule.extras.network or network).kernels(updates).values()
    return [bool(np.any(update)) for update in hidden]


def is_control(name):
    return not all(learns(name))


def is_error_driven(name):
    """Whether a rule follows the error well enough for the linear map below."""
    return name not in (*SECOND_PASS, *BATCH_STATISTICS) and signal_without_error(name) < 0.1


def test_the_rules_of_which_hidden_layers_do_not_learn_are_the_controls():
    not_learning = {name: learns(name) for name in RULES if is_control(name)}
    assert not_learning == {"frozen_blocks": [True, False], "shallow": [False, False]}


@functools.cache
def linear_map_scores(name, feedback_decay):
    """The normalised squared error of five seeds on a linear map, by linear networks with 6 hidden units."""
    _, rule = make_rule(name, hidden=[6], loss=SQUARED_ERROR, activation="linear")
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(4000, 10, 12)), jnp.float32)
    y = x @ jnp.asarray(random.uniform(-1, 1, (12, 4)), jnp.float32)

    @jax.jit
    @jax.vmap
    def score(key):
        params, feedback = rule.init(key)

        def step(state, i):
            batch = Batch(x[i], y[i], jax.random.fold_in(key, i))
            return descend(rule, 0.05, *state, batch, feedback_decay), None

        (params, _), _ = jax.lax.scan(step, (params, feedback), jnp.arange(len(x)))
        error = rule.predict(params, x.reshape(-1, 12)) - y.reshape(-1, 4)
        return jnp.mean(jnp.square(error)) / jnp.mean(jnp.square(y))

    return np.asarray(score(jax.random.split(jax.random.key(0), 5)))


@pytest.mark.slow
def test_every_error_driven_rule_learns_the_hidden_layer_of_a_linear_map(name, compose):
    """Shallow learning leaves a third of the target's power: 6 random directions of 12 span half of the inputs."""
    if is_control(name) or not is_error_driven(name):
        pytest.skip("a control, or a rule for classes, which the next test trains")
    optimizer = compose("task=digits", f"rule={name}").feedback_optimizer
    scores = linear_map_scores(name, 0.0 if optimizer is None else optimizer.weight_decay)
    shallow_scores = linear_map_scores("shallow", 0.0)
    assert np.all(shallow_scores > 0.1)
    assert np.all(scores < 0.01 * shallow_scores)


@functools.cache
def digits_errors(name, bound=0.0):
    """The mean test error of four seeds on digits with 20 + 20 hidden units, until it is below a bound.

    Rules train with the learning rates that were tuned for them, for at most 30 epochs.
    """
    words = ["task=digits", f"rule={name}", "tuned=true", "architecture.hidden=[20,20]", "epochs=30"]
    job = compose_runs(parse([*words, "seeds=4", "evaluations=10", "probe=0"])).runs[0].job
    (seeds,) = np.asarray(job.groups, np.int32)
    program = make_program_of(job, len(seeds))
    states = program.init(seeds, {})
    errors = []
    for first, last in zip(job.evaluations, job.evaluations[1:], strict=False):
        states = program.train(states, seeds, first, last, program.data())
        evaluated, states = program.evaluate(states, seeds, last, program.data())
        errors.append(float(np.mean(evaluated.with_nan()["test_error"])))
        if errors[-1] < bound:
            break
    return errors


@pytest.mark.slow
def test_every_other_rule_learns_the_hidden_layers_of_a_classifier(name):
    if is_control(name) or is_error_driven(name):
        pytest.skip("a control, or a rule that the test before trains")
    shallow_error = min(digits_errors("shallow"))
    assert digits_errors(name, 0.7 * shallow_error)[-1] < 0.7 * shallow_error
