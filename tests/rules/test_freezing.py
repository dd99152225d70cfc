"""Frozen params keep their bits under every optimizer, in the control `frozen_blocks` and in any other rule."""

import functools

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from flax import traverse_util
from hydra.utils import instantiate

from fa_jax.checks import BadOption
from fa_jax.cli.groups import choices
from fa_jax.losses import cross_entropy
from fa_jax.network import Network
from fa_jax.networks.chain import Chain, DenseStage
from fa_jax.networks.cnn import cnn
from fa_jax.networks.recurrent import recurrent
from fa_jax.networks.resnet import resnet
from fa_jax.networks.transformer import transformer
from fa_jax.optimizers import with_fixed, with_multipliers
from fa_jax.primitives import Hidden
from fa_jax.rules.freezing import freeze_named
from fa_jax.rules.frozen_blocks import frozen_blocks
from fa_jax.rules.shallow import shallow
from tests.conftest import CNN, RECURRENT, RESNET, TRANSFORMER, make_rule, random_batch, rule_factory

LOSS = cross_entropy().value
IMAGES = (8, 8, 1)
FROZEN = functools.partial(frozen_blocks, train_norms=False)


def start(rule):
    """A rule with its params and feedback, and its updates compiled."""
    return rule, *jax.jit(rule.init)(jax.random.key(0)), jax.jit(rule.updates)


def learned(started, optimizer):
    """The paths of the params of which three steps of an optimizer change a bit."""
    rule, initial, feedback, updates = started
    optimizer = with_multipliers(optimizer, rule.extras.learning_rate_multipliers)
    params, state = initial, optimizer.init(initial)
    for seed in range(3):
        changes, state = optimizer.update(updates(params, feedback, random_batch(seed=seed)), state, params)
        params = optax.apply_updates(params, changes)
    before, after = (traverse_util.flatten_dict(tree, sep="/") for tree in (initial, params))
    return {name for name in before if np.asarray(before[name]).tobytes() != np.asarray(after[name]).tobytes()}


def with_rate(rule):
    """The paths of the params whose learning rate is not 0."""
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    rates = traverse_util.flatten_dict(rule.extras.learning_rate_multipliers(params), sep="/")
    return {name for name, rate in rates.items() if rate}


frozen_mlp = functools.cache(lambda: start(make_rule("frozen_blocks", hidden=(9, 8, 7))[1]))


class Wide(nn.Module):
    """A module with a scanned stack of hidden layers, and a readout of two layers with a norm."""

    @nn.compact
    def __call__(self, x):
        h = Hidden()(nn.tanh(nn.LayerNorm(name="hidden_norm")(nn.Dense(6, name="first")(x))))
        axes = dict.fromkeys(("params", "hidden", "signal", "perturbation", "state"), 0)
        stack = nn.scan(Layer, axes, split_rngs={"params": True}, length=3)
        h, _ = stack(name="stack")(h, None)
        return nn.Dense(4, name="last")(nn.relu(nn.Dense(5, name="above")(nn.LayerNorm(name="norm")(h))))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, h, _):
        return Hidden()(nn.tanh(nn.Dense(6)(h))), None


@pytest.mark.parametrize(
    "name",
    [n if n in ("adamw", "rmsprop") else pytest.param(n, marks=pytest.mark.slow) for n in sorted(choices("optimizer"))],
)
def test_no_optimizer_changes_a_bit_of_frozen_params(compose, name):
    words = ["optimizer.weight_decay=0.3", "optimizer.clip=0.01", "optimizer.learning_rate=0.1"]
    optimizer = instantiate(compose("task=digits", f"optimizer={name}", *words).optimizer, _convert_="all")(3)
    trained = [f"{layer}/{param}" for layer in ("stages_0/linear", "readout") for param in ("kernel", "bias")]
    assert learned(frozen_mlp(), optimizer) == set(trained)


@pytest.mark.parametrize(
    ("network", "trained"),
    [
        (make_rule("bp", hidden=(9, 8))[0], {"readout/kernel", "readout/bias"}),
        (
            Network(Wide(), (12,)),
            {f"{layer}/{param}" for layer in ("last", "above") for param in ("kernel", "bias")}
            | {"norm/scale", "norm/bias"},
        ),
    ],
    ids=["mlp", "module"],
)
def test_weight_decay_changes_no_bit_below_the_readout_of_shallow_learning(network, trained):
    assert learned(start(shallow(network, LOSS)), optax.adamw(0.1, weight_decay=0.3)) == trained
    assert (
        learned(start(shallow(network, LOSS)), optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1))) == trained
    )


