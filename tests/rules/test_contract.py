"""What holds of every rule, found by its YAML: a new rule is tested as soon as it has one."""

import functools

import hydra
import hydra.utils
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fa_jax.checks import BadOption
from fa_jax.cli import help as catalogue
from fa_jax.core import Batch
from fa_jax.losses import cross_entropy, squared_error
from fa_jax.networks.mlp import mlp
from tests.conftest import assert_trees_close, assert_trees_equal, random_batch

RULES = sorted(catalogue.options("rule"))
MLP = {
    "activation": "tanh",
    "biases": True,
    "init": "fan_uniform",
    "init_scale": 1.0,
    "kept": 1.0,
    "bias_init": "constant",
    "bias_scale": 0.0,
}


@functools.cache
def factory_of(name):
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        config = hydra.compose("config", ["task=digits", f"rule={name}"])
    return hydra.utils.instantiate(config.rule, _convert_="all")


LOCAL = ("associated_learning", "forward_forward", "recurrent_forward_forward")
"""Rules whose losses are local, so that some of what holds of the others does not; each has tests of its own."""


def make(name, *, hidden=(9, 8), dropout=0.0, loss=None, **options):
    if name.endswith("forward_forward"):  # which have no definition for other units, nor for dropout
        dropout, options = 0.0, {"activation": "relu", **options}
    network = mlp((12,), 4, hidden=list(hidden), dropout=dropout, **{**MLP, **options})
    return network, factory_of(name)(network, (loss or cross_entropy()).value)


def descend(rule, rate, params, feedback, batch, decay=0.0):
    """A step of gradient descent on params and learned feedback, which may decay."""
    updates = rule.updates(params, feedback, batch)
    if rule.learn is not None:
        changes = rule.learn(params, feedback, batch, updates)
        feedback = jax.tree.map(lambda b, u: b - rate * (u + decay * b), feedback, changes)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), feedback


@pytest.fixture(params=RULES)
def name(request):
    return request.param


def test_updates_have_the_tree_and_the_shapes_of_the_params_and_are_finite(name):
    _, rule = make(name, dropout=0.2)
    params, feedback = rule.init(jax.random.key(0))
    updates = rule.updates(params, feedback, random_batch())
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    for u, p in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        assert u.shape == p.shape
        assert u.dtype == p.dtype
        assert np.all(np.isfinite(u))


@functools.cache
def network_of(architecture, *words):
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        config = hydra.compose("config", ["task=digits", f"architecture={architecture}", *words])
    return hydra.utils.instantiate(config.architecture, _convert_="all")((8, 8, 1), 10)


# ResNet-20 and ResNet-56 are ResNet-8 with more of the same blocks.
@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(set(catalogue.options("architecture")) - {"resnet20", "resnet56"}))
def test_every_rule_runs_on_every_architecture_or_says_why_not(name, architecture):
    words = ["architecture.hidden=[9,9]"] if architecture == "mlp" else []
    words += ["architecture.activation=relu"] if name.endswith("forward_forward") else []
    network = network_of(architecture, *words)
    needs = {
        "ifa": ("needs stages of one dense layer each", ("mlp",)),
        "forward_forward": ("needs stages of one", ("mlp", "cnn", "lenet", "vgg", "locally_connected")),
        "recurrent_forward_forward": (
            "needs stages of one|has no definition for pooling",
            ("mlp", "locally_connected"),
        ),
    }
    message, defined = needs.get(name, ("", (architecture,)))
    if architecture not in defined:
        with pytest.raises(BadOption, match=f"rule={name} (?:{message})"):
            factory_of(name)(network, cross_entropy().value)
        return
    rule = factory_of(name)(network, cross_entropy().value)

    def step(key, inputs, targets):
        params, feedback = rule.init(key)
        batch = Batch(inputs, targets, key)
        updates = rule.updates(params, feedback, batch)
        learned = rule.learn(params, feedback, batch, updates) if rule.learn else feedback
        return params, updates, feedback, learned, rule.predict(params, inputs)

    # On shapes alone: what the updates are worth is held by the references.
    shapes = jax.ShapeDtypeStruct((3, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((3, 10), jnp.float32)
    params, updates, feedback, learned, logits = jax.eval_shape(step, jax.random.key(0), *shapes)
    assert updates == params
    assert learned == feedback
    assert logits.shape == (3, 10)


def test_no_rule_moves_the_running_statistics_of_a_norm(name):
    if name in ("ifa", "forward_forward", "recurrent_forward_forward"):
        pytest.skip("it has no definition for convolutions, or for norms")
    topology = "architecture.topology=conv8x3-6"
    network = network_of("cnn", topology, "architecture.norm=batch")
    rule = factory_of(name)(network, cross_entropy().value)
    params, feedback = rule.init(jax.random.key(0))
    updates = rule.updates(params, feedback, random_batch((8, 8, 1), 10))
    assert network.statistics
    for path in network.statistics:
        assert not np.any(functools.reduce(lambda tree, key: tree[key], path, updates))


def test_compiled_updates_are_the_uncompiled_ones(name):
    _, rule = make(name)
    params, feedback = rule.init(jax.random.key(0))
    # At float32 node perturbation divides rounding errors of the loss by sigma.
    tolerance = 2e-3 if name == "node_perturbation" else 1e-6
    assert_trees_close(
        rule.updates(params, feedback, random_batch()),
        jax.jit(rule.updates)(params, feedback, random_batch()),
        rtol=tolerance,
        atol=tolerance,
    )


def test_what_the_feedback_learns_has_its_tree_and_its_shapes(name):
    _, rule = make(name, dropout=0.2)
    if rule.learn is None:
        pytest.skip("its feedback is fixed")
    params, feedback = rule.init(jax.random.key(0))
    changes = jax.jit(rule.learn)(params, feedback, random_batch(), rule.updates(params, feedback, random_batch()))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), changes) == jax.tree.map(lambda a: (a.shape, a.dtype), feedback)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(changes))


