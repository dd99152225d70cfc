"""How far rules are above networks whose hidden layers do not learn, by hand; and what is unequal, or not there."""

import dataclasses
import math
import shlex

import numpy as np
import pytest
from scipy import stats

from fa_jax.api.run import Run
from fa_jax.api.runs import Runs
from fa_jax.checks import BadOption
from fa_jax.reports.comparison import compare, write
from tests.reports.conftest import make_run

RANDOM = np.random.default_rng(5)
CONTROL, FA, DFA = RANDOM.normal(65, 1, 5), RANDOM.normal(60, 1, 5), RANDOM.normal(69, 1, 5)


def on(architecture, run, command=(), **config):
    """A run on another architecture, with further options, and the command that trained it."""
    choices = {**run.config["choices"], "architecture": architecture}
    environment = {"command": ["/bin/fa-jax", *command]}
    return dataclasses.replace(run, config={**run.config, "choices": choices, **config}, environment=environment)


def test_a_margin_is_the_error_of_the_control_less_that_of_the_rule_over_common_seeds():
    compared = compare([make_run("fa", FA), make_run("frozen_blocks", CONTROL[:4]), make_run("dfa", DFA)])
    fa, dfa = compared.margins
    assert [(compared.names[m.condition], compared.names[m.control]) for m in (fa, dfa)] == [
        ("FA", "frozen blocks"),
        ("DFA", "frozen blocks"),
    ]
    differences = (CONTROL - FA)[:4]
    assert (fa.n, fa.metric) == (4, "test_error")
    assert fa.margin == pytest.approx(differences.mean())
    assert (fa.low, fa.high) == pytest.approx(stats.t.interval(0.95, 3, differences.mean(), stats.sem(differences)))
    assert fa.margin > 0 > dfa.margin
    assert fa.unequal == ("seeds (5 and 4)",)


def test_more_accuracy_is_better_and_a_logarithmic_metric_has_a_ratio():
    runs = [make_run(rule, values, metric="accuracy") for rule, values in (("fa", FA), ("shallow", CONTROL))]
    (margin,) = compare(runs).margins
    assert margin.margin == pytest.approx((FA - CONTROL).mean())
    runs = [make_run(rule, values, metric="nse") for rule, values in (("fa", FA), ("shallow", CONTROL))]
    (margin,) = compare(runs).margins
    assert margin.margin == pytest.approx(math.exp(np.log(CONTROL / FA).mean()))


def test_each_control_has_a_row_and_what_differs_besides_the_rule_is_said():
    decay = {"optimizer": {"learning_rate": 0.3, "weight_decay": 0.01}}
    runs = [make_run("frozen_blocks", CONTROL), make_run("shallow", CONTROL + 20), make_run("fa", FA, options=decay)]
    compared = compare(runs)
    assert [compared.names[margin.control] for margin in compared.margins] == ["frozen blocks", "shallow"]
    assert {margin.unequal for margin in compared.margins} == {("optimizer.weight_decay (0.01 and None)",)}
    (table,) = [table for table in compared.tables() if "control" in table.headings]
    assert "differing in more than the rule: FA and frozen blocks in optimizer.weight_decay (0.01" in table.caption
    assert [row[:2] for row in table.rows] == [["FA", "frozen blocks"], ["FA", "shallow"]]


def test_runs_of_other_epochs_are_not_compared_with_a_control():
    compared = compare([make_run("fa", FA, options={"epochs": 5}), make_run("shallow", CONTROL)])
    assert compared.margins == []
    (note,) = compared.control_notes
    assert note == "without a control, since more than the rule differs: FA differs in epochs"


def test_the_control_of_a_rule_with_frozen_params_is_itself():
    frozen = make_run("local_loss", CONTROL, options={"frozen": ["stages_*"]})
    compared = compare([make_run("local_loss", FA), frozen, make_run("dfa", DFA)])
    (margin,) = compared.margins
    assert (margin.condition, margin.control) == (0, 1)
    assert margin.margin == pytest.approx((CONTROL - FA).mean())


def test_a_second_network_that_does_not_learn_is_a_control_at_a_rate_of_its_own():
    learned, fixed = ({"rule": {"name": "counter_current", "learned": learned}} for learned in (True, False))
    runs = [
        make_run("counter_current", FA, options=learned),
        make_run("counter_current", CONTROL, options=fixed, rate=1),
    ]
    (margin,) = compare(runs).margins
    assert (margin.condition, margin.control, margin.unequal) == (0, 1, ())
    # Of several frozen versions, that with the same settings counts; if there is none, it is not known which.
    runs.append(make_run("counter_current", CONTROL + 1, options=fixed))
    assert [(m.condition, m.control) for m in compare(runs).margins] == [(0, 2)]
    runs[0] = make_run("counter_current", FA, options=learned, rate=0.7)
    assert compare(runs).margins == []
    other = {"rule": {"name": "counter_current", "learned": True, "level_loss": "cosine"}}
    assert compare([make_run("counter_current", FA, options=other), runs[1]]).margins == []


def test_unequal_numbers_of_settings_are_said():
    runs = [make_run("fa", FA, rate=rate) for rate in (0.1, 0.2, 0.3)]
    compared = compare([*runs, make_run("shallow", CONTROL)])
    assert {margin.unequal for margin in compared.margins} == {("settings tried (3 and 1)",)}
    runs += [make_run("shallow", CONTROL, rate=rate) for rate in (0.1, 0.2, 0.3)]
    assert {margin.unequal for margin in compare(runs).margins} == {()}


