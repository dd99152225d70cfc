"""The texts of `fa-jax`: version, help, choices, and the config without a run."""

import subprocess
import sys

import pytest
import yaml

from fa_jax.cli import new
from fa_jax.cli.groups import CONF, LISTED, choices
from fa_jax.cli.main import VERBS, main
from fa_jax.cli.read import OPTIONS
from fa_jax.cli.tune import DEFAULTS
from fa_jax.cli.verb_help import VERB_HELP


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fa-jax ")


def test_list_prints_each_choice_with_the_first_line_of_its_yaml(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for group in LISTED:
        assert choices(group)
        for name, line in choices(group).items():
            assert name in printed
            assert " ".join(line.split()[:3]) in printed


def test_names_and_comments_of_a_folder_send_no_command_to_the_terminal(tmp_path, capsys):
    (tmp_path / "rule").mkdir()
    for name in ("mine", "a\x1b[31m[red]b"):
        (tmp_path / "rule" / f"{name}.yaml").write_bytes(b"# \x1b]52;c;eA==\x07 \xff mine\n_target_: os.system\n")
    for words in (["list", "rule"], ["help"]):
        assert main([*words, "--config-dir", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert r"a\x1b[31m[red]b" in printed
        assert not {"\x1b", "\x07"} & set(printed)


def test_list_of_a_group_prints_this_group_alone(capsys):
    assert main(["list", "optimizer"]) == 0
    printed = capsys.readouterr().out
    assert "adam" in printed
    assert "linear" not in printed


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["train", "--help"]])
def test_help_shows_verbs_choices_and_options(capsys, words):
    assert main(words) == 0
    printed = capsys.readouterr().out
    for text in ("--multirun", "node_perturbation", "seeds=20", "architecture.hidden=[800,800]", "feedback.scale"):
        assert text in printed
    for verb in VERBS:
        assert f"fa-jax {verb}" in printed or verb in ("train", "help")
    for group in LISTED:
        assert all(name.partition("/")[0] in printed for name in choices(group))
    assert max(map(len, printed.splitlines())) <= 120


@pytest.mark.parametrize("verb", VERB_HELP)
def test_help_of_a_verb_has_all_its_options(capsys, verb):
    options = {**OPTIONS, "tune": DEFAULTS, "new": new.OPTIONS}.get(verb, ())
    for words in ([verb, "--help"], ["help", verb], ["--config-dir", str(CONF), "trust=mylab", verb, "x", "-h"]):
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"fa-jax {verb} ")
        assert [option for option in options if f"{option}=" not in printed] == []
        assert max(map(len, printed.splitlines())) <= 120


def test_every_verb_has_a_help_and_what_is_none_is_refused(capsys, refusal):
    assert {*VERB_HELP, "train", "help"} == {*VERBS}
    assert "must be one of train, help, tune, compare, report, status, list, new, check; got 'repot'; did you mean" in (
        refusal("repot", "--help")
    )
    assert "a run is opened in Python, by fa_jax.load(folder)" in refusal("load", "outputs")
    assert main(["task=digits", "--help"]) == main(["--cfg", "job", "--help"]) == 0
    assert capsys.readouterr().out.count("common options") == 2


NO_JAX = """
import sys
from fa_jax.cli.main import main
commands = ("--help", "list rule", "rule=faa", "--multirun rule=bp,fa optimizer.lr=1")
codes = [main(words.split()) for words in commands]
print(codes, [name for name in ("jax", "flax", "optax", "numpy", "fa_jax.core") if name in sys.modules])
"""


def test_help_lists_and_mistakes_import_no_jax():
    result = subprocess.run([sys.executable, "-c", NO_JAX], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[0, 0, 2, 2] []"


def test_cfg_prints_the_config_and_trains_nothing(folder, capsys):
    assert main(["--cfg", "job", "rule=fa", "optimizer/schedule=cosine"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["rule"]["_target_"] == "fa_jax.rules.fa.fa"
    assert config["feedback"]["_target_"] == "fa_jax.feedback.layerwise"
    assert config["optimizer"]["learning_rate"] == 0.008
    assert config["optimizer"]["schedule"]["_target_"] == "fa_jax.optimizers.cosine"
    assert not (folder / "outputs").exists()
