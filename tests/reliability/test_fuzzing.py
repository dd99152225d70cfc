"""Random overrides compose, or print one line; they never print a traceback."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import pytest

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.cli.errors import one_line_errors
from fa_jax.cli.groups import choices
from fa_jax.cli.main import main
from tests.conftest import option_names

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

SMALL = [
    "task=digits",
    "epochs=0.05",
    "evaluations=1",
    "seeds=1",
    "probe=4",
    "checkpoint=false",
    "checkpoint_every=null",
]
TASKS = ("linear", "nonlinear", "digits")
"""The tasks that need no data."""
GROUPS = ("rule", "architecture", "feedback", "loss", "optimizer", "optimizer/schedule", "measure")
VALUES = st.one_of(
    st.sampled_from(
        ["null", "true", "false", "nan", "inf", "-inf", "[]", "{}", "''", "x", "auto", "0", "1", "-1", "1e-9"]
    ),
    st.integers(-3, 12).map(str),
    st.floats(-2, 2, allow_nan=False).map(lambda v: f"{v:.3g}"),
    st.lists(st.integers(-1, 9), max_size=3).map(lambda v: str(v).replace(" ", "")),
    st.sampled_from(
        ["[1,a]", "[[1]]", "{a:1}", "1e400", "9999999999999", "-0.0", "${seed}", "${nothing}", "tanh", "zeros"]
    ),
    st.text("abz019.-_[]{},:=$'\" \\", max_size=6),
)
QUICK = hypothesis.settings(
    max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)


@st.composite
def overrides(draw):
    """A task, some groups, and some options, mostly with existing names, of any value."""
    words = [f"task={draw(st.sampled_from(TASKS))}"]
    for group in draw(st.lists(st.sampled_from(GROUPS), max_size=3, unique=True)):
        valid = [*choices(group), *(["nothing", "null"] if draw(st.integers(0, 9)) == 0 else [])]
        words.append(f"{group}={draw(st.sampled_from(valid))}")
    for name in draw(st.lists(st.sampled_from(option_names()), max_size=4, unique=True)):
        prefix = draw(st.sampled_from(["", "", "", "", "", "+", "++", "~"]))
        words.append(f"{prefix}{name}={draw(VALUES)}")
    return words


def check_compose(words):
    """Checks that words compose or are refused with one line; returns whether they compose."""
    try:
        with one_line_errors():
            compose(parse(words)).build()
    except BadOption as mistake:
        line = str(mistake)
        assert line, words
        assert "\n" not in line, words
        assert len(line) < 2000, words
        return False
    return True


def check_run(words):
    """Runs words, and checks that the exit code is 0, 1 or 2, and that a mistake prints one line."""
    folder = Path(tempfile.mkdtemp())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            code = main([*words, f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"])
        assert code in (0, 1, 2), words
        if code == 2:
            lines = [line for line in printed.getvalue().splitlines() if line.startswith("fa-jax: ")]
            assert len(lines) == 1, (words, printed.getvalue())
        assert "Traceback" not in printed.getvalue(), words
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
@QUICK
@hypothesis.given(overrides())
def test_overrides_compose_or_print_one_line(words):
    check_compose(words)


@pytest.mark.slow
@hypothesis.settings(QUICK, max_examples=10_000)
@hypothesis.given(overrides())
def test_ten_thousand_overrides_compose_or_print_one_line(words):
    check_compose(words)


@pytest.mark.slow
@hypothesis.settings(QUICK, max_examples=200)
@hypothesis.given(overrides())
def test_two_hundred_runs_finish_or_print_one_line(words):
    hypothesis.assume(check_compose([*words, *SMALL]))
    check_run([*words, *SMALL])