class Printing(nn.Module):
    """A module that prints a hidden activation, and has a param above it that training alone uses."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(6, name="first")(x))
        jax.debug.callback(lambda _: None, h)
        h = Hidden()(h)
        gain = self.param("gain", nn.initializers.ones, (6,))
        return nn.Dense(4, name="last")(h * gain if self.has_rng("dropout") else h)


def test_printing_a_hidden_activation_unfreezes_no_layer_and_params_of_training_alone_learn():
    trained = {"last/kernel", "last/bias", "gain"}
    assert with_rate(shallow(Network(Printing(), (12,)), LOSS)) == trained


def test_what_is_left_of_a_control_must_learn():
    with pytest.raises(BadOption, match=r"^frozen must leave something to learn"):
        freeze_named(make_rule("shallow")[1], ["readout"])


def test_shallow_learning_needs_params_above_the_hidden_layers():
    stage = DenseStage(4, nn.tanh, True, nn.initializers.normal(), nn.initializers.zeros)
    with pytest.raises(BadOption, match="would learn nothing: the network has no params above its last hidden layer"):
        shallow(Network(stage, (12,)), LOSS)


@pytest.mark.parametrize(
    ("network", "prefixes"),
    [
        (cnn(IMAGES, 10, **{**CNN, "norm": "layer"}), ("stages_0/", "readout/")),
        (cnn(IMAGES, 10, **{**CNN, "topology": "conv4x3+conv4x3p3-6"}), ("stages_0/layers_0/", "readout/")),
        pytest.param(resnet(IMAGES, 10, **RESNET), ("stages_0/", "readout/"), marks=pytest.mark.slow),
        pytest.param(
            transformer(IMAGES, 10, **TRANSFORMER), ("stages_0/layers_0/", "readout/"), marks=pytest.mark.slow
        ),
    ],
    ids=["cnn", "joined", "resnet8", "transformer"],
)
def test_the_first_layer_is_the_embedding_and_all_other_stages_are_blocks(network, prefixes):
    params = jax.eval_shape(network.init, jax.random.key(0))
    embedding = {name for name in traverse_util.flatten_dict(params, sep="/") if name.startswith(prefixes)}
    assert with_rate(FROZEN(network, LOSS)) == embedding
    assert {name.partition("/")[0] for name in embedding} == {"stages_0", "readout"}


def test_norms_in_the_blocks_learn_on_request():
    network = transformer(IMAGES, 10, **TRANSFORMER)
    of_blocks = {
        f"{block}/{norm}/{param}"
        for block in ("stages_0/layers_1", "stages_1")
        for norm in ("attention_norm", "mlp_norm")
        for param in ("scale", "bias")
    }
    with_norms = frozen_blocks(network, LOSS, train_norms=True)
    assert with_rate(with_norms) - with_rate(FROZEN(network, LOSS)) == of_blocks
    with pytest.raises(BadOption, match=r"^train_norms must be false: no hidden block has a norm"):
        frozen_blocks(resnet(IMAGES, 10, **RESNET), LOSS, train_norms=True)


def test_networks_without_an_embedding_of_their_own_are_refused():
    with pytest.raises(BadOption, match=r"whose first layer is the embedding; got .*; its control is rule=shallow"):
        FROZEN(recurrent(IMAGES, 10, **RECURRENT), LOSS)
    stage = DenseStage(12, nn.tanh, True, nn.initializers.normal(), nn.initializers.zeros)
    repeated = Network(Chain((stage,), (3,), nn.Dense(4)), (12,))
    with pytest.raises(BadOption, match=r"needs a first stage that is not repeated, the embedding; got repeats \[3\]"):
        FROZEN(repeated, LOSS)
    unmarked = Network(Chain((nn.Dense(5), nn.Dense(5)), (1, 1), nn.Dense(4)), (12,))
    with pytest.raises(BadOption, match=f"put fa_jax.primitives.{Hidden.__name__}"):
        FROZEN(unmarked, LOSS)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param("pepita", {"readout"}, marks=pytest.mark.slow),
        pytest.param("target_propagation", {"readout"}, marks=pytest.mark.slow),
        ("local_loss", {"losses_0", "losses_1", "readout"}),
        pytest.param("associated_learning", {"bridges_0", "encoders_1"}, marks=pytest.mark.slow),
        pytest.param("forward_forward", {"readouts_0"}, marks=pytest.mark.slow),
        ("scff", {"readouts_0"}),
    ],
)
def test_any_rule_has_a_control_whose_stages_are_frozen(name, parts):
    _, rule = make_rule(name)
    trained = learned(start(freeze_named(rule, ["stages_*"])), optax.adamw(0.1, weight_decay=0.3))
    assert parts <= {name.partition("/")[0] for name in trained}
    assert not any(name.startswith("stages_") for name in trained)


@pytest.mark.parametrize(
    ("name", "held", "free"),
    [
        ("kolen_pollack", ("stages_1/linear",), ("readout",)),
        ("product_feedback_alignment", ("learned", "stages_1/linear"), ("learned", "readout")),
    ],
)
def test_feedback_that_takes_the_steps_of_frozen_weights_keeps_its_bits(name, held, free):
    _, rule = make_rule(name)
    rule = freeze_named(rule, ["stages_1"])
    params, initial = jax.jit(rule.init)(jax.random.key(0))
    optimizer = with_fixed(optax.sgd(0.1), rule.extras.fixed_feedback)
    optimizer = optax.chain(optax.add_decayed_weights(0.3), optimizer)
    feedback, batch = initial, random_batch()
    changes = jax.jit(rule.learn)(params, feedback, batch, jax.jit(rule.updates)(params, feedback, batch))
    deltas, _ = optimizer.update(changes, optimizer.init(feedback), feedback)
    before, after = map(traverse_util.flatten_dict, (initial, optax.apply_updates(feedback, deltas)))
    assert np.asarray(before[held]).tobytes() == np.asarray(after[held]).tobytes()
    assert np.any(before[free] != after[free])


def test_a_rule_that_perturbs_weights_leaves_out_frozen_ones():
    """Their noise v would be noise in the updates of what learns, (v . g) v: here it is that of the readout alone."""
    options = {"perturb": "weights", "derivative": "exact", "sigma": None, "noise": "signs"}
    network, _ = make_rule("bp")
    rule = rule_factory("forward_gradient")(network, LOSS, **options)
    params, feedback = jax.jit(rule.init)(jax.random.key(0))
    batch = random_batch()
    updates = jax.jit(freeze_named(rule, ["stages_*"]).updates)(params, feedback, batch)
    g = jax.grad(lambda p: LOSS(network.apply(p, batch.inputs, key=batch.key), batch.targets))(params)["readout"]
    v = jax.tree.map(np.sign, jax.jit(rule.updates)(params, feedback, batch)["readout"])  # up to its sign
    slope = sum(np.vdot(v[name], g[name]) for name in v)
    for name in v:
        np.testing.assert_allclose(updates["readout"][name], slope * v[name], rtol=1e-4)
    assert not any(np.any(leaf) for name in updates if name != "readout" for leaf in jax.tree.leaves(updates[name]))


def test_a_rule_keeps_its_own_multipliers_and_the_updates_of_what_learns():
    _, rule = make_rule("associated_learning")
    frozen = freeze_named(rule, ["stages_0/linear"])
    params = jax.eval_shape(rule.init, jax.random.key(0))[0]
    of_rule, of_frozen = rule.extras.learning_rate_multipliers, frozen.extras.learning_rate_multipliers
    assert of_rule is not None
    assert of_frozen is not None
    rates, kept = of_rule(params), of_frozen(params)
    assert set(jax.tree.leaves(kept.pop("stages_0"))) == {0.0}
    assert set(jax.tree.leaves(rates.pop("stages_0"))) == {1.0}
    assert kept == rates


def test_names_that_freeze_nothing_or_everything_are_refused():
    _, rule = make_rule("bp")
    with pytest.raises(
        BadOption, match=r"^frozen must name params, such as those in readout, stages_0, stages_1; got 'stage"
    ):
        freeze_named(rule, ["stages_2"])
    with pytest.raises(BadOption, match=r"^frozen must leave something to learn; got \['\*'\], which is everything"):
        freeze_named(rule, ["*"])
    with pytest.raises(
        BadOption, match=r"^frozen must be a list such as \[stages_0,stages_1\] or \[stages_\*\]; got 's"
    ):
        freeze_named(rule, "stages_0")
