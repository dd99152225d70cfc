"""The fast gradient sign method raises the loss by the sign of its gradient, inside the training loop too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fa_jax.losses import cross_entropy
from fa_jax.networks.mlp import mlp
from fa_jax.rules.dfa import dfa
from fa_jax.training.adversarial import fast_gradient_sign
from tests.conftest import MLP, assert_trees_close, direct, random_batch
from tests.training.conftest import DENSE, LEARNING_RATE, LOSS, make_network, make_task, of_seed, train

DFA = functools.partial(dfa, init_feedback=direct(**DENSE))


def test_every_input_moves_by_epsilon_in_the_direction_that_raises_the_loss():
    loss = cross_entropy().value
    network = mlp((12,), 4, hidden=[9], dropout=0.0, **MLP)
    params, batch = network.init(jax.random.key(0)), random_batch()
    perturbed = fast_gradient_sign(network, loss, params, batch, 0.08)
    np.testing.assert_allclose(np.abs(perturbed.inputs - batch.inputs), 0.08, rtol=1e-4)
    base = loss(network.apply(params, batch.inputs), batch.targets)
    assert loss(network.apply(params, perturbed.inputs), batch.targets) > base + 0.01
    # The direction is that of finite differences of one input at a time.
    for i in (0, 7):
        step = jnp.zeros_like(batch.inputs).at[2, i].set(1e-2)
        difference = loss(network.apply(params, batch.inputs + step), batch.targets) - base
        assert np.sign(difference) == np.sign(perturbed.inputs - batch.inputs)[2, i]


def test_adversarial_training_is_the_rule_on_the_perturbed_batch():
    plain = train([0], [1], rule=DFA, shuffle=False)
    adversarial = train([0], [1], rule=DFA, shuffle=False, adversarial=0.1)
    leaves = zip(*(jax.tree.leaves(run.state.params) for run in (plain, adversarial)), strict=True)
    assert any(np.any(a != b) for a, b in leaves)

    network, task = make_network(), make_task()
    rule = DFA(network, LOSS.value)
    params, _ = rule.init(jax.random.key(0))
    batch = random_batch()._replace(inputs=task.prepare(task.train.inputs[:6]), targets=task.train.targets[:6])
    perturbed = jax.jit(lambda *arguments: fast_gradient_sign(network, LOSS.value, *arguments, 0.1))(params, batch)
    updates = jax.jit(rule.updates)(params, of_seed(adversarial.state.feedback), perturbed)
    expected = jax.tree.map(lambda p, u: p - LEARNING_RATE * u, params, updates)
    assert_trees_close(of_seed(adversarial.state.params), expected, rtol=1e-5, atol=1e-7)
