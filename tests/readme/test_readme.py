"""The pages for users: every block runs or is checked, every option and choice exists, every link leads somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from fa_jax.cli.arguments import OPTIONS, parse
from fa_jax.cli.compose import compose
from fa_jax.cli.groups import LISTED, choices
from fa_jax.cli.main import VERBS, main
from fa_jax.cli.plugins import GROUP
from fa_jax.cli.read import OPTIONS as COMPARE_OPTIONS
from fa_jax.cli.tune import DEFAULTS as TUNE_OPTIONS
from fa_jax.records.reader import find_runs
from fa_jax.tasks import tfds
from tests.conftest import empty_figures, option_names, restored_logging

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "fa_jax/api/README.md", "conf/README.md", "CONTRIBUTING.md", "outputs/README.md")
PAGES = {page: (ROOT / page).read_text() for page in NAMES}
README = "".join(PAGES.values())
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`((?:fa_jax|conf)/[\w/]+\.\w+)`:\s*$")
"""The name of the file that a block holds, at the end of the text before it."""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SHORT = ["seeds=1", "epochs=0.01", "evaluations=1", "probe=0", "checkpoint=false"]


class Block(NamedTuple):
    """A fenced block of the README."""

    language: str
    text: str
    file: str | None
    """The file that it is the text of."""
    before: str
    """The prose before it, up to the previous block."""


def fenced_blocks():
    blocks, end = [], 0
    for match in FENCE.finditer(README):
        before = README[end : match.start()]
        file = FILE.search(before)
        blocks.append(Block(match[2], match[3], file and file[1], before))
        end = match.end()
    return blocks


BLOCKS = fenced_blocks()
FILES = {block.file: block.text for block in BLOCKS if block.file}
SCRIPTS = [block for block in BLOCKS if block.language == "python" and not block.file]
COMMANDS = [line for block in BLOCKS if block.language == "bash" for line in block.text.splitlines() if line.strip()]
LINES = list(dict.fromkeys(COMMANDS))
INLINE = re.findall(r"`([^`]+)`", re.sub(r"\s*\n\s*", " ", FENCE.sub("", README)))
INLINE_COMMANDS = [code for code in INLINE if code.startswith("fa-jax ")]
PLACEHOLDER = re.compile(r"\b(DIR|PATH|HOST|PORT|PACKAGE)\b|<\w+>")


def test_every_block_is_of_a_kind_that_these_tests_check():
    assert README.count("```") == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} == {"bash", "python", "yaml", "toml"}
    assert all(block.file for block in BLOCKS if block.language == "yaml")
    assert len(LINES) >= 5
    assert len(SCRIPTS) >= 1
    assert {Path(file).parts[0] for file in FILES} == {"fa_jax", "conf"}


def test_the_entry_point_of_a_package_is_of_the_group_that_is_read():
    (block,) = [block for block in BLOCKS if block.language == "toml"]
    assert tomllib.loads(block.text) == {"project": {"entry-points": {GROUP: {"mylab": "mylab.conf"}}}}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a small sweep."""
    sweep = tmp_path_factory.mktemp("readme") / "sweep"
    with restored_logging(), empty_figures():
        words = ["--multirun", "task=digits", "rule=bp,fa", *SHORT, "checkpoint=true", f"hydra.sweep.dir={sweep}"]
        assert main(words) == 0
    return sweep


@pytest.fixture
def recorded(sweep, folder):
    """A copy of the sweep in `outputs`."""
    return shutil.copytree(sweep, folder / "outputs" / "sweep")


@pytest.fixture
def own_files(folder, monkeypatch):
    """Data and a module of one's own in the working folder, as the README names them."""
    x, y = np.random.default_rng(0).normal(size=(200, 3)), np.arange(200) % 3
    np.savez("data.npz", x=x, y=y)
    rows = [f"{a},{b},{'xyz'[c]}\n" for (a, b, _), c in zip(x, y, strict=True)]
    Path("data.csv").write_text("a,b,species\n" + "".join(rows))
    Path("mylab").mkdir()
    Path("mylab/nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(tfds, "form_of", lambda dataset, _: tfds.DATASETS.get(dataset, tfds.DATASETS["cifar10"]))
    monkeypatch.setitem(tfds.DATASETS, "svhn_cropped", tfds.DATASETS["cifar10"])
    yield
    for name in ("mylab", "mylab.nets"):
        sys.modules.pop(name, None)


NETS = """
import flax.linen as nn

class ViT(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1))))
"""


def check_fa_jax(words):
    """Checks the arguments of `fa-jax`: training commands are composed and built, others run."""
    verb = words[0] if words and words[0] in VERBS else None
    if "my_rule" in " ".join(words) and words[0] != "new":
        assert main(["new", "rule", "my_rule"]) == 0
        try:
            more = [] if "check" in words else [*SHORT]
            assert main([*words, *more]) == 0
        finally:
            sys.modules.pop("mylab.my_rule", None)
    elif verb == "tune":
        fast = [word for word in words if not word.startswith(("trials=", "seeds=", "epochs="))]
        assert main([*fast, "trials=1", *SHORT]) == 0
    elif verb not in (None, "train") or set(words) & {"--cfg", "--help"}:
        assert main(words) == 0
    else:
        runs = compose(parse(words[1:] if verb else words)).runs
        assert runs
        assert all(run.job.network.outputs == run.job.task.outputs for run in runs)


def check_pip(words):
    """Checks that `pip install` installs this package, with extras that it has."""
    assert words[:3] in (["install", "-q", "-e"], ["install", "-e", words[2]])
    target = re.fullmatch(r"\.(?:\[([\w,]+)\])?", words[-1])
    assert target, words
    assert set((target[1] or "").split(",")) - {""} <= EXTRAS.keys()


def check_command(words):
    program, *arguments = words
    if Path(program).name == "fa-jax":
        check_fa_jax(arguments)
    elif Path(program).name == "pip":
        check_pip(arguments)
    elif Path(program).name == "pytest":
        assert arguments in ([], ["-n", "auto"])
    elif Path(program).name in ("ruff", "pyright"):
        assert any(needed.startswith(Path(program).name) for needed in EXTRAS["dev"])
    else:
        assert words == ["python3", "-m", "venv", ".venv"]


@pytest.mark.filterwarnings("default")  # Optuna's
@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=pytest.mark.optional if "logger=" in line else ()) for line in LINES]
)
def test_a_line_of_a_bash_block_is_a_valid_command(recorded, own_files, stand_in_images, line):
    if "logger=tensorboard" in line:
        pytest.importorskip("tensorboardX")
    for command in line.split("&&"):
        check_command(shlex.split(command, comments=True))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("command", [code for code in INLINE_COMMANDS if not PLACEHOLDER.search(code)])
