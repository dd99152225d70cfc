"""The operations of a step are about those of its matrix products, all iterations of its loops included."""

import pytest

from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.training.operations import operations


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


def test_each_further_step_of_a_loop_costs_the_same():
    counted = [
        count_operations("rule=equilibrium_propagation", f"rule.free_steps={free}", f"rule.nudged_steps={nudged}")
        for free, nudged in ((20, 4), (40, 4), (60, 4), (20, 24))
    ]
    assert counted[1] - counted[0] == counted[2] - counted[1] > 0
    assert counted[3] > counted[0]


@pytest.mark.parametrize("architecture", ["cnn", "recurrent", "residual_mlp"])
def test_shallow_learning_needs_no_more_than_a_forward_pass_and_the_gradient_of_the_readout(architecture):
    shallow, bp = (count_operations(f"architecture={architecture}", f"rule={rule}") for rule in ("shallow", "bp"))
    assert shallow < 0.37 * bp


def test_operations_are_none_if_the_data_decide_how_often_a_loop_runs():
    assert count_operations("rule=equilibrium_propagation", "rule.tolerance=0.1") is None
