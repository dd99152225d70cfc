"""What a compiled program says of its cost."""

import pytest

from fa_jax.cli.build import build
from fa_jax.cli.compose import compose, tell_apart
from fa_jax.training.compile import operations


def count(*words):
    return operations(build(compose(tell_apart(["task=digits", *words]))[1][0].config))


@pytest.mark.parametrize("rule", ["bp", "dfa", "forward_forward"])
def test_operations_are_about_those_of_the_matrix_products(rule):
    width, batch = 100, 32
    first, second, last = 64 * width, width * width, width * 10
    products = {
        "bp": 3 * (first + second + last) - first,  # forward, of the weights, and down but to the input
        "dfa": 2 * (first + second + last) + 2 * last,  # what is sent down is of ten errors, to two layers
        "forward_forward": 5 * (first + second) + 2 * last,  # three passes, two of the weights, and the readout
    }[rule]
    found = count(f"rule={rule}", f"architecture.hidden=[{width},{width}]", f"batch_size={batch}")
    assert found == pytest.approx(2 * batch * products, rel=0.1)


def test_what_has_a_loop_has_no_count():
    assert count("rule=recurrent_forward_forward") is None
