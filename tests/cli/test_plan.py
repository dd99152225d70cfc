"""`--dry-run`: what would be trained, in which programs and folders, and how long earlier runs of the kind took."""

import pytest

from fa_jax.cli.main import main
from fa_jax.records.files import write_json, write_text
from fa_jax.training import announce

SHORT = ["task.train_examples=40", "evaluations=2", "seeds=2", "probe=0", "checkpoint=false"]


@pytest.fixture
def plan(folder, capsys, monkeypatch):
    """The lines that words with `--dry-run` print, however slow the machine is; they write nothing."""
    monkeypatch.setattr(announce, "PATIENCE", 600.0)

    def run(*words):
        before = sorted(folder.rglob("*"))
        assert main([*words, "--dry-run"]) == 0
        assert sorted(folder.rglob("*")) == before
        return capsys.readouterr().out.splitlines()

    return run


def test_a_sweep_is_planned_by_program_with_the_folder_of_each_run(plan):
    first, *lines = plan("--multirun", "rule=bp,fa", "optimizer.learning_rate=0.1,0.2", *SHORT, "hydra.sweep.dir=s")
    assert first == "would train 4 runs in s, in 2 programs, one after another"
    assert lines[0] == (
        "program 1, 2 runs of 2 seeds, 40 steps, together, since they differ in optimizer.learning_rate alone: "
        "no earlier run of this kind says how long"
    )
    assert lines[1].startswith("  0_bp  rule=bp optimizer.learning_rate=0.1 ")
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["0_bp", "1_bp", "2_fa", "3_fa"]
    assert lines[-1] == "nothing was trained"


def test_a_plan_says_what_it_does_while_it_takes_long(plan, monkeypatch):
    monkeypatch.setattr(announce, "PATIENCE", 0.0)
    lines = plan("--multirun", "rule=bp", "optimizer.learning_rate=0.1,0.2", *SHORT)
    assert {"loading the data and building the networks", "finding out which runs one program can train"} <= {*lines}


def test_an_earlier_run_of_the_kind_says_how_long(plan, folder):
    words = ["rule=fa", *SHORT, "hydra.run.dir=run"]
    assert main(["rule=fa", *SHORT, "hydra.run.dir=outputs/before"]) == 0
    assert any("as earlier runs of this kind took" in line for line in plan(*words, "optimizer.learning_rate=0.3"))
    assert not any("as earlier runs" in line for line in plan(*words, "architecture.hidden=[7]"))
    write_json(folder / "outputs" / "before" / "summary.json", {"seeds": "damaged"})
    write_text(folder / "outputs" / "summary.json", "")
    assert not any("as earlier runs" in line for line in plan(*words))


def test_a_study_is_planned_with_the_programs_of_its_first_trials(plan):
    pytest.importorskip("optuna")
    words = ["tune", "rule=fa", *SHORT, "metric=train_nse", "trials=7", "optimizer.learning_rate=interval(0.1,0.2)"]
    first, program, *_ = plan(*words)
    assert first == "would make 7 trials in outputs/tune/linear_fa, 5 at once; 0 have been made"
    assert program.startswith("program 1, 5 runs of 2 seeds, 40 steps, together, since they differ in optimizer.learn")
