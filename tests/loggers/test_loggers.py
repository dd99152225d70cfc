"""What trackers received, read by the readers of the trackers."""

import importlib
import json
import logging
import struct
import subprocess
import sys

import numpy as np
import pytest

from fa_jax.cli.main import main
from fa_jax.core import Metric
from fa_jax.loggers.logger import Logger, RunLogger
from fa_jax.records.columns import Declared
from fa_jax.records.reader import read_run
from fa_jax.records.statistics import summarise
from fa_jax.records.writer import Writer

RUN = ["task=digits", "rule=fa", "seeds=3", "epochs=2", "evaluations=2", "probe=0", "checkpoint=false"]
DECLARED = Declared((Metric("nse", "NSE", logarithmic=True), Metric("loss", "loss")), ())

pytestmark = pytest.mark.usefixtures("folder")


def expected_scalars(run_folder):
    """The test error of a run: the examples, and by name the values that a tracker should have."""
    examples, values = read_run(run_folder).curves("test_error")
    summaries = [summarise(column) for column in values.T]
    scalars = {f"test_error/{part}": [getattr(s, part) for s in summaries] for part in ("mean", "low", "high")}
    return examples, scalars | {f"test_error/seed_{i}": values[i].tolist() for i in range(3)}


@pytest.mark.draws
@pytest.mark.optional
@pytest.mark.parametrize("groups", [pytest.param([], marks=pytest.mark.slow), ["seeds_per_batch=2"]])
def test_tensorboard_has_each_seed_and_the_mean(folder, groups):
    pytest.importorskip("tensorboardX")
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main([*RUN, *groups, "logger=tensorboard", "hydra.run.dir=run"]) == 0
    accumulator = accumulators.EventAccumulator("run/tensorboard")
    accumulator.Reload()
    examples, scalars = expected_scalars(folder / "run")
    for name, values in scalars.items():
        events = accumulator.Scalars(name)
        np.testing.assert_array_equal([event.step for event in events], examples)
        np.testing.assert_allclose([event.value for event in events], values, rtol=1e-6)
    assert accumulator.Images("curves")[0].width > 500


