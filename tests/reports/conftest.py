"""Runs as training would record them, without training."""

import numpy as np
import pytest

from fa_jax.records.reader import find_runs
from fa_jax.records.writer import Writer

CHOICES = {"task": "mnist", "architecture": "mlp", "loss": "cross_entropy", "optimizer": "sgd", "experiment": None}
COST = dict.fromkeys(("compile_seconds", "train_seconds", "evaluation_seconds", "memory_bytes"), 1.0)
COST |= {"effective_params": 1234, "affiliated_params": 0, "feedback_weights": 56}


@pytest.fixture
def record(tmp_path):
    """Records a run of two seeds and returns all recorded so far."""

    def one(rule, metric="error", values=(4.0, 2.0), status="finished", choices=None, options=None):
        config = {"choices": {"rule": rule, **CHOICES, **(choices or {})}, "spacing": "linear", **(options or {})}
        writer = Writer(tmp_path / f"{len(find_runs(tmp_path))}_{rule}", config)
        for step, factor in ((0, 10.0), (5, 1.0)):
            metrics = {"test_loss": np.ones(2), f"test_{metric}": factor * np.asarray(values)}
            metrics |= {"signal_angle_0": np.full(2, 30.0), "signal_norm_0": np.ones(2)}
            writer.evaluation([0, 1], step, 10 * step, step / 5, metrics)
        writer.summary({**COST, "seed_steps_per_second": 1234.0})
        writer.status(status, "it broke" if status == "failed" else None)
        writer.close()
        return find_runs(tmp_path)

    return one
