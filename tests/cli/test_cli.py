"""The command line, as a person uses it: what it prints, what it leaves, and its exit codes."""

import contextlib
import csv
import json
import logging
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fa_jax.cli import help as catalogue
from fa_jax.cli.main import main
from fa_jax.records.reader import find_runs, read_run

SHORT = ["task.train_examples=40", "evaluations=2", "seeds=2", "probe=10", "checkpoint=false"]


@contextlib.contextmanager
def logging_as_before():
    """Undoes what Hydra does to the root logger."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        handler.close()
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    with logging_as_before():
        yield tmp_path


def rows_of(folder):
    """The rows of the one comparison.csv in a folder."""
    (path,) = folder.rglob("comparison.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def only_run(folder):
    (run,) = find_runs(folder)
    return run


def test_a_run_leaves_its_numbers_and_says_where(folder, capsys):
    assert main(["rule=fa", *SHORT, "checkpoint=true"]) == 0
    run = only_run(folder)
    assert run.folder.relative_to(folder).parts[:3] == ("outputs", "linear", "fa")
    assert str(run.folder.relative_to(folder)) in capsys.readouterr().out
    assert {path.name for path in run.folder.iterdir()} == {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "status.json",
        "summary.json",
        "curves.png",
        "curves.pdf",
        "checkpoint",
        "run.log",
    }
    assert run.status["status"] == "finished"
    assert run.choices["rule"] == "fa"
    np.testing.assert_array_equal(run.metrics["examples"], [0, 0, 20, 20, 40, 40])
    np.testing.assert_array_equal(run.metrics["seed"], [0, 1, 0, 1, 0, 1])
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["packages"]["jax"]
    assert run.summary["final"]["test_nse"]["n"] == 2
    assert run.summary["cost"]["seed_steps_per_second"] > 0
    assert run.summary["cost"]["effective_params"] > 0


def test_groups_of_seeds_give_the_numbers_of_all_at_once(folder):
    assert main(["rule=fa", *SHORT, "seeds=3", "hydra.run.dir=whole"]) == 0
    assert main(["rule=fa", *SHORT, "seeds=3", "seeds_per_batch=2", "hydra.run.dir=groups"]) == 0
    whole, groups = read_run(folder / "whole"), read_run(folder / "groups")
    for metric in ("test_nse", "train_loss", "signal_angle_0"):
        np.testing.assert_allclose(whole.curves(metric)[1], groups.curves(metric)[1], rtol=1e-4, atol=1e-4)


def test_a_list_of_seeds_picks_them(folder):
    assert main(["rule=bp", *SHORT, "seeds=[3,8]"]) == 0
    assert set(only_run(folder).metrics["seed"]) == {3, 8}


def test_a_sweep_ends_in_one_table_one_csv_and_one_figure(folder, capsys):
    assert main(["--multirun", "rule=shallow,bp", *SHORT]) == 0
    (sweep,) = (folder / "outputs" / "sweeps").iterdir()
    assert {"comparison.csv", "comparison.png", "comparison.pdf", "0_shallow", "1_bp"} <= {
        p.name for p in sweep.iterdir()
    }
    rows = rows_of(sweep)
    assert [row["run"] for row in rows] == ["shallow", "BP"]
    assert [row["test_nse_n"] for row in rows] == ["2", "2"]
    printed = capsys.readouterr().out
    assert "shallow" in printed
    assert "comparison.csv" in printed


def test_a_sweep_over_an_option_names_it_in_the_labels(folder):
    assert main(["--multirun", "rule=bp", "optimizer.learning_rate=0.001,0.01", *SHORT]) == 0
    assert [row["run"] for row in rows_of(folder)] == ["BP learning_rate=0.001", "BP learning_rate=0.01"]


def test_a_failed_job_is_listed_and_the_others_are_compared(folder, capsys, monkeypatch):
    from fa_jax.training import run as module

    original = module._train_group
    seen = []

    def breaks_once(*arguments):
        seen.append(None)
        if len(seen) == 1:
            raise RuntimeError("the device caught fire")
        return original(*arguments)

    monkeypatch.setattr(module, "_train_group", breaks_once)
    assert main(["--multirun", "rule=shallow,bp", *SHORT]) == 1
    printed = capsys.readouterr().out
    assert "RuntimeError: the device caught fire" in printed
    runs = find_runs(folder)
    assert [run.status["status"] for run in runs] == ["failed", "finished"]
    assert [row["status"] for row in rows_of(folder)] == ["failed", "finished"]


def test_diverged_seeds_are_counted_and_not_averaged(folder, capsys):
    assert main(["rule=bp", *SHORT, "task.train_examples=400", "optimizer.learning_rate=10"]) == 0
    run = only_run(folder)
    assert run.status["status"] == "diverged"
    assert run.diverged == [0, 1]
    assert run.summary["final"]["test_nse"]["n"] == 0
    assert "2 of them diverged and left out" in capsys.readouterr().out.replace("\n", " ")


def test_an_interrupt_leaves_what_was_recorded_and_marks_it(folder, capsys, monkeypatch):
    from fa_jax.training import run as module

    original = module.Writer.evaluation

    def interrupted(self, seeds, step, *rest):
        original(self, seeds, step, *rest)
        if step:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.Writer, "evaluation", interrupted)
    assert main(["rule=bp", *SHORT]) == 130
    assert "interrupted" in capsys.readouterr().err
    run = only_run(folder)
    assert run.status["status"] == "interrupted"
    assert len(run.curves("test_nse")[0]) == 2
    assert run.summary["final"]["test_nse"]["n"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_signal_to_the_process_does_the_same(folder, sent, code):
    words = ["rule=fa", "epochs=2000", "evaluations=2000", "seeds=2", "hydra.run.dir=here"]
    process = subprocess.Popen([sys.executable, "-m", "fa_jax", *words], stdout=subprocess.DEVNULL)
    metrics = folder / "here" / "metrics.csv"
    until = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 10) and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(sent)
    assert process.wait(30) == code
    assert read_run(folder / "here").status["status"] == "interrupted"


@pytest.mark.slow
def test_a_kill_leaves_the_folder_readable(folder):
    words = ["rule=fa", "epochs=2000", "evaluations=2000", "seeds=2", "hydra.run.dir=here"]
    process = subprocess.Popen([sys.executable, "-m", "fa_jax", *words], stdout=subprocess.DEVNULL)
    metrics = folder / "here" / "metrics.csv"
    until = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 10) and time.monotonic() < until:
        time.sleep(0.1)
    process.kill()
    process.wait(30)
    run = read_run(folder / "here")
    assert run.status["status"] == "running"
    assert len(run.curves("test_nse")[0]) > 3


def test_a_folder_that_holds_a_run_is_not_written_over(folder, capsys):
    assert main(["rule=bp", *SHORT, "hydra.run.dir=here"]) == 0
    before = (folder / "here" / "metrics.csv").read_bytes()
    assert main(["rule=fa", *SHORT, "hydra.run.dir=here"]) == 2
    assert "hydra.run.dir=here: this folder already holds a run; choose another one" in capsys.readouterr().err
    assert (folder / "here" / "metrics.csv").read_bytes() == before


MISTAKES = {
    "task=digits architecture=cnn architecture.topology=conv8y3-10": "cannot be read at character 6, 'y3'",
    "task=digits architecture=cnn architecture.topology=conv8x3p3-conv8x3p3-conv8x3p3": "too small for its pooling",
    "task=digits architecture=resnet20 rule=ifa": "rule=ifa needs stages of one dense layer each",
    "task=digits rule=ifa architecture.hidden=[9,8] architecture.init_scale=0": "rule=ifa cannot learn where stages_1",
    "task=digits rule=dfa rule.rank=11": "rule.rank must be at most 10, the most that the feedback of",
    "task=digits task.preprocessing=zca task.validation=1400": "task.preprocessing=zca needs more training examples",
    "task=digits rule=brsf rule.distribution=weights": "rule=brsf draws its magnitudes anew",
    "task=digits architecture=vgg architecture.norm_dense=true": "normalised by architecture.norm, which is none",
    "task=digits architecture.norm=group architecture.hidden=[12]": "got 12 in architecture.hidden=[12]",
    "loss=cross_entropy": "loss=cross_entropy needs targets from 0 to 1",
    "rule=dfaa": "got 'dfaa'; did you mean 'dfa'?",
    "task=mnits": "did you mean 'mnist'?",
    "architecture=mpl": "mlp, resnet20, resnet56, resnet8, vgg; got 'mpl'; did you mean 'mlp'?",
    "optimizer/schedule=cosin": "optimizer/schedule must be one of constant, cosine, halfway, staircase; got 'cosin'",
    "epchs=3": "epchs is no option here; did you mean 'epochs'?",
    "optimizer.rate=3": "optimizer.rate is no option here",
    "rule=fa rule.scal=3": "rule.scal is no option with rule=fa; did you mean 'rule.scale'?",
    "--multirun rule=fa,bp rule.scale=3,4": "rule.scale is no option with rule=bp",
    "seeds=0": "seeds must be an integer of at least 1; got 0",
    "seeds=-3": "seeds must be an integer of at least 1; got -3",
    "seeds=many": "seeds must be an integer of at least 1; got 'many'",
    "seeds=[1,1]": "seeds must be a number of seeds or a list of different ones",
    "seed=-1": "seed must be an integer of at least 0; got -1",
    "batch_size=0": "batch_size must be an integer of at least 1; got 0",
    "batch_size=3000": "batch_size must be at most the number of training examples, 2000; got 3000",
    "epochs=0": "epochs must be a finite number above 0; got 0",
    "epochs=abc": "epochs must be a finite number above 0; got 'abc'",
    "evaluations=0": "evaluations must be an integer of at least 1; got 0",
    "spacing=cubic": "spacing must be one of linear, log; got 'cubic'",
    "shuffle=maybe": "shuffle must be true or false; got 'maybe'",
    "devices=100": "devices must be at most the number of devices there are",
    "architecture.hidden=[20,0]": "architecture.hidden must be an integer of at least 1; got 0",
    "architecture.hidden=20": "architecture.hidden must be a list of widths such as [800,800]; got 20",
    "optimizer.learning_rate=-1": "optimizer.learning_rate must be a finite number above 0; got -1",
    "rule=fa rule.scale=nan": "rule.scale must be a finite number above 0; got nan",
    "rule=fa rule.scale=[1,2]": "rule.scale must be one value or a list of 1, one a layer; got 2: [1, 2]",
    "rule=dfa rule.distribution=weights": "rule.distribution must be one of uniform, normal, fan_uniform, fan_normal",
    "rule=node_perturbation rule.sigma=0": "rule.sigma must be a finite number above 0; got 0",
    "loss.output=logstic": "loss.output must be one of linear, logistic, softmax; got 'logstic'; did you mean",
    "task=mnist task.data_dir=nowhere": "task.data_dir",
    "task.train_examples=-5": "task.train_examples must be an integer of at least 1; got -5",
    "hydra.run.dir=file/below": "is a file; choose a folder",
    "hydra.run.dir=/proc/here": "hydra.run.dir=/proc/here: ",
    "rule=fa,bp": "rule=fa,bp has several values; --multirun trains with each of them",
    "rule=bp optimizer.lr=0.1": "optimizer.lr is no option here; did you mean 'optimizer.learning_rate'?",
    "seed=[": "seed=[",
    "+rule.foo=1 rule=fa": "rule: got an unexpected keyword argument 'foo'",
    "~rule.scale rule=fa": "rule: missing 1 required keyword-only argument: 'scale'",
    "+architecture.foo=1": "architecture: got an unexpected keyword argument 'foo'",
    "rule=null": "rule=null",
    "measures=5": "measures must be a list; got 5",
    "optimizer=momentum optimizer.scaling.decay=abc": "optimizer: ",
    "optimizer/schedule=cosine optimizer.schedule.warmup=1": "optimizer: ",
    "optimizer/schedule=cosine optimizer.schedule.warmup=2": "optimizer.schedule.warmup must be a",
    "task=digits architecture=lenet tuned=true": "tuned=true: nothing has been tuned for digits/lenet/bp; there is ",
    "tuned=maybe": "tuned must be one of false, true; got 'maybe'",
    "optimizer/schedule=staircase optimizer.schedule.drops=3": "optimizer.schedule.drops must be pairs such as ",
    "epochs=1e9": "epochs must come to less than 2^31 steps",
    "~adversarial": "adversarial is missing from the config; it may be changed, but not removed",
    "~optimizer": "optimizer must name what there is to be made",
    "batch_devices=99": "batch_devices must be at most the number of devices that are used",
    "batch_devices=2 devices=2 batch_size=33": "batch_devices must divide batch_size, which is 33; got 2",
    "devices=1.5": "devices must be all, or how many; got 1.5",
    "devices=some": "devices must be all, or how many; got 'some'",
    "seeds=[]": "seeds must be a number of seeds or a list of different ones",
    "architecture.activation=null": "architecture.activation must be one of",
    "run": "the first word, unless it is an override such as seeds=20, must be one of train, tune, ",
    "--multirun rule=bp,fo": "rule must be one of",
    "--multirun rule=bp,fa seeds=0": "seeds must be an integer of at least 1; got 0",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_costs_one_line_and_leaves_no_folder(folder, capsys, words):
    (folder / "file").write_text("")
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert MISTAKES[words] in err
    assert err.count("\n") == 1, err
    assert err.startswith("fa-jax: ")
    assert out == ""
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_full_disk_is_refused_before_anything_is_compiled(folder, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert main(["rule=bp", *SHORT]) == 2
    assert "less than 1 MiB is free" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_costs_one_line_and_keeps_what_was_recorded(folder, capsys, monkeypatch):
    import errno

    from fa_jax.training import run as module

    original = module.Writer.evaluation

    def full(self, seeds, step, *rest):
        if step == 40:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder / "metrics.csv"))
        original(self, seeds, step, *rest)

    monkeypatch.setattr(module.Writer, "evaluation", full)
    assert main(["rule=bp", *SHORT]) == 2
    assert "No space left on device" in capsys.readouterr().err
    run = only_run(folder)
    assert run.status["status"] == "failed"
    assert len(run.curves("test_nse")[0]) == 2


def test_a_run_shorter_than_its_evaluations_is_evaluated_once_at_each_step(folder):
    assert main(["rule=bp", *SHORT, "task.train_examples=3", "evaluations=50"]) == 0
    np.testing.assert_array_equal(only_run(folder).metrics["step"], [0, 0, 1, 1, 2, 2, 3, 3])


def test_a_glob_sweeps_over_all_of_a_group(folder):
    assert main(["--multirun", "rule=glob(bp*)", *SHORT]) == 0
    assert [run.choices["rule"] for run in find_runs(folder)] == ["bp"]


def test_an_interrupted_sweep_compares_what_is_finished(folder, monkeypatch):
    from fa_jax.training import run as module

    original = module._train_group
    seen = []

    def interrupted(*arguments):
        seen.append(None)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, "_train_group", interrupted)
    assert main(["--multirun", "rule=shallow,bp,fa", *SHORT]) == 130
    assert [row["status"] for row in rows_of(folder)] == ["finished", "interrupted"]


def test_version_is_that_of_fa_jax(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fa-jax ")


def test_list_names_every_choice_with_a_line_from_its_yaml(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for group in ("rule", "task", "architecture", "loss", "optimizer"):
        for name, line in catalogue.options(group).items():
            assert name in printed
            assert line, f"conf/{group}/{name}.yaml must begin with a comment"
            assert " ".join(line.split()[:3]) in printed


def test_list_of_one_group_is_that_group(capsys):
    assert main(["list", "optimizer"]) == 0
    printed = capsys.readouterr().out
    assert "adam" in printed
    assert "linear" not in printed


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["train", "--help"]])
def test_help_shows_the_verbs_the_choices_and_the_options(capsys, words):
    assert main(words) == 0
    printed = capsys.readouterr().out
    for text in ("fa-jax list", "--multirun", "node_perturbation", "seeds=20", "architecture.hidden=[800,800]"):
        assert text in printed


def test_the_config_can_be_printed_without_a_run(folder, capsys):
    assert main(["--cfg", "job", "rule=fa", "optimizer/schedule=cosine"]) == 0
    printed = capsys.readouterr().out
    assert "_target_: fa_jax.rules.fa.fa" in printed
    assert "learning_rate: 0.008" in printed
    assert not (folder / "outputs").exists()
