"""A config, and metrics as a task and its reports declare them."""

import pytest

from fa_jax.core import Metric
from fa_jax.records.columns import Declared

CONFIG = {"choices": {"rule": "fa", "task": "linear"}, "seeds": 2, "epochs": 1, "spacing": "linear"}
"""What every run records of its config."""
ERROR = Metric("error", "error", unit="%", bounds=(0, 100))
ACCURACY = Metric("accuracy", "accuracy", unit="%", better="higher", bounds=(0, 100))
NSE = Metric("nse", "NSE", logarithmic=True)
LOSS = Metric("loss", "loss")
SIGNAL_ANGLE = Metric("signal_angle", "angle of the signal", unit="degrees", bounds=(0, 180))
SIGNAL_NORM = Metric("signal_norm", "norm of the signal", better="neither")
SPARSITY = Metric("sparsity", "sparsity", better="neither", bounds=(0, 1))


@pytest.fixture
def declared():
    return Declared((ERROR, NSE, ACCURACY, LOSS), (SIGNAL_ANGLE, SIGNAL_NORM, SPARSITY))
