"""Which code a run was trained by, and when it is another."""

import re

import pytest

from fa_jax.records.conditions import differences
from fa_jax.records.environment import environment
from fa_jax.records.sources import changes, code_key, own_versions, versions


def test_this_package_is_described_by_its_version_and_sources():
    described = versions()["fa-jax"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(, commit [0-9a-f]{8})?, sources [0-9a-f]{8}", described)
    assert environment()["packages"]["fa-jax"] == described


@pytest.mark.parametrize(
    ("before", "after", "phrases"),
    [
        ("1.0, commit aa, sources 12", "1.1, commit bb, sources 12", []),
        ("1.0, sources 12", "1.0, sources 34", ["1.0, sources 12 to 1.0, sources 34"]),
        ("sources 12", "1.0, sources 12", []),
        ("1.0", "1.0, sources 12", ["1.0 to 1.0, sources 12"]),
        ("1.0", "1.1", ["1.0 to 1.1"]),
        ("1.0", "1.0", []),
    ],
)
def test_a_package_is_another_one_if_its_sources_differ_or_else_its_version(before, after, phrases):
    assert list(changes({"lab": before}, {"lab": after})) == [f"lab went from {phrase}" for phrase in phrases]
    noted = differences([{"packages": {"lab": before}}, {"packages": {"lab": after}}])
    assert noted == [f"lab {phrase.replace(' to ', ' and ')}" for phrase in phrases]


def test_the_sources_of_a_package_are_its_modules_and_where_they_lie(tmp_path, monkeypatch):
    package = tmp_path / "lab_of_mine"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "rule.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    described = [own_versions(["lab_of_mine"])]
    (package / "README.md").write_text("A page.\n")
    (package / "measured.csv").write_text("error\n1\n")
    described.append(own_versions(["lab_of_mine"]))
    (package / "rule.py").rename(package / "inner" / "rule.py")
    described.append(own_versions(["lab_of_mine"]))
    (package / "inner" / "rule.py").write_text("x = 2\n")
    described.append(own_versions(["lab_of_mine"]))
    first, with_pages, moved, edited = (packages["lab_of_mine"] for packages in described)
    assert first == with_pages
    assert len({first, moved, edited}) == 3


def test_a_package_that_is_gone_or_new_is_another_one():
    assert list(changes({"a": "1"}, {"b": "2"})) == ["a went from 1 to None", "b went from None to 2"]
    assert code_key(None) is None
