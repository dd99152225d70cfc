"""The READMEs of the experiments have the tables that the scripts print, and valid links and commands."""

import importlib
import importlib.util
import itertools
import re
from pathlib import Path

import pytest

from experiments.common import read_rows
from experiments.depth import rows as depth
from experiments.lillicrap2014 import common as lillicrap2014
from experiments.nokland2016 import rows as nokland2016
from experiments.reliability import measure, mutations
from experiments.residual_mlp import rows as residual_mlp
from experiments.rules_by_architectures import compare
from experiments.speed import record

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
READMES = sorted(EXPERIMENTS.glob("*/README.md"))
COMMAND = re.compile(r"python -m (experiments\.[\w.]+)")


def measured(experiment):
    return sorted((EXPERIMENTS / experiment).glob("measured*.csv"))


PRINTED = {
    "depth": depth.tables,
    "lillicrap2014": lambda: "\n\n".join(
        lillicrap2014.markdown(path.stem.removeprefix("measured_")) for path in measured("lillicrap2014")
    ),
    "nokland2016": nokland2016.tables,
    "residual_mlp": residual_mlp.tables,
    "rules_by_architectures": lambda: "\n\n".join(map(compare.table, measured("rules_by_architectures"))),
    "reliability": lambda: "\n\n".join(
        (
            measure.table(EXPERIMENTS / "reliability" / "measured.csv"),
            mutations.table(EXPERIMENTS / "reliability" / "mutations.csv"),
        )
    ),
    "speed": lambda: "\n\n".join(
        record.table(read_rows(path)) for path in (*measured("speed"), EXPERIMENTS / "speed" / "commands.csv")
    ),
}
TABLES = {
    "depth": 1,
    "lillicrap2014": 4,
    "nokland2016": 2,
    "reliability": 2,
    "residual_mlp": 2,
    "rules_by_architectures": 10,
    "speed": 13,
}
"""The number of tables that a script prints."""


def tables(text):
    """The tables in a Markdown text, each as its lines."""
    groups = itertools.groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    return [list(lines) for is_table, lines in groups if is_table]


@pytest.mark.parametrize("experiment", PRINTED)
def test_readme_has_the_printed_tables(experiment):
    printed = tables(PRINTED[experiment]())
    assert len(printed) == TABLES[experiment]
    assert all(len(table) > 3 for table in printed)
    recorded = tables((EXPERIMENTS / experiment / "README.md").read_text())
    assert [table for table in printed if table not in recorded] == []


def test_the_seconds_of_the_first_paragraph_are_those_measured():
    (seconds,) = re.findall(r"400 000 examples one by one in (\d+) s", (EXPERIMENTS.parent / "README.md").read_text())
    (whole,) = [row for row in read_rows(*measured("speed")) if row["quantity"].startswith("the whole of Fig 2d")]
    assert float(seconds) == round(float(whole["median"]))


def test_what_forward_forward_does_with_shared_weights_is_that_measured():
    rows = {row["case"]: row for row in read_rows(EXPERIMENTS / "rules_by_architectures" / "shared_weights.csv")}
    prose = " ".join((EXPERIMENTS / "rules_by_architectures" / "README.md").read_text().split())
    errors = {name: f"{float(row['test error']):.1f} %" for name, row in rows.items()}
    frozen = errors["frozen stages"], errors["frozen stages, at a larger rate"]
    assert f"alone have {frozen[0]} at this rate and {frozen[1]} at a larger" in prose
    shared, local = (
        [f"{float(rows[name][f'wrong pairs, layer {i}']):.0f} %" for i in range(3)]
        for name in ("shared", "a kernel for each position")
    )
    assert f"the first layer gives {shared[0]} of the pairs" in prose
    assert f"the readouts read, {shared[1]} and {shared[2]}. With" in prose
    unshared = errors["a kernel for each position"]
    assert f"these are {local[0]}, {local[1]} and {local[2]}, and the error is {unshared}" in prose
    assert f"the error is {errors['readouts from the first layer on']} ([shared" in prose


def test_the_saturation_of_units_is_that_measured():
    text = (EXPERIMENTS / "rules_by_architectures" / "README.md").read_text().replace("\n", " ")
    rows = {
        (row["rule"], row["feedback scale"]): row
        for row in read_rows(EXPERIMENTS / "rules_by_architectures" / "saturation.csv")
        if row["layer"] == "2"
    }
    sdfa, dfa, shallow = (rows[key] for key in (("sdfa", "0.01"), ("dfa", "1.0"), ("shallow", "")))
    shares = [f"{100 * float(row['saturated']):.0f} %" for row in (sdfa, dfa, shallow)]
    assert f"{shares[0]} of the units of the last hidden layer" in text
    assert f"a standard deviation of {float(sdfa['deviation over images']):.3f} over images" in text
    assert f"these are {shares[1]} and {float(dfa['deviation over images']):.2f}" in text
    assert f"{shares[2]} and {float(shallow['deviation over images']):.2f}" in text


NEEDS_NOTEBOOKS = "experiments.tutorials.execute"
MODULES = sorted(
    ".".join(path.relative_to(EXPERIMENTS.parent).with_suffix("").parts) for path in EXPERIMENTS.rglob("*.py")
)


@pytest.mark.parametrize("module", [name for name in MODULES if name != NEEDS_NOTEBOOKS])
def test_every_script_finds_what_it_imports(module):
    importlib.import_module(module)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_links_of_a_readme_exist(readme):
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)\)", readme.read_text())
    assert [target for target in targets if not (readme.parent / target).exists()] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_commands_of_a_readme_name_modules(readme):
    modules = set(COMMAND.findall(readme.read_text()))
    assert modules or "pytest" in readme.read_text()
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