def test_a_command_has_the_optimizer_and_the_units_that_the_rule_chose():
    relu = {"architecture": {"activation": "relu", "hidden": [9]}}
    run = make_run("forward_forward", FA, options=relu)
    choices = {**run.config["choices"], "optimizer": "ema"}
    run = on("mlp", run, ["task=mnist", "rule=forward_forward"])
    run = dataclasses.replace(run, config={**run.config, "choices": choices})
    first, second = compare([run]).control_notes
    assert first.endswith("fa-jax task=mnist rule=shallow optimizer=ema architecture.activation=relu")
    assert second.startswith("with readouts of their own: Forward-Forward; trained again with 'frozen=[stages_*]'")
    typed = on("mlp", run, ["task=mnist", "architecture.activation=relu", "optimizer=ema"])
    typed = dataclasses.replace(typed, config={**typed.config, "choices": choices})
    assert compare([typed]).control_notes[0].endswith("architecture.activation=relu optimizer=ema rule=shallow")
    hostile = {"architecture": {"activation": "${oc.env:HOME}"}}
    (note,) = compare([on("mlp", make_run("fa", FA, options=hostile), ["task=mnist"])]).control_notes
    assert note.endswith("fa-jax task=mnist rule=shallow")


def test_where_no_control_was_run_a_note_has_its_command():
    words = ["--multirun", "task=mnist", "architecture=residual_mlp", "rule=fa,dfa", "feedback.scale=2", "seeds=5"]
    runs = [on("residual_mlp", make_run(rule, FA), words) for rule in ("fa", "dfa")]
    compared = compare([*runs, on("residual_mlp", make_run("bp", FA))])
    assert compared.control_notes == [
        "no control of FA, DFA; train it, and compare both folders: "
        "fa-jax task=mnist architecture=residual_mlp seeds=5 rule=frozen_blocks"
    ]
    (note,) = compare(
        [on("mlp", make_run("fa", FA), ["experiment=a/b_fa", "optimizer.learning_rate=1,2"])]
    ).control_notes
    assert "fa-jax --multirun experiment=a/b_fa optimizer.learning_rate=1,2 rule=shallow feedback=null" in note
    (note,) = compare([on("cnn", make_run("fa", FA), ["fa_jax.train", "task: wine"])]).control_notes
    assert note.endswith("rule=frozen_blocks, all else equal")
    assert compare([make_run("bp", FA)]).control_notes == []


def test_of_many_commands_and_runs_a_few_are_named():
    def trained(sizes, batches):
        words = [["task=mnist", f"batch_size={size}"] for size in sizes]
        pairs = [(size, typed, batch) for size, typed in zip(sizes, words, strict=True) for batch in range(batches)]
        return [on("mlp", make_run("fa", FA), typed, batch_size=[size, batch]) for size, typed, batch in pairs]

    first, second, last = compare([*trained([1], 2), *trained([2], 9), *trained([3, 4, 5, 6], 1)]).control_notes
    shown = "; train it, and compare both folders: fa-jax task=mnist"
    assert first.endswith(f", and 6 more{shown} batch_size=2 rule=shallow")
    assert second.endswith(f"{shown} batch_size=1 rule=shallow")
    assert last.startswith("no control of FA")
    assert last.endswith(" and 1 more either, which need other commands")


HOSTILE = (
    "+hydra.callbacks.x._target_=os.system",
    "++task.x={_target_:os.system,command:id}",
    "task={_target_:os.system}",
    "architecture.module=os.system",
    "loss@hydra.callbacks=../../x",
    "task=../../../stranger/task",
    "seeds=${oc.env:HOME}",
    "--config-dir=stranger",
)


@pytest.mark.parametrize("word", HOSTILE)
def test_a_command_to_be_typed_names_no_code_and_no_configs_of_a_record(word):
    (note,) = compare([on("cnn", make_run("fa", FA), ["task=mnist", word])]).control_notes
    assert note.endswith("rule=frozen_blocks, all else equal")


def test_a_command_to_be_typed_has_nothing_that_a_shell_would_run():
    words = ["task=`id`", "seeds=1;id", "task.x=a\\id", "task.y=!!"]
    left_out = ["logger=wandb", "logger.uri=x", "hydra/launcher=slurm", "trust=os"]
    (note,) = compare([on("cnn", make_run("fa", FA), [*words, *left_out])]).control_notes
    shown = note.removeprefix("no control of FA; train it, and compare both folders: ")
    assert shlex.split(shown) == ["fa-jax", *words, "rule=frozen_blocks"]


def test_margins_are_written_and_shown_in_python(tmp_path):
    records = [make_run("fa", FA), make_run("shallow", CONTROL)]
    write(compare(records), tmp_path, formats=["csv"])
    header, row = (tmp_path / "controls.csv").read_text().splitlines()
    assert header == "condition,control,metric,n,margin,low,high,unequal"
    assert row.startswith("FA,shallow,test_error,5,")
    table = Runs([Run.recorded(record, lambda: None) for record in records]).above_frozen()
    assert table.rows[0][:2] == ["FA", "shallow"]
    with pytest.raises(BadOption, match=r"^there is nothing above a control: no control of FA; train it"):
        Runs([Run.recorded(record, lambda: None) for record in records[:1]]).above_frozen()
