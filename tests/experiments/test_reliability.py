"""What the measurements of reliability take for a failure, and the tests that notice mutants."""

from pathlib import Path

import pytest

from experiments.reliability import changes, measure, mutations
from experiments.reliability.commands import delays, in_words, left_over, not_whole
from fa_jax.records.files import write_json

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "whole", "cut"),
    [
        ("a.json", b'{"a": 1}', b'{"a": '),
        ("config.yaml", b"a: 1\n", b""),
        ("table.csv", b"a,b\n1,2\n", b"a,b\n1,"),
        ("metrics.csv", b"a,b\n1,2\n3,", b"a,b\n1\n3,"),
        ("a.png", b"\x89PNG IEND\xaeB`\x82", b"\x89PNG"),
        ("a.pdf", b"%PDF %%EOF\n", b"%PDF"),
        ("report.html", b"<html></html>\n", b"<html>"),
        ("study.db", b"", b"mine" * 100),
    ],
)
def test_a_file_that_was_cut_is_found(tmp_path, name, whole, cut):
    (tmp_path / name).write_bytes(whole)
    assert list(not_whole(tmp_path)) == []
    (tmp_path / name).write_bytes(cut)
    (problem,) = not_whole(tmp_path)
    assert problem.startswith(f"{name}: ")


def test_what_a_run_in_progress_has_is_found(tmp_path):
    for name in (".lock", f".{'0' * 16}.tmp", "study.db-journal"):
        (tmp_path / name).touch()
    (tmp_path / "resume").mkdir()
    (tmp_path / "summary.json").touch()
    assert len(left_over(tmp_path)) == 4


def test_delays_are_the_same_each_time_and_failures_come_first():
    assert delays("sweep", 3, 2.0) == delays("sweep", 3, 2.0) != delays("tune", 3, 2.0)
    assert all(0.04 <= delay <= 2.0 for delay in delays("sweep", 50, 2.0))
    assert in_words([], "fine") == "fine"
    assert in_words(["a\nb", "c"], "fine") == "failed: a b"


def test_a_row_takes_the_place_of_an_earlier_one_of_the_same_test(tmp_path):
    path = tmp_path / "measured.csv"
    rows = [measure.Row("seeds", "b", "1", "0", "x", *4 * "-"), measure.Row("tune", "a", "1", "0", "x", *4 * "-")]
    for row in (*rows, rows[0]._replace(result="y")):
        measure.add(row, path)
    assert measure.table(path).splitlines()[2:] == ["| a | 1 | 0 | x |", "| b | 1 | 0 | y |"]


def test_the_tests_of_each_module_exist():
    for tests in (*mutations.TESTS.values(), mutations.OF_ALL_RULES, mutations.BACKWARD):
        assert [test for test in tests if not (TESTS / test).is_file()] == []
    assert mutations.tests_of("rules/forward_forward/scff.py")[0] == ["tests/rules/test_scff.py"]
    assert mutations.tests_of("metrics/rho.py") == [["tests/metrics/test_signals.py"]]


def test_a_change_of_an_annotation_or_to_no_python_is_no_mutant():
    text = "def f(a: int | None = None, *, b: 'x' = 1) -> int | str:\n    c: int | float = a\n    return c\n"
    meaning = changes.meaning(text)
    assert meaning == changes.meaning(text.replace("|", "+"))
    assert meaning != changes.meaning(text.replace("return c", "return not c"))
    assert changes.meaning("return >> 1") is None
    assert changes.changed_line("a\nb\n", "a\n  c\n") == ("b", "c")


def test_counts_of_mutants_are_those_of_the_table(tmp_path):
    path = tmp_path / "mutations.csv"
    results = [("caught", "", ""), ("time", "", ""), ("survived", "gap: x", ""), ("survived", "equivalent: y", "")]
    for result, judged, since in [*results, ("survived", "gap: z", "tests/a.py::test")]:
        row = {"module": "rules/fa.py", "result": result, "judged": judged, "noticed_since": since}
        mutations.add(row, path)
    assert mutations.table(path).splitlines()[-1] == "| all | 5 | 1 | 1 | 1 | 2 | 0 | 1 | 50 % | 75 % |"


def test_the_test_that_failed_is_read_from_what_is_printed():
    name = "tests/a.py::test_b[batch norm and dropout]"
    assert mutations.failed(f"F\n= summary =\nFAILED {name} - assert 1 == 2\n") == name
    assert mutations.failed("ERROR tests/a.py\nstopping\n") == "tests/a.py"
    assert mutations.failed(f"ERROR    fa_jax.training:run.py:1 a full disk\nFAILED {name}\n") == name
    assert mutations.failed("killed\n") == "killed"
    assert mutations.failed("!!! KeyboardInterrupt !!!\nrun.py:1\n(to see more)\n") == "KeyboardInterrupt"


def test_a_json_file_of_ours_is_whole(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(not_whole(tmp_path)) == []