def test_vmapped_over_seeds_is_a_loop_over_seeds(name):
    _, rule = make(name)
    keys = jax.random.split(jax.random.key(0), 3)
    params, feedback = jax.vmap(rule.init)(keys)
    vmapped = jax.vmap(rule.updates, in_axes=(0, 0, None))(params, feedback, random_batch())
    tolerance = 2e-3 if name == "node_perturbation" else 1e-6
    for i, key in enumerate(keys):
        alone = rule.updates(*rule.init(key), random_batch())
        assert_trees_close(jax.tree.map(lambda a, i=i: a[i], vmapped), alone, rtol=tolerance, atol=tolerance)


def test_the_same_key_gives_the_same_bits_and_another_one_others(name):
    network, rule = make(name, dropout=0.5)
    network = rule.network or network
    params, feedback = rule.init(jax.random.key(0))
    assert_trees_equal((params, feedback), rule.init(jax.random.key(0)))
    batch = random_batch()
    assert_trees_equal(rule.updates(params, feedback, batch), rule.updates(params, feedback, batch))
    ours, other = (
        network.weights(rule.updates(params, feedback, b)) for b in (batch, batch._replace(key=jax.random.key(9)))
    )
    assert any(np.any(np.asarray(ours[layer]) != other[layer]) for layer in ours)


def test_every_rule_starts_a_seed_from_the_params_of_backprop(name):
    key = jax.random.key(7)
    _, rule = make(name)
    ours, theirs = rule.init(key)[0], make("bp")[1].init(key)[0]
    if rule.network is not None:  # it has no use for the readout, and params of its own beside
        theirs.pop("readout")
        ours = {stage: ours[stage] for stage in theirs}
    assert_trees_equal(ours, theirs)


def test_many_steps_need_one_trace(name):
    _, rule = make(name)
    traces = []

    @jax.jit
    def step(params, feedback, batch):
        traces.append(None)
        return optax.apply_updates(params, jax.tree.map(lambda u: -0.1 * u, rule.updates(params, feedback, batch)))

    params, feedback = rule.init(jax.random.key(0))
    for seed in range(3):
        params = step(params, feedback, random_batch(seed=seed))
    assert len(traces) == 1


def test_the_readout_gets_its_true_gradient_without_dropout(name):
    _, rule = make(name)
    if rule.network is not None:
        pytest.skip("it has no readout")
    params, feedback = rule.init(jax.random.key(0))
    ours = rule.updates(params, feedback, random_batch())["readout"]
    assert_trees_close(ours, make("bp")[1].updates(params, (), random_batch())["readout"], rtol=1e-6, atol=1e-7)


def test_updates_of_the_mean_loss_do_not_grow_with_the_batch(name):
    """Twice the same batch has the same mean, and so the same updates; whatever replaces the error carries 1/batch."""
    if name in ("node_perturbation", "forward_forward", "recurrent_forward_forward"):
        pytest.skip("its noise differs for every example; a reference holds its scale")
    _, rule = make(name)
    params, feedback = rule.init(jax.random.key(0))
    once = random_batch()
    twice = Batch(*(jnp.concatenate([a, a]) for a in once[:2]), once.key)
    assert_trees_close(
        rule.updates(params, feedback, once), rule.updates(params, feedback, twice), rtol=1e-5, atol=1e-7
    )


def test_training_lowers_the_loss(name):
    if name in LOCAL:
        pytest.skip("it minimises others, and not by plain gradient descent")
    loss = cross_entropy()
    _, rule = make(name)
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(size=16)
    before = loss.value(rule.predict(params, batch.inputs), batch.targets)

    @jax.jit
    def step(state, i):
        return descend(rule, 0.1, *state, batch._replace(key=jax.random.key(i))), None

    (params, _), _ = jax.lax.scan(step, (params, feedback), jnp.arange(200))
    assert loss.value(rule.predict(params, batch.inputs), batch.targets) < 0.9 * before


def test_every_rule_but_shallow_learns_the_hidden_layer(name):
    """On a linear map the random hidden layer alone leaves a third of the target's power (20 of 30 directions)."""
    if name in ("shallow", "node_perturbation", "sdfa", "drtp", *LOCAL):
        pytest.skip("the control; one that needs more examples; four made for classes")
    random = np.random.default_rng(0)
    x = random.normal(size=(4000, 12)).astype(np.float32)
    y = x @ random.uniform(-1, 1, (12, 4)).astype(np.float32)
    loss = squared_error(output="linear", derivative="exact")
    scores = {}
    for one in (name, "shallow"):
        _, rule = make(one, hidden=[6], loss=loss, activation="linear")

        def run(key, x, y, rule=rule):
            params, feedback = rule.init(key)

            def step(state, i):
                batch = Batch(x[i][None], y[i][None], jax.random.fold_in(key, i))
                return descend(rule, 0.02, *state, batch, decay=float(name == "weight_mirror")), None

            (params, _), _ = jax.lax.scan(step, (params, feedback), jnp.arange(len(x)))
            return jnp.mean(jnp.square(rule.predict(params, x) - y)) / jnp.mean(jnp.square(y))

        keys = jax.random.split(jax.random.key(0), 5)
        scores[one] = np.asarray(jax.jit(jax.vmap(run, (0, None, None)))(keys, jnp.asarray(x), jnp.asarray(y)))
    assert np.all(scores["shallow"] > 0.1)
    assert np.all(scores[name] < 0.01 * scores["shallow"])
