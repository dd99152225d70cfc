"""Metrics that tasks and measures declare: every command judges a run by the first metric of its task."""

import csv
import json
import re

import pytest

from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs, read_run

TASK = """
import jax.numpy as jnp
from fa_jax.core import Metric
from fa_jax.metrics.scores import ERROR, error
from fa_jax.tasks.digits import digits


def balanced_error(outputs, targets):
    wrong = jnp.argmax(outputs, -1) != jnp.argmax(targets, -1)
    return 100 * jnp.mean(wrong @ targets / jnp.maximum(targets.sum(0), 1))


BALANCED_ERROR = Metric("balanced_error", "balanced error", "%", bounds=(0, 100), score=balanced_error)


def digits_by_error(**options):
    return digits(**options)._replace(metrics=(ERROR, BALANCED_ERROR))


def digits_by_balanced_error(**options):
    return digits(**options)._replace(metrics=(BALANCED_ERROR, ERROR))
"""
CONFIG = """# @package _global_
# Digits with two metrics.
defaults:
  - digits
  - _self_

task:
  _target_: my_tasks.{}
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [("error", "balanced_error"), pytest.param("balanced_error", "error", marks=pytest.mark.slow)],
    ids=lambda name: name,
)
def test_a_run_is_judged_by_the_metric_that_its_task_declares_first(folder, capsys, monkeypatch, first, second):
    (folder / "my_tasks.py").write_text(TASK)
    (folder / "configs" / "task").mkdir(parents=True)
    (folder / "configs" / "task" / "my_digits.yaml").write_text(CONFIG.format(f"digits_by_{first}"))
    monkeypatch.syspath_prepend(folder)
    words = ["task=my_digits", "rule=bp,fa", "seeds=2", "epochs=1", "evaluations=2", "probe=0"]
    words += ["--config-dir=configs", "trust=my_tasks", "hydra.sweep.dir=sweep"]
    assert main(["--multirun", *words]) == 0
    printed = capsys.readouterr().out
    progress = [line for line in printed.splitlines() if " examples  " in line]
    assert progress
    assert all(re.search(f"examples  test_{first} .*  test_{second} ", line) for line in progress)
    assert f"test {first.replace('_', ' ')}: mean over n seeds" in printed

    for run in find_runs(folder):
        assert run.main_metric == f"test_{first}"
        columns = json.loads((run.folder / "metrics.json").read_text())["columns"]
        assert {column["metric"] for column in columns.values() if column["split"]} == {first, second, "loss"}
        assert {f"{split}_{name}" for split in ("train", "test") for name in (first, second)} <= run.metrics.keys()
        assert {f"test_{first}", f"test_{second}"} <= run.summary["final"].keys()
    for name in ("comparison.csv", "contrasts.csv"):
        with (folder / "sweep" / name).open() as file:
            assert {row["metric"] for row in csv.DictReader(file)} == {f"test_{first}"}

    assert main(["compare", "sweep"]) == 0
    assert f"test {first.replace('_', ' ')}: mean over n seeds" in capsys.readouterr().out
    assert main(["report", "sweep"]) == 0
    page = (folder / "sweep" / "report.html").read_text()
    assert f'"main":"test_{first}"' in page
    assert "test balanced error (%)" in page


@pytest.mark.parametrize(
    ("words", "is_measured"),
    [
        (["rule=fa", "architecture.hidden=[9,8]"], True),
        pytest.param(["rule=fa", f"architecture.hidden={10 * [9]}".replace(" ", "")], True, marks=pytest.mark.slow),
        pytest.param(["rule=associated_learning", "rule.width=8"], False, marks=pytest.mark.slow),
        (["rule=fa", "architecture=cnn", "architecture.topology=conv4x3p2"], False),
    ],
    ids=["mlp", "scanned", "associated learning", "cnn"],
)
def test_pseudobackprop_is_measured_if_the_last_hidden_layer_has_a_dense_readout(folder, words, is_measured):
    short = ["task=digits", "seeds=1", "epochs=0.05", "evaluations=1", "checkpoint=false", "hydra.run.dir=run"]
    assert main([*short, *words, "measure=[pseudobackprop,separation]"]) == 0
    columns = read_run(folder / "run").columns
    assert ("pseudobackprop_angle" in columns) == is_measured
    assert columns["separation_0"].better == "higher"
