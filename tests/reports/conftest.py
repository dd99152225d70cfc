"""Runs as training would record them, without training: in memory, and in a folder."""

import numpy as np
import pytest

from fa_jax.core import Metric
from fa_jax.records.columns import Declared
from fa_jax.records.reader import Run, find_runs
from fa_jax.records.writer import Writer

CHOICES = {"task": "mnist", "architecture": "mlp", "loss": "cross_entropy", "optimizer": "sgd", "experiment": None}
COST = dict.fromkeys(("compile_seconds", "train_seconds", "evaluation_seconds", "memory_bytes"), 1.0)
COST |= {"seed_steps_per_second": 1234.0, "effective_params": 1234, "affiliated_params": 0, "feedback_weights": 56}
SCORES = {
    "error": Metric("error", "error", "%", bounds=(0, 100)),
    "balanced_error": Metric("balanced_error", "balanced error", "%", bounds=(0, 100)),
    "accuracy": Metric("accuracy", "accuracy", "%", better="higher", bounds=(0, 100)),
    "r2": Metric("r2", "R2", better="higher", bounds=(None, 1)),
    "nse": Metric("nse", "NSE", logarithmic=True),
}
ANGLE_NAMES = {f"{kind}_angle": f"angle of the {kind}" for kind in ("signal", "weight", "update")}
MEASURED = tuple(Metric(name, label, "degrees", bounds=(0, 180)) for name, label in ANGLE_NAMES.items())
MEASURED += (Metric("signal_norm", "norm of the signal", better="neither", plotted=False),)


def declare(*names):
    """The declaration of a run that is judged by the first of these scores."""
    return Declared((*(SCORES[name] for name in names), Metric("loss", "loss")), MEASURED)


def make_run(
    rule,
    errors,
    first=0,
    rate=0.1,
    status="finished",
    metric="error",
    task="mnist",
    time="2026-01-01",
    validation=None,
    options=None,
):
    """A run in memory with two evaluations, of which the last has these errors, one per seed."""
    config = {"choices": {"rule": rule, "task": task, "architecture": "mlp", "loss": "squared_error"}}
    config["choices"] |= {"optimizer": "sgd", "experiment": None}
    config |= {"optimizer": {"learning_rate": rate}, "seed": first, "seeds": len(errors), "spacing": "linear"}
    n, name = len(errors), f"test_{metric}"
    metrics = {"seed": np.tile(np.arange(first, first + n), 2), "step": np.repeat([0, 9], n)}
    metrics |= {"examples": np.repeat([0, 90], n), "epoch": np.repeat([0.0, 1.0], n)}
    metrics |= {"test_loss": np.full(2 * n, 1 + rate), name: np.concatenate([np.full(n, 90.0), errors])}
    metrics |= {"signal_angle_0": np.linspace(90, 30, 2 * n), "signal_angle_1": np.linspace(80, 40, 2 * n)}
    if validation is not None:
        metrics[f"validation_{metric}"] = np.concatenate([np.full(n, 90.0), validation])
    declared = declare(metric)
    names = [name for name in metrics if name not in ("seed", "step", "examples", "epoch")]
    return Run(
        f"{rule}{first}{rate}",
        config | (options or {}),
        {"status": status, "time": time, "reason": None},
        None,
        {},
        metrics,
        declared.columns(names),
        declared.main,
    )


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
