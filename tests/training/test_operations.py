"""The operations of a step are about those of its matrix products, all iterations of its loops included."""

import jax
import jax.numpy as jnp
import pytest

from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.training.operations import further_products, operations


def count_operations(*overrides):
    (run,) = compose(parse(["task=digits", *overrides])).runs
    return operations(run.job)


@pytest.mark.parametrize("rule", ["bp", "dfa", "forward_forward"])
def test_operations_are_about_those_of_the_matrix_products(rule):
    width, batch_size = 100, 32
    first, second, readout = 64 * width, width * width, width * 10
    products = {
        "bp": 3 * (first + second + readout) - first,  # forward, weight gradients, and backward except to the input
        "dfa": 2 * (first + second + readout) + 2 * readout,  # the error of ten outputs goes to two hidden layers
        "forward_forward": 5 * (first + second) + 2 * readout,  # three forward passes, two of weight gradients
    }[rule]
    counted = count_operations(f"rule={rule}", f"architecture.hidden=[{width},{width}]", f"batch_size={batch_size}")
    assert counted == pytest.approx(2 * batch_size * products, rel=0.1)


def test_all_iterations_of_loops_count():
    units, rows, pixels, batch_size = 200, 8, 8, 32
    counted = count_operations(
        "architecture=recurrent",
        "architecture.cell=elman",
        f"architecture.hidden=[{units}]",
        f"batch_size={batch_size}",
    )
    below, across, readout = pixels * units, units * units, units * 10
    products = rows * (2 * below + 3 * across) + 3 * readout  # of backprop, which goes back through time
    assert counted == pytest.approx(2 * batch_size * products, rel=0.1)


def test_what_does_not_change_in_a_loop_counts_once():
    width, batch_size = 20, 32
    counted = [
        count_operations(
            "rule=equilibrium_propagation",
            f"architecture.hidden=[{width},{width}]",
            f"batch_size={batch_size}",
            f"rule.free_steps={free}",
            f"rule.nudged_steps={nudged}",
        )
        for free, nudged in ((20, 4), (40, 4), (20, 24))
    ]
    # Both layers receive the other one; the input drives the first one by the same product in every step.
    assert counted[1] - counted[0] == 20 * 2 * 2 * batch_size * width**2
    assert counted[2] > counted[1]


def test_products_count_as_often_as_the_innermost_loop_that_they_depend_on():
    def nested(x, fixed, kernel):
        def outer(carry, _):
            def inner(h, _):
                return jnp.tanh(h @ fixed + carry @ fixed + x @ fixed), None

            h, _ = jax.lax.scan(inner, carry, length=3)
            return jax.lax.conv_general_dilated(h[None, None], kernel, (1, 1), "SAME")[0, 0], None

        return jax.lax.scan(outer, x, length=5)[0]

    x, fixed, kernel = jnp.ones((4, 6)), jnp.ones((6, 6)), jnp.ones((1, 1, 3, 3))
    product, convolution = 2 * 4 * 6 * 6, 2 * 4 * 6 * 9
    jaxpr = jax.make_jaxpr(nested)(x, fixed, kernel).jaxpr
    counted = further_products(jaxpr, [0] * 3, [])
    assert counted == (3 * 5 - 1) * product + (5 - 1) * product + (5 - 1) * convolution


def test_groups_of_a_convolution_receive_their_own_channels():
    def looped(x, kernel):
        def step(_, h):
            return jax.lax.conv_general_dilated(h, kernel, (1, 1), "SAME", feature_group_count=2)

        return jax.lax.fori_loop(0, 2, step, x)

    jaxpr = jax.make_jaxpr(looped)(jnp.ones((1, 4, 5, 5)), jnp.ones((4, 2, 3, 3))).jaxpr
    assert further_products(jaxpr, [0, 0], []) == 2 * (4 * 5 * 5) * (2 * 3 * 3)


@pytest.mark.parametrize("architecture", ["cnn", "recurrent", "residual_mlp"])
def test_shallow_learning_needs_no_more_than_a_forward_pass_and_the_gradient_of_the_readout(architecture):
    shallow, bp = (count_operations(f"architecture={architecture}", f"rule={rule}") for rule in ("shallow", "bp"))
    assert shallow < 0.37 * bp


def test_operations_are_none_if_the_data_decide_how_often_a_loop_runs():
    assert count_operations("rule=equilibrium_propagation", "rule.tolerance=0.1") is None
