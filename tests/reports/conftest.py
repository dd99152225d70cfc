"""Runs as training would record them, without training."""

import numpy as np
import pytest

from fa_jax.core import Metric
from fa_jax.records.columns import Declared
from fa_jax.records.reader import find_runs
from fa_jax.records.writer import Writer

CHOICES = {"task": "mnist", "architecture": "mlp", "loss": "cross_entropy", "optimizer": "sgd", "experiment": None}
COST = dict.fromkeys(("compile_seconds", "train_seconds", "evaluation_seconds", "memory_bytes"), 1.0)
COST |= {"seed_steps_per_second": 1234.0, "effective_params": 1234, "affiliated_params": 0, "feedback_weights": 56}
SCORES = {
    "error": Metric("error", "error", "%", bounds=(0, 100)),
    "balanced_error": Metric("balanced_error", "balanced error", "%", bounds=(0, 100)),
    "accuracy": Metric("accuracy", "accuracy", "%", better="higher", bounds=(0, 100)),
    "nse": Metric("nse", "NSE", logarithmic=True),
}
ANGLE_NAMES = {f"{kind}_angle": f"angle of the {kind}" for kind in ("signal", "weight", "update")}
MEASURED = tuple(Metric(name, label, "degrees", bounds=(0, 180)) for name, label in ANGLE_NAMES.items())
MEASURED += (Metric("signal_norm", "norm of the signal", better="neither", plotted=False),)


def declare(*names):
    """The declaration of a run that is judged by the first of these scores."""
    return Declared((*(SCORES[name] for name in names), Metric("loss", "loss")), MEASURED)


def pytest_collection_modifyitems(items):
    """Marks the tests that need a browser as optional."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.optional)


@pytest.fixture
def record(tmp_path):
    """Records a run of two seeds, and returns all runs recorded so far."""

    def record_run(rule, metrics=("error",), values=(4.0, 2.0), status="finished", choices=None, options=None):
        config = {"choices": {"rule": rule, **CHOICES, **(choices or {})}, "seeds": 2, "epochs": 1, "spacing": "linear"}
        config |= options or {}
        number = len(list(tmp_path.glob("*_*/status.json")))
        writer = Writer(tmp_path / f"{number}_{rule}", config, declare(*metrics))
        for step, factor in ((0, 10.0), (5, 1.0)):
            columns = {f"test_{metric}": factor * np.asarray(values) / (i + 1) for i, metric in enumerate(metrics)}
            columns |= {"test_loss": np.ones(2), "signal_angle_0": np.full(2, 30.0), "signal_norm_0": np.ones(2)}
            writer.evaluation([0, 1], step, 10 * step, step / 5, columns)
        writer.summary(COST)
        writer.status(status, "it broke" if status == "failed" else None)
        writer.close()
        return find_runs(tmp_path)

    return record_run