def test_a_command_in_the_text_is_valid(recorded, stand_in_images, command):
    words = shlex.split(command)[1:]
    is_example = any(f"rule={Path(file).stem}" in words for file in FILES)  # which another test trains
    is_verb = len(words) == 1 and words[0] in VERBS  # mentioned, not typed
    if not is_verb and not is_example:
        check_fa_jax(words)


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.text.splitlines()[0])
def test_a_python_block_runs_and_prints_what_the_text_says(recorded, block, capsys):
    script = re.sub(r"outputs/\w+/\w+/[\w-]+", str(recorded / "1_fa"), block.text)
    capsys.readouterr()
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    promised = re.findall(r"printed\s+`([^`]+)`", block.before)
    assert len(promised) <= 1
    assert bool(printed) == ("print(" in block.text)
    for text in promised:
        number = re.compile(r"\d+(?:\.\d+)?")
        assert number.sub("#", printed.strip()) == number.sub("#", text)
        ours, theirs = (float(number.search(output)[0]) for output in (printed, text))
        assert abs(ours - theirs) < 2  # on other hardware


@pytest.fixture
def package_with_example(tmp_path):
    """A copy of fa_jax and its configs with the files of the README's example."""
    package = tmp_path / "package"
    for name in ("fa_jax", "conf", "tests", "pyproject.toml"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, package / name)
    for file, text in FILES.items():
        assert not (package / file).exists()
        (package / file).write_text(text)
    return package


def run_in(package, *words):
    environment = {**os.environ, "PYTHONPATH": str(package)}
    return subprocess.run(words, cwd=package, env=environment, capture_output=True, text=True, check=False)


def test_the_rule_of_the_example_trains(package_with_example):
    (rule,) = {Path(file).stem for file in FILES}
    (command,) = [code for code in INLINE_COMMANDS if f"rule={rule}" in code]
    words = [*shlex.split(command)[1:], "epochs=3", "seeds=2", "hydra.run.dir=run"]
    result = run_in(package_with_example, sys.executable, "-m", "fa_jax", *words)
    assert result.returncode == 0, result.stderr
    (run,) = find_runs(package_with_example)
    assert run.choices["rule"] == rule
    assert run.summary["final"]["test_error"]["mean"] < 20


@pytest.mark.slow
def test_the_contract_tests_test_the_rule_of_the_example(package_with_example):
    (rule,) = {Path(file).stem for file in FILES}
    words = ["-m", "pytest", "-o", "addopts=", "-m", "not slow", "tests/rules/test_contract.py", "-k", rule]
    result = run_in(package_with_example, sys.executable, *words)
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed, result.stdout
    assert int(passed[1]) >= 10, result.stdout


def test_the_table_has_a_line_for_every_rule():
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", PAGES["README.md"], re.MULTILINE)) == sorted(choices("rule"))


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md", "experiments/README.md"])
def test_every_link_leads_to_a_file_or_folder(page):
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)", (ROOT / page).read_text())
    assert targets or page == "SECURITY.md"
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


OWN_CHOICES = {"my_rule"}
EXAMPLE_OPTIONS = [
    f"{group}.{name}"
    for text in FILES.values()
    if text.startswith("# @package _global_")
    for group, node in yaml.safe_load(text).items()
    if group in LISTED
    for name in node
]
OTHER_OPTIONS = (
    "measure.mine",
    "FA_JAX_TRUST",
    *OPTIONS,
    *TUNE_OPTIONS,
    *COMPARE_OPTIONS["compare"],
    "hydra/launcher",
    "logger.mode",
    "task.data_dir",
    "task.resize",
    "install",
)
"""Options of verbs, of choices that need data or a package, and of the completion."""
IN_PYTHON = PAGES["fa_jax/api/README.md"]
"""Its arguments are those of Python functions."""
OVERRIDES = sorted(
    {word for code in INLINE if code not in IN_PYTHON for word in code.split() if re.match(r"[+~]?[\w./@]+=[^=]", word)}
)


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_option_in_the_text_exists(override):
    name, _, value = override.lstrip("+~").partition("=")
    group = name.partition("@")[0]
    if group in LISTED:
        rules = {Path(file).stem for file in FILES}
        assert set(re.split(r"[|,]", value.strip("[]"))) <= {*choices(group), *rules, *OWN_CHOICES}
    elif name not in ("group", "group.option"):
        assert name in (*option_names(), *OTHER_OPTIONS, *EXAMPLE_OPTIONS)
