"""`Runs` and `Run` give the recorded numbers, and what the networks of all seeds compute."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import fa_jax
from fa_jax.api.run import Run
from fa_jax.api.runs import Runs
from fa_jax.core import Batch, Extras
from fa_jax.records.reader import read_run
from fa_jax.reports import comparison
from fa_jax.reports.tables import Table
from fa_jax.rules.bp import bp
from tests.conftest import assert_trees_close, assert_trees_equal


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "sweep"
    options = {
        "epochs": 1,
        "evaluations": 2,
        "seeds": [3, 1, 2],
        "probe": 8,
        "overrides": ["architecture.hidden=[9,8]"],
    }
    return fa_jax.train(task="digits", rule=["bp", "fa", "associated_learning"], folder=folder, **options)


def test_predictions_have_the_recorded_error(runs):
    for run in runs:
        test = run.task.test
        outputs = run.predict(test.inputs)
        assert outputs.shape == (3, len(test.inputs), 10)
        np.testing.assert_allclose(outputs.sum(-1), 1, rtol=1e-5)
        errors = 100 * (outputs.argmax(-1) != test.targets).mean(-1)
        recorded = [run.record.at_end("test_error")[seed] for seed in run.seeds]
        np.testing.assert_allclose(errors, recorded, rtol=1e-5)
        np.testing.assert_allclose(run.predict(test.inputs, seed=1), outputs[1], atol=1e-6)


def test_hidden_activations_are_those_of_the_forward_pass(runs):
    run = runs["fa"]
    x = run.task.test.inputs[:7]
    hiddens = run.hiddens(x)
    assert list(hiddens) == list(run.job.network.hidden_shapes) == ["stages_0/hidden", "stages_1/hidden"]
    h = hiddens["stages_0/hidden"]
    for i, seed in enumerate(run.seeds):
        layer = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), run.params["stages_0"]["linear"])
        inputs = np.asarray(run.task.prepare(x)).reshape(len(x), -1)
        expected = np.tanh(inputs @ layer["kernel"] + layer["bias"])
        np.testing.assert_allclose(h[i], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(run.hiddens(x, seed=seed)["stages_0/hidden"], h[i], rtol=1e-5, atol=1e-6)
    assert {h.shape[:2] for h in runs["associated_learning"].hiddens(x).values()} == {(len(run.seeds), len(x))}


def test_updates_and_signals_are_those_of_rule_and_backprop_for_each_seed(runs):
    run = runs["fa"]
    x, y = run.task.test.inputs[:6], run.task.test.targets[:6]
    batch = Batch(run.task.prepare(x), run.task.encode(y), jax.random.key(0))
    updates, signals = run.updates(x, y), run.signals(x, y)
    for i, seed in enumerate(run.seeds):
        params, feedback = (jax.tree.map(lambda a, i=i: a[i], tree) for tree in (run.params, run.feedback))
        expected = run.job.rule.updates(params, feedback, batch)
        gradient = bp(run.job.network, run.job.loss.value).updates(params, (), batch)
        of_seed = jax.tree.map(lambda a, i=i: a[i], updates)
        assert_trees_close(of_seed.rule, expected, rtol=1e-4, atol=1e-7)
        assert_trees_close(of_seed.backprop, gradient, rtol=1e-4, atol=1e-7)
        assert_trees_close(run.updates(x, y, seed=seed), of_seed, rtol=1e-4, atol=1e-7)
        by_rule = run.job.rule.extras.signals(params, feedback, batch)
        assert_trees_close(jax.tree.map(lambda a, i=i: a[i], signals.rule), by_rule, rtol=1e-4, atol=1e-7)
    assert not np.allclose(signals.rule["stages_0/hidden"], signals.backprop["stages_0/hidden"])
    assert_trees_close(*runs["bp"].signals(x, y), rtol=1e-5, atol=1e-8)


def test_a_recorded_run_loads_with_the_same_params_and_feedback(runs):
    for run in runs:
        loaded = fa_jax.load(run.folder)
        assert loaded.seeds == run.seeds == [3, 1, 2]
        assert_trees_equal((loaded.params, loaded.feedback), (run.params, run.feedback))
        assert loaded.config == run.config


def test_tables_are_those_of_the_command_line_and_show_in_a_notebook(runs):
    compared = comparison.compare([read_run(run.folder) for run in runs])
    assert runs.comparison().contrasts == compared.contrasts
    table = runs.contrasts(against="fa")
    assert table.rows[0][0] == "BP - FA"
    assert str(table).splitlines()[2].startswith("BP - FA")
    assert re.search(r"<td>BP - FA *</td>", table._repr_html_())
    assert "<b>" not in Table(["<b>"], [["<b>"]], "<b>")._repr_html_()
    assert [row[0] for row in runs.summary("test_loss").rows] == runs.labels
    with pytest.raises(fa_jax.BadOption, match=r"^metric must be one of .*did you mean 'test_error'"):
        runs.summary("test_eror")
    with pytest.raises(fa_jax.BadOption, match="there are no contrasts"):
        runs[:1].contrasts()


def test_a_run_is_named_by_its_label_its_rule_or_what_was_typed(runs):
    for name in ("FA", "fa", "rule=fa", "fa architecture.hidden=[9,8]", "FA hidden=[9,8]"):
        assert runs[name] is runs[1]
    assert runs["associated learning"] is runs[-1]
    twice = Runs([*runs, runs[0]])
    with pytest.raises(fa_jax.BadOption, match=r"^the name of a run must be one of BP, BP \(2\); 2 runs are 'rule=bp'"):
        twice["rule=bp"]
    assert twice["BP (2)"] is runs[0]
    with pytest.raises(fa_jax.BadOption, match=r"one of BP, FA, associated learning; got 'fa learning_rate=3'"):
        runs["fa learning_rate=3"]


def test_the_frame_has_every_recorded_number(runs):
    frame = runs.frame()
    assert len(frame) == 3 * 3 * 3
    assert list(frame.columns[:4]) == ["run", "task", "architecture", "rule"]
    for run in runs:
        rows = frame[frame["rule"] == run.record.choices["rule"]]
        np.testing.assert_array_equal(rows["test_error"], run.record.metrics["test_error"])
        assert set(rows["seed"]) == {1, 2, 3}


def test_figures_draw_one_line_per_run(runs):
    for figure in (runs.plot("test_error"), runs.plot(title="digits", size=(4, 3), font_size=8, axis="epochs")):
        assert [len(axes.lines) for axes in figure.axes] == [3]
        assert figure._repr_png_()[:4] == b"\x89PNG"
    both, last = runs.plot_angles(), runs.plot_angles([1])
    assert [len(axes.lines) for axes in both.axes] == [2 + 1, 2 + 1]  # of FA and associated learning, and one at 90°
    assert "layer 1" in last.axes[0].get_ylabel()


def test_each_hidden_layer_has_a_row_with_the_numbers_that_are_recorded(runs):
    table = runs.layers()
    assert [row[1] for row in table.rows] == ["0", "1"] * 3
    (row,) = (row for row in table.rows if row[:2] == ["FA", "1"])
    angles = runs["fa"].record.at_end("signal_angle_1").values()
    assert row[2:4] == [f"{np.mean(list(angles)):.4g}", f"90 ± {57.29578 / np.sqrt(8 * 8):.2g}"]
    columns = {name: column for name, column in runs["fa"].record.columns.items() if column.metric != "scale"}
    unmeasured = Run(dataclasses.replace(runs["fa"].record, columns=columns), lambda: runs["fa"].job, lambda _: {})
    with pytest.raises(fa_jax.BadOption, match="nothing is measured of hidden layers"):
        Runs([unmeasured]).layers()


def test_a_table_for_a_paper_has_the_chosen_columns(runs):
    table = runs.table(["test_error", "n", "params"], spread="sd")
    assert table.headings == ["run", "test error (%)", "n", "params"]
    assert table.latex().count(r"\begin{table}") == 1
    with pytest.raises(fa_jax.BadOption, match="no conditions of one rule differ in a number alone"):
        runs.rates()
    with pytest.raises(fa_jax.BadOption, match="no conditions of one rule differ in a number alone"):
        runs.plot_rates()


def test_wrong_examples_are_refused_in_one_line(runs):
    run = runs["fa"]
    x, y = run.task.test
    learner = run.job.learner._replace(rule=run.job.rule._replace(extras=Extras()))
    job = dataclasses.replace(run.job, learner=learner)
    without_signals = fa_jax.Run.recorded(run.record, lambda: job)
    for call, message in (
        (lambda: run.predict(x[0]), r"^x must be inputs \[n, 8, 8, 1\]; got \[8, 8, 1\]"),
        (lambda: run.predict(jnp.float32(x)), "^x must be of type uint8"),
        (lambda: run.updates(x[:3], y[:2]), r"^y must be the targets of x, \[3\] int32; got \[2\]"),
        (lambda: run.updates(x[:3], jnp.ones((3,))), "^y must be the targets of x"),
        (lambda: run.predict(x, seed=9), r"^seed must be one of \[3, 1, 2\]; got 9"),
        (lambda: without_signals.signals(x, y), "^rule=fa has no learning signals of hidden layers"),
        (lambda: runs["nonsense"], "^the name of a run must be one of BP, FA, associated learning; got 'nonsense'"),
    ):
        with pytest.raises(fa_jax.BadOption, match=message):
            call()


def test_only_what_is_there_and_trusted_is_opened(runs, folder):
    with pytest.raises(fa_jax.BadOption, match=r"no run is recorded there; 3 are recorded below: fa_jax.compare"):
        fa_jax.load(runs[0].folder.parent)
    with pytest.raises(fa_jax.BadOption, match=r"no run is recorded there$"):
        fa_jax.load("nowhere")
    (folder / "copy").mkdir()
    for name in ("status.json", "environment.json"):
        (folder / "copy" / name).write_text((runs[0].folder / name).read_text())
    config = (runs[0].folder / "config.yaml").read_text()
    (folder / "copy" / "config.yaml").write_text(config.replace("fa_jax.rules.bp.bp", "os.mkdir\n  path: taken"))
    with pytest.raises(fa_jax.BadOption, match=r"calls os.mkdir, which is none of fa_jax's .*; trust=.PACKAGE. or the"):
        fa_jax.load("copy")
    assert not (folder / "taken").exists()
    task = {"_target_": "fa_jax.tasks.files.arrays", "path": "gone.npz", "preprocessing": None, "validation": 0}
    (folder / "copy" / "config.yaml").write_text(yaml.safe_dump({**yaml.safe_load(config), "task": task}))
    with pytest.raises(fa_jax.BadOption, match=r"gone.npz is none; if the data are elsewhere now, fa_jax.load\("):
        fa_jax.load("copy")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (fa_jax.load, {"truts": "mylab"}, "^load has no argument 'truts'; did you mean 'trust'?"),
        (fa_jax.report, {"folder": "x"}, "^report has no argument 'folder'; did you mean 'output'?"),
        (fa_jax.compare, {"metric": "x"}, "^compare has no argument 'metric'; it has trust; tables and figures are of"),
    ],
)
def test_an_argument_that_a_function_does_not_have_is_refused_with_the_nearest(function, arguments, message):
    with pytest.raises(fa_jax.BadOption, match=message):
        function("outputs", **arguments)


def test_folders_are_compared_and_reported(runs, folder):
    again = fa_jax.compare(runs[0].folder.parent)
    assert again.labels == runs.labels
    assert_trees_equal(again["fa"].params, runs["fa"].params)
    assert fa_jax.report(again, output=folder / "page").read_text().startswith("<!")
    with pytest.raises(fa_jax.BadOption, match="no run is recorded"):
        fa_jax.compare(folder / "page")
    with pytest.raises(fa_jax.BadOption, match="needs output=FOLDER"):
        fa_jax.report(runs)