def wandb_records(path):
    """The records of a .wandb file: messages of wandb in a LevelDB log, whose blocks have 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        size, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.mark.draws
@pytest.mark.optional
def test_wandb_has_each_seed_and_the_mean(folder):
    pytest.importorskip("wandb")
    assert main([*RUN, "logger=wandb", "logger.mode=offline", "hydra.run.dir=run"]) == 0
    (path,) = (folder / "run" / "wandb").rglob("*.wandb")
    rows, config = [], {}
    for record in wandb_records(path):
        items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        rows.append({key: json.loads(value) for key, value in items.items()})
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    examples, scalars = expected_scalars(folder / "run")
    curves = [row for row in rows if "test_error/mean" in row]
    np.testing.assert_array_equal([row["examples"] for row in curves], examples)
    for name, values in scalars.items():
        np.testing.assert_allclose([row[name] for row in curves], values, rtol=1e-6)
    assert any(key.startswith("curves") for row in rows for key in row)
    assert config["choices"]["rule"] == "fa"


@pytest.mark.optional
@pytest.mark.filterwarnings("default")
def test_mlflow_has_each_seed_and_the_mean(folder):
    mlflow = pytest.importorskip("mlflow")
    assert main([*RUN, "logger=mlflow", "hydra.run.dir=run"]) == 0
    client = mlflow.MlflowClient(tracking_uri="sqlite:///outputs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fa_jax").experiment_id])
    examples, scalars = expected_scalars(folder / "run")
    for name, values in scalars.items():
        history = client.get_metric_history(run.info.run_id, name)
        np.testing.assert_array_equal([entry.step for entry in history], examples)
        np.testing.assert_allclose([entry.value for entry in history], values, rtol=1e-6)
    assert run.data.params["rule"] == "fa"
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["curves.png"]
    assert run.info.status == "FINISHED"


@pytest.mark.draws
@pytest.mark.optional
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "groups"), [("wandb", 1), ("mlflow", 1), pytest.param("wandb", 2, marks=pytest.mark.slow)]
)
def test_a_resumed_run_continues_the_tracker_s_run(folder, monkeypatch, name, groups):
    pytest.importorskip(name)
    store = "sqlite:///outputs/resumed.db"  # MLflow keeps a store open by its name, whatever folder that is relative to
    options = ["logger.mode=offline"] if name == "wandb" else [f"logger.uri={store}"]
    options += [f"seeds_per_batch={4 - groups}", "checkpoint_every=0", "hydra.run.dir=run"]
    record_evaluation = Writer.evaluation

    def fail(self, seeds, step, *arguments):
        if step == 88:
            raise RuntimeError("power failure")
        record_evaluation(self, seeds, step, *arguments)

    monkeypatch.setattr(Writer, "evaluation", fail)
    with pytest.raises(RuntimeError, match="power failure"):
        main([*RUN, f"logger={name}", *options])
    monkeypatch.setattr(Writer, "evaluation", record_evaluation)
    assert main(["resume=run"]) == 2  # the run does not log where the logger does by default
    assert main(["resume=run", "trust=logger"]) == 0
    examples, scalars = expected_scalars(folder / "run")
    if name == "wandb":
        paths = sorted((folder / "run" / "wandb").rglob("*.wandb"))
        assert len(paths) == 2
        records = [record for path in paths for record in wandb_records(path)]
        assert len({record.run.run_id for record in records if record.run.run_id}) == 1
        rows = [{item.nested_key[0]: item.value_json for item in record.history.item} for record in records]
        assert [int(row["examples"]) for row in rows if "test_error/mean" in row] == examples.tolist()
    else:
        client = importlib.import_module(name).MlflowClient(tracking_uri=store)
        (run,) = client.search_runs([client.get_experiment_by_name("fa_jax").experiment_id])
        history = client.get_metric_history(run.info.run_id, "test_error/mean")
        np.testing.assert_allclose([entry.value for entry in history], scalars["test_error/mean"], rtol=1e-6)
        assert run.info.status == "FINISHED"


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused(folder, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(name, name), None)
    assert main([*RUN, "batch_size=31", f"logger={name}"]) == 2
    line = capsys.readouterr().err
    assert f"logger={name} needs" in line
    assert f"pip install 'fa-jax[{name}]'" in line
    assert line.count("\n") == 1
    assert not (folder / "outputs").exists()


@pytest.mark.slow
def test_a_tracker_is_imported_only_if_it_is_chosen():
    code = f"""
import sys
from fa_jax.cli.main import main
assert main({[*RUN, "hydra.run.dir=run"]!r}) == 0
loaded = [name for name in ("tensorboardX", "wandb", "mlflow") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("fails_at", ["open", "scalars"])
def test_a_logger_that_fails_is_not_called_again_and_the_run_goes_on(folder, caplog, fails_at):
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise ConnectionError("no answer")

    def open_logger(run_folder, config):
        return fail(run_folder, config) if fails_at == "open" else Logger(fail, fail, fail)

    assert main([*RUN, "hydra.run.dir=run"]) == 0
    with caplog.at_level(logging.WARNING, "fa_jax"):
        logger = RunLogger(open_logger, folder / "run", {}, [[0, 1, 2]], DECLARED)
        for examples in (0, 10):
            logger.evaluation([0, 1, 2], examples, {"test_loss": np.ones(3), "test_nse": np.ones(3)})
        logger.close(True)
    assert len(calls) == 1
    assert [record.getMessage() for record in caplog.records if "the logger failed" in record.getMessage()] == [
        "the logger failed and is not used further: no answer"
    ]


def test_means_exclude_diverged_seeds_and_are_geometric_for_logarithmic_metrics(folder):
    sent = {}
    logger = Logger(sent.setdefault, lambda path: None, lambda finished: None)
    run_logger = RunLogger(lambda run_folder, config: logger, folder, {}, [[0, 1, 2]], DECLARED)
    run_logger.evaluation([0, 1, 2], 0, {"test_loss": np.ones(3), "test_nse": np.ones(3)})
    metrics = {"test_loss": np.array([0.5, 0.7, 1000.0]), "test_nse": np.array([1e-1, 1e-3, 1e9])}
    run_logger.evaluation([0, 1, 2], 5, metrics)
    assert sent[5]["test_loss/mean"] == pytest.approx(0.6)
    assert sent[5]["test_nse/mean"] == pytest.approx(1e-2)
    assert sent[5]["test_loss/seed_2"] == 1000
