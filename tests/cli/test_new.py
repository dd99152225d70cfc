"""`fa-jax new` writes files that work, and `fa-jax check` says in words what a rule does wrong."""

import sys
from pathlib import Path

import pytest

from fa_jax.cli.check import PROPERTIES
from fa_jax.cli.main import main
from fa_jax.records.reader import read_run

OWN = ["--config-dir", "conf", "trust=mylab"]
SMALL = ["task=digits", "architecture.hidden=[9]", "seeds=1"]
SHORT = [*SMALL, "epochs=1", "evaluations=1", "probe=4", "checkpoint_every=null", "hydra.run.dir=run"]


@pytest.fixture(autouse=True)
def _forget_modules():
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


def write_rule(body):
    """Begins a rule whose function `wrong` changes that of bp."""
    assert main(["new", "rule", "wrong"]) == 0
    Path("mylab/wrong.py").write_text(
        "import jax, jax.numpy as jnp\nfrom fa_jax.rules.bp import bp\n"
        f"def wrong(network, loss):\n    rule = bp(network, loss)\n    {body}\n"
    )
    Path("conf/rule/wrong.yaml").write_text("_target_: mylab.wrong.wrong\n_partial_: true\n")


def test_a_new_rule_passes_its_check_and_trains(capsys):
    assert main(["new", "rule", "mine"]) == 0
    assert main([*OWN, "check", "rule=mine", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert printed.count("yes  ") == len(PROPERTIES) - 1
    assert (
        "-    updates of the feedback are finite, and shaped like it: not checked, since the feedback does" in printed
    )
    assert f"{len(PROPERTIES) - 1} of {len(PROPERTIES) - 1} properties hold, 1 not checked" in printed
    assert main([*OWN, "rule=mine", *SHORT]) == 0
    assert read_run("run").config["rule"]["factor"] == 1.0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        pytest.param(
            "architecture", ["architecture=mine", "rule=dfa", "task=digits", *SHORT[2:]], marks=pytest.mark.slow
        ),
        pytest.param("task", ["task=mine", *SHORT[1:]], marks=pytest.mark.slow),
        ("measure", ["measure=mine", *SHORT]),
    ],
)
def test_a_new_part_trains(kind, words):
    assert main(["new", kind, "mine", "package=mylab", "--config-dir=own"]) == 0
    assert main(["--config-dir", "own", "trust=mylab", *words]) == 0
    run = read_run("run")
    assert run.is_finished
    assert "mine_0" in run.metrics or kind != "measure"


@pytest.mark.parametrize(
    ("body", "failing", "message"),
    [
        (
            "return rule._replace(updates=lambda p, f, b: jax.tree.map(lambda u: -u, rule.updates(p, f, b)))",
            ["the loss falls"],
            "is the sign that of a gradient?",
        ),
        (
            "return rule._replace(updates=lambda p, f, b: jax.tree.map(lambda u: len(b[0]) * u, rule[1](p, f, b)))",
            ["each example twice"],
            "signals must include the 1/batch of the mean loss",
        ),
        (
            "calls = []\n    return rule._replace(updates=lambda p, f, b: (calls.append(1), jax.tree.map(lambda u: "
            "len(calls) * u, rule.updates(p, f, b)))[1])",
            ["the same arguments", "compiled", "several seeds"],
            "differs by up to",
        ),
        (
            "b = jax.random.normal(jax.random.key(0), (3,))\n    return rule._replace("
            "init=lambda key: (network.init(key), b), learn=lambda p, f, b, u: f / 0)",
            ["updates of the feedback are finite", "feedback differs from seed to seed"],
            "seeds 0 and 1 have the same",
        ),
        (
            "return rule._replace(init=lambda key: (network.init(jax.random.fold_in(key, 9)), ()))",
            ["params start as those of every other rule"],
            "differs by up to",
        ),
    ],
)
def test_a_broken_rule_is_told_what_is_wrong(capsys, body, failing, message):
    write_rule(body)
    capsys.readouterr()
    assert main([*OWN, "check", "rule=wrong", *SMALL]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no   ")]
    assert message in " ".join(lines)
    for name in failing:
        assert any(name in line for line in lines), name
    assert len(lines) <= len(failing) + 1


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["shallow", "node_perturbation", "weight_mirror", "associated_learning", "drtp"])
def test_the_rules_of_fa_jax_pass(rule, capsys):
    assert main(["check", f"rule={rule}", *SMALL]) == 0, capsys.readouterr().out


def test_nothing_is_replaced_and_mistakes_are_one_line(refusal):
    assert main(["new", "rule", "mine"]) == 0
    for words, message in (
        (["rule", "mine"], "mylab/mine.py exists already"),
        (["rule"], "new needs a kind and a name, as in fa-jax new rule my_rule"),
        (["rule", "fa"], "fa_jax has rule=fa already"),
        (["rule", "../x"], "new: the name must be a name in lower case"),
        (["rule", "x", "package=a.b"], "package must be a name in lower case"),
        (["loss", "x"], "new must be one of rule, architecture, task, measure, metric; got 'loss'"),
    ):
        assert message in refusal("new", *words)
    assert "rule has several values" in refusal("check", "rule=bp,fa", "task=digits")
    assert "check takes overrides, --config-dir and trust" in refusal("check", "--multirun")
