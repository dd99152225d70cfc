"""What trackers were sent, read back by their own readers."""

import importlib
import json
import logging
import struct
import sys

import numpy as np
import pytest

from fa_jax.cli.main import main
from fa_jax.loggers.logger import Tracker, Tracking
from fa_jax.records.reader import read_run
from fa_jax.records.statistics import summarise
from fa_jax.records.writer import Writer
from tests.cli.test_cli import folder  # noqa: F401

RUN = ["task=digits", "rule=fa", "seeds=3", "epochs=2", "evaluations=2", "probe=10", "checkpoint=false"]


def expected(at):
    """The test error of a run: examples, then by name what should have been sent."""
    examples, values = read_run(at).curves("test_error")
    parts = [summarise(column) for column in values.T]
    sent = {f"test_error/{part}": [getattr(p, part) for p in parts] for part in ("mean", "low", "high")}
    return examples, sent | {f"test_error/seed_{i}": values[i].tolist() for i in range(3)}


@pytest.mark.parametrize("groups", [[], ["seeds_per_batch=2"]])
def test_tensorboard_reads_back_the_seeds_and_their_mean(folder, groups):  # noqa: F811
    pytest.importorskip("tensorboardX")
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main([*RUN, *groups, "logger=tensorboard", "hydra.run.dir=run"]) == 0
    accumulator = accumulators.EventAccumulator("run/tensorboard")
    accumulator.Reload()
    examples, sent = expected(folder / "run")
    for name, values in sent.items():
        events = accumulator.Scalars(name)
        np.testing.assert_array_equal([event.step for event in events], examples)
        np.testing.assert_allclose([event.value for event in events], values, rtol=1e-6)
    assert accumulator.Images("curves")[0].width > 500


def wandb_records(path):
    """The records of a .wandb file: wandb's own messages in a LevelDB log, whose blocks have 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb_reads_back_the_seeds_and_their_mean(folder):  # noqa: F811
    pytest.importorskip("wandb")
    assert main([*RUN, "logger=wandb", "logger.mode=offline", "hydra.run.dir=run"]) == 0
    (path,) = (folder / "run" / "wandb").rglob("*.wandb")
    rows, config = [], {}
    for record in wandb_records(path):
        items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        rows.append({key: json.loads(value) for key, value in items.items()})
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    examples, sent = expected(folder / "run")
    curves = [row for row in rows if "test_error/mean" in row]
    np.testing.assert_array_equal([row["examples"] for row in curves], examples)
    for name, values in sent.items():
        np.testing.assert_allclose([row[name] for row in curves], values, rtol=1e-6)
    assert any(key.startswith("curves") for row in rows for key in row)
    assert config["choices"]["rule"] == "fa"


@pytest.mark.filterwarnings("default")
def test_mlflow_reads_back_the_seeds_and_their_mean(folder):  # noqa: F811
    mlflow = pytest.importorskip("mlflow")
    assert main([*RUN, "logger=mlflow", "hydra.run.dir=run"]) == 0
    client = mlflow.MlflowClient(tracking_uri="sqlite:///outputs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fa_jax").experiment_id])
    examples, sent = expected(folder / "run")
    for name, values in sent.items():
        history = client.get_metric_history(run.info.run_id, name)
        np.testing.assert_array_equal([one.step for one in history], examples)
        np.testing.assert_allclose([one.value for one in history], values, rtol=1e-6)
    assert run.data.params["rule"] == "fa"
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["curves.png"]
    assert run.info.status == "FINISHED"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "groups"), [("wandb", 1), ("mlflow", 1), pytest.param("wandb", 2, marks=pytest.mark.slow)]
)
def test_a_resumed_run_goes_on_in_the_tracker_s_own(folder, monkeypatch, name, groups):  # noqa: F811
    pytest.importorskip(name)
    store = "sqlite:///outputs/resumed.db"  # MLflow keeps a store open by its name, wherever that is relative to
    evaluate, further = Writer.evaluation, ["logger.mode=offline"] if name == "wandb" else [f"logger.uri={store}"]

    def cut_off(self, seeds, step, *rest):
        if step == 88:
            raise RuntimeError("power failure")
        evaluate(self, seeds, step, *rest)

    monkeypatch.setattr(Writer, "evaluation", cut_off)
    with pytest.raises(RuntimeError, match="power failure"):
        main(
            [
                *RUN,
                f"logger={name}",
                *further,
                f"seeds_per_batch={4 - groups}",
                "checkpoint_every=0",
                "hydra.run.dir=run",
            ]
        )
    monkeypatch.setattr(Writer, "evaluation", evaluate)
    assert main(["resume=run"]) == 0
    examples, sent = expected(folder / "run")
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
        np.testing.assert_allclose([one.value for one in history], sent["test_error/mean"], rtol=1e-6)
        assert run.info.status == "FINISHED"


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_costs_one_line(folder, capsys, monkeypatch, name):  # noqa: F811
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(name, name), None)
    assert main([*RUN, "batch_size=31", f"logger={name}"]) == 2
    printed = capsys.readouterr().err
    assert f"logger={name} needs" in printed
    assert f"pip install 'fa-jax[{name}]'" in printed
    assert not (folder / "outputs").exists()


@pytest.mark.slow
def test_no_tracker_is_imported_unless_it_is_asked_for(folder):  # noqa: F811
    import subprocess

    code = f"""
import sys
from fa_jax.cli.main import main
main({[*RUN, "hydra.run.dir=run"]!r})
loaded = [name for name in ("tensorboardX", "wandb", "mlflow") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_tracker_that_fails_is_left_alone_and_the_run_goes_on(folder, caplog):  # noqa: F811
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise ConnectionError("nobody there")

    assert main([*RUN, "hydra.run.dir=run"]) == 0
    tracking = Tracking(lambda at, config: Tracker(fail, fail, fail), folder / "run", {}, [[0, 1, 2]])
    with caplog.at_level(logging.WARNING, "fa_jax"):
        for examples in (0, 10):
            tracking.evaluation([0, 1, 2], examples, {"test_loss": np.ones(3)})
        tracking.close(True)
    assert len(calls) == 1


def test_the_mean_is_over_the_seeds_that_did_not_diverge(folder):  # noqa: F811
    sent = {}
    tracker = Tracker(sent.setdefault, lambda path: None, lambda finished: None)
    tracking = Tracking(lambda at, config: tracker, folder, {}, [[0, 1, 2]])
    tracking.evaluation([0, 1, 2], 0, {"test_loss": np.array([1.0, 1.0, 1.0])})
    tracking.evaluation([0, 1, 2], 5, {"test_loss": np.array([0.5, 0.7, 1000.0])})
    assert sent[5]["test_loss/mean"] == pytest.approx(0.6)
    assert sent[5]["test_loss/seed_2"] == 1000
