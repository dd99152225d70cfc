"""What the README tells a reader to do works."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fa_jax.cli import help as catalogue

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_rule_of_the_example_is_added_by_its_two_files(tmp_path):
    shutil.copytree(ROOT / "fa_jax", tmp_path / "fa_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    files = re.findall(r"`((?:fa_jax|conf)/rule[s]?/partial\.\w+)`:\n\n```\w+\n(.*?)```", README, re.DOTALL)
    assert [name for name, _ in files] == ["fa_jax/rules/partial.py", "conf/rule/partial.yaml"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    (command,) = re.findall(r"`fa-jax (task=digits rule=partial [^`]*)`", README)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "fa_jax", *command.split(), "epochs=3", "seeds=2", "hydra.run.dir=run"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = (tmp_path / "run" / "summary.json").read_text()
    error = float(re.search(r'"test_error": \{\s*"mean": ([\d.]+)', summary)[1])
    assert error < 20


def test_every_rule_has_its_line_in_the_table():
    assert sorted(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == sorted(catalogue.options("rule"))


def test_the_files_and_folders_that_the_readme_links_to_are_there():
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("line", re.findall(r"^fa-jax (.*?) *(?:#.*)?$", README, re.MULTILINE))
def test_every_command_of_the_readme_composes(compose, line):
    words = [word for word in shlex.split(line) if not word.startswith("--") and not word.startswith("trials=")]
    overrides = [word for word in words if "=" in word and "interval(" not in word]
    assert len(words) - len(overrides) in ((2,) if words[0] == "tune" else (0,))
    compose(*[re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in overrides])
