"""Searches go on beyond the edge of a grid that has the best value."""

import math

import pytest

from experiments.edges import beyond


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({0.1: 3.0, 0.3: 2.0, 1.0: 2.5}, None),
        ({0.1: 3.0, 0.3: 2.5, 1.0: 2.0}, math.sqrt(10)),
        ({1.0: 2.0, 0.3: 2.5, 0.1: 1.0}, 0.1 / math.sqrt(10)),
        ({0.1: 2.0, 0.3: 1.0, 1.0: 1.0}, None),
        ({0.1: 1.0, 0.3: 1.0, 1.0: 2.0}, 0.1 / math.sqrt(10)),
        ({0.1: math.inf, 0.3: math.inf}, 0.1 / math.sqrt(10)),
        ({0.1: math.inf, 0.3: 90.0}, 0.3 * math.sqrt(10)),
    ],
    ids=["inside", "highest", "lowest", "tie inside", "tie at the lowest", "all diverge", "highest alone"],
)
def test_the_next_value_lies_beyond_the_edge_that_has_the_best_one(errors, expected):
    assert beyond(errors) == (None if expected is None else pytest.approx(expected))
